"""Where did the camera go? Solves the motion between two pictures, or says that nothing matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.previz.twist import Matrix, Twist, twist_of

Frame = NDArray[np.uint8]
Field = NDArray[np.float32]

WORK_SIDE = 448
MIN_INLIERS = 8
PLENTY = 20
"""Matches from which little agreement of the pixels is enough: much may move by itself before the camera. 490 pairs of
unrelated photographs had fewer than 5."""
SCALES = (0.4, 2.5)
ALONE_SURE, ALONE_ALIKE = 0.3, 0.5
"""Share of the picture where flow there and back agree, and correlation after it, that two pictures of one thing have:
measured .36 and more against .10 at most between unrelated photographs.
"""


@dataclass(frozen=True)
class Flow:
    """What moves besides the camera, in pixels of a: a(y) looks like b at matrix · (y + forth(y)) and b at matrix · y
    looks like a(y + back(y)), [H,W,2] each. `seen` and `shown` [H,W] 0..1: where the two directions agree, so that what
    a, or b, has there is in the other picture too.
    """

    forth: Field
    back: Field
    seen: Field
    shown: Field

    def reach(self) -> float:
        """How far the fastest twentieth of the picture goes, in view widths."""
        width: int = self.forth.shape[1]
        return float(np.percentile(np.linalg.norm(self.forth, axis=2), 95)) / width

    def sized(self, width: int, height: int, factor: float) -> Flow:
        """The same motion of a picture `factor` times larger."""
        fields = (cv2.resize(field, (width, height)) for field in (self.forth, self.back, self.seen, self.shown))
        forth, back, seen, shown = (np.asarray(field, np.float32) for field in fields)
        return Flow(forth * np.float32(factor), back * np.float32(factor), seen, shown)


@dataclass(frozen=True)
class Solve:
    """Motion that takes picture a onto picture b, in centred pixels of the full size.

    `residual` is what a homography adds to the similarity, `flow` what moves besides the camera.
    """

    twist: Twist
    residual: Matrix
    flow: Flow | None = None

    def matrix(self) -> Matrix:
        """3x3 matrix from a's to b's centred pixels."""
        return self.twist.matrix() @ self.residual


def solve(a: Frame, b: Frame) -> Solve | None:
    """Camera between two pictures [H,W,3] of one size, or None where neither a rigid camera nor dense flow fits."""
    small_a, small_b, factor = _grey(a), _grey(b), max(1.0, max(a.shape[:2]) / WORK_SIDE)
    rigid = _rigid(small_a, small_b)
    base = rigid if rigid is not None else Solve(Twist(), np.eye(3))
    flow = _flow(small_a, small_b, base.matrix(), alone=rigid is None)
    if rigid is None and flow is None:
        return None
    grow = np.diag([factor, factor, 1.0])
    height, width = a.shape[:2]
    full = None if flow is None else flow.sized(width, height, factor)
    twist = Twist(base.twist.spin, base.twist.slide * factor)
    return Solve(twist, grow @ base.residual @ np.linalg.inv(grow), full)


def speed(a: Frame, b: Frame, frames: int) -> Twist:
    """Camera speed per frame of a clip whose frames a and b [H,W,3] lie `frames` apart; none where nothing fits."""
    small_a, small_b, factor = _grey(a), _grey(b), max(1.0, max(a.shape[:2]) / WORK_SIDE)
    rigid = _rigid(small_a, small_b)
    if rigid is not None:
        return Twist(rigid.twist.spin / frames, rigid.twist.slide * factor / frames)
    cv2.setRNGSeed(0)
    height, width = small_a.shape
    flow = _dis(small_a, small_b)
    ys, xs = np.mgrid[4:height - 4:8, 4:width - 4:8].reshape(2, -1)
    start = np.stack([xs, ys], 1).astype(np.float64)
    matrix, _ = cv2.estimateAffinePartial2D(start, start + flow[ys, xs], ransacReprojThreshold=1.0)
    if matrix is None or not SCALES[0] < abs(complex(matrix[0, 0], matrix[1, 0])) < SCALES[1]:
        return Twist()
    twist = twist_of(_centred(np.vstack([matrix, [0, 0, 1]]), small_a.shape))
    return Twist(twist.spin / frames, twist.slide * factor / frames)


def _grey(frame: Frame) -> Frame:
    factor = max(1.0, max(frame.shape[:2]) / WORK_SIDE)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if factor > 1:
        size = (round(frame.shape[1] / factor), round(frame.shape[0] / factor))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def _dis(a: Frame, b: Frame) -> Field:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(a, b, np.zeros((*a.shape, 2), np.float32)), np.float32)


def _centre(shape: tuple[int, ...]) -> Matrix:
    return np.array([[1, 0, -(shape[1] - 1) / 2], [0, 1, -(shape[0] - 1) / 2], [0, 0, 1.0]])


def _centred(matrix: Matrix, shape: tuple[int, ...]) -> Matrix:
    centre = _centre(shape)
    return centre @ matrix @ np.linalg.inv(centre)


def _rigid(a: Frame, b: Frame) -> Solve | None:
    """Similarity, or homography where it explains clearly more matches; degenerate ones are rejected."""
    start, end = _matches(a, b)
    if len(start) < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    similar, inliers = cv2.estimateAffinePartial2D(
        start, end, ransacReprojThreshold=2.0, maxIters=3000, confidence=0.999
    )
    if similar is None or not SCALES[0] <= abs(complex(similar[0, 0], similar[1, 0])) <= SCALES[1]:
        return None
    count = int(inliers.sum())
    if count < MIN_INLIERS:
        return None
    twist = twist_of(_centred(np.vstack([similar, [0, 0, 1]]), a.shape))
    matrix = twist.matrix()
    projective, kept = cv2.findHomography(start, end, cv2.RANSAC, 2.0, maxIters=3000, confidence=0.999)
    if projective is not None and int(kept.sum()) >= max(20, round(1.2 * count)):
        wide = _centred(np.asarray(projective, np.float64), a.shape)
        if _sane(wide / wide[2, 2], a.shape):
            matrix = wide / wide[2, 2]
    if not _agree(a, b, matrix, count):
        return None
    return Solve(twist, np.linalg.inv(twist.matrix()) @ matrix)


def _matches(a: Frame, b: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    sift = cv2.SIFT.create(nfeatures=1200, contrastThreshold=0.02)
    (points_a, words_a), (points_b, words_b) = sift.detectAndCompute(a, None), sift.detectAndCompute(b, None)
    empty = np.zeros((0, 2), np.float32)
    if words_a is None or words_b is None or len(points_a) < 2 or len(points_b) < 2:
        return empty, empty
    pairs = cv2.BFMatcher().knnMatch(words_a, words_b, k=2)
    good = [first for first, second in pairs if first.distance < 0.75 * second.distance]
    start = np.array([points_a[m.queryIdx].pt for m in good], np.float32).reshape(-1, 2)
    end = np.array([points_b[m.trainIdx].pt for m in good], np.float32).reshape(-1, 2)
    return start, end


def _sane(matrix: Matrix, shape: tuple[int, ...]) -> bool:
    """Does the picture stay a convex, unflipped quadrilateral of moderate size and perspective?"""
    height, width = shape[:2]
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) * [width / 2, height / 2, 1]
    moved = corners @ matrix.T
    if moved[:, 2].min() < 0.5 or moved[:, 2].max() > 2:
        return False
    quad = (moved[:, :2] / moved[:, 2:]).astype(np.float32)
    area = cv2.contourArea(quad, oriented=True) / (width * height)
    return bool(cv2.isContourConvex(quad) and SCALES[0] ** 2 <= area <= SCALES[1] ** 2)


def _onto(b: Frame | Field, matrix: Matrix, shape: tuple[int, ...]) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """b seen from a's view, and where b covers it."""
    centre = _centre(shape)
    back = np.linalg.inv(centre) @ np.linalg.inv(matrix) @ centre
    size = (shape[1], shape[0])
    seen = cv2.warpPerspective(b, back, size, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpPerspective(np.ones(shape, np.uint8), back, size, flags=cv2.INTER_NEAREST)
    return np.asarray(seen), np.asarray(cover).astype(bool)


def _correlation(a: Frame, b: NDArray[np.generic], mask: NDArray[np.bool_]) -> float:
    x = cv2.GaussianBlur(a, (0, 0), 1.5).astype(np.float64)[mask]
    y = cv2.GaussianBlur(np.asarray(b, np.uint8), (0, 0), 1.5).astype(np.float64)[mask]
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).mean() / np.sqrt((x * x).mean() * (y * y).mean() + 1e-6))


