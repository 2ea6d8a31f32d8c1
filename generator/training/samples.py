"""Latents of training shots, and batches of them under the very conditions that inference assembles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamontage.generator.conditioning import (
    ClipCondition,
    Condition,
    GuideCondition,
    StillCondition,
    TailCondition,
    assemble,
)
from dreamontage.generator.conditioning.encoding import encode_video, pixels_to_tensor
from dreamontage.generator.models.vocabulary import TimedWord, timed_words
from dreamontage.generator.timeline import STRIDE
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.shots import OVERLAP, ShotAnchor, TrainingShot, load_shot


@dataclass(frozen=True)
class Sample:
    """A training shot in normalised latents [16,n,h,w]: the truth and the guide, E(previz).

    `heads` [16,k,1,h,w]: image-mode latents of the first frame of each anchor. `spread` [16,1,1,1] or like the truth:
    deviation of the posterior. `empty` [16,n,h,w]: what a slot without condition holds; None: zeros.
    """

    truth: Tensor
    guide: Tensor
    heads: Tensor
    spread: Tensor
    anchors: tuple[ShotAnchor, ...]
    tail: int
    words: tuple[TimedWord, ...]
    empty: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slots, latent height, latent width."""
        slots, height, width = self.truth.shape[1:]
        return slots, height, width


@torch.no_grad()
def encode_shot(source: Path, target: Path, vae: Any) -> None:
    """Encode a drawn shot once: half-precision safetensors at `target`, each condition encoded by itself."""
    shot = load_shot(source)
    truth, guide = (encode_video(vae, pixels_to_tensor(frames, vae.device)) for frames in (shot.truth, shot.previz))
    stills = [encode_video(vae, pixels_to_tensor(first, vae.device)) for first in first_frames(shot)]
    heads = torch.stack(stills) if stills else torch.zeros(0, truth.shape[0], 1, *truth.shape[2:])
    spread = [vae.config.sigma / std for std in vae.config.latents_std]
    write_sample(target, note_of(shot) | {"spread": spread}, {"truth": truth, "guide": guide, "heads": heads})


def first_frames(shot: TrainingShot) -> list[Pixels]:
    """The first frame [1,H,W,3] of every anchor: what is encoded in image mode."""
    return [shot.truth[STRIDE * a.slot : STRIDE * a.slot + 1] for a in shot.anchors]


def note_of(shot: TrainingShot) -> dict[str, Any]:
    """What is kept of a shot besides its latents."""
    return {
        "anchors": [[a.slot, a.slots, a.strength] for a in shot.anchors],
        "tail": shot.tail,
        "words": [astuple(word) for b in shot.beats for word in timed_words(b.prompt, b.camera, b.start, b.stop)],
    }


