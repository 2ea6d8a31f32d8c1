"""A few numbers for every frame and its predecessor; the only part of measuring that sees all pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Curve = NDArray[np.float64]

SMALL_SIDE = 160
"""Longer side in pixels at which flow and flow-compensated differences are measured."""


@dataclass
class Curves:
    """One value per frame; where a value compares with the frame before, entry 0 is 0.

    luma: mean grey, 0..255. gradient: mean absolute grey step between neighbouring pixels, 0..255.
    change: mean absolute grey difference at full size, 0..255. step: mean absolute RGB difference after flow
    compensation at the small size, 0..255. flow_x, flow_y: mean flow, speed: mean length of the flow, in shares of the
    width per frame.
    """

    luma: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    flow_x: list[float] = field(default_factory=list)
    flow_y: list[float] = field(default_factory=list)
    speed: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.luma)


class PairMeter:
    """Feeds `Curves` frame by frame; keeps the previous frame and nothing else."""

    def __init__(self) -> None:
        self.curves = Curves()
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._grey: Frame | None = None
        self._small: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Measure the next frame, RGB [H,W,3]."""
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        small = shrink(frame)
        curves = self.curves
        curves.luma.append(float(grey.mean()))
        curves.gradient.append(mean_gradient(grey))
        if self._grey is None or self._small is None:
            change, step, flow = 0.0, 0.0, np.zeros((1, 1, 2), np.float32)
        else:
            change = float(cv2.absdiff(grey, self._grey).mean())
            step, flow = self._compensated(self._small, small)
        width = small.shape[1]
        curves.change.append(change)
        curves.step.append(step)
        curves.flow_x.append(float(flow[..., 0].mean()) / width)
        curves.flow_y.append(float(flow[..., 1].mean()) / width)
        curves.speed.append(float(np.linalg.norm(flow, axis=2).mean()) / width)
        self._grey, self._small = grey, small

    def _compensated(self, before: Frame, after: Frame) -> tuple[float, NDArray[np.float32]]:
        """Mean absolute difference of `before` and `after` followed back along the flow, inside the picture; the flow.
        """
        first, second = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, after))
        flow = np.asarray(self._flow.calc(first, second, np.zeros((*first.shape, 2), np.float32)), np.float32)
        grid = np.indices(first.shape).astype(np.float32)
        xs, ys = grid[1] + flow[..., 0], grid[0] + flow[..., 1]
        inside = (xs >= 0) & (ys >= 0) & (xs <= first.shape[1] - 1) & (ys <= first.shape[0] - 1)
        moved = cv2.remap(after, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = cv2.absdiff(before, np.asarray(moved, np.uint8)).mean(axis=2)
        return float(difference[inside].mean()) if inside.any() else float(difference.mean()), flow


def shrink(frame: Frame) -> Frame:
    """An RGB frame at SMALL_SIDE pixels on its longer side (area average), or as it is if it is smaller."""
    factor = max(frame.shape[:2]) / SMALL_SIDE
    if factor <= 1:
        return frame
    size = (round(frame.shape[1] / factor), round(frame.shape[0] / factor))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def mean_gradient(grey: Frame) -> float:
    """Mean absolute step between horizontal and vertical neighbours of a grey picture [H,W], 0..255."""
    return float(cv2.absdiff(grey[:, 1:], grey[:, :-1]).mean() + cv2.absdiff(grey[1:], grey[:-1]).mean()) / 2