def _agree(a: Frame, b: Frame, matrix: Matrix, inliers: int) -> bool:
    """The pixels must confirm the features: enough overlap, and a correlation that repeated ornaments do not reach."""
    seen, cover = _onto(b, matrix, a.shape)
    if cover.mean() < 0.06:
        return False
    return _correlation(a, seen, cover) > (0.2 if inliers >= PLENTY else 0.45)


def _flow(a: Frame, b: Frame, matrix: Matrix, alone: bool) -> Flow | None:
    """Motion that the camera leaves over, or None if there is none worth following.

    `alone`: no camera was found; then the flow itself has to show that both are pictures of one thing.
    """
    seen, cover = _onto(b, matrix, a.shape)
    there = np.asarray(seen, np.uint8)
    forth, back = _dis(a, there), _dis(there, a)
    sure, known = _agreeing(forth, back) & cover, _agreeing(back, forth) & cover
    moved = np.asarray(_pulled(there, forth), np.uint8)
    before = float(cv2.absdiff(a, there)[cover].mean())
    after = float(cv2.absdiff(a, moved)[cover].mean())
    share = float(sure.sum()) / float(cover.sum())
    if alone:
        near = float(np.linalg.norm(forth, axis=2).mean()) < 0.12 * a.shape[1]
        if not near or share < ALONE_SURE or _correlation(a, moved, cover) < ALONE_ALIKE:
            return None
    elif before < 2.0 or after > 0.9 * before or share < (0.5 if after > 0.6 * before else 0.3):
        return None
    fields = [_filled(field, good, cover, alone) for field, good in ((forth, sure), (back, known))]
    return Flow(*fields, *(cv2.GaussianBlur(good.astype(np.float32), (0, 0), 1.5) for good in (sure, known)))


