"""What is shown between, before and after anchors: pure functions of a frame's place in its gap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from dreamontage.generator.previz import travel
from dreamontage.generator.previz.camera import Solve
from dreamontage.generator.previz.course import CALM, Course, Ends, hand_over_span
from dreamontage.generator.previz.easing import drift, eased, glide, hand_over, smooth
from dreamontage.generator.previz.moves import PrevizBeat, Size, progress, step
from dreamontage.generator.previz.render import Field, Frame, Picture, grid, magnification, project, ramp, to_bytes
from dreamontage.generator.previz.twist import Matrix, Twist

Shown = tuple[Frame, Field]

SHUTTER = (-0.4, -0.2, 0.0, 0.2, 0.4)
FEATHER = 0.08
KNOWN = np.float32(1)
"""Weight of what one picture alone shows, beside the 1 that agreement with the other adds: .05 to .2 measured worse."""


class Between:
    """The gap between two anchors: frames 1 … n-1 of a way from the first's end (0) to the second's start (n)."""

    def __init__(self, a: Frame, b: Frame, course: Course, at_ends: Ends) -> None:
        self.a, self.b, self.course = Picture(a), Picture(b), course
        self.size, self.n, self.fps, self.twist = course.size, course.n, course.fps, course.twist
        self.ends, self.span = at_ends, float(hand_over_span(self.n, self.fps))
        self.enter = (at_ends.enter, self.span)
        self.leave = (at_ends.leave, self.span)
        span = float(min(self.n, self.fps))
        if course.inward is not None:
            self.enter = (course.inward - self._rate(0), span)
        if course.outward is not None:
            self.leave = (course.outward - self._rate(self.n - 1), span)

    def _rate(self, j: int) -> Twist:
        """Speed of the undisturbed way over one frame from j."""
        way = self.twist.rate(self._way(j + 0.5)) * (self._way(j + 1) - self._way(j))
        return way + self._drift(j + 1) - self._drift(j)

    def _way(self, j: float) -> float:
        """Share of the way done at frame j."""
        course = self.course
        way = eased(min(max((j - self.n / 2) / course.busy + 0.5, 0.0), 1.0), course.slopes)
        changed = self.ends.start * hand_over(j, self.span) - self.ends.end * hand_over(self.n - j, self.span)
        return way + changed / self.n

    def _drift(self, j: float) -> Twist:
        return drift(j, self.n - j, self.size[0], self.fps) * self.course.calm

    def _sway(self, j: float) -> Twist:
        """Motion on top of the way, none at both ends: the drift and the hand-over of neighbouring clips' speeds."""
        entered = self.enter[0] * hand_over(j, self.enter[1])
        return self._drift(j) + entered - self.leave[0] * hand_over(self.n - j, self.leave[1])

    def frame(self, j: int) -> Shown:
        """Picture [H,W,3] and confidence [H,W] of frame j, 0 < j < n."""
        if not self.course.whip or self.twist.reach(self.size[0]) * (self._way(j + 0.5) - self._way(j - 0.5)) < 0.01:
            return self._at(j)
        return _exposed([self._at(j + part) for part in SHUTTER])

    def _at(self, j: float) -> Shown:
        s = self._way(j)
        sway = self._sway(j).matrix()
        if self.course.solved is None:
            return self._travelled(s, sway)
        return self._matched(self.course.solved, s, sway)

    def _travelled(self, s: float, sway: Matrix) -> Shown:
        onto_a = sway @ self.twist.partly(s)
        onto_b = onto_a @ np.linalg.inv(self.twist.matrix())
        if s <= 0 or s >= 1:
            picture, onto = (self.a, onto_a) if s <= 0 else (self.b, onto_b)
            shown, inside = picture.view(onto)
            return shown, certainty(inside, onto, self.size)
        (seen_a, inside_a), (seen_b, inside_b) = self.a.view(onto_a), self.b.view(onto_b)
        narrow, wide = travel.shares(self.course.route, s, sway, self.size)
        sure_a, sure_b = certainty(inside_a, onto_a, self.size), certainty(inside_b, onto_b, self.size)
        seam = 1 - 2.4 * narrow * (1 - narrow)
        sure = (sure_a * (1 - narrow) + sure_b * narrow) * seam
        return travel.join(seen_a, seen_b, narrow, wide), np.asarray(sure, np.float32)

    def _matched(self, found: Solve, s: float, sway: Matrix) -> Shown:
        residual = np.eye(3) * (1 - s) + found.residual * s
        onto_a = sway @ self.twist.partly(s) @ residual
        onto_b = onto_a @ np.linalg.inv(found.matrix())
        known_a = known_b = np.ones((1, 1), np.float32)
        if found.flow is None:
            (seen_a, inside_a), (seen_b, inside_b) = self.a.view(onto_a), self.b.view(onto_b)
        else:
            # Each picture follows its own flow; what the other one does not show counts little there.
            places = grid(self.size, onto_a)
            here, there = _undone(found.flow.forth, places, s), _undone(found.flow.back, places, 1 - s)
            seen_a, inside_a = self.a.sample(here, onto_a)
            seen_b, inside_b = self.b.sample(project(there, found.matrix()), onto_b)
            known_a, known_b = _values(found.flow.seen, here), _values(found.flow.shown, there)
        feather = FEATHER * min(self.size)
        weight_a = np.asarray(_weight(inside_a, onto_a, feather, 1 - s, s) * (KNOWN + known_a), np.float32)
        weight_b = np.asarray(_weight(inside_b, onto_b, feather, s, 1 - s) * (KNOWN + known_b), np.float32)
        share = (weight_b / (weight_a + weight_b))[..., None]
        mixed = to_bytes(seen_a + (seen_b.astype(np.float32) - seen_a) * share)
        sure = np.maximum(certainty(inside_a, onto_a, self.size), certainty(inside_b, onto_b, self.size))
        return mixed, np.asarray(sure * _accord(seen_a, seen_b, share[..., 0]), np.float32)


