"""The way between two pictures that have nothing in common: both on one canvas, a soft seam, and the camera travels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.previz.moves import Size, axis_of, direction_of
from dreamontage.generator.previz.render import Field, Frame, ramp, soft, to_bytes
from dreamontage.generator.previz.twist import Twist
from dreamontage.schemas.montage import Camera

OVERLAP = 0.3
NARROW, WIDE, WOBBLE = 0.1, 0.4, 0.045
PASS_ZOOM = 2.6


@dataclass(frozen=True)
class Route:
    """Where the second picture lies: `twist` takes the first picture onto it. `axis` = way of the content, None when flying in or out."""

    twist: Twist
    axis: complex | None
    inwards: bool = True


def route(camera: Camera | None, size: Size) -> Route:
    """Layout for a beat's move: sideways for pan and whip, nested for zoom and push_through, turned for roll and orbit."""
    width, height = size
    if camera is not None and direction_of(camera) in ("in", "out"):
        inwards = direction_of(camera) == "in"
        return Route(Twist(complex(math.log(PASS_ZOOM) * (1 if inwards else -1))), None, inwards)
    axis = axis_of(camera)
    slide = (1 - OVERLAP) * complex(axis.real * width, axis.imag * height)
    spin = 0j
    if camera is not None and camera.move == "roll":
        spin = 1j * math.radians(-25 if direction_of(camera) == "cw" else 25)
    return Route(Twist(spin, slide), axis)


def shares(way: Route, s: float, places: Field, size: Size) -> tuple[Field, Field]:
    """Share 0..1 of the second picture in the view [H,W], narrow (detail) and wide (light and colour).

    `s` = 0..1 of the way, `places` [H,W,2] = centred pixels of the travelling view. All 0 at s = 0, all 1 at s = 1.
    """
    width, height = size
    x, y = places[..., 0] / width, places[..., 1] / height
    if way.axis is None:
        return _nested(way, s, x, y)
    along, across = (x * way.axis.real, y) if way.axis.real else (y * way.axis.imag, x)
    # The second picture follows the content: it enters on the side opposite to the content's way.
    wave = WOBBLE * (np.sin(7.3 * across + 1.1) + 0.6 * np.sin(17.9 * across + 0.4))
    position = -along + wave

    def share(softness: float) -> Field:
        edge = 0.5 + softness / 2 + 1.6 * WOBBLE
        return ramp(np.asarray((position - edge * (1 - 2 * s)) / softness + 0.5, np.float32))

    return share(NARROW), share(WIDE)


def _nested(way: Route, s: float, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[Field, Field]:
    """An opening in the middle that grows with the inner picture (inwards), or shrinks onto the outer's place (outwards)."""
    if not way.inwards:
        narrow, wide = _nested(Route(way.twist, None), 1 - s, x, y)
        return 1 - narrow, 1 - wide
    angle = np.arctan2(y, x)
    radius = 2 * (x**4 + y**4) ** 0.25 * (1 + WOBBLE * np.sin(3 * angle + 0.7) + 0.6 * WOBBLE * np.sin(5 * angle + 2))
    inner = PASS_ZOOM ** (s - 1)

    def share(softness: float) -> Field:
        blur = softness * 2 * inner
        reach = inner * (1 - softness) if s < 0.7 else 0.0
        late = max(0.0, (s - 0.7) / 0.3)
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
