"""How a move is spread over time: easings that never rest, speed hand-overs and the slow drift of a waiting camera."""

from __future__ import annotations

import math

from dreamontage.generator.previz.twist import Twist

Slopes = tuple[float, float]

# End speeds relative to the mean speed. None is 0: a camera that rests at an anchor reads as a frozen picture.
EASES: dict[str, Slopes] = {"linear": (1.0, 1.0), "in": (0.3, 1.6), "out": (1.6, 0.3), "in_out": (0.3, 0.3)}
# Without a beat's wish: a solved camera keeps nearly its speed at a pinned still (it mostly goes through it; measured
# 30.1 dB against 28.9 with 0.75 on eased and linear moves), a travel leaves and arrives softly.
SOLVED_SLOPES: Slopes = (0.9, 0.9)
TRAVEL_SLOPES: Slopes = (0.6, 0.6)

DRIFT_ZOOM = math.log(1.25)
DRIFT_RISE_S = 3.0
DRIFT_SPEED = 0.03
ROOM, SHORT_S = 0.4, 1.5


def smooth(x: float) -> float:
    """Smoothstep of x clipped to 0..1."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def eased(u: float, slopes: Slopes) -> float:
    """Cubic Hermite way 0..1 at time u in 0..1 with the given end speeds (mean speed = 1, monotone up to 3)."""
    start, end = slopes
    return u * u * (3 - 2 * u) + start * u * (1 - u) ** 2 - end * u * u * (1 - u)


def hand_over(t: float, span: float) -> float:
    """Way of a unit speed at t = 0 that dies away within `span` frames and is taken back: 0 at both ends."""
    return t * (1 - t / span) ** 2 if 0 <= t < span else 0.0


def glide(t: float, span: float) -> float:
    """Way after t frames of a unit speed that eases down exponentially; tends to `span`."""
    return span * (1 - math.exp(-t / span)) if span > 0 else 0.0


def drift(t: float, left: float, width: float, fps: int) -> Twist:
    """Slow push-in that turns into a slow circle inside the picture, identity at t = 0 and again at left = 0.

    `t` frames since the anchor behind, `left` frames to the anchor ahead (infinity without one), `width` view width in
    pixels. The circle stays within the room that the push-in won, so no border shows; its speed never reaches 0.
    """
    whole = (t + left) / fps
    near, far = 1 - math.exp(-t / fps / DRIFT_RISE_S), 1 - math.exp(-left / fps / DRIFT_RISE_S)
    zoom = DRIFT_ZOOM * near * far
    widest = DRIFT_ZOOM * (1 - math.exp(-whole / 2 / DRIFT_RISE_S)) ** 2
    # The less room, the faster the circle, so that something moves when a short push-in turns into a pull-out.
    turn = min(DRIFT_SPEED / (ROOM * math.expm1(widest)), 4.0) * t / fps
    radius = ROOM * width * math.expm1(zoom)
    slide = complex(radius * math.cos(turn), 0.6 * radius * math.sin(turn))
    if whole < 2 * SHORT_S:
        # Too short for a push-in to be seen: one small round at constant speed.
        round_trip = 2 * math.pi * t / fps / whole
        size = 0.8 * DRIFT_SPEED * width * whole / (2 * math.pi) * smooth(2 - whole / SHORT_S)
        slide += size * complex(math.sin(round_trip), 0.7 * (1 - math.cos(round_trip)))
    return Twist(complex(zoom), slide)