class Beyond:
    """The way before the first (`before`) or after the last anchor; without anchors a sky of its own, confidence 0.

    `carry` = speed per frame at the anchor, pointing forward in time. The way depends only on the frames between the
    anchor and the asked one, never on where the shot ends.
    """

    def __init__(
        self, picture: Frame, at: int, beats: Sequence[PrevizBeat], carry: Twist | None, fps: int,
        before: bool = False, imagined: bool = False,
    ) -> None:
        self.picture = Picture(picture)
        self.size: Size = self.picture.size
        self.at, self.fps, self.before, self.imagined = at, fps, before, imagined
        self.beats = [beat for beat in beats if beat.camera is not None]
        self.carry = carry
        sign = -1 if before else 1
        first = self._beat(at if not before else at - 1)
        if first is not None and first.camera is not None and first.camera.move != "hold":
            self.carry = None if carry is None else carry * 0.3
        if self.carry is not None:
            width = self.size[0]
            self.carry = self.carry * sign
            self.span = min(0.8 * fps, 0.22 / max(self.carry.reach(width), 1e-6))
        self._steps: list[tuple[Matrix, float]] = [(np.eye(3), 0.0)]

    def _beat(self, frame: int) -> PrevizBeat | None:
        return next((beat for beat in self.beats if beat.start <= frame < beat.end), None)

    def _moved(self, j: int) -> tuple[Matrix, float]:
        """Beats' moves over the first j frames away from the anchor, and how long the camera drifted meanwhile."""
        while len(self._steps) <= j:
            k = len(self._steps)
            matrix, waited = self._steps[-1]
            low = self.at - k if self.before else self.at + k - 1
            beat = self._beat(low)
            busy = 0.0
            if beat is not None and beat.camera is not None:
                share = progress(beat, low + 1) - progress(beat, low)
                before = matrix
                matrix = step(beat.camera, -share if self.before else share, self.size) @ matrix
                busy = 0.5 if beat.camera.move == "hold" else 0.85 * smooth(self._pace(matrix, before) / CALM)
            self._steps.append((matrix, waited + 1 - busy))
        return self._steps[j]

    def _pace(self, now: Matrix, then: Matrix) -> float:
        """Typical way per second between two transforms, in view widths."""
        corners = np.array([[x, y, 1] for x in (-0.3, 0.3) for y in (-0.3, 0.3)]) * [*self.size, 1]
        moved = corners @ (now @ np.linalg.inv(then)).T
        way = np.linalg.norm(moved[:, :2] / moved[:, 2:] - corners[:, :2], axis=1)
        return float(way.mean()) / self.size[0] * self.fps

    def frame(self, j: int) -> Shown:
        """Picture [H,W,3] and confidence [H,W] of the j-th frame away from the anchor, j >= 1."""
        moved, waited = self._moved(j)
        # An imagined sky has little to see in it, so it has to move faster to be seen moving.
        onto = drift(waited * (2.5 if self.imagined else 1), math.inf, self.size[0], self.fps).matrix()
        if self.carry is not None:
            onto = onto @ (self.carry * glide(j, self.span)).matrix()
        beat = self._beat(self.at - j if self.before else self.at + j - 1)
        if beat is None or beat.camera is None or beat.camera.move != "whip":
            return self._view(onto @ moved)
        past = self._moved(j - 1)[0]
        return _exposed([self._view(onto @ (moved + (past - moved) * (0.4 - part))) for part in SHUTTER])

    def _view(self, onto: Matrix) -> Shown:
        shown, inside = self.picture.view(onto)
        if self.imagined:
            return shown, np.zeros(inside.shape, np.float32)
        return shown, certainty(inside, onto, self.size)


