"""A network run under `Switches`, with diffusers' own means for memory and speed. Importing this imports no torch.

The order is part of it. Weights are made small before they are moved, so that a device never holds them whole. The
cache's hooks come before those of group offload, which on a GPU take some of their own off again after the first step
and would take the cache's with them. So a block that the cache skips is fetched all the same: under offload the cache
saves work, not transfers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches

if TYPE_CHECKING:
    import torch

NO_CACHE = {
    "vace": "adds what it is told of the known frames between its blocks, so skipped blocks would add it twice",
    "ltx2": "makes sound beside the picture in every block, which diffusers' cache does not keep",
}
"""Families whose blocks cannot be skipped, and why."""


def check_switches(card: ModelCard, switches: Switches) -> None:
    """Refuse switches that a model cannot have. Raises InvalidInput."""
    if card.family == "nano" and switches != PLAIN:
        raise InvalidInput(
            f"{card.id} is small and runs as it is, without switches",
            field="profile",
            allowed="auto without switches of one's own",
        )
    for _, problem, allowed in _conflicts(card, switches):
        raise InvalidInput(problem, field="profile", allowed=allowed)


def usable(card: ModelCard, rungs: Sequence[Switches]) -> tuple[Switches, ...]:
    """A profile's rungs without what this model cannot have: a profile is asked for once, for whatever is rendered."""
    defaults = PLAIN.model_dump()
    left = ({field: defaults[field] for field, _, _ in _conflicts(card, rung)} for rung in rungs)
    return tuple(dict.fromkeys(rung.model_copy(update=update) for rung, update in zip(rungs, left, strict=True)))


def _conflicts(card: ModelCard, switches: Switches) -> Iterator[tuple[str, str, str]]:
    """What of the switches a model cannot have: the field, why not, and what is allowed instead."""
    if switches.cache and card.family in NO_CACHE:
        why = f"{card.id} cannot use the first-block cache: it {NO_CACHE[card.family]}"
        yield "cache", why, "cache=0 for this model"
    if switches.storage == "fp8" and switches.quantise != "none":
        yield "storage", "storage=fp8 and quantise both say how weights lie in memory", "one of the two"
    elif switches.storage == "fp8" and switches.compile:
        why = "storage=fp8 casts in every layer, so every block would be compiled anew, until torch gives up"
        yield "compile", why, "compile with quantise=int8, or storage=fp8 without compile"


def straight_to(device: torch.device) -> dict[str, Any]:
    """Arguments with which diffusers reads weights to a device, without a copy of the whole in the machine's memory."""
    return {} if device.type == "cpu" else {"device_map": str(device)}


def rests_on(device: torch.device, switches: Switches) -> torch.device:
    """Where a network's weights are read to: the device, or the machine's memory where they are made small first or
    wait there."""
    import torch

    small = switches.storage == "fp8" or switches.quantise != "none"
    return torch.device("cpu") if small or switches.offload == "group" else device


def run_under(network: Any, device: torch.device, switches: Switches) -> Any:
    """Put a loaded network to work on a device. Raises InvalidInput for what is not to be had on this machine."""
    import torch
    from diffusers.hooks.first_block_cache import FirstBlockCacheConfig

    network.requires_grad_(False).eval()
    if switches.attention != "native":
        _attend(network, switches.attention)
    if switches.quantise != "none":
        _quantise(network, device, switches)
    if switches.storage == "fp8":
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=network.dtype)
    if switches.cache:
        network.enable_cache(FirstBlockCacheConfig(threshold=switches.cache))
    if switches.offload == "group":
        # Quantised tensors that wait in pinned memory are mixed up with those on the device, or cannot be pinned:
        # https://github.com/huggingface/diffusers/issues/14433. Without a stream they need no pinned memory.
        streams = device.type == "cuda" and switches.quantise == "none"
        network.enable_group_offload(
            onload_device=device, num_blocks_per_group=1, use_stream=streams, record_stream=streams
        )
    else:
        network.to(device)
    if switches.compile:
        network.compile_repeated_blocks()
    return network


def coder_under(vae: Any, device: torch.device, switches: Switches) -> Any:
    """Put a loaded autoencoder to work on a device, whole and in float32: of the switches it knows tiling alone."""
    vae = vae.float().requires_grad_(False).eval().to(device)
    if switches.tiling:
        vae.enable_tiling()
    return vae


def reader_under(encoder: Any, device: torch.device, offload: bool) -> Any:
    """Put a loaded text encoder to work on a device; `offload`: its layers wait in the machine's memory and are fetched
    one by one, so that it takes less room than the blocks it makes way for."""
    from diffusers.hooks.group_offloading import apply_group_offloading

    encoder.train(False).requires_grad_(False)
    if not offload:
        return encoder.to(device)
    apply_group_offloading(encoder, device, offload_type="leaf_level")
    return encoder


def put_lora(network: Any, state: Mapping[str, Any], prefix: str, name: str, metadata: dict[str, Any] | None) -> None:
    """Put a LoRA's weights of this prefix on a running network: in the number type that it computes in, where the base
    lies in 8 bits too, and fetched with their blocks under group offload."""
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
    from diffusers.hooks.layerwise_casting import _disable_peft_input_autocast

    network.load_lora_adapter(dict(state), prefix=prefix, adapter_name=name, metadata=metadata)
    for key, weights in network.named_parameters():
        side, own, rest = key.rpartition(f".{name}.")
        if own and weights.dtype.itemsize == 1:  # peft gave it the type that the base lies in
            weights.data = state[f"{prefix}.{side}.{rest}"].to(weights.device, network.dtype)
    _disable_peft_input_autocast(network)
    _maybe_remove_and_reapply_group_offloading(network)


def _attend(network: Any, backend: str) -> None:
    """Set an attention backend on this network alone: diffusers makes it every later network's, too."""
    from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

    names = [name.value for name in AttentionBackendName]
    if backend not in names:
        raise InvalidInput(
            f"no attention backend is called {backend!r}", field="profile", allowed=", ".join(sorted(names))
        )
    try:
        with attention_backend():
            network.set_attention_backend(backend)
    except (ImportError, RuntimeError) as error:
        raise InvalidInput(
            f"the attention backend {backend} is not to be had here: {error}",
            field="profile",
            allowed="attention=native everywhere",
        ) from error


def _quantise(network: Any, device: torch.device, switches: Switches) -> None:
    """Weight-only quantisation of the linear layers inside the blocks, block by block on the device."""
    if switches.quantise == "int4" and device.type != "cuda":
        raise InvalidInput(
            f"quantise=int4 multiplies on a GPU of NVIDIA's only, and the worker runs on {device}",
            field="profile",
            allowed="quantise=int8",
        )
    try:
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise InvalidInput(
            f"quantise={switches.quantise} needs torchao, which is not installed here",
            field="profile",
            next_call="pip install 'dreamontage[quantise]'",
        ) from error

    config = (
        Int8WeightOnlyConfig(set_inductor_config=switches.compile)
        if switches.quantise == "int8"
        else Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d", set_inductor_config=switches.compile)
    )
    for block in network.modules():
        if type(block).__name__ in network._repeated_blocks:
            quantize_(block, config, device=device)
            if switches.offload == "group":
                block.to("cpu")
