"""How a move is spread over time: easings that never rest, speed hand-overs and the slow drift of a waiting camera."""

from __future__ import annotations

import math

from dreamontage.generator.previz.twist import Twist

Slopes = tuple[float, float]

# End speeds relative to the mean speed. None is 0: a camera that rests at an anchor reads as a frozen picture.
EASES: dict[str, Slopes] = {"linear": (1.0, 1.0), "in": (0.3, 1.6), "out": (1.6, 0.3), "in_out": (0.3, 0.3)}
DEFAULT_SLOPES: Slopes = (0.75, 0.75)

DRIFT_ZOOM = math.log(1.25)
DRIFT_RISE_S = 3.0
DRIFT_SPEED = 0.04


def smooth(x: float) -> float:
    """Smoothstep of x clipped to 0..1."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def eased(u: float, slopes: Slopes) -> float:
    """Cubic Hermite way 0..1 at time u in 0..1 with the given end speeds (mean speed = 1, monotone up to 3)."""
    start, end = slopes
    return u * u * (3 - 2 * u) + start * u * (1 - u) ** 2 - end * u * u * (1 - u)


def hand_over(t: float, span: float) -> float:
    """Way gained by a unit speed at t = 0 that dies away within `span` frames and is taken back: 0 at both ends, slope 1 at 0."""
    return t * (1 - t / span) ** 2 if 0 <= t < span else 0.0


def glide(t: float, span: float) -> float:
    """Way after t frames of a unit speed that eases down exponentially; tends to `span`."""
    return span * (1 - math.exp(-t / span)) if span > 0 else 0.0


def drift(t: float, left: float, width: float, fps: int) -> Twist:
    """Slow push-in that turns into a slow circle inside the picture, identity at t = 0 and again at left = 0.

    `t` frames since the anchor behind, `left` frames to the anchor ahead (infinity without one), `width` view width in
    pixels. The circle stays within the room that the push-in won, so no border shows; its speed never reaches 0.
    """
    near = min(t, left) / fps
    if near <= 0:
        return Twist()
    rise = (1 - math.exp(-t / fps / DRIFT_RISE_S)) * (1 - math.exp(-left / fps / DRIFT_RISE_S))
    zoom = DRIFT_ZOOM * rise
    radius = 0.4 * width * (math.exp(zoom) - 1)
    turn = DRIFT_SPEED / (0.4 * (math.exp(DRIFT_ZOOM) - 1)) * t / fps
    return Twist(complex(zoom), complex(radius * math.cos(turn), 0.6 * radius * math.sin(turn)))