def certainty(inside: Field, onto: Matrix, size: Size) -> Field:
    """Confidence 0..1: 1 where the picture covers the view, 0 beyond its border, less where it is enlarged a lot."""
    edge = np.float32(0.06 * min(size))
    return np.asarray(ramp((inside + edge) / edge) * np.float32(min(1.0, 1.8 / magnification(onto))), np.float32)


def _exposed(parts: Sequence[Shown]) -> Shown:
    """Motion blur: the mean over an open shutter."""
    shown = np.stack([part[0] for part in parts]).mean(0, dtype=np.float32)
    sure = np.stack([part[1] for part in parts]).mean(0, dtype=np.float32)
    return to_bytes(np.asarray(shown)), np.asarray(sure)


def _accord(a: Frame, b: Frame, share: Field) -> Field:
    """Factor .4..1: lower where both sides show at once and differ."""
    height, width = share.shape
    small = cv2.resize(cv2.absdiff(a, b), (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    differ = small.mean(2, dtype=np.float32)
    differ = cv2.resize(cv2.GaussianBlur(differ, (0, 0), 1.5), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(1 - 2.4 * share * (1 - share) * ramp((differ - np.float32(4)) / np.float32(32)), np.float32)


def _weight(inside: Field, onto: Matrix, feather: float, near: float, far: float) -> Field:
    """Blend weight of one side: near in time, covering, not enlarged. The feather grows with the distance in time."""
    cover = ramp((inside + 1) / np.float32(max(feather * min(1.0, 3 * far), 1.0)))
    # Far outside both pictures the nearer border wins.
    rest = np.exp(np.minimum(inside, 0) / np.float32(feather)) * np.float32(1e-3) + np.float32(1e-6)
    sharp = min(1.0, 1 / magnification(onto)) ** 2
    return np.asarray((cover + rest) * np.float32(near * sharp), np.float32)


def _undone(flow: Field, places: Field, s: float) -> Field:
    """Where the share s of a flow [H,W,2] brings the given centred places [H,W,2] from."""
    back = places
    for _ in range(3):
        back = places - np.float32(s) * _values(flow, back)
    return back


def _values(field: Field, places: Field) -> Field:
    """A field [H,W] or [H,W,2] at centred places [H,W,2]."""
    height, width = field.shape[:2]
    at = places + np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    values = cv2.remap(field, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, np.float32)
