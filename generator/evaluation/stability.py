"""What a shot does over its whole length: drift of colour, rest, sharpness, motion; numbers from `pair_curves`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.measuring import judge
from dreamontage.generator.measuring.pairs import Curves, PairMeter

Floats = NDArray[np.float64]
DRIFT_WINDOW = 49
"""Frames of the running median, two seconds (a quarter of a shorter shot): neither a flash nor the middle of a
transition is a drift, which stays."""


def pair_curves(frames: Frames) -> Curves:
    """The few numbers per frame of the delivered report, for a shot [F,H,W,3]."""
    meter = PairMeter()
    for frame in frames:
        meter.add(frame)
    return meter.curves


def freeze_s(curves: Curves, fps: int) -> float:
    """The longest stretch in seconds, at least 0, in which nothing changes; lower is better.

    The report's own test of a pair. Fails for shots that are meant to rest, and film grain hides a frozen picture.
    """
    longest = run = 0
    for still in judge.static_pairs(curves):
        run = run + 1 if still else 0
        longest = max(longest, run)
    return longest / fps


def sharpness(curves: Curves) -> Floats:
    """Mean absolute grey step between neighbouring pixels [F], 0..255; to be compared with the anchors' own.

    Depends on content as much as on blur, and noise passes for detail: only ratios between like contents mean anything.
    """
    return np.array(curves.gradient)


def motion_amount(curves: Curves, fps: int) -> float:
    """Mean length of the flow in view widths per second, at least 0: how much moves, the camera's motion included.

    Neither good nor bad by itself; a cross-fade has some because its fading looks like motion, and a motion of more
    than about a tenth of the width per frame is underestimated.
    """
    speed = curves.speed[1:]
    return float(np.mean(speed)) * fps if speed else 0.0


def colour_drift(frames: Frames, reference: Frames) -> float:
    """The largest lasting change of a colour channel against a reference [F,H,W,3] of like content; a share, 0 is best.

    Per frame and channel, mean and deviation minus those of the reference; of that difference (running median of two
    seconds) the largest distance from where it began, divided by the reference's mean level or mean deviation. The
    reference is the truth where it is known, else the previz: it shows the anchors' own pixels at every frame, so
    that what changes with the content cancels. Fails where the reference shows other content than the shot.
    """
    own, planned = _colours(frames), _colours(reference)
    scale = planned.mean((0, 2))
    apart = _running_median(own - planned) / np.maximum(scale, 1.0)[None, :, None]
    return float(np.abs(apart - apart[0]).max())


def _colours(frames: Frames) -> Floats:
    """Means and deviations of the channels: [F,2,3]."""
    return np.array([cv2.meanStdDev(frame) for frame in frames], np.float64)[..., 0]


def _running_median(values: Floats) -> Floats:
    window = min(DRIFT_WINDOW, len(values) // 4 + 1)
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(values, window, axis=0), axis=-1))
