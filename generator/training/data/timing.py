"""Small tools of the clip makers: timed words, smooth progress, blends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.notes import ClipBeat
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.schemas.limits import DEFAULT_FPS
from dreamontage.schemas.montage import Camera

Progress = NDArray[np.float64]
Made = tuple[Pixels, tuple[ClipBeat, ...]]
"""A clip uint8 [F,H,W,3] and its timed words."""


def beat_of(start: int, stop: int, prompt: str, **camera: Any) -> ClipBeat:
    """Words and, where `camera` has a move, a typed move over the frames [start, stop]."""
    typed = Camera.model_validate(camera) if camera else None
    return ClipBeat(start_s=start / DEFAULT_FPS, stop_s=stop / DEFAULT_FPS, prompt=prompt, camera=typed)


def boundaries(beats: tuple[ClipBeat, ...]) -> tuple[float, ...]:
    """The seconds at which a beat begins or ends."""
    return tuple(sorted({second for beat in beats for second in (beat.start_s, beat.stop_s)}))


def smooth(values: Any) -> NDArray[Any]:
    """Smoothstep of values, clipped to 0..1."""
    t = np.clip(values, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def inner_span(rng: np.random.Generator, frames: int, margin: float = 0.2) -> tuple[int, int, Progress]:
    """Frames between which something happens inside a clip, and its smooth progress [F] from 0 to 1.

    `margin`: the largest share of the clip before and after it.
    """
    start, stop = int(rng.uniform(0, margin) * frames), frames - 1 - int(rng.uniform(0, margin) * frames)
    return start, stop, smooth((np.arange(frames) - start) / max(1, stop - start))


def mixed(first: Pixels, second: Pixels, share: NDArray[Any]) -> Pixels:
    """Blend pictures [H,W,3] by the second one's share [H,W]."""
    return np.asarray(first + share[..., None] * (second.astype(np.float32) - first) + 0.5, np.uint8)
