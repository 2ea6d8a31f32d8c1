"""Which clips are worth adaptive tuning on (paper section 3.1): much changes, things move, and nothing cuts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamontage.generator.measuring.judge import cuts
from dreamontage.generator.measuring.pairs import PairMeter, shrink
from dreamontage.generator.training.data.pictures import Pixels

LEAST_CHANGE = 14.0
"""Mean absolute RGB difference (0..255) of the first and the last frame, both shrunk to the measuring size."""
LEAST_MOTION = 0.06
"""Mean length of the optical flow, in view widths per second."""


@dataclass(frozen=True)
class Judged:
    """What the filter measured and why it drops a clip: small change, little motion, cut; empty if it is kept."""

    change: float
    motion: float
    cuts: int

    @property
    def reasons(self) -> tuple[str, ...]:
        """All that speak against the clip."""
        found = {"cut": self.cuts > 0, "small change": self.change < LEAST_CHANGE}
        found["little motion"] = self.motion < LEAST_MOTION
        return tuple(reason for reason, holds in found.items() if holds)


def judge_clip(frames: Pixels, fps: int) -> Judged:
    """Measure a clip [F,H,W,3] of at least two frames."""
    meter = PairMeter()
    for frame in frames:
        meter.add(frame)
    ends = [shrink(frames[place]).astype(np.float32) for place in (0, -1)]
    return Judged(
        change=float(np.abs(ends[1] - ends[0]).mean()),
        motion=float(np.mean(meter.curves.speed[1:])) * fps,
        cuts=len(cuts(meter.curves, fps)),
    )
