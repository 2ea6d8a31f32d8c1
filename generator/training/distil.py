"""Distil the guided mode to a few steps, judged by what is delivered: pixels, detail carry-over included.

The sampler's own steps are walked from the guide; the frames of a few slots are decoded, the previz's detail is carried
over as at delivery, and the result is compared with the truth, most often where the previz is unsure. So the network
learns to leave alone what the previz shows right (any change costs) and to repaint what it shows wrong. Only the last
step carries gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from dreamontage.generator.conditioning.encoding import denormalise
from dreamontage.generator.decoding import UNSURE, carry_over, to_tensor
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.sampling import step_times
from dreamontage.generator.timeline import STRIDE, frames_of_slots
from dreamontage.generator.training.adapt_run import STRIPS, encode_shots, write_strips
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.generator.training.running import Report, run
from dreamontage.generator.training.samples import Batch, Sample, collate, load_sample
from dreamontage.generator.training.shots import load_shot
from dreamontage.generator.training.trainer import Models, Recipe, TransformerTrainer

LEAD_IN = 1
"""Slots decoded before the judged ones, so that the decoder has a past; they are not judged."""
EVERYWHERE = 0.02
"""Added to the share of doubt by which windows and slots are drawn: those without any are seen, too."""


@dataclass(frozen=True)
class Judged:
    """Where a window's delivered frames are judged: `slot` leads in, the `count` slots after it are compared."""

    slot: int
    count: int

    @property
    def frames(self) -> slice:
        """Frames of the window that are compared."""
        start = frames_of_slots(self.slot + LEAD_IN)
        return slice(start, start + STRIDE * self.count)


@dataclass(frozen=True)
class Pixels:
    """The frames of a drawn shot: truth and previz [F,3,H,W] in -1..1, confidence [F,H,W] in 0..1."""

    truth: Tensor
    previz: Tensor
    confidence: Tensor

    @classmethod
    def load(cls, path: Path, frames: slice, device: torch.device) -> Pixels:
        """The asked frames of a shot written by `save_shot`."""
        shot = load_shot(path)
        sure = torch.from_numpy(shot.confidence[frames].astype(np.float32) / 255)
        parts = (to_tensor(shot.truth[frames]), to_tensor(shot.previz[frames]), sure)
        return cls(*(part.to(device) for part in parts))


def doubt_of(path: Path) -> NDArray[np.float64]:
    """Share of each slot's pixels [n] that the previz of a drawn shot is unsure of."""
    unsure = (load_shot(path).confidence < 255 * UNSURE).mean(axis=(1, 2))
    return np.concatenate([unsure[:1], unsure[1:].reshape(-1, STRIDE).mean(axis=1)])


def draw_judged(rng: np.random.Generator, doubt: NDArray[np.float64], count: int) -> Judged:
    """A place of `count` judged slots and their lead-in in a window: the more doubt [n] there is, the more often."""
    count = min(count, len(doubt) - LEAD_IN)
    there = np.convolve(doubt[LEAD_IN:], np.ones(count) / count, mode="valid") + EVERYWHERE
    return Judged(int(rng.choice(len(there), p=there / there.sum())), count)


def walk(
    transformer: torch.nn.Module, prompts: Tensor, batch: Batch, steps: int, t0: float, noise: Tensor
) -> Tensor:
    """The sampler's latents [B,16,n,h,w] after `steps` steps from t0, fixed slots verbatim (see sampling.sample)."""
    fixed = batch.fixed[:, None, :, None, None]
    x = (1 - t0) * torch.where(fixed, batch.cond, batch.guide) + t0 * noise
    times = [*step_times(steps, 1.0, t0), 0.0]
    for step, (now, then) in enumerate(pairwise(times)):
        with torch.set_grad_enabled(step == steps - 1 and torch.is_grad_enabled()):
            inputs = torch.cat([x, batch.mask, batch.cond], dim=1)
            time = torch.full((len(x),), 1000 * now, device=x.device)
            velocity = transformer(inputs, time, prompts, return_dict=False)[0].float()
            x = x + (then - now) * velocity
    return torch.where(fixed, batch.cond, x)


def delivered(
    vae: NanoAutoencoder, latents: Tensor, guide_latents: Tensor, pixels: Pixels, at: Judged
) -> tuple[Tensor, Tensor]:
    """Delivered frames and the model's own, D(z), of the judged slots, both [F,3,H,W] (own ones unclamped).

    `latents` and `guide_latents` [16,n,h,w] are the window's.
    """
    here = slice(at.slot, at.slot + LEAD_IN + at.count)
    pair = torch.stack([latents[:, here], guide_latents[:, here]])
    frames = vae.decode_folded(denormalise(vae, pair).permute(2, 0, 1, 3, 4)).float()
    painted, guide = frames.transpose(1, 2)[:, -STRIDE * at.count :]
    return carry_over(painted, guide.detach(), pixels.previz, pixels.confidence), painted


