"""The cut discriminator: how abrupt is the worst moment of a shot, from 1 (continuous) to 5 (hard cut)?

A small network over pairs of neighbouring frames at 64x36, then over time. It is trained on the model's own first–last
generations, labelled by detectors, and on constructions whose severity is known: continuous clips, dissolves of known
length and hard cuts, made of the same generations and of training clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.trainer import Recipe, Trainer

LEVELS = 5
WIDTH, HEIGHT = 64, 36
CELLS = (1, 4, 9)
"""Sides in pixels of the cells over which changes are averaged."""
DISSOLVES: dict[int, tuple[int, int]] = {5: (0, 0), 4: (2, 4), 3: (6, 10), 2: (14, 22)}
"""Frames that show both pictures, by severity: from a hard cut to a slow dissolve. Severity 1 has no change at all."""


def shrunk(frames: Pixels) -> Pixels:
    """Frames [F,H,W,3] at 64x36, whatever their shape."""
    return np.stack([cv2.resize(f, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for f in frames]).astype(np.uint8)


def steps(change: Tensor) -> Tensor:
    """How large the changes of neighbours [B,P,3,36,64] are over cells of each size: [B,P,2·sizes], as logarithms, and
    relative to the shot's median. Small cells see motion too, large ones only a change of picture."""
    sizes = [F.avg_pool2d(change.flatten(0, 1), cell).abs().mean((1, 2, 3)) for cell in CELLS]
    logs = torch.stack(sizes, dim=1).add(0.004).log().view(*change.shape[:2], -1)
    return torch.cat([logs + 3, logs - logs.median(dim=1, keepdim=True).values], dim=2)


