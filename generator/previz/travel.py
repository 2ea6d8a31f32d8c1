"""The way between two pictures that have nothing in common: both on one canvas, a soft seam, and the camera travels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dreamontage.generator.previz.moves import Size, axis_of, direction_of
from dreamontage.generator.previz.render import Field, Frame, grid, ramp, soft, to_bytes
from dreamontage.generator.previz.twist import Matrix, Twist
from dreamontage.schemas.montage import Camera

OVERLAP = 0.3
NARROW, WIDE, WOBBLE = 0.1, 0.4, 0.045
PASS_ZOOM = 2.6


@dataclass(frozen=True)
class Route:
    """Where the second picture lies: `twist` brings it into the view. `axis` = way of the content, None in flight."""

    twist: Twist
    axis: complex | None
    inwards: bool = True


def route(camera: Camera | None, size: Size, lean: complex | None = None) -> Route:
    """Layout for a beat's move: side by side for pan, tilt, whip, nested for zoom and push_through, turned for roll.

    Without a move the content goes on the way it `lean`s already, else to the left.
    """
    width, height = size
    if camera is not None and direction_of(camera) in ("in", "out"):
        inwards = direction_of(camera) == "in"
        return Route(Twist(complex(math.log(PASS_ZOOM) * (1 if inwards else -1))), None, inwards)
    axis = lean if camera is None and lean is not None else axis_of(camera)
    slide = (1 - OVERLAP) * complex(axis.real * width, axis.imag * height)
    spin = 0j
    if camera is not None and camera.move == "roll":
        spin = 1j * math.radians(-25 if direction_of(camera) == "cw" else 25)
    return Route(Twist(spin, slide), axis)


def shares(way: Route, s: float, sway: Matrix, size: Size) -> tuple[Field, Field]:
    """Share 0..1 of the second picture in the view [H,W], narrow (detail) and wide (light and colour).

    `s` = 0..1 of the way, `sway` = what moves the travelling view besides. All 0 at s = 0, all 1 at s = 1.
    """
    # Both are smooth: a quarter of the size is enough.
    small = (size[0] // 4, size[1] // 4)
    shrink = np.diag([small[0] / size[0], small[1] / size[1], 1.0])
    places = grid(small, shrink @ sway)
    x, y = places[..., 0] / np.float32(size[0]), places[..., 1] / np.float32(size[1])
    narrow, wide = _nested(way, s, x, y) if way.axis is None else _passing(way.axis, s, x, y)
    return _grown(narrow, size), _grown(wide, size)


def _grown(share: Field, size: Size) -> Field:
    return np.asarray(cv2.resize(share, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _passing(axis: complex, s: float, x: Field, y: Field) -> tuple[Field, Field]:
    """A wavy seam that crosses the view with the content."""
    along, across = (x * axis.real, y) if axis.real else (y * axis.imag, x)
    # The second picture follows the content: it enters on the side opposite to the content's way.
    wave = WOBBLE * (np.sin(7.3 * across + 1.1) + 0.6 * np.sin(17.9 * across + 0.4))
    position = -along + wave

    def share(softness: float) -> Field:
        edge = 0.5 + softness / 2 + 1.6 * WOBBLE
        return ramp(np.asarray((position - edge * (1 - 2 * s)) / softness + 0.5, np.float32))

    return share(NARROW), share(WIDE)


def _nested(way: Route, s: float, x: Field, y: Field) -> tuple[Field, Field]:
    """An opening in the middle that grows with the inner picture, or shrinks with it on the way out."""
    if not way.inwards:
        narrow, wide = _nested(Route(way.twist, None), 1 - s, x, y)
        return 1 - narrow, 1 - wide
    angle = np.arctan2(y, x)
    radius = 2 * (x**4 + y**4) ** 0.25 * (1 + WOBBLE * np.sin(3 * angle + 0.7) + 0.6 * WOBBLE * np.sin(5 * angle + 2))
    inner = PASS_ZOOM ** (s - 1)

    def share(softness: float) -> Field:
        blur = softness * 2 * inner
        reach = inner * (1 - softness) if s < 0.7 else 0.0
        late = max(0.0, (s - 0.7) / 0.3) ** 1.5
        if s >= 0.7:
            reach = inner * (1 - softness) * (1 - late) + (1.35 + softness) * late
        open_up = min(1.0, s / 0.15)
        edge = reach * open_up - blur * (1 - open_up)
        return ramp(np.asarray((edge - radius) / blur + 0.5, np.float32))

    return share(NARROW), share(WIDE)


def join(a: Frame, b: Frame, narrow: Field, wide: Field) -> Frame:
    """Both views as one picture: detail changes over a narrow seam, light and colour over a wide one."""
    if not wide.any():
        return a
    if narrow.min() >= 1 and wide.min() >= 1:
        return b
    low_a, low_b = soft(a), soft(b)
    detail = (a - low_a) * (1 - narrow[..., None]) + (b - low_b) * narrow[..., None]
    return to_bytes(detail + low_a + (low_b - low_a) * wide[..., None])