def look_loss(
    shown: Tensor, truth: Tensor, distance: PerceptualDistance, picks: Sequence[int], lpips: float
) -> Tensor:
    """L1 of frames [F,3,H,W] and `lpips` times the LPIPS of the picked ones."""
    seen: Tensor = distance(shown[list(picks)], truth[list(picks)]).mean()
    return (shown - truth).abs().mean() + lpips * seen


@dataclass(frozen=True)
class DistilTraining(Recipe):
    """The recipe; it begins at trained models."""

    minutes: float | None = 20.0
    muon_lr: float = 2e-4
    adam_lr: float = 1e-4
    tail: float = 0.7
    t0: float = 0.2
    walk_steps: tuple[int, ...] = (1, 2)
    """Numbers of steps that the result is meant to be sampled with."""
    windows: int = 3
    """Windows of one shape in a batch."""
    wordless: float = 0.15
    judged_slots: int = 2
    judged_lpips: int = 4
    """Frames of each window that LPIPS sees."""
    lpips: float = 0.5
    own: float = 0.25
    """Weight of the model's own pixels (m = 0), besides the delivered ones."""
    floor: float = 0.05


class DistilTrainer(TransformerTrainer):
    """Trains on guided windows, with the loss of this module; `shots` are what the samples were encoded from."""

    config: DistilTraining

    def __init__(
        self,
        config: DistilTraining,
        samples: Sequence[Sample],
        shots: Sequence[Path],
        vae: NanoAutoencoder,
        models: Models,
    ) -> None:
        super().__init__(config, models)
        self.samples, self.shots, self.vae = samples, shots, vae
        self.distance = PerceptualDistance().to(self.device)
        self.doubt = [doubt_of(path) for path in shots]
        self.by_shape: dict[tuple[int, int, int], list[int]] = {}
        for index, sample in enumerate(samples):
            self.by_shape.setdefault(sample.shape, []).append(index)

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """This step's windows and their loss; they depend on (seed, draw) alone."""
        config = self.config
        rng = np.random.default_rng([config.seed, self.draw, 5])
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.draw)
        shape = self.samples[int(rng.integers(len(self.samples)))].shape
        weights = np.array([self.doubt[index].mean() for index in self.by_shape[shape]]) + EVERYWHERE
        drawn = rng.choice(self.by_shape[shape], config.windows, p=weights / weights.sum())
        chosen = [int(index) for index in drawn]
        batch = collate([self.samples[index] for index in chosen], [True] * len(chosen), generator).to(self.device)
        noise = torch.randn(batch.truth.shape, generator=generator).to(self.device)
        words = [() if rng.random() < config.wordless else words for words in batch.words]
        total, parts = torch.zeros((), device=self.device), {"final": 0.0, "own": 0.0, "previz": 0.0}
        with self.computing():
            prompts = self.prompt_tokens(words)
            latents = walk(self.transformer, prompts, batch, int(rng.choice(config.walk_steps)), config.t0, noise)
            for row, index in enumerate(chosen):
                at = draw_judged(rng, self.doubt[index], config.judged_slots)
                pixels = Pixels.load(self.shots[index], at.frames, self.device)
                shown, own = delivered(self.vae, latents[row], batch.guide[row], pixels, at)
                picks = [int(pick) for pick in rng.choice(len(shown), config.judged_lpips, replace=False)]
                final = look_loss(shown, pixels.truth, self.distance, picks, config.lpips)
                painted = look_loss(own, pixels.truth, self.distance, picks[:1], config.lpips)
                with torch.no_grad():
                    before = look_loss(pixels.previz, pixels.truth, self.distance, picks, config.lpips)
                # Relative to the previz, so that windows which it shows right weigh as much as hopeless ones.
                total = total + (final + config.own * painted) / (before + config.floor) / len(chosen)
                for name, value in (("final", final), ("own", painted), ("previz", before)):
                    parts[name] += value.item() / len(chosen)
        return total, {"loss": total.item()} | parts


def train_distil(
    config: DistilTraining,
    out: Path,
    models: Models,
    vae: NanoAutoencoder,
    shots: Sequence[Path],
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Distil `models` on drawn shots (see shots.draw_shots); returns `out/model`. Latents are kept in out/latents."""
    accelerator = Accelerator(mixed_precision="no")
    vae.to(accelerator.device)
    with accelerator.main_process_first():
        encoded = encode_shots(shots, out / "latents", vae, lambda n: report("latents", n, len(shots), ""))
    kept = [load_sample(path) for path in encoded]
    trainer = DistilTrainer(config, kept[STRIPS:], shots[STRIPS:], vae.requires_grad_(False), models)

    def strips(path: Path) -> None:
        write_strips(path, trainer, kept[:STRIPS], vae)

    return run(trainer, out, "distillation", strips, resume, report)
