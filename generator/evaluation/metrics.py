"""Numbers for frames uint8 [F,H,W,3] RGB: fidelity to a truth, and how continuous a shot is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dreamontage.generator.decoding import to_tensor
from dreamontage.generator.measuring import anchors
from dreamontage.generator.measuring.judge import STEP_FLOOR, cuts, static_pairs
from dreamontage.generator.measuring.pairs import PairMeter
from dreamontage.generator.training.perceptual import PerceptualDistance

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Fidelity:
    """Means over frames: PSNR in dB (higher is better) and LPIPS-alex (lower is better)."""

    psnr_db: float
    lpips: float


@dataclass(frozen=True)
class Continuity:
    """Largest flow-compensated step over the median one, suspected cuts, and the longest still stretch in seconds."""

    step_ratio: float
    cuts: int
    frozen_s: float


def psnr_db(frames: Frames, truth: Frames) -> float:
    """Mean over frames of the PSNR in dB; 99 for equal frames."""
    errors = np.square(frames.astype(np.float64) - truth).mean((1, 2, 3))
    return float(np.mean([anchors.psnr_db(float(error)) for error in errors]))


@torch.no_grad()
def fidelity(frames: Frames, truth: Frames, distance: PerceptualDistance) -> Fidelity:
    """Compare frames with the truth, both [F,H,W,3]."""
    lpips = [float(distance(to_tensor(a[None]), to_tensor(b[None]))) for a, b in zip(frames, truth, strict=True)]
    return Fidelity(psnr_db(frames, truth), float(np.mean(lpips)))


def continuity(frames: Frames, fps: int) -> Continuity:
    """Judge a shot without a truth; the detectors are those of the delivered report."""
    meter = PairMeter()
    for frame in frames:
        meter.add(frame)
    steps = np.array(meter.curves.step[1:])
    longest = run = 0
    for still in static_pairs(meter.curves):
        run = run + 1 if still else 0
        longest = max(longest, run)
    ratio = float(steps.max() / max(np.median(steps), STEP_FLOOR))
    return Continuity(ratio, len(cuts(meter.curves, fps)), longest / fps)
