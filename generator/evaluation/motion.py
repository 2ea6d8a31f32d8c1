"""What moves, and what the motion does not explain: one pass of dense flow, forward and backward, over a shot."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.evaluation.metrics import Frames

Floats = NDArray[np.float64]

SIDE = 256
"""Longer side in pixels at which flow is measured; larger frames are shrunk."""
AGREE = (0.5, 0.01)
"""Forward and backward flow agree within half a pixel plus 1 % of the squared lengths (Sundaram, Brox, Keutzer 2010,
with their .01)."""
MIN_FOLLOWED = 0.25
"""Share of the picture that must be followed; below it a pair counts as two different pictures."""
SOFTEN = 1.5
"""Blur in pixels before pictures are compared, so that resampling of fine detail is no error (on photographs it would
be larger than what a cross-fade leaves)."""
LIGHT_GRID = (4, 4)
STRIDE = 8
"""Pixels between the points that the camera is fitted to."""


@dataclass(frozen=True)
class Followed:
    """One row for each pair of neighbours, F - 1 in all.

    error: mean absolute difference of the softened RGB pictures after warping, 0..1. share: how much of the picture
    could be followed, 0..1.
    light: signed change of luma along the motion in 4 x 4 blocks [F-1,16], 0..255; 0 where nothing could be followed.
    camera: [F-1,4], the content's shift right and down in view widths, log zoom and clockwise roll in radians.
    """

    error: Floats
    share: Floats
    light: Floats
    camera: Floats


@dataclass(frozen=True)
class WarpError:
    """mean and worst pair, 0..1; followed: mean share of the picture that could be followed, 0..1."""

    mean: float
    worst: float
    followed: float


@dataclass(frozen=True)
class GlobalMotion:
    """The content's mean motion per second: right and down in view widths, log zoom (positive: it grows), roll in
    degrees (positive: clockwise). A camera that pans left moves the content right, one that tilts up moves it down."""

    right: float
    down: float
    log_zoom: float
    roll_deg: float


def follow(frames: Frames) -> Followed:
    """Dense flow (DIS, medium) between neighbours of [F,H,W,3], F at least 2, checked forward against backward."""
    meter = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    small = [_shrink(frame) for frame in frames]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
    soft = [np.asarray(cv2.GaussianBlur(frame, (0, 0), SOFTEN), np.uint8) for frame in small]
    grid = np.indices(grey[0].shape).astype(np.float32)[::-1]
    still = np.zeros((*grey[0].shape, 2), np.float32)
    rows = []
    for at in range(len(small) - 1):
        there = np.asarray(meter.calc(grey[at], grey[at + 1], still.copy()), np.float32)
        back = np.asarray(meter.calc(grey[at + 1], grey[at], still.copy()), np.float32)
        rows.append(_pair(soft[at], soft[at + 1], there, back, grid))
    error, share, light, camera = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return Followed(error, share, light, camera)


def warp_error(followed: Followed) -> WarpError:
    """Mean absolute difference of neighbours after following the motion, 0..1; lower is better (Lai et al. 2018).

    A pair of which less than a quarter can be followed counts with all its difference. Fails for shots that show
    little: frozen or blurred pictures have a lower error than a sharp moving truth, so read it beside motion and
    sharpness.
    """
    error = followed.error
    return WarpError(float(error.mean()), float(error.max()), float(followed.share.mean()))


def flicker(followed: Followed) -> float:
    """Mean oscillation of light that motion does not explain, in grey levels 0..255; lower is better.

    Half the change, from pair to pair, of the luma change along the flow, in 4 x 4 blocks. A steady ramp of light
    has none, and a hard cut, which cannot be followed, none either; flashing lights that belong to the scene count.
    """
    light = followed.light
    return float(np.abs(np.diff(light, axis=0)).mean() / 2) if len(light) > 1 else 0.0


def global_motion(followed: Followed, fps: int) -> GlobalMotion:
    """The similarity that moves most of the picture, as a mean per second; pairs that cannot be followed are left out.

    Any sign and size; 0 for a still. Fails where things that move by themselves cover more than half of the picture
    (then it is theirs), in pictures without texture, and for shifts of more than about an eighth of the view per frame.
    """
    good = followed.camera[followed.share >= MIN_FOLLOWED]
    right, down, zoom, roll = good.mean(0) * fps if len(good) else np.zeros(4)
    return GlobalMotion(float(right), float(down), float(zoom), float(np.degrees(roll)))


def _shrink(frame: Frames) -> Frames:
    factor = SIDE / max(frame.shape[:2])
    if factor >= 1:
        return frame
    return np.asarray(cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def _pair(
    first: Frames, second: Frames, there: NDArray[np.float32], back: NDArray[np.float32], grid: NDArray[np.float32]
) -> tuple[float, float, Floats, Floats]:
    """Error, followed share, light per block and camera of one pair."""
    xs, ys = grid[0] + there[..., 0], grid[1] + there[..., 1]
    returned = cv2.remap(back, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap = np.square(there + returned).sum(2)
    length = np.square(there).sum(2) + np.square(returned).sum(2)
    inside = (xs >= 0) & (ys >= 0) & (xs <= first.shape[1] - 1) & (ys <= first.shape[0] - 1)
    kept = inside & (gap <= AGREE[0] ** 2 + AGREE[1] * length)
    share = float(kept.mean())
    if share < MIN_FOLLOWED:
        return float(cv2.absdiff(first, second).mean() / 255), share, np.zeros(16), np.zeros(4)
    moved = np.asarray(cv2.remap(second, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    error = float(cv2.absdiff(first, moved).mean(2)[kept].mean() / 255)
    change = cv2.cvtColor(moved, cv2.COLOR_RGB2GRAY).astype(np.float32) - cv2.cvtColor(first, cv2.COLOR_RGB2GRAY)
    weight = cv2.resize(kept.astype(np.float32), LIGHT_GRID, interpolation=cv2.INTER_AREA)
    light = cv2.resize(np.where(kept, change, np.float32(0)), LIGHT_GRID, interpolation=cv2.INTER_AREA)
    blocks = np.where(weight > MIN_FOLLOWED, light / np.maximum(weight, MIN_FOLLOWED), 0)
    return error, share, blocks.ravel(), _camera(grid, there, kept)


def _camera(grid: NDArray[np.float32], flow: NDArray[np.float32], kept: NDArray[np.bool_]) -> Floats:
    """Shift in widths, log zoom and roll about the picture's middle, by RANSAC over a grid of followed points."""
    height, width = kept.shape
    spots = np.s_[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    used = kept[spots]
    middle = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    points = np.moveaxis(grid, 0, -1)[spots][used] - middle
    matrix, _ = cv2.estimateAffinePartial2D(points, points + flow[spots][used], ransacReprojThreshold=1.0)
    if matrix is None:
        return np.zeros(4)
    zoom, roll = np.hypot(matrix[0, 0], matrix[1, 0]), np.arctan2(matrix[1, 0], matrix[0, 0])
    return np.array([matrix[0, 2] / width, matrix[1, 2] / width, np.log(zoom), roll])
