"""From a model's own size and frame rate to the delivered ones, as a stream."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.schemas.montage import Shape

Frames = NDArray[np.uint8]


class Resampler:
    """Frames in order at one shape, out at another; the same frames where both are the same.

    Delivered frame k shows the second k / fps: the two frames around it, each moved towards it along the optical flow
    between them and mixed by nearness. Sizes shrink by areas and grow by Lanczos.
    """

    def __init__(self, own: Shape, shown: Shape) -> None:
        self.own, self.shown = own, shown
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._last: Frames | None = None
        self._read = self._written = 0

    def next(self, frames: Frames) -> Frames:
        """What the next frames [n,H,W,3] add to the delivered ones: [m,H',W',3]."""
        if self.own.fps == self.shown.fps:
            return self._sized(frames)
        out = []
        for frame in frames:
            out += self._between(frame)
            self._last, self._read = frame, self._read + 1
        return self._sized(np.stack(out) if out else frames[:0])

    def _between(self, frame: Frames) -> list[Frames]:
        """The delivered frames after the last one and up to this one."""
        found: list[Frames] = []
        flows: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        while (time := self._written * self.own.fps / self.shown.fps) <= self._read:
            share = time - (self._read - 1)
            if share >= 1 or self._last is None:
                found.append(frame)
            elif share <= 0:
                found.append(self._last)
            else:
                flows = flows or (self._moved(self._last, frame), self._moved(frame, self._last))
                sides = (_shifted(self._last, flows[1], share), _shifted(frame, flows[0], 1 - share))
                found.append(cv2.addWeighted(sides[0], 1 - share, sides[1], share, 0).astype(np.uint8))
            self._written += 1
        return found

    def _moved(self, one: Frames, other: Frames) -> NDArray[np.float32]:
        grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (one, other))
        return np.asarray(self._flow.calc(*grey, None), np.float32)  # type: ignore[call-overload]

    def _sized(self, frames: Frames) -> Frames:
        size = self.shown.width, self.shown.height
        if size == (self.own.width, self.own.height) or not len(frames):
            return frames if len(frames) else np.zeros((0, size[1], size[0], 3), np.uint8)
        how = cv2.INTER_AREA if size[0] < self.own.width else cv2.INTER_LANCZOS4
        return np.stack([np.asarray(cv2.resize(frame, size, interpolation=how), np.uint8) for frame in frames])


def _shifted(frame: Frames, back: NDArray[np.float32], share: float) -> Frames:
    """The frame moved by `share` of the motion whose reverse is `back`, read backwards at every pixel."""
    height, width = frame.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(frame, x + share * back[..., 0], y + share * back[..., 1], cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    return np.asarray(moved, np.uint8)
