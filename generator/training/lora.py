"""LoRA on a Wan-layout base: which layers get an adapter, and a trainer that trains, averages and publishes it alone.

The base stays frozen in memory and untouched on disk. What is published is `pytorch_lora_weights.safetensors`, as
`WanImageToVideoPipeline.load_lora_weights` and `DreaMontagePipeline.load_lora_weights` read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from diffusers.training_utils import _collate_lora_metadata, cast_training_params
from peft import LoraConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.models.wan_text import WanPrompts
from dreamontage.generator.numbers import number_type
from dreamontage.generator.training.adapt import AdaptTrainer
from dreamontage.generator.training.trainer import Models, Recipe, TransformerTrainer
from dreamontage.generator.training.wan import WanFacts, load_transformer
from dreamontage.schemas.errors import InvalidInput

ADAPTER = "default"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
PICTURES = ("add_k_proj", "add_v_proj")
FEED_FORWARD = ("ffn.net.0.proj", "ffn.net.2")


@dataclass(frozen=True)
class LoraOptions:
    """The adapter: its rank, its weight `alpha / rank` on top of the base (None: 1), and which layers have one."""

    rank: int = 16
    alpha: int | None = None
    feed_forward: bool = False
    checkpointing: bool = False
    """Keep no activations of the blocks and compute them again in the backward pass: less memory, about 30 % slower."""


def lora_config(facts: WanFacts, options: LoraOptions) -> Any:
    """peft's configuration: attention projections of every block, the feed-forward layers if asked for."""
    layers = [*ATTENTION, *(PICTURES if facts.images else ()), *(FEED_FORWARD if options.feed_forward else ())]
    return LoraConfig(
        r=options.rank, lora_alpha=options.alpha or options.rank, target_modules=layers, init_lora_weights=True
    )


def lora_models(
    facts: WanFacts,
    options: LoraOptions,
    windows: Iterable[Sequence[TimedWord]],
    device: torch.device,
    seed: int = 0,
    bf16: bool = True,
    adapter: Path | None = None,
) -> Models:
    """The base with a published adapter, or a fresh one that changes nothing yet; only it is trained, in float32.

    `windows`: the timed words of all windows to come. Their texts are encoded first, then the text encoder is let go.
    Raises InvalidInput where the published adapter does not fit.
    """
    prompts = WanPrompts.of(facts.folder, facts.text_dim, device)
    prompts.learn(windows)
    transformer = load_transformer(facts, device, bf16)
    torch.manual_seed(seed)
    transformer.add_adapter(lora_config(facts, options), ADAPTER)
    cast_training_params(transformer, torch.float32)
    if adapter is not None:
        take_over(transformer, adapter)
    if options.checkpointing:
        transformer.enable_gradient_checkpointing()
    return Models(transformer, prompts)


def adapter_weights(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by the names that diffusers gives the layers of an adapter."""
    trained = ((name, param) for name, param in transformer.named_parameters() if param.requires_grad)
    return {name.replace(f".{ADAPTER}.", "."): param for name, param in trained}


@torch.no_grad()
def take_over(transformer: nn.Module, source: Path) -> None:
    """Copy a published adapter, from its folder or file, into the transformer's. Raises InvalidInput."""
    file = source / LORA_WEIGHT_NAME_SAFE if source.is_dir() else source
    if not file.is_file():
        raise InvalidInput(f"no adapter at {source.name}", field="adapter", allowed=f"a folder with {file.name}")
    state = WanLoraLoaderMixin.lora_state_dict(str(file))
    found = {name.removeprefix("transformer."): value for name, value in state.items()}
    own = adapter_weights(transformer)
    if {name: value.shape for name, value in found.items()} != {name: param.shape for name, param in own.items()}:
        raise InvalidInput(
            f"the adapter {source.name} has other layers or another rank than this run's",
            field="adapter",
            allowed="an adapter of the same base, rank and layers",
        )
    for name, param in own.items():
        param.copy_(found[name])


class AdapterView(nn.Module):
    """The transformer as it is with other weights of its adapter, without gradients and without a copy of the base.

    Averages and references are views; a deep copy has weights of its own on the same base.
    """

    def __init__(self, transformer: nn.Module, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(weight.detach().clone(), False) for weight in weights)
        self.shared = (transformer, list(adapter_weights(transformer).values()))  # a tuple: no part of this module

    def __deepcopy__(self, memo: dict[int, Any]) -> AdapterView:
        return AdapterView(self.shared[0], self.weights)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the transformer's."""
        transformer, adapter = self.shared
        kept = [param.data for param in adapter]
        for param, weight in zip(adapter, self.weights, strict=True):
            param.data = weight.data
        try:
            return transformer(*args, **kwargs)
        finally:
            for param, data in zip(adapter, kept, strict=True):
                param.data = data


class LoraTrainer(TransformerTrainer):
    """A run that trains the adapter of `lora_models`; its averages, checkpoints and results hold the adapter alone."""

    def prepare(self, config: Recipe) -> list[tuple[Optimizer, float]]:
        """The adapter's running average, and AdamW for all of it."""
        transformer = self.networks["transformer"]
        self.adapter = nn.ParameterList(adapter_weights(transformer).values())
        self.averages = {**self.networks, "transformer": AdapterView(transformer, self.adapter)}
        self.adam = torch.optim.AdamW(self.fast_parameters(), config.adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
        return [(self.adam, config.adam_lr)]

    def fast_parameters(self) -> list[Tensor]:
        """The adapter's weights."""
        return list(self.adapter)

    def slow_parameters(self) -> list[Tensor]:
        """Their running averages, in the same order: what is published."""
        return list(self.averages["transformer"].weights)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The number type of a step. The attention kernel is torch's choice: checkpointed blocks run again outside."""
        fast = self.config.bf16 and number_type(self.device) == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            yield

    def _stateful(self) -> dict[str, Any]:
        return {"adapter": self.adapter, "slow_adapter": self.averages["transformer"], "adam": self.adam}

    def publish(self, folder: Path) -> None:
        """Save the averaged adapter in half precision as folder/pytorch_lora_weights.safetensors."""
        names = adapter_weights(self.transformer)
        halves = [slow.detach().half().cpu().contiguous() for slow in self.slow_parameters()]
        WanLoraLoaderMixin.save_lora_weights(
            folder,
            transformer_lora_layers=dict(zip(names, halves, strict=True)),
            **_collate_lora_metadata({"transformer": self.transformer}),
        )


class LoraAdaptTrainer(LoraTrainer, AdaptTrainer):
    """Adaptive tuning, and SFT, of an adapter."""
