"""Batches of training clips that depend on (seed, step) alone, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dreamontage.generator.training.data.camera import camera_clip, layered_clip, world_clip
from dreamontage.generator.training.data.pictures import Picture, Pixels
from dreamontage.generator.training.data.procedural import paint

KIND_SHARES = {"photo": 0.42, "own": 0.42, "portrait": 0.15, "texture": 0.15, "procedural": 0.28}
CANVAS_WINDOW = 64
"""Painted canvases alive at a time; every third step one goes and a new one comes."""


@lru_cache(maxsize=CANVAS_WINDOW + 8)
def _canvas(seed: int) -> Picture:
    return paint(seed)


@dataclass
class ClipMixture:
    """Draws clips: virtual camera over one picture, travel between two, or parallax layers."""

    pictures: list[Picture]
    seed: int = 0
    by_kind: dict[str, list[Picture]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_kind = {kind: [p for p in self.pictures if p.kind == kind] for kind in KIND_SHARES}

    def picture(self, rng: np.random.Generator, step: int) -> Picture:
        """A random picture, photographs most often, or one of the current painted canvases."""
        kinds = [k for k in KIND_SHARES if self.by_kind[k] or k == "procedural"]
        shares = np.array([KIND_SHARES[k] for k in kinds])
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        if kind == "procedural":
            newest = CANVAS_WINDOW + step // 3
            return _canvas(self.seed * 1_000_003 + newest - int(rng.integers(CANVAS_WINDOW)))
        return self.by_kind[kind][int(rng.integers(len(self.by_kind[kind])))]

    def clip(self, rng: np.random.Generator, step: int, frames: int, height: int, width: int) -> Pixels:
        """One augmented clip [F,H,W,3]: mirrored, played backwards, recoloured at random."""
        kind = rng.choice(["camera", "world", "layers"], p=[0.7, 0.12, 0.18])
        first = self.picture(rng, step)
        if kind == "camera":
            clip, _ = camera_clip(rng, first, frames, height, width)
        elif kind == "world":
            clip, _ = world_clip(rng, first, self.picture(rng, step), frames, height, width)
        else:
            sprites = [self.picture(rng, step) for _ in range(int(rng.integers(1, 4)))]
            clip, _ = layered_clip(rng, first, sprites, frames, height, width)
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if rng.random() < 0.3:
            clip = clip[::-1]
        return recoloured(rng, clip)

    def batch(self, step: int, frames: int, height: int, width: int, size: int) -> Tensor:
        """Clips [size,3,F,H,W] in -1..1 for one step."""
        rng = np.random.default_rng([self.seed, step])
        clips = np.stack([self.clip(rng, step, frames, height, width) for _ in range(size)])
        return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


def recoloured(rng: np.random.Generator, clip: Pixels) -> Pixels:
    """Change a clip's colours as a whole: channel order, exposure, gamma, saturation."""
    if rng.random() < 0.2:
        clip = clip[..., rng.permutation(3)]
    if rng.random() < 0.6:
        gamma, gain = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.15))
        table = 255 * np.clip(gain * np.linspace(0, 1, 256) ** gamma, 0, 1)
        clip = table.astype(np.uint8)[clip]
    if rng.random() < 0.2:
        grey = clip.mean(axis=-1, keepdims=True)
        clip = np.clip(grey + rng.uniform(0, 1.6) * (clip - grey), 0, 255).astype(np.uint8)
    return clip
