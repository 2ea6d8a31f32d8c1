"""What the default output has to beat: a cross-fade of the pinned pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dreamontage.generator.evaluation.metrics import Frames


def cross_fade(pinned: Mapping[int, Frames], frames: int) -> Frames:
    """Fade in pixels between pictures [H,W,3] pinned at frames; outside the first and the last they stand still."""
    places = sorted(pinned)
    result = []
    for frame in range(frames):
        before = max((p for p in places if p <= frame), default=places[0])
        after = min((p for p in places if p >= frame), default=places[-1])
        share = (frame - before) / (after - before) if after > before else 0.0
        mixed = pinned[before] * (1 - share) + pinned[after] * share
        result.append(np.asarray(mixed.round(), np.uint8))
    return np.stack(result)
