"""Explicit rotary positions: nothing changes until they are said, and then a frame stands where it is said to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel
from tiny_wan import SIZES, save_tiny_wan
from torch import Tensor

from dreamontage.generator.models.rope import ExplicitRope
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.models.wan_files import load_transformer

NUMBERS = [torch.float32, torch.bfloat16]


def explicit(network: Any) -> Any:
    """A copy of a network with explicit positions."""
    found = copy.deepcopy(network)
    found.rope = ExplicitRope(found.config["attention_head_dim"], found.config["patch_size"])
    return found


def ask(network: Any, latents: Tensor, times: list[float] | range | None = None) -> Tensor:
    """What a network makes of latents, its frames at these times."""
    text = torch.linspace(-1, 1, 7 * 24, dtype=latents.dtype).view(1, 7, 24)
    asked = {"hidden_states": latents, "timestep": torch.tensor([500.0]), "encoder_hidden_states": text}
    if "vace_layers" in network.config:
        asked["control_hidden_states"] = latents[:, :1].expand(-1, 96, -1, -1, -1).flip(2)
    with torch.no_grad():
        if times is None:
            return network(**asked, return_dict=False)[0]
        with network.rope.at(times):
            return network(**asked, return_dict=False)[0]


def noise(channels: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(5)).to(dtype)


@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("shape", [(2, 6, 6), (21, 18, 30), (5, 37, 65)], ids=str)
def test_positions_that_are_not_said_or_the_frames_own_give_the_stock_tables_with_difference_zero(
    shape: tuple[int, int, int], patch: tuple[int, int, int]
) -> None:
    latents, ours = torch.empty(1, 36, *shape), ExplicitRope(128, patch)
    stock = WanRotaryPosEmbed(128, patch, 1024)(latents)
    with ours.at(range(shape[0] // patch[0])):
        said = ours(latents)
    for table, same, stock_table in zip(ours(latents), said, stock, strict=True):
        assert table.shape == same.shape == stock_table.shape
        assert table.dtype == same.dtype == stock_table.dtype
        assert torch.equal(table, stock_table) and torch.equal(same, stock_table)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_a_loaded_network_gives_what_the_stock_one_gives_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = save_tiny_wan(tmp_path / "wan") / "transformer"
    stock = WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype)
    ours = load_transformer(folder, dtype, torch.device("cpu"))
    assert isinstance(stock.rope, WanRotaryPosEmbed) and isinstance(ours.rope, ExplicitRope)
    for frames, height, width in ((5, 8, 12), (3, 7, 11)):  # odd sizes: the last row and column of latents are cut off
        latents = noise(36, frames, height, width, dtype=dtype)[..., : height // 2 * 2, : width // 2 * 2]
        wanted = ask(stock, latents)
        assert (ask(ours, latents) - wanted).abs().max() == 0
        assert (ask(ours, latents, range(frames)) - wanted).abs().max() == 0


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", ["vace", "per-token times", "nano"])
def test_it_takes_the_place_of_the_rope_of_every_network_of_its_kind(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sizes = SIZES | {"in_channels": 16}
    stock: Any
    if kind == "vace":
        stock = WanVACETransformer3DModel(**sizes, vace_layers=[0], vace_in_channels=96)
    else:
        stock = WanTransformer3DModel(**sizes)
    latents = noise(16, 3, 6, 10, dtype=dtype)
    if kind == "nano":
        ours: Any = NanoTransformer(**sizes)
        ours.load_state_dict(stock.state_dict())
        stock.set_attn_processor(ours.blocks[0].attn1.processor)
    else:
        ours = explicit(stock)
    for network in (stock, ours):
        for part in (network.blocks, network.patch_embedding, network.condition_embedder, network.proj_out):
            part.to(dtype)
        if kind == "vace":
            network.vace_blocks.to(dtype)
            network.vace_patch_embedding.to(dtype)
    assert (ask(ours, latents, range(3)) - ask(stock, latents)).abs().max() == 0


def test_an_appended_frame_at_a_slots_position_is_rotated_as_that_slot_and_gets_its_answer(tmp_path: Path) -> None:
    times = [*range(9), 2.25, 5.0]
    latents = noise(36, 11, 8, 12)
    rope = ExplicitRope(16, (1, 2, 2))
    with rope.at(times):
        cosines, sines = (table.view(11, 4 * 6, 16) for table in rope(latents))
    assert torch.equal(cosines[10], cosines[5]) and torch.equal(sines[10], sines[5])
    assert not torch.equal(cosines[9], cosines[2])
    speeds = 1 / 10_000 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    assert torch.equal(cosines[9, 0, :8:2], (2.25 * speeds).cos().float())
    assert torch.equal(cosines[9, :, 8:], cosines[2, :, 8:]), "rows and columns stay where they are"

    network = load_transformer(save_tiny_wan(tmp_path / "wan") / "transformer", torch.float32, torch.device("cpu"))
    latents[:, :, 9] = latents[:, :, 2]
    latents[:, :, 10] = latents[:, :, 5]
    answer = ask(network, latents, times)
    assert answer.shape == (1, 16, 11, 8, 12)
    assert (answer[:, :, 10] - answer[:, :, 5]).abs().max() < 1e-5
    assert (answer[:, :, 9] - answer[:, :, 2]).abs().max() > 1e-4
    assert torch.equal(ask(network, latents), ask(network, latents, range(11))), "what was said is forgotten"


def test_it_has_nothing_to_move_cast_or_save() -> None:
    network = explicit(WanTransformer3DModel(**SIZES))
    assert not [name for name, _ in [*network.named_parameters(), *network.named_buffers()] if "rope" in name]
    latents, times = noise(36, 3, 4, 4), [0, 1.5, 1.5]
    before, cast, compiled = ask(network, latents, times), copy.deepcopy(network), copy.deepcopy(network)
    cast.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert (ask(cast, latents, times) - before).abs().max() < 0.05
    compiled.compile_repeated_blocks(backend="eager", fullgraph=True)
    assert (ask(compiled, latents, times) - before).abs().max() < 1e-5
