"""The grid: seconds ↔ frames ↔ latent slots, as pure functions.

Frame 0 is slot 0; slot k ≥ 1 holds frames 4k−3 … 4k. Anchors snap to multiples of 4 frames, which makes a clip encoded
alone line up with the global grid and is the only mid-sequence pattern Wan-family weights were trained on. A model of
another `stride` (8 for LTX) has that many frames in a slot, and 4 below stands for it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

STRIDE = 4
"""Frames per latent slot (the autoencoder's temporal factor) of nano and Wan."""

_EPSILON = 1e-6


class Grid(NamedTuple):
    """The frames a second, and frames a slot, that a montage is planned in: its model's own, where that has its own."""

    fps: int
    stride: int = STRIDE

    @property
    def slot_s(self) -> float:
        """Seconds of a slot."""
        return self.stride / self.fps

    def frames(self, duration_s: float) -> int:
        """Frames of so many seconds: whole slots and one."""
        return frame_count(duration_s, self.fps, self.stride)

    def snapped(self, second: float) -> float:
        """The second that an anchor at this one lands on."""
        return snap_frame(second, self.fps, self.stride) / self.fps

    def whole_slots(self, seconds: float) -> float:
        """A length, rounded to whole slots."""
        return round(seconds * self.fps / self.stride) * self.stride / self.fps


def frame_count(duration_s: float, fps: int, stride: int = STRIDE) -> int:
    """Delivered frames F = 4·ceil(D·fps/4)+1 for D seconds; a whole number of slots never rounds up by float noise."""
    return stride * math.ceil(duration_s * fps / stride - _EPSILON) + 1


def slot_count(frames: int, stride: int = STRIDE) -> int:
    """Latent slots T = (F−1)/4+1 of F = 1+4m frames."""
    return (frames - 1) // stride + 1


def frames_of_slots(slots: int) -> int:
    """Frames 1+4(n−1) that n slots hold when they are counted from a slot that stands for one frame."""
    return STRIDE * (slots - 1) + 1


def snap_frame(second: float, fps: int, stride: int = STRIDE) -> int:
    """Frame 4·floor(t·fps/4 + ½) an anchor at t seconds lands on; at most half a slot away."""
    return stride * math.floor(second * fps / stride + 0.5 + _EPSILON)


def slot_of_frame(frame: int, stride: int = STRIDE) -> int:
    """Slot that holds a frame: 0 for frame 0, else ceil(frame/4)."""
    return -(-frame // stride)


def frames_of_slot(slot: int, stride: int = STRIDE) -> range:
    """Global frames of one slot: frame 0 for slot 0, else 4k−3 … 4k."""
    return range(0, 1) if slot == 0 else range(stride * (slot - 1) + 1, stride * slot + 1)


def frames_of_span(start: int, stop: int, stride: int = STRIDE) -> range:
    """Global frames of the slots [start, stop), start < stop."""
    return range(frames_of_slot(start, stride).start, frames_of_slot(stop - 1, stride).stop)


def slot_start_s(slot: int, fps: int, stride: int = STRIDE) -> float:
    """Second at which the first frame of a slot is shown."""
    return frames_of_slot(slot, stride).start / fps


def clip_frames(available: int, room: int, stride: int = STRIDE) -> int:
    """Largest 1+4m ≤ min(available, room) frames of a clip; at least 1."""
    return stride * ((max(1, min(available, room)) - 1) // stride) + 1
