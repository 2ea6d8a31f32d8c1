"""The undisturbed way of one gap, and the speed with which the camera passes a still between two gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.previz import travel
from dreamontage.generator.previz.camera import solve, speed
from dreamontage.generator.previz.easing import EASES, SOLVED_SLOPES, TRAVEL_SLOPES, Slopes, smooth
from dreamontage.generator.previz.moves import PrevizBeat, Size
from dreamontage.generator.previz.twist import Twist

TRAVEL_S, WHIP_S = 2.6, 0.9
CALM, MOVING = 0.05, (0.004, 0.01)
REACH_S = 1.5
"""A still's speed is handed over within this time. The longer, the truer an eased camera through stills far apart
(gaps of 2 s: 28.1 dB with 2 s, 27.7 with 1.5, 27.2 with 1), and the more of the shot changes with one still.
"""
FASTEST = 3.0
"""Share of the slower neighbour's speed that a still is passed with at most: beyond it a way would overshoot."""
ENDS = (0.3, 1.7)
"""Speed at a shot's first and last still, relative to the mean of the gap beside it."""


def clip_speed(frames: NDArray[np.uint8], end: bool) -> Twist | None:
    """Camera speed per frame at the end or the start of a clip [n,H,W,3]; None for a still."""
    if len(frames) == 1:
        return None
    span = min(4, len(frames) - 1)
    first, last = (frames[-1 - span], frames[-1]) if end else (frames[0], frames[span])
    return speed(first, last, span)


def lean(inward: Twist | None, outward: Twist | None, size: Size, fps: int) -> complex | None:
    """The way of the content that neighbouring clips already have, None if they hardly move sideways."""
    slide = sum((speed.slide for speed in (inward, outward) if speed is not None), 0j)
    if abs(slide) * fps < 0.1 * size[0]:
        return None
    if abs(slide.real) >= abs(slide.imag):
        return complex(math.copysign(1, slide.real))
    return 1j * math.copysign(1, slide.imag)


class Course:
    """What two neighbouring anchors a, b [n,H,W,3] say about the camera between them, `n` frames apart.

    `twist` is its whole way, `slopes` the speeds at both ends relative to the mean, `busy` the frames it takes, `calm`
    0..1 how much a drift carries the gap instead, `free` whether its neighbours may say how fast it starts and ends.
    """

    def __init__(self, a: NDArray[np.uint8], b: NDArray[np.uint8], n: int, beat: PrevizBeat | None, fps: int) -> None:
        first, last = a[-1], b[0]
        self.size: Size = (first.shape[1], first.shape[0])
        self.n, self.fps, self.beat = n, fps, beat
        camera = None if beat is None else beat.camera
        self.inward, self.outward = clip_speed(a, end=True), clip_speed(b, end=False)
        self.solved = solve(first, last)
        self.route = travel.route(camera, self.size, lean(self.inward, self.outward, self.size, fps))
        self.twist = self.solved.twist if self.solved else self.route.twist
        usual = SOLVED_SLOPES if self.solved else TRAVEL_SLOPES
        self.slopes: Slopes = EASES[camera.ease] if camera is not None else usual
        pace = self.twist.reach(self.size[0]) * fps / n
        # A way that is too short for its time, or a travel that would crawl, is carried by a drift of its own.
        self.whip = camera is not None and camera.move == "whip"
        longest = (WHIP_S if self.whip else TRAVEL_S) * fps
        # Where things move before a still camera they carry the gap: frames change by |a - b| / n on average or more.
        change = float(cv2.absdiff(first, last).mean()) / n
        moving = 0.0 if self.solved is None or self.solved.flow is None else self.solved.flow.reach() * fps / n
        lively = smooth((moving - MOVING[0]) / MOVING[1]) * smooth((change - 0.1) / 0.15)
        calm = (1 - smooth((change - 0.4) / 0.6)) * (1 - lively)
        calm *= smooth(1 - pace / CALM)
        self.calm = calm if self.solved else smooth(2 * n / longest - 1)
        self.busy = float(n)
        if self.solved is None and n > longest:
            self.slopes, self.busy = (0.0, 0.0), longest
        self.free = self.solved is not None and self.calm == 0

    def mean_speed(self, end: bool) -> Twist:
        """Mean speed per frame, as the view at the gap's end or start sees it."""
        return self.twist.rate(1.0 if end else 0.0) * (1 / self.n)


@dataclass(frozen=True)
class Ends:
    """What a gap's neighbours change at its start and end: shares of its mean speed, and speeds off its own way."""

    start: float = 0.0
    end: float = 0.0
    enter: Twist = field(default_factory=Twist)
    leave: Twist = field(default_factory=Twist)


def hand_over_span(n: int, fps: int) -> int:
    """Frames beside a still within which a gap of n frames takes over what its neighbour says."""
    return min(n, round(REACH_S * fps))


def ends(course: Course, before: Course | None, after: Course | None, first: bool, last: bool) -> Ends:
    """How the camera starts and ends a gap beside other gaps (None: there is none, or a clip lies between).

    `first`, `last`: the gap begins or ends with the shot's outermost still. There the speed goes on as it changes from
    the other end, unless that is out of reach or a beat says how it eases.
    """
    past = None if before is None else passing(before, course)
    ahead = None if after is None else passing(course, after)
    start = end = 0.0
    enter = leave = Twist()
    if past is not None:
        mean = course.mean_speed(end=False)
        share = along(past, mean, course.size[0])
        start, enter = share - course.slopes[0], past - mean * share
    if ahead is not None:
        mean = course.mean_speed(end=True)
        share = along(ahead, mean, course.size[0])
        end, leave = share - course.slopes[1], ahead - mean * share
    if course.beat is None and hand_over_span(course.n, course.fps) == course.n:
        if first and ahead is not None:
            start = natural_end(end + course.slopes[1]) - course.slopes[0]
        if last and past is not None:
            end = natural_end(start + course.slopes[0]) - course.slopes[1]
    return Ends(start, end, enter, leave)


def passing(before: Course, after: Course) -> Twist | None:
    """Speed per frame at the still between two gaps: that of the parabola through the three stills.

    None where each gap keeps its own. Less where the way turns back, and never so fast that a way overshoots.
    """
    if not (before.free and after.free) or before.beat is not after.beat:
        return None
    one, two, width = before.mean_speed(end=True), after.mean_speed(end=False), before.size[0]
    speed = (one * after.n + two * before.n) * (1 / (before.n + after.n))
    slow = min(one.reach(width), two.reach(width))
    turn = one.dot(two, width) / max(math.sqrt(one.dot(one, width) * two.dot(two, width)), 1e-12)
    return speed * (min(1.0, 1 + turn) * min(1.0, FASTEST * slow / max(speed.reach(width), 1e-9)))


def along(speed: Twist, mean: Twist, width: float) -> float:
    """Share of `speed` in the direction of `mean`, relative to it and within what keeps a way monotone."""
    return min(max(speed.dot(mean, width) / max(mean.dot(mean, width), 1e-12), 0.0), FASTEST)


def natural_end(inner: float) -> float:
    """Slope at a shot's outermost still where the gap's other end has the slope `inner`: a parabola goes on."""
    return min(max(2 - inner, ENDS[0]), ENDS[1])