def write_sample(target: Path, note: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a sample's latents in half precision; the name appears only when the file is whole.

    The posterior's deviation is note["spread"], one number a channel, or the tensor `logvar` of the truth's shape.
    """
    temporary = target.with_suffix(".tmp")
    halves = {name: value.half().cpu().contiguous() for name, value in tensors.items()}
    save_file(halves, temporary, metadata={"note": json.dumps(note)})
    temporary.rename(target)


def load_sample(path: Path) -> Sample:
    """Read what `write_sample` wrote (kept in half precision)."""
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["note"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    spread = tensors.pop("logvar").float().mul(0.5).exp() if "logvar" in tensors else torch.tensor(note["spread"])
    return Sample(
        **tensors,
        spread=spread if spread.ndim == 4 else spread.view(-1, 1, 1, 1),
        anchors=tuple(ShotAnchor(*anchor) for anchor in note["anchors"]),
        tail=note["tail"],
        words=tuple(TimedWord(*word) for word in note["words"]),
    )


def conditions_of(
    sample: Sample, guided: bool, generator: torch.Generator | None = None, naive: bool = False
) -> list[Condition]:
    """What inference would know about the window; with a generator given clips and tails are re-sampled.

    Stills and the heads of clips and tails are in image mode; other slots come from the posterior (design section 4).
    `naive` is the ablation: every anchor is a slice of the window's own latents, which inference never has.
    """
    truth, conditions = sample.truth.float(), list[Condition]()

    def resampled(start: int, stop: int) -> Tensor:
        latents = truth[:, start:stop]
        if generator is None or naive:
            return latents
        spread = sample.spread.expand(truth.shape)[:, start:stop]
        return latents + spread * torch.randn(latents.shape, generator=generator)

    if sample.tail:
        conditions.append(TailCondition(truth[:, :1], resampled(1, OVERLAP)))
    for anchor, image in zip(sample.anchors, sample.heads.float(), strict=True):
        head = truth[:, anchor.slot : anchor.slot + 1] if naive else image
        if anchor.slots == 1:
            conditions.append(StillCondition(anchor.slot, head, anchor.strength))
        else:
            rest = resampled(anchor.slot + 1, anchor.slot + anchor.slots)
            conditions.append(ClipCondition(anchor.slot, torch.cat([head, rest], 1), anchor.strength))
    if guided:
        conditions.append(GuideCondition(sample.guide.float()))
    return conditions


@dataclass(frozen=True)
class Batch:
    """Windows of one shape: truth, guide and condition [B,16,n,h,w], mask [B,4,n,h,w], fixed [B,n], timed words."""

    truth: Tensor
    guide: Tensor
    cond: Tensor
    mask: Tensor
    fixed: Tensor
    words: list[tuple[TimedWord, ...]]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        truth, guide, cond, mask, fixed = (
            tensor.to(device) for tensor in (self.truth, self.guide, self.cond, self.mask, self.fixed)
        )
        return Batch(truth, guide, cond, mask, fixed, self.words)


def collate(
    samples: Sequence[Sample], guided: Sequence[bool], generator: torch.Generator, naive: bool = False
) -> Batch:
    """Assemble the conditions of samples of one shape (`naive`: see `conditions_of`)."""
    rows = [
        assemble(conditions_of(s, g, generator, naive), *s.shape, empty=s.empty, generator=generator)
        for s, g in zip(samples, guided, strict=True)
    ]
    return Batch(
        truth=torch.stack([s.truth.float() for s in samples]),
        guide=torch.stack([s.guide.float() for s in samples]),
        cond=torch.stack([row.cond for row in rows]),
        mask=torch.stack([row.mask for row in rows]),
        fixed=torch.stack([row.fixed for row in rows]),
        words=[s.words for s in samples],
    )


Kept = TypeVar("Kept")


class Shelves(Generic[Kept]):
    """Things kept by the latent shape of their samples; shapes above `small_area` are the large ones."""

    def __init__(self, items: Iterable[tuple[tuple[int, int, int], Kept]], small_area: int = 256) -> None:
        self.shelves: dict[tuple[int, int, int], list[Kept]] = {}
        for shape, item in items:
            self.shelves.setdefault(shape, []).append(item)
        self.large = {shape for shape in self.shelves if shape[1] * shape[2] > small_area}

    def pick(self, rng: np.random.Generator, large: bool) -> tuple[int, list[Kept]]:
        """A shelf, weighted by how much it holds, and the transformer tokens of one of its windows."""
        shapes = sorted(self.large if large and self.large else set(self.shelves) - self.large or self.large)
        weights = np.array([len(self.shelves[shape]) for shape in shapes], dtype=np.float64)
        slots, height, width = shape = shapes[int(rng.choice(len(shapes), p=weights / weights.sum()))]
        return slots * height * width // 4, self.shelves[shape]


class SampleBook:
    """Samples by shape; draws batches of about `tokens` transformer tokens that depend on the generators alone.

    The widest shapes, `large_share` of the draws, are kept for the last part of a run.
    """

    def __init__(self, samples: Sequence[Sample], tokens: int) -> None:
        self.tokens = tokens
        self.shelves = Shelves((sample.shape, sample) for sample in samples)

    def draw(self, rng: np.random.Generator, large: bool) -> list[Sample]:
        """Samples of one shape, shapes weighted by how many samples they hold."""
        tokens, shelf = self.shelves.pick(rng, large)
        return [shelf[int(index)] for index in rng.integers(len(shelf), size=max(1, self.tokens // tokens))]
