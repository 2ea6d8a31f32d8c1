"""Seams of a shot against places elsewhere in the same shot, by the delivered report's own definition."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dreamontage.generator.measuring.judge import SeamFit, seam_fits
from dreamontage.generator.measuring.pairs import Curves

EVERY = 4
"""Frames between the places elsewhere: one slot."""
CLEAR = 3
"""Frames kept between such a place and a seam or an excluded frame."""


@dataclass(frozen=True)
class SeamRatios:
    """`seams`: one fit per seam; `elsewhere`: the same measured at places that are no seams. 1 is as its surroundings.

    A ratio at any single frame scatters around 1, so `elsewhere` says which values mean nothing.
    """

    seams: list[SeamFit]
    elsewhere: list[SeamFit]


def seam_ratios(curves: Curves, seams: Sequence[int], exclude: Collection[int], fps: int) -> SeamRatios:
    """Step and jerk at each seam ÷ their median within ±1 s outside all seams (`judge.seam_fits`), at least 0.

    `seams`: first frames of the later segments; `exclude`: frames near which nothing elsewhere is measured (anchors).
    Above 3 is likely visible. Fails beside a cut or a whip, whose own steps raise the median and hide a seam, and
    blames a seam for what the camera does there: an anchor that turns the camera has a jerk of its own.
    """
    taken = {*seams, *exclude}
    free = [
        at for at in range(EVERY + 1, len(curves) - CLEAR, EVERY) if all(abs(at - frame) > CLEAR for frame in taken)
    ]
    return SeamRatios(
        seams=seam_fits(curves, seams, fps),
        elsewhere=[seam_fits(curves, [*seams, at], fps)[-1] for at in free],
    )
