"""Findings in plain words: what was seen in the shot, where, and what to try."""

from __future__ import annotations

from collections.abc import Sequence

from dreamontage.generator.measuring.judge import Freeze
from dreamontage.schemas.report import AnchorReport, CutReport, IntervalReport, Note, SeamReport

MIN_ANCHOR_DB = 22.0
BELOW_REFERENCE_DB = 1.0
SOFT_BELOW = 0.6
ROUGH_SEAM = 3.0
MAX_NOTES = 12
_ORDER = {"problem": 0, "warning": 1, "info": 2}


def notes(
    anchors: Sequence[AnchorReport],
    intervals: Sequence[IntervalReport],
    seams: Sequence[SeamReport],
    cuts: Sequence[CutReport],
    freezes: Sequence[Freeze],
    fps: int,
    seam_faults: Sequence[float],
) -> list[Note]:
    """At most 12 notes, the most serious kept, in the order of time.

    A seam is blamed for `seam_faults` (`judge.seam_faults`) only: what the previz does not do at the same place.
    """
    found = [
        *(note for anchor in anchors for note in _anchor(anchor)),
        *(note for interval in intervals for note in _interval(interval)),
        *(note for seam, fault in zip(seams, seam_faults, strict=True) for note in _seam(seam, fault)),
        *(_cut(cut) for cut in cuts),
        *(_freeze(freeze, fps) for freeze in freezes),
    ]
    kept = sorted(found, key=lambda note: (_ORDER[note.severity], note.at_s))[:MAX_NOTES]
    return sorted(kept, key=lambda note: note.at_s)


def _anchor(anchor: AnchorReport) -> list[Note]:
    at, reference = anchor.snapped_s, anchor.reference_psnr_db
    if anchor.strength < 1:
        return []
    if anchor.best_offset_frames:
        side = "later" if anchor.best_offset_frames > 0 else "earlier"
        return [
            Note(
                at_s=at,
                severity="problem",
                what=f"The shot shows {anchor.label} best {abs(anchor.best_offset_frames)} frames {side} than pinned.",
                suggestion=f"Render this part again with another seed, or set guide=follow around {at:.2f} s.",
            )
        ]
    if anchor.psnr_db < MIN_ANCHOR_DB or (reference is not None and anchor.psnr_db < reference - BELOW_REFERENCE_DB):
        against = "" if reference is None else f"; the model can reach {reference:.1f} dB here"
        return [
            Note(
                at_s=at,
                severity="problem" if anchor.psnr_db < MIN_ANCHOR_DB else "warning",
                what=f"{anchor.label} is reproduced at {anchor.psnr_db:.1f} dB{against}.",
                suggestion="Render this part again with guide=follow or more steps, or keep neighbouring anchors "
                "further away.",
            )
        ]
    return []


def _interval(interval: IntervalReport) -> list[Note]:
    if interval.sharpness_vs_anchors >= SOFT_BELOW:
        return []
    middle = (interval.start_s + interval.end_s) / 2
    return [
        Note(
            at_s=interval.start_s,
            severity="warning",
            what=f"From {interval.start_s:.2f} to {interval.end_s:.2f} s the picture is soft: "
            f"{interval.sharpness_vs_anchors:.0%} of the anchors' sharpness.",
            suggestion=f"Use guide=follow there, raise steps, or add an anchor near {middle:.2f} s.",
        )
    ]


def _seam(seam: SeamReport, fault: float) -> list[Note]:
    worst = min(fault, max(seam.step_ratio, seam.jerk_ratio))
    if worst <= ROUGH_SEAM:
        return []
    return [
        Note(
            at_s=seam.at_s,
            severity="warning",
            what=f"The seam at {seam.at_s:.2f} s may be visible ({worst:.1f} times its surroundings).",
            suggestion="Render the segment after it again with after=follow, or with another seed.",
        )
    ]


def _cut(cut: CutReport) -> Note:
    return Note(
        at_s=cut.at_s,
        severity="problem",
        what=f"The picture changes suddenly at {cut.at_s:.2f} s, which looks like a cut ({cut.score:.1f} times its "
        "surroundings).",
        suggestion="Leave more time between the anchors around it, add one in between, or use guide=follow.",
    )


def _freeze(freeze: Freeze, fps: int) -> Note:
    start, stop = freeze.start / fps, freeze.stop / fps
    return Note(
        at_s=round(start, 3),
        severity="warning",
        what=f"The picture stands still from {start:.2f} to {stop:.2f} s.",
        suggestion="Add a beat with a camera move there, such as a slow pan or zoom in.",
    )