class CutDiscriminator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Small shots [B,F,36,64,3] uint8, F at least 2 -> logits [B,4]: is the severity above 1, 2, 3, 4?"""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, widths: Sequence[int] = (16, 24, 32), times: int = 48) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        layers: list[nn.Module] = []
        for before, after in zip((9, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.pictures = nn.Sequential(*layers)
        self.over_time = nn.Sequential(
            nn.Conv1d(2 * widths[-1] + 2 * len(CELLS), times, 3, padding=1), nn.ReLU(),
            nn.Conv1d(times, times, 5, padding=2), nn.ReLU(),
            nn.Conv1d(times, times, 5, padding=4, dilation=2), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(2 * times, LEVELS - 1)

    def forward(self, shots: Tensor) -> Tensor:
        """Logits of the cumulative levels."""
        x = shots.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        before, after = x[:, :-1], x[:, 1:]
        pairs = torch.cat([before, after, 4 * (after - before)], dim=2)
        seen = self.pictures(pairs.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1).view(*pairs.shape[:2], -1)
        course = self.over_time(torch.cat([pooled, steps(after - before)], dim=2).transpose(1, 2))
        logits: Tensor = self.head(torch.cat([course.amax(2), course.mean(2)], dim=1))
        return logits

    @torch.no_grad()
    def grade(self, frames: Pixels) -> float:
        """The severity of a shot uint8 [F,H,W,3], F at least 2: 1.0 (continuous) to 5.0 (hard cut)."""
        small = torch.from_numpy(shrunk(frames)).to(self.device)
        return 1 + float(self(small[None]).sigmoid().sum())


def load_discriminator(folder: Path) -> CutDiscriminator:
    """A trained discriminator in float32."""
    loaded: CutDiscriminator = CutDiscriminator.from_pretrained(folder, torch_dtype=torch.float32)
    return loaded.eval()


class Graded(NamedTuple):
    """A shot at 64x36 [F,36,64,3], its severity 1..5, and whether it is a generation or a training clip."""

    small: Pixels
    level: int
    source: str


def construct(rng: np.random.Generator, first: Pixels, second: Pixels, level: int) -> Pixels:
    """A shot [F,...] of severity `level`: `first`, or a change to `second`, both going on meanwhile.

    The change lies at a random place; its length in frames is drawn from DISSOLVES.
    """
    if level == 1:
        return first
    count = len(first)
    low, high = DISSOLVES[level]
    span = min(int(rng.integers(low, high + 1)), count - 4)
    start = int(rng.integers(1, count - span - 1))
    share = np.clip((np.arange(count) - start) / (span + 1), 0, 1)
    share[: start + 1] = 0.0
    if span == 0:
        share = (np.arange(count) > start).astype(np.float64)
    weights = share.reshape(-1, *(1,) * (first.ndim - 1))
    return np.asarray(first + weights * (second.astype(np.float64) - first) + 0.5, np.uint8)


def augmented(rng: np.random.Generator, shot: Pixels) -> Pixels:
    """A shot turned, played backwards, lit anew; none of it changes how abrupt it is."""
    shot = shot[::-1] if rng.random() < 0.5 else shot
    shot = shot[:, :, ::-1] if rng.random() < 0.5 else shot
    shot = shot[:, ::-1] if rng.random() < 0.2 else shot
    table = 255 * np.clip(np.exp(rng.normal(0, 0.15)) * np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.2)), 0, 1)
    return np.ascontiguousarray(table.astype(np.uint8)[shot[..., rng.permutation(3)]])


@dataclass(frozen=True)
class DiscriminatorTraining(Recipe):
    """The recipe; the network is small, so its rates are large."""

    minutes: float | None = 2.0
    muon_lr: float = 1e-2
    adam_lr: float = 5e-3
    tail: float = 0.7
    ema: float = 0.99
    bf16: bool = False
    """The network is so small that float32 is as fast."""
    batch: int = 30
    own: float = 0.4
    """Share of a batch that are the model's generations under their detectors' labels; constructions are the rest."""


class DiscriminatorTrainer(Trainer):
    """Trains on a bank of graded shots; every step constructs new ones from it."""

    config: DiscriminatorTraining

    def __init__(self, config: DiscriminatorTraining, bank: Sequence[Graded]) -> None:
        torch.manual_seed(config.seed)
        super().__init__(config, {"discriminator": CutDiscriminator()})
        self.bank = list(bank)
        self.calm = [shot for shot in bank if shot.level == 1 or shot.source == "model"]
        self.own = {
            level: [shot for shot in bank if shot.source == "model" and shot.level == level]
            for level in range(1, LEVELS + 1)
        }

    def inner_parameters(self) -> list[Tensor]:
        """The kernels beyond the first."""
        network = self.networks["discriminator"]
        kernels = [p for p in [*network.pictures.parameters(), *network.over_time.parameters()] if p.ndim > 1]
        return kernels[1:]

    def draw_batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Shots [B,F,36,64,3] and levels [B], balanced over the five levels."""
        shots, levels = [], []
        for number in range(self.config.batch):
            level = 1 + number % LEVELS
            own = self.own[level]
            if own and rng.random() < self.config.own:
                shot = own[int(rng.integers(len(own)))].small
            else:
                shot = constructed(rng, self.calm, level)
            shots.append(augmented(rng, shot))
            levels.append(level)
        shortest = min(len(shot) for shot in shots)
        return torch.from_numpy(np.stack([shot[:shortest] for shot in shots])), torch.tensor(levels)

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the cumulative levels; it depends on (seed, draw) alone."""
        shots, levels = self.draw_batch(np.random.default_rng([self.config.seed, self.draw, 7]))
        with self.computing():
            logits = self.networks["discriminator"](shots.to(self.device)).float()
        above = (levels[:, None] > torch.arange(1, LEVELS)).float().to(self.device)
        loss = F.binary_cross_entropy_with_logits(logits, above)
        right = (1 + (logits > 0).sum(1)).cpu() == levels
        return loss, {"loss": loss.item(), "accuracy": right.float().mean().item()}


def constructed(rng: np.random.Generator, bank: Sequence[Graded], level: int) -> Pixels:
    """A construction of a level from two shots of a bank.

    Level 1 takes shots that are continuous; of the model's own only those whose detectors say so.
    """
    calm = [shot for shot in bank if shot.level == 1] or list(bank)
    first = calm[int(rng.integers(len(calm)))].small
    partner = bank[int(rng.integers(len(bank)))].small
    if partner is first or rng.random() < 0.1:
        partner = np.ascontiguousarray(first[:, ::-1, ::-1])  # the same colours, another picture
    count = min(len(first), len(partner))
    return construct(rng, first[:count], partner[:count], level)


@dataclass(frozen=True)
class Score:
    """Held-out quality. `confusion` [5,5]: rows true, columns graded (rounded); shares of all shots, 0..1."""

    accuracy: float
    within_one: float
    mean_error: float
    confusion: NDArray[np.int64]


def score(discriminator: CutDiscriminator, shots: Sequence[Graded]) -> Score:
    """Grade shots of known severity."""
    confusion = np.zeros((LEVELS, LEVELS), np.int64)
    errors = []
    for shot in shots:
        grade = discriminator.grade(shot.small)
        confusion[shot.level - 1, min(LEVELS, max(1, round(grade))) - 1] += 1
        errors.append(abs(grade - shot.level))
    near = sum(int(np.trace(confusion, offset)) for offset in (-1, 0, 1))
    total = int(confusion.sum())
    return Score(int(np.trace(confusion)) / total, near / total, float(np.mean(errors)), confusion)
