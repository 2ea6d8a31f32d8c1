"""Sharp views of one picture under a moving camera, with what the picture does not cover filled plausibly."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.previz.twist import Matrix

Frame = NDArray[np.uint8]
Field = NDArray[np.float32]

OUTSIDE = 1e4


def ramp(x: Field) -> Field:
    """Smoothstep of x clipped to 0..1, elementwise."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x), np.float32)


class Picture:
    """One picture [H,W,3] on a larger canvas: mirrored beyond its borders and the blurrier the farther out."""

    def __init__(self, frame: Frame) -> None:
        height, width = frame.shape[:2]
        self.size = (width, height)
        self.margin = (width // 2, height // 2)
        mx, my = self.margin
        canvas: Frame = np.asarray(cv2.copyMakeBorder(frame, my, my, mx, mx, cv2.BORDER_REFLECT_101), np.uint8)
        xs = np.minimum(np.arange(-mx, width + mx), width - 1 - np.arange(-mx, width + mx)).astype(np.float32)
        ys = np.minimum(np.arange(-my, height + my), height - 1 - np.arange(-my, height + my)).astype(np.float32)
        # Pixels to the nearest border, negative outside: coverage, feather and blur all come from this one map.
        self.inside: Field = np.minimum(xs[None, :], ys[:, None])
        unit = min(width, height)
        for reach, sigma in ((0.1, 0.012), (0.3, 0.04)):
            blurred = _blur(canvas, sigma * unit)
            away = ramp(-self.inside / np.float32(reach * unit))[..., None]
            canvas = np.asarray(canvas + (blurred - canvas.astype(np.float32)) * away + 0.5, np.uint8)
        half = cv2.resize(canvas, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        quarter = cv2.resize(half, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        self.levels: list[Frame] = [canvas, np.asarray(half, np.uint8), np.asarray(quarter, np.uint8)]

    def view(self, matrix: Matrix) -> tuple[Frame, Field]:
        """The view [H,W,3] under a 3x3 transform of centred pixels, and how far inside the picture it lies [H,W]."""
        level, to_level = self._level(matrix)
        onto = _centre(self.size, back=True) @ matrix @ np.linalg.inv(to_level)
        mirror = cv2.BORDER_REFLECT_101
        shown = cv2.warpPerspective(self.levels[level], onto, self.size, flags=cv2.INTER_CUBIC, borderMode=mirror)
        onto = _centre(self.size, back=True) @ matrix @ np.linalg.inv(self._to_canvas(0))
        inside = cv2.warpPerspective(self.inside, onto, self.size, borderMode=cv2.BORDER_CONSTANT, borderValue=-OUTSIDE)
        return np.asarray(shown, np.uint8), np.asarray(inside, np.float32)

    def sample(self, points: Field, matrix: Matrix) -> tuple[Frame, Field]:
        """Like view, at given centred points [H,W,2] of the picture; `matrix` only tells the scale."""
        level, to_level = self._level(matrix)
        at = _affine(points, to_level)
        mirror = cv2.BORDER_REFLECT_101
        shown = cv2.remap(self.levels[level], at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=mirror)
        at = _affine(points, self._to_canvas(0))
        inside = cv2.remap(self.inside, at[..., 0], at[..., 1], cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_CONSTANT, borderValue=-OUTSIDE)
        return np.asarray(shown, np.uint8), np.asarray(inside, np.float32)

    def _to_canvas(self, level: int) -> Matrix:
        """Centred pixels of the picture -> pixels of a level of its canvas."""
        (width, height), (mx, my), k = self.size, self.margin, 0.5**level
        x, y = (width - 1) / 2 + mx, (height - 1) / 2 + my
        return np.array([[k, 0, (x + 0.5) * k - 0.5], [0, k, (y + 0.5) * k - 0.5], [0, 0, 1]])

    def _level(self, matrix: Matrix) -> tuple[int, Matrix]:
        scale = magnification(matrix)
        level = 0 if scale > 0.65 else 1 if scale > 0.33 else 2
        return level, self._to_canvas(level)


def magnification(matrix: Matrix) -> float:
    """Linear scale of a 3x3 transform at the centre of the picture."""
    m = matrix / matrix[2, 2]
    jacobian = m[:2, :2] - np.outer(m[:2, 2], m[2, :2])
    return float(np.sqrt(abs(np.linalg.det(jacobian))))


def grid(size: tuple[int, int], matrix: Matrix) -> Field:
    """Where each pixel of the view lies in centred pixels of the picture [H,W,2]."""
    width, height = size
    back = np.linalg.inv(_centre(size, back=True) @ matrix)
    ys, xs = np.indices((height, width)).astype(np.float64)
    return project(np.stack([xs, ys], 2), np.asarray(back, np.float64))


def project(points: NDArray[Any], matrix: Matrix) -> Field:
    """A 3x3 transform of points [H,W,2]."""
    x, y = points[..., 0], points[..., 1]
    w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    u = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / w
    v = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / w
    return np.stack([u, v], 2).astype(np.float32)


def soft(x: Frame) -> Field:
    """The low band of a picture [H,W,3]: light and colour without detail."""
    height, width = x.shape[:2]
    small = cv2.resize(x, (max(width // 8, 4), max(height // 8, 4)), interpolation=cv2.INTER_AREA)
    low = cv2.GaussianBlur(small.astype(np.float32), (0, 0), max(width, height) / 8 / 16)
    return np.asarray(cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def to_bytes(x: Field) -> Frame:
    """Rounds and clips to 0..255."""
    return np.asarray(np.clip(x + 0.5, 0, 255), np.uint8)


def _blur(canvas: Frame, sigma: float) -> Field:
    """Gaussian blur at a quarter of the size (sigmas of several pixels only)."""
    height, width = canvas.shape[:2]
    small = cv2.resize(canvas, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
    low = cv2.GaussianBlur(small.astype(np.float32), (0, 0), max(sigma / 4, 0.5), borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(low, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _affine(points: Field, matrix: Matrix) -> Field:
    return np.asarray(points * np.float32(matrix[0, 0]) + matrix[:2, 2].astype(np.float32), np.float32)


def _centre(size: tuple[int, int], back: bool = False) -> Matrix:
    sign = 1 if back else -1
    return np.array([[1, 0, sign * (size[0] - 1) / 2], [0, 1, sign * (size[1] - 1) / 2], [0, 0, 1.0]])
