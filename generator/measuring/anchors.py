"""How the shot passes through its anchors: PSNR at the anchor's frames, in the reference, and at offsets around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.measuring.pairs import mean_gradient

Frame = NDArray[np.uint8]

REACH = 12
"""Offsets of up to this many frames are tried on both sides."""
TIE_DB = 0.2
"""The snapped frame counts as best if it is this close to the maximum."""
CAP_DB = 99.0
"""Reported where pictures are identical."""


@dataclass(frozen=True)
class AnchorFit:
    """psnr_db and reference_psnr_db 0..99 (higher is better, None without a reference), best_offset_frames -12..12,
    gradient: mean gradient of the anchor's own first and last picture, 0..255."""

    psnr_db: float
    reference_psnr_db: float | None
    best_offset_frames: int
    gradient: float


@dataclass
class _Tally:
    squared: float = 0.0
    values: int = 0

    def add(self, a: Frame, b: Frame) -> None:
        self.squared += float(cv2.norm(a, b, cv2.NORM_L2SQR))
        self.values += a.size

    @property
    def psnr_db(self) -> float:
        return psnr_db(self.squared / self.values)


def psnr_db(mean_square: float) -> float:
    """PSNR in dB of a mean squared difference of 8-bit pictures, capped at 99 for equal ones."""
    return CAP_DB if mean_square <= 0 else min(CAP_DB, 10 * math.log10(255**2 / mean_square))


def offsets(start: int, stop: int, previous: int | None, following: int | None, frames: int) -> range:
    """Offsets tried for an anchor on frames [start, stop): within ±12, half-way to the last frame of the anchor before
    and the first of the one after, and inside the video of `frames` frames."""
    low = -min(REACH, start if previous is None else (start - previous) // 2)
    high = min(REACH, frames - stop if following is None else (following - (stop - 1)) // 2)
    return range(low, high + 1)


@dataclass
class _Target:
    frames: NDArray[np.uint8]
    start: int
    tried: range
    fits: dict[int, _Tally] = field(default_factory=dict)
    reference: _Tally = field(default_factory=_Tally)

    def add(self, index: int, frame: Frame, reference: Frame | None) -> None:
        for offset in self.tried:
            own = index - self.start - offset
            if 0 <= own < len(self.frames):
                self.fits.setdefault(offset, _Tally()).add(frame, self.frames[own])
        own = index - self.start
        if reference is not None and 0 <= own < len(self.frames):
            self.reference.add(reference, self.frames[own])

    def fit(self) -> AnchorFit:
        curve = {offset: tally.psnr_db for offset, tally in self.fits.items()}
        best = max(curve, key=lambda offset: (curve[offset], -abs(offset)))
        ends = [cv2.cvtColor(self.frames[at], cv2.COLOR_RGB2GRAY) for at in (0, -1)]
        return AnchorFit(
            psnr_db=curve[0],
            reference_psnr_db=self.reference.psnr_db if self.reference.values else None,
            best_offset_frames=0 if curve[0] >= curve[best] - TIE_DB else best,
            gradient=sum(mean_gradient(np.asarray(end, np.uint8)) for end in ends) / 2,
        )


class AnchorMeter:
    """Compares every delivered frame with the anchors near it; keeps sums only.

    `anchors`: (pictures [n,H,W,3], global frame of the first), ordered by frame.
    """

    def __init__(self, anchors: Sequence[tuple[NDArray[np.uint8], int]], frames: int) -> None:
        self._index = 0
        self._targets = []
        for at, (pictures, start) in enumerate(anchors):
            previous = anchors[at - 1][1] + len(anchors[at - 1][0]) - 1 if at else None
            following = anchors[at + 1][1] if at + 1 < len(anchors) else None
            tried = offsets(start, start + len(pictures), previous, following, frames)
            self._targets.append(_Target(pictures, start, tried))

    def add(self, frame: Frame, reference: Frame | None) -> None:
        """The next delivered frame and the same frame of D(E(previz)), RGB [H,W,3]; None without a reference."""
        for target in self._targets:
            if -REACH <= self._index - target.start < len(target.frames) + REACH:
                target.add(self._index, frame, reference)
        self._index += 1

    def fits(self) -> list[AnchorFit]:
        """One result per anchor, when all frames have been added."""
        return [target.fit() for target in self._targets]
