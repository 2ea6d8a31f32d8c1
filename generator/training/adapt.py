"""Adaptive tuning of nano's transformer: random sets of anchors on clips of known motion, guided and plain.

Each window is trained on the straight way that inference walks, from its start s to the truth x0:
x_t = x0 + (t/t0)(s − x0).
Plain and loose windows start at noise (t0 = 1, the usual flow); `follow` starts at s = (1−t0)·guide + t0·ε, so the
network meets the guide's errors, and not a blend of truth and noise that inference never shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dreamontage.generator.conditioning.encoding import denormalise
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer, init_from_scratch
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.generator.training.samples import Batch, Sample, SampleBook, collate
from dreamontage.generator.training.trainer import Models, Recipe, TransformerTrainer

Mode = str
"""off, loose or follow"""


@dataclass(frozen=True)
class AdaptTraining(Recipe):
    """The recipe; the sizes are those of a transformer that begins from scratch."""

    num_layers: int = 4
    num_attention_heads: int = 4
    attention_head_dim: int = 64
    ffn_dim: int = 1024
    text_dim: int = 64
    tokens: int = 2200
    """Transformer tokens of a batch, about four windows of nine slots at 160x96."""
    large_from: float = 0.75
    """Share of the course from which half the batches are of draft size."""
    modes: tuple[tuple[Mode, float], ...] = (("follow", 0.5), ("loose", 0.15), ("off", 0.35))
    """Plain windows get a third: on two cores they cannot learn to paint; the guided ones are what nano ships for."""
    shift: float = 2.0
    """Time shift of plain and loose windows."""
    above: float = 0.0
    """Flow time below which another network takes over (large models with two experts)."""
    naive: bool = False
    """The ablation: anchors are slices of the clip's own latents instead of being encoded by themselves."""
    t0: tuple[float, float] = (0.2, 0.7)
    wordless: float = 0.15
    """Share of windows whose words are dropped, for classifier-free guidance."""
    guided_weight: float = 3.0
    softness: float = 0.1
    """Guided slots are scored by sqrt(d² + softness²): mostly right, they must not pay for what cannot be known."""
    seen_from: float = 0.55
    """Share of the course from which one follow window of a batch is also judged by eye: decoded, by L1 and LPIPS."""
    seen_weight: float = 3.0
    seen_lpips: float = 0.3


class Way(NamedTuple):
    """A batch on its way: x_t [B,16,n,h,w], time t [B], the velocity there, and which slots [B,n] are guided."""

    noisy: Tensor
    time: Tensor
    velocity: Tensor
    guided: Tensor

    def to(self, device: torch.device) -> Way:
        """The same on another device."""
        return Way(*(tensor.to(device) for tensor in self))


class Book(Protocol):
    """Where a step's windows come from: samples of one shape, drawn by the generator alone."""

    def draw(self, rng: np.random.Generator, large: bool) -> list[Sample]: ...


def begin_models(config: AdaptTraining) -> Models:
    """Fresh networks of the recipe's sizes; they depend on its seed."""
    torch.manual_seed(config.seed)
    transformer = NanoTransformer(
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        ffn_dim=config.ffn_dim,
        text_dim=config.text_dim,
        from_condition=True,
    )
    init_from_scratch(transformer)
    return Models(transformer, PromptTokens(config.text_dim))


def draw_modes(config: AdaptTraining, count: int, rng: np.random.Generator) -> list[Mode]:
    """One mode for each window."""
    names, shares = zip(*config.modes, strict=True)
    return [str(rng.choice(names, p=shares)) for _ in range(count)]


def late_times(count: int, generator: torch.Generator, shift: float = 2.0, above: float = 0.0) -> Tensor:
    """Flow times [count] of plain windows in `above`..1: logit-normal, shifted to where the picture is decided."""
    place = torch.sigmoid(torch.randn(count, generator=generator))
    return above + (1 - above) * shift * place / (1 + (shift - 1) * place)


