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
) -> Models:
    """The base with a fresh adapter that changes nothing yet; only the adapter is trained, in float32.

    `windows`: the timed words of all windows to come. Their texts are encoded first, then the text encoder is let go.
    """
    prompts = WanPrompts.of(facts.folder, facts.text_dim, device)
    prompts.learn(windows)
    transformer = load_transformer(facts, device, bf16)
    torch.manual_seed(seed)
    transformer.add_adapter(lora_config(facts, options), ADAPTER)
    cast_training_params(transformer, torch.float32)
    if options.checkpointing:
        transformer.enable_gradient_checkpointing()
    return Models(transformer, prompts)


class LoraTrainer(TransformerTrainer):
    """A run that trains the adapter of `lora_models`; its averages, checkpoints and results hold the adapter alone."""

    def prepare(self, config: Recipe) -> list[tuple[Optimizer, float]]:
        """The adapter's running average, and AdamW for all of it."""
        network = self.networks["transformer"]
        trained = {name: param for name, param in network.named_parameters() if param.requires_grad}
        self.names = [name.replace(f".{ADAPTER}.", ".") for name in trained]
        self.adapter = nn.ParameterList(trained.values())
        self.slow_adapter = nn.ParameterList(param.detach().clone() for param in trained.values())
        self.slow_adapter.requires_grad_(False)
        self.averages = self.networks
        self.adam = torch.optim.AdamW(self.adapter, config.adam_lr, betas=(0.9, 0.98), weight_decay=0.01)
        return [(self.adam, config.adam_lr)]

    def fast_parameters(self) -> list[Tensor]:
        """The adapter's weights."""
        return list(self.adapter)

    def slow_parameters(self) -> list[Tensor]:
        """Their running averages, in the same order: what is published."""
        return list(self.slow_adapter)

    @contextmanager
    def carrying(self, weights: Iterable[Tensor]) -> Iterator[None]:
        """Within it, without gradients, the transformer carries these weights instead of the adapter in training.

        So the averages and a reference are shown on the one base; `transformer.disable_adapters()` shows the base.
        """
        kept = [param.data for param in self.adapter]
        for param, other in zip(self.adapter, weights, strict=True):
            param.data = other.data
        try:
            with torch.no_grad():
                yield
        finally:
            for param, data in zip(self.adapter, kept, strict=True):
                param.data = data

    def _stateful(self) -> dict[str, Any]:
        return {"adapter": self.adapter, "slow_adapter": self.slow_adapter, "adam": self.adam}

    def publish(self, folder: Path) -> None:
        """Save the averaged adapter in half precision as folder/pytorch_lora_weights.safetensors."""
        layers = {
            name: slow.detach().half().cpu().contiguous()
            for name, slow in zip(self.names, self.slow_adapter, strict=True)
        }
        WanLoraLoaderMixin.save_lora_weights(
            folder, transformer_lora_layers=layers, **_collate_lora_metadata({"transformer": self.transformer})
        )

    def warm_start(self, source: Path) -> None:
        """Take over a published adapter, from its folder or file. Raises InvalidInput where it does not fit."""
        file = source / LORA_WEIGHT_NAME_SAFE if source.is_dir() else source
        if not file.is_file():
            raise InvalidInput(f"no adapter at {source.name}", field="adapter", allowed=f"a folder with {file.name}")
        state = WanLoraLoaderMixin.lora_state_dict(str(file))
        found = {name.removeprefix("transformer."): value for name, value in state.items()}
        shapes = {name: tuple(param.shape) for name, param in zip(self.names, self.adapter, strict=True)}
        if {name: tuple(value.shape) for name, value in found.items()} != shapes:
            raise InvalidInput(
                f"the adapter {source.name} has other layers or another rank than this run's",
                field="adapter",
                allowed="an adapter of the same base, rank and layers",
            )
        with torch.no_grad():
            for name, fast, slow in zip(self.names, self.adapter, self.slow_adapter, strict=True):
                fast.copy_(found[name])
                slow.copy_(found[name])


class LoraAdaptTrainer(LoraTrainer, AdaptTrainer):
    """Adaptive tuning, and SFT, of an adapter."""
