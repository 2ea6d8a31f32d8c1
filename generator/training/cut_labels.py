"""Severities of the model's own generations, by detectors: what the cut discriminator learns from."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from dreamontage.generator.evaluation.cuts import PACKAGE, THRESHOLD, TRANSNET_SIZE, transnet
from dreamontage.generator.measuring.judge import CUT_FLOOR, cuts
from dreamontage.generator.measuring.pairs import PairMeter
from dreamontage.generator.training.data.pictures import Pixels

FPS = 24
SUSPICION = 0.2
"""TransNetV2's probability from which a change of picture is suspected."""
JUMP, LEAP = 3.0, 6.0
"""Largest flow-compensated step ÷ the median one: what is seen as a jump, and what as a very sudden change."""


@dataclass(frozen=True)
class Detected:
    """What detectors say of a shot: the content detector's cut, TransNetV2's largest probability 0..1 (None where it is
    not installed), and the largest step ÷ the median one (at least 1)."""

    cut: bool
    probability: float | None
    ratio: float

    @property
    def severity(self) -> int:
        """1 to 5: 5 where both detectors see a cut, 4 where one does, 3 a suspicion or leap, 2 a jump, else 1."""
        sure = self.probability is not None and self.probability > THRESHOLD
        if self.cut and (sure or self.probability is None):
            return 5
        if self.cut or sure:
            return 4
        if (self.probability or 0.0) > SUSPICION or self.ratio > LEAP:
            return 3
        return 2 if self.ratio > JUMP else 1


def detect(frames: Pixels) -> Detected:
    """Ask the detectors about a shot uint8 [F,H,W,3] at 24 fps."""
    meter = PairMeter()
    for frame in frames:
        meter.add(frame)
    step = np.array(meter.curves.step[1:])
    ratio = float(step.max() / max(float(np.median(step)), CUT_FLOOR / 2))
    return Detected(bool(cuts(meter.curves, FPS)), _probability(frames), max(1.0, ratio))


@torch.no_grad()
def _probability(frames: Pixels) -> float | None:
    """TransNetV2's largest probability of a change of picture, where it is installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    small = np.stack([cv2.resize(frame, TRANSNET_SIZE, interpolation=cv2.INTER_AREA) for frame in frames])
    single, _ = transnet().predict_frames(torch.from_numpy(small), quiet=True)
    return float(single[: len(frames)].max())
