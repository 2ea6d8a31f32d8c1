"""Typed camera moves as per-frame transforms of the view (3x3, centred pixels, y down)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dreamontage.generator.previz.easing import EASES, eased
from dreamontage.generator.previz.twist import Matrix, Twist
from dreamontage.schemas.montage import Camera

Size = tuple[int, int]

# What a move means when the beat names no amount: view widths, zoom factor, degrees.
AMOUNTS = {
    "pan": 0.5, "tilt": 0.5, "dolly": 0.4, "whip": 1.5,
    "zoom": 1.5, "push_through": 2.5, "roll": 15.0, "orbit": 20.0,
}
DIRECTIONS = {
    "pan": "right", "whip": "right", "orbit": "right", "tilt": "up",
    "zoom": "in", "dolly": "in", "push_through": "in", "roll": "cw",
}
# The way the content goes when the camera turns that way.
CONTENT = {"left": 1 + 0j, "right": -1 + 0j, "up": 1j, "down": -1j}


@dataclass(frozen=True)
class PrevizBeat:
    """A typed camera move over the frames [start, end) of the shot; `camera` None = no wish."""

    start: int
    end: int
    camera: Camera | None = None


def direction_of(camera: Camera) -> str:
    """The camera's direction, or the usual one of its move."""
    return camera.direction or DIRECTIONS.get(camera.move, "right")


def axis_of(camera: Camera | None) -> complex:
    """Unit direction in which the content goes during a sideways or vertical travel (default: camera to the right)."""
    return CONTENT.get(direction_of(camera), -1 + 0j) if camera is not None else -1 + 0j


def step(camera: Camera, share: float, size: Size) -> Matrix:
    """3x3 transform of the view by `share` of the whole move; identity for `hold`.

    Amounts: pan, tilt, dolly and whip in view widths (vertically: heights; a dolly of one enlarges e-fold), zoom and
    push_through a factor, roll and orbit in degrees (an orbit of a flat picture ends at 60).
    """
    if camera.move == "hold":
        return np.eye(3)
    amount = camera.amount if camera.amount is not None else AMOUNTS[camera.move]
    direction = direction_of(camera)
    if direction in ("in", "out"):
        way = amount if camera.move == "dolly" else abs(math.log(amount))
        return Twist(complex((-1 if direction == "out" else 1) * share * way)).matrix()
    if camera.move == "roll":
        sign = 1 if direction in ("ccw", "left") else -1
        return Twist(1j * sign * math.radians(amount) * share).matrix()
    content = CONTENT.get(direction, -1 + 0j)
    if camera.move == "orbit":
        return _orbit(content, math.radians(min(amount, 60.0)) * share, size)
    width, height = size
    return Twist(slide=amount * share * complex(content.real * width, content.imag * height)).matrix()


def _orbit(content: complex, angle: float, size: Size) -> Matrix:
    """View of a plane from a camera that circles its centre: the homography of the turned plane."""
    focal = 1.2 * max(size)
    sin, cos = math.sin(angle), math.cos(angle)
    if content.real:
        side = content.real * sin / focal
        return np.array([[cos, 0, 0], [0, 1, 0], [-side, 0, 1]])
    side = content.imag * sin / focal
    return np.array([[1, 0, 0], [0, cos, 0], [0, -side, 1]])


def progress(beat: PrevizBeat, frame: int) -> float:
    """Share 0..1 of the beat's move that is done at a frame."""
    assert beat.camera is not None
    u = (frame - beat.start) / (beat.end - beat.start)
    return eased(min(max(u, 0.0), 1.0), EASES[beat.camera.ease])