def set_out(batch: Batch, modes: Sequence[Mode], config: AdaptTraining, generator: torch.Generator) -> Way:
    """Put every window at a random time of its way (see the module's text)."""
    count = len(modes)
    noise = torch.randn(batch.truth.shape, generator=generator)
    low, high = config.t0
    follows = torch.tensor([mode == "follow" for mode in modes])
    t0 = torch.where(follows, low + (high - low) * torch.rand(count, generator=generator), 1.0)
    late = late_times(count, generator, config.shift, config.above)
    first = torch.rand(count, generator=generator) < 0.35  # the start itself, which every render passes
    share = torch.where(first, torch.ones(count), 0.1 + 0.9 * torch.rand(count, generator=generator))
    time = torch.where(follows, t0 * share, late)
    shape = (-1, 1, 1, 1, 1)
    clean = torch.where(batch.fixed[:, None, :, None, None], batch.cond, batch.guide)
    start = torch.where(follows.view(shape), (1 - t0.view(shape)) * clean + t0.view(shape) * noise, noise)
    velocity = (start - batch.truth) / t0.view(shape)
    guided = torch.tensor([mode != "off" for mode in modes])[:, None] & ~batch.fixed
    return Way(batch.truth + time.view(shape) * velocity, time, velocity, guided)


def flow_loss(predicted: Tensor, way: Way, batch: Batch, config: AdaptTraining) -> tuple[Tensor, dict[str, float]]:
    """Squared velocity error on plain slots; on guided slots the softened distance of the end x0 that it points at."""
    error = predicted - way.velocity
    plain = error.square().mean((1, 3, 4))
    end = way.time.view(-1, 1, 1, 1, 1) * error
    softened = ((end.square() + config.softness**2).sqrt() - config.softness).mean((1, 3, 4))
    free = ~batch.fixed
    off = free & ~way.guided
    loss = (config.guided_weight * (softened * way.guided).sum() + (plain * off).sum()) / free.sum().clamp(min=1)
    parts = {"loss": loss.item()}
    for name, values, where in (("guided", softened, way.guided), ("plain", plain, off)):
        parts[name] = (values * where).sum().item() / int(where.sum()) if bool(where.any()) else float("nan")
    return loss, parts


class AdaptTrainer(TransformerTrainer):
    """Trains on windows under random conditions; SFT is the same on other windows, from given models."""

    config: AdaptTraining

    def __init__(
        self,
        config: AdaptTraining,
        samples: Sequence[Sample],
        vae: NanoAutoencoder | None = None,
        models: Models | None = None,
        book: Book | None = None,
    ) -> None:
        super().__init__(config, models or begin_models(config))
        self.vae = vae
        if vae is not None:
            torch.nn.Module.to(vae, self.device)
        self.distance = None if vae is None else PerceptualDistance().to(self.device)
        self.book = book or SampleBook(samples, config.tokens)

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """This step's batch and its loss; they depend on (seed, draw, position past `large_from`) alone."""
        config = self.config
        rng = np.random.default_rng([config.seed, self.draw, 3])
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.draw)
        samples = self.book.draw(rng, self.position >= config.large_from and rng.random() < 0.5)
        modes = draw_modes(config, len(samples), rng)
        batch = collate(samples, [mode != "off" for mode in modes], generator, config.naive)
        way = set_out(batch, modes, config, generator).to(self.device)
        batch = batch.to(self.device)
        words = [() if rng.random() < config.wordless else words for words in batch.words]
        with self.computing():
            inputs = torch.cat([way.noisy, batch.mask, batch.cond], dim=1)
            predicted = self.transformer(inputs, 1000 * way.time, self.prompt_tokens(words), return_dict=False)[0]
            loss, parts = flow_loss(predicted.float(), way, batch, config)
            follows = [index for index, mode in enumerate(modes) if mode == "follow"]
            if self.vae is not None and follows and self.position >= config.seen_from:
                one = int(rng.choice(follows))
                end = way.noisy[one] - way.time[one] * predicted[one].float()
                parts["seen"], seen = self._seen(end, batch.truth[one], int(rng.integers(batch.truth.shape[2] - 2)))
                loss = loss + config.seen_weight * seen
        return loss, {"seen": float("nan")} | parts

    def _seen(self, end: Tensor, truth: Tensor, slot: int) -> tuple[float, Tensor]:
        """How different two slots look: predicted and true latents [16,n,h,w], decoded from `slot`, which leads in."""
        assert self.vae is not None and self.distance is not None
        pair = denormalise(self.vae, torch.stack([end, truth])[:, :, slot : slot + 3]).permute(2, 0, 1, 3, 4)
        ours, theirs = self.vae.decode_folded(pair).float()[:, :, 1:].clamp(-1, 1)
        l1 = (ours - theirs.detach()).abs().mean()
        lpips = self.distance(ours[:, 3::4].transpose(0, 1), theirs[:, 3::4].transpose(0, 1).detach()).mean()
        seen = l1 + self.config.seen_lpips * lpips
        return seen.item(), seen
