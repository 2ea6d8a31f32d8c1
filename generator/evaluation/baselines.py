"""What the output has to beat, from the same inputs: pictures [H,W,3] pinned at frames, and nothing else.

Pixels only: the ways that need a model are in `renditions` and `chained`. Every function returns uint8 [frames,H,W,3]
and gives the pinned pictures back bit for bit; outside the first and the last pinned frame they stand still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.rife import Rife

Mix = Callable[[Frames, Frames, float], Frames]


def cross_fade(pinned: Mapping[int, Frames], frames: int) -> Frames:
    """Fade in pixels between neighbours."""
    return between_neighbours(pinned, frames, _faded)


def hold_and_cut(pinned: Mapping[int, Frames], frames: int) -> Frames:
    """Hold each picture and cut to the next half-way."""
    return between_neighbours(pinned, frames, lambda first, second, share: first if share < 0.5 else second)


def interpolated(pinned: Mapping[int, Frames], frames: int, rife: Rife) -> Frames:
    """RIFE between neighbours."""
    return between_neighbours(pinned, frames, rife.between)


def between_neighbours(pinned: Mapping[int, Frames], frames: int, mix: Mix) -> Frames:
    """Fill every gap with mix(picture before, picture after, share of the way 0..1)."""
    return np.stack([picture_at(pinned, frame, mix) for frame in range(frames)])


def picture_at(pinned: Mapping[int, Frames], frame: int, mix: Mix) -> Frames:
    """One picture [H,W,3] of that."""
    before = max((place for place in pinned if place <= frame), default=min(pinned))
    after = min((place for place in pinned if place >= frame), default=max(pinned))
    if after <= before:
        return pinned[before]
    return mix(pinned[before], pinned[after], (frame - before) / (after - before))


def _faded(first: Frames, second: Frames, share: float) -> Frames:
    return np.asarray((first * (1 - share) + second * share).round(), np.uint8)