def _pulled(picture: Frame | Field, flow: Field) -> NDArray[Any]:
    """A picture [H,W] or field [H,W,2] at each pixel's place after a flow [H,W,2]."""
    ys, xs = np.mgrid[:flow.shape[0], :flow.shape[1]].astype(np.float32)
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.remap(picture, xs + flow[..., 0], ys + flow[..., 1], cv2.INTER_LINEAR, borderMode=border))


def _agreeing(forth: Field, back: Field) -> NDArray[np.bool_]:
    """Where a flow and the opposite one lead back to the same place [H,W]."""
    loose = np.linalg.norm(forth + _pulled(back, forth), axis=2)
    return np.asarray(loose < 1.0 + 0.1 * np.linalg.norm(forth, axis=2))


def _filled(flow: Field, sure: NDArray[np.bool_], cover: NDArray[np.bool_], alone: bool) -> Field:
    """A flow whose unsure parts (occlusions, borders) follow their sure surroundings; none beyond `cover`."""
    side = max(flow.shape) / 24
    weight = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), side) + 1e-3
    spread = cv2.GaussianBlur(flow * sure[..., None], (0, 0), side) / weight[..., None]
    keep = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), 1.5)[..., None]
    field = flow * keep + spread * (1 - keep)
    reach = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), side / 2)[..., None]
    return np.asarray(field if alone else field * reach, np.float32)
