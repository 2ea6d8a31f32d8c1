"""Textured planes in true perspective: boxes, rooms, doors and corridors.

Space is the camera's: x to the right, y down, z forward, in view widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.pictures import Picture, Pixels

Vector = NDArray[np.float64]
NEAR = 0.01
"""Depth in view widths before which nothing is seen."""


@dataclass(frozen=True)
class Plane:
    """A picture in space: its top left corner and the vectors along its width and height (at right angles)."""

    corner: Vector
    across: Vector
    down: Vector
    picture: Picture
    endless: bool = False
    """Go on beyond the borders, mirrored."""


@dataclass(frozen=True)
class Camera3:
    """A pinhole camera: focal length in view widths, place, and turn (pitch, yaw, roll) in radians."""

    focal: float
    eye: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _turned(camera: Camera3) -> Vector:
    """The camera's axes [3,3]: directions of its view -> directions of the space."""
    pitch, yaw, roll = (cv2.Rodrigues(np.eye(3)[axis] * angle)[0] for axis, angle in enumerate(camera.turn))
    return np.asarray(yaw @ pitch @ roll, np.float64)


def look(
    planes: Sequence[Plane], camera: Camera3, height: int, width: int, ground: Pixels | None = None, haze: float = 0.0
) -> Pixels:
    """What the camera sees [H,W,3] of planes given from back to front, over `ground` (else black).

    `haze`: how fast light fades, per view width of depth.
    """
    image = np.zeros((height, width, 3), np.uint8) if ground is None else ground.copy()
    scale = camera.focal * width
    lens = np.array([[scale, 0, (width - 1) / 2], [0, scale, (height - 1) / 2], [0, 0, 1]])
    turn = _turned(camera)
    for plane in planes:
        corner = plane.corner - np.array(camera.eye)
        box, inside = _outline(plane, corner, lens, turn, height, width)
        if not inside.any():
            continue
        part = image[box]
        rows, columns = inside.shape
        normal = np.cross(plane.across, plane.down)
        away = float(normal @ corner)
        sides = [axis / (axis @ axis) for axis in (plane.across, plane.down)]
        shares = np.array([*(away * side - float(corner @ side) * normal for side in sides), normal])
        shift = np.array([[1, 0, box[1].start], [0, 1, box[0].start], [0, 0, 1]])
        matrix = shares @ turn @ np.linalg.inv(lens) @ shift  # pixels of the part -> shares of width and height
        ys, xs = np.nonzero(inside)
        depth = away / (matrix[2] @ [xs.mean(), ys.mean(), 1.0])
        texels = abs(depth) / scale * plane.picture.size[1] / float(np.linalg.norm(plane.across))
        level = int(np.clip(np.floor(np.log2(max(texels, 1e-6)) + 0.35), 0, len(plane.picture.levels) - 1))
        source = plane.picture.levels[level]
        fit = np.array([[source.shape[1], 0, -0.5], [0, source.shape[0], -0.5], [0, 0, 1]])
        flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
        seen = cv2.warpPerspective(source, fit @ matrix, (columns, rows), flags=flags, borderMode=border)
        share = (inside.astype(np.float32) / 255)[..., None]
        lit = seen.astype(np.float32)
        if haze:
            across, down = matrix[2, 0] * np.arange(columns), matrix[2, 1] * np.arange(rows)[:, None]
            depths = away / np.where(inside > 0, across + down + matrix[2, 2], away)
            lit *= np.exp(-haze * depths.clip(0, 50))[..., None]
        image[box] = part + share * (lit - part) + 0.5
    return image


def _outline(
    plane: Plane, corner: Vector, lens: Vector, turn: Vector, height: int, width: int
) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
    """The part of the view in which a plane lies, and how much of each of its pixels the plane covers, 0..255."""
    whole = slice(0, height), slice(0, width)
    if plane.endless:
        return whole, np.full((height, width), 255, np.uint8)
    ends = [corner, corner + plane.across, corner + plane.across + plane.down, corner + plane.down]
    outline = _before(ends, turn)
    if len(outline) < 3:
        return whole, np.zeros((height, width), np.uint8)
    spots = outline @ lens.T
    spots = (spots[:, :2] / spots[:, 2:]).clip(-8000, 8000)
    low = np.floor(spots.min(0)).astype(int).clip(0, [width - 1, height - 1])
    high = np.ceil(spots.max(0)).astype(int).clip(low, [width - 1, height - 1]) + 1
    inside = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillConvexPoly(inside, np.round((spots - low) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    return (slice(low[1], high[1]), slice(low[0], high[0])), inside


def _before(corners: Sequence[Vector], turn: Vector) -> Vector:
    """The polygon [N,3] in the camera's axes, cut off where it comes behind the lens."""
    points = np.array(corners) @ turn
    kept = []
    for one, two in zip(points, np.roll(points, -1, axis=0), strict=True):
        if one[2] >= NEAR:
            kept.append(one)
        if (one[2] >= NEAR) != (two[2] >= NEAR):
            kept.append(one + (two - one) * (NEAR - one[2]) / (two[2] - one[2]))
    return np.array(kept)
