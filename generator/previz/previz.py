"""The motion guide: a sharp, weightless animatic of the camera's way through the anchors, made window by window."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.previz.course import Course, clip_speed, ends, hand_over_span
from dreamontage.generator.previz.gaps import Between, Beyond
from dreamontage.generator.previz.moves import PrevizBeat
from dreamontage.generator.previz.sky import sky
from dreamontage.generator.previz.twist import Twist
from dreamontage.schemas.montage import Camera

VERSION = 4
"""Raised whenever the same inputs would no longer give the same frames."""
KEPT_GAPS, KEPT_COURSES = 4, 6


@dataclass(frozen=True)
class PrevizAnchor:
    """A still (n = 1) or clip (n = 1+4m) at delivery size.

    `frames` [n,H,W,3] RGB, `frame` = global frame of its first one (a multiple of 4), `key` names the content.
    """

    frames: NDArray[np.uint8]
    frame: int
    key: str

    @property
    def last(self) -> int:
        """Global frame of its last picture."""
        return self.frame + len(self.frames) - 1


class Previz:
    """Previz of one shot of `frames` frames at size (width, height).

    Anchors' own frames come back bit for bit. Everything else is a pure function of the anchors and beats nearby (at a
    still the gaps on both sides agree on one speed), so windows may be cut anywhere; solved gaps are cached, no more
    than a few at a time.
    """

    def __init__(
        self, anchors: Sequence[PrevizAnchor], beats: Sequence[PrevizBeat], frames: int, size: tuple[int, int], fps: int
    ) -> None:
        self.anchors = sorted(anchors, key=lambda anchor: anchor.frame)
        self.beats = sorted(beats, key=lambda beat: beat.start)
        self.frames, self.size, self.fps = frames, size, fps
        self._starts = [anchor.frame for anchor in self.anchors]
        self._gaps: OrderedDict[int, Between | Beyond] = OrderedDict()
        self._courses: OrderedDict[int, Course] = OrderedDict()

    def window(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Frames [start, stop) as [n,H,W,3] and the confidence [n,H,W] 0..1 that an anchor stands behind them."""
        width, height = self.size
        shown = np.empty((stop - start, height, width, 3), np.uint8)
        sure = np.empty((stop - start, height, width), np.float32)
        for i, frame in enumerate(range(start, stop)):
            shown[i], sure[i] = self._frame(frame)
        return shown, sure

    def inputs(self, start: int, stop: int) -> list[dict[str, Any]]:
        """What decides the frames [start, stop): anchors, gaps, moves; JSON-able, positions relative to `start`."""
        found: list[dict[str, Any]] = []
        frame = start
        while frame < stop:
            index = self._index(frame)
            if index >= 0 and frame <= self.anchors[index].last:
                found.append({"kind": "anchor", **self._place(index, start)})
                frame = self.anchors[index].last + 1
                continue
            end = self.anchors[index + 1].frame if index + 1 < len(self.anchors) else self.frames
            found.append(self._describe(index, start, min(end, stop)))
            frame = max(end, frame + 1)
        return found

    def _index(self, frame: int) -> int:
        """The last anchor that starts at or before a frame, -1 before the first."""
        return bisect.bisect_right(self._starts, frame) - 1

    def _frame(self, frame: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        index = self._index(frame)
        if index >= 0 and frame <= self.anchors[index].last:
            width, height = self.size
            return self.anchors[index].frames[frame - self.anchors[index].frame], np.ones((height, width), np.float32)
        gap = self._gap(index)
        if index >= 0:
            return gap.frame(frame - self.anchors[index].last)
        return gap.frame(self.anchors[0].frame - frame if self.anchors else frame + 1)

    def _gap(self, index: int) -> Between | Beyond:
        """The gap after anchor `index` (-1: before the first), from the cache or solved now."""
        if index in self._gaps:
            self._gaps.move_to_end(index)
            return self._gaps[index]
        gap = self._build(index)
        self._gaps[index] = gap
        if len(self._gaps) > KEPT_GAPS:
            self._gaps.popitem(last=False)
        return gap

    def _build(self, index: int) -> Between | Beyond:
        if not self.anchors:
            return Beyond(sky(self.size), 0, self.beats, None, self.fps, imagined=True)
        if index < 0:
            first = self.anchors[0]
            carry = clip_speed(first.frames, end=False) or self._onward(0)
            return Beyond(first.frames[0], first.frame, self.beats, carry, self.fps, before=True)
        anchor = self.anchors[index]
        if index + 1 == len(self.anchors):
            carry = clip_speed(anchor.frames, end=True) or self._onward(index - 1)
            return Beyond(anchor.frames[-1], anchor.last, self.beats, carry, self.fps)
        course = self._course(index)
        before = self._course(index - 1) if self._passes(index) else None
        after = self._course(index + 1) if self._passes(index + 1) else None
        at_ends = ends(course, before, after, self._outermost(index), self._outermost(index + 1))
        return Between(anchor.frames[-1], self.anchors[index + 1].frames[0], course, at_ends)

    def _course(self, index: int) -> Course:
        """The way of the gap between anchors `index` and `index` + 1, from the cache or solved now."""
        if index in self._courses:
            self._courses.move_to_end(index)
            return self._courses[index]
        a, b = self.anchors[index], self.anchors[index + 1]
        course = Course(a.frames, b.frames, b.frame - a.last, self._beat(a.last, b.frame), self.fps)
        self._courses[index] = course
        if len(self._courses) > KEPT_COURSES:
            self._courses.popitem(last=False)
        return course

    def _passes(self, index: int) -> bool:
        """Is this anchor a still between two gaps, which the camera passes?"""
        return 0 < index < len(self.anchors) - 1 and len(self.anchors[index].frames) == 1

    def _outermost(self, index: int) -> bool:
        """Is this anchor a still that begins or ends what is pinned?"""
        return index in (0, len(self.anchors) - 1) and len(self.anchors[index].frames) == 1

    def _onward(self, index: int) -> Twist | None:
        """Speed per frame in which the gap after anchor `index` goes on beyond the first or last still.

        Taken from what the two pictures show and not from how far apart they are pinned, so that moving one of them
        leaves the far side as it is.
        """
        if not 0 <= index < len(self.anchors) - 1:
            return None
        twist = self._course(index).twist
        way = twist * (1 / (2 * self.fps))
        return way * min(1.0, 0.1 / max(twist.reach(self.size[0]), 1e-6))

    def _beat(self, start: int, stop: int) -> PrevizBeat | None:
        """The beat with a move that holds most of the frames between start and stop."""
        shares = [(min(b.end, stop) - max(b.start, start), b) for b in self.beats if b.camera is not None]
        best = max(shares, key=lambda share: share[0], default=None)
        return best[1] if best is not None and best[0] > 0 else None

    def _place(self, index: int, start: int) -> dict[str, Any]:
        anchor = self.anchors[index]
        return {"key": anchor.key, "frame": anchor.frame - start, "frames": len(anchor.frames)}

    def _describe(self, index: int, start: int, stop: int) -> dict[str, Any]:
        if index >= 0 and index + 1 < len(self.anchors):
            gap = {
                "kind": "between", "from": self._place(index, start), "to": self._place(index + 1, start),
                "camera": self._move(index),
            }
            return gap | self._beside(index, start, max(start, self.anchors[index].last + 1), stop)
        if not self.anchors:
            return {"kind": "none", "frame": -start, "moves": self._moves(0, stop, start)}
        if index < 0:
            # The way is measured from the anchor back, so everything between the window and it counts.
            moves = self._moves(start, self.anchors[0].frame, start)
            return {"kind": "before", "to": self._place(0, start), "onward": self._origin(0), "moves": moves}
        moves = self._moves(self.anchors[index].last, stop, start)
        return {"kind": "after", "from": self._place(index, start), "onward": self._origin(index - 1), "moves": moves}

    def _origin(self, index: int) -> dict[str, Any] | None:
        """What a way beyond the outermost still takes over from the gap beside it."""
        outer = 0 if index == 0 else len(self.anchors) - 1
        if not 0 <= index < len(self.anchors) - 1 or len(self.anchors[outer].frames) > 1:
            return None
        a, b = self.anchors[index], self.anchors[index + 1]
        return {"from": a.key, "to": b.key, "camera": self._move(index)}

    def _move(self, index: int) -> dict[str, Any] | None:
        beat = self._beat(self.anchors[index].last, self.anchors[index + 1].frame)
        return None if beat is None else _plain(beat.camera)

    def _beside(self, index: int, start: int, low: int, high: int) -> dict[str, Any]:
        """The gaps beside a gap, where they reach its frames [low, high): what its stills are passed with."""
        first, last = self.anchors[index].last, self.anchors[index + 1].frame
        span = hand_over_span(last - first, self.fps)
        at_start, at_end = low - first <= span, last - (high - 1) <= span
        found: dict[str, Any] = {}
        # A change of beat parts two gaps.
        if self._passes(index) and at_start:
            found["before"] = self._place(index - 1, start) if self._one_beat(index) else None
        if self._passes(index + 1) and at_end:
            found["after"] = self._place(index + 2, start) if self._one_beat(index + 1) else None
        return found

    def _one_beat(self, index: int) -> bool:
        """Do the gaps on both sides of an anchor take their move from one beat, or both from none?"""
        before, at, after = self.anchors[index - 1], self.anchors[index], self.anchors[index + 1]
        return self._beat(before.last, at.frame) is self._beat(at.last, after.frame)

    def _moves(self, low: int, high: int, start: int) -> list[dict[str, Any]]:
        return [
            {"start": beat.start - start, "end": beat.end - start, "camera": _plain(beat.camera)}
            for beat in self.beats if beat.camera is not None and beat.start < high and beat.end > low
        ]


def _plain(camera: Camera | None) -> dict[str, Any] | None:
    return None if camera is None else camera.model_dump(mode="json")
