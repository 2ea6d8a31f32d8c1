"""Findings in plain words: what was seen in the shot, where, and what to try."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dreamontage.generator.measuring.judge import Freeze
from dreamontage.schemas.report import AnchorReport, CutReport, EstimateReport, IntervalReport, Note, SeamReport

MIN_ANCHOR_DB = 22.0
BELOW_REFERENCE_DB = 1.0
SOFT_BELOW = 0.6
FAST_ABOVE = 1.0
"""Picture widths a second, on the mean of an interval, beyond which a move reads as a whip."""
ROUGH_SEAM = 3.0
SLIGHT_S = 10.0
"""Seconds by which an estimate may be wrong without a word."""
OVER = 1.15
"""Of the estimated memory, beyond which a peak is told."""
MAX_NOTES = 12
_ORDER = {"problem": 0, "warning": 1, "info": 2}


def notes(
    anchors: Sequence[AnchorReport],
    intervals: Sequence[IntervalReport],
    seams: Sequence[SeamReport],
    cuts: Sequence[CutReport],
    freezes: Sequence[Freeze],
    fps: int,
    rendered: bool = True,
) -> list[Note]:
    """At most 12 notes, the most serious kept, in the order of time; `rendered` False: no model was used, so none of
    its settings is suggested."""
    found = [
        *(note for anchor in anchors for note in _anchor(anchor, intervals)),
        *(note for interval in intervals for note in _interval(interval, rendered)),
        *(note for seam in seams for note in _seam(seam)),
        *(_cut(cut, intervals, rendered) for cut in cuts),
        *(_freeze(freeze, fps) for freeze in freezes),
    ]
    kept = sorted(found, key=lambda note: (_ORDER[note.severity], note.at_s))[:MAX_NOTES]
    return sorted(kept, key=lambda note: note.at_s)


def unforeseen(estimate: EstimateReport, at_s: float) -> list[Note]:
    """What the estimate before the run got wrong, told at the video's end `at_s`."""
    found, e = [], estimate
    if not e.low_s <= e.measured_s <= e.high_s and abs(e.measured_s - e.seconds) > SLIGHT_S:
        what = f"Rendering took {e.measured_s:.0f} s; {e.low_s:.0f} to {e.high_s:.0f} s had been estimated."
        found.append((what, "Nothing; the next estimate learns from it."))
    if e.memory_gb is not None and e.measured_gb is not None and e.measured_gb > OVER * e.memory_gb:
        what = f"It took {e.measured_gb:.1f} GB of GPU memory; {e.memory_gb:.1f} GB had been estimated."
        found.append((what, "Where that is near what the GPU has, start the server with --profile low-memory."))
    return [Note(at_s=round(at_s, 3), severity="info", what=what, suggestion=way) for what, way in found]


def _again(start_s: float, end_s: float, intervals: Sequence[IntervalReport], quality: str) -> str:
    """What another try of a stretch should be: guided where it was not, else several takes to choose from."""
    guides = {i.guide for i in intervals if i.start_s <= end_s and i.end_s >= start_s}
    part = f"Render {max(start_s, 0):.2f} to {end_s:.2f} s again"
    return f"{part} with guide=follow" if guides - {"follow"} else f"{part} with takes=3 and choose the {quality} one"


def _anchor(anchor: AnchorReport, intervals: Sequence[IntervalReport]) -> list[Note]:
    at, reference = anchor.snapped_s, anchor.reference_psnr_db
    name = json.dumps(anchor.label, ensure_ascii=False)  # somebody's words: data, in quotes
    if anchor.strength < 1:
        return []
    if anchor.best_offset_frames:
        side = "later" if anchor.best_offset_frames > 0 else "earlier"
        return [
            Note(
                at_s=at,
                severity="problem",
                what=f"The shot shows {name} best {abs(anchor.best_offset_frames)} frames {side} than pinned.",
                suggestion=f"{_again(at - 0.1, at + 0.1, intervals, 'most punctual')}, or leave more time around it.",
            )
        ]
    if anchor.psnr_db < MIN_ANCHOR_DB or (reference is not None and anchor.psnr_db < reference - BELOW_REFERENCE_DB):
        against = "" if reference is None else f"; the model can reach {reference:.1f} dB here"
        return [
            Note(
                at_s=at,
                severity="problem" if anchor.psnr_db < MIN_ANCHOR_DB else "warning",
                what=f"{name} is reproduced at {anchor.psnr_db:.1f} dB{against}.",
                suggestion=f"{_again(at - 0.1, at + 0.1, intervals, 'truest')}, raise steps, or keep neighbouring "
                "anchors further away.",
            )
        ]
    return []


def _interval(interval: IntervalReport, rendered: bool) -> list[Note]:
    start, end = interval.start_s, interval.end_s
    found: list[Note] = []
    if interval.sharpness_vs_anchors < SOFT_BELOW:
        more = f"add an anchor near {(start + end) / 2:.2f} s"
        found.append(
            Note(
                at_s=start,
                severity="warning",
                what=f"From {start:.2f} to {end:.2f} s the picture is soft: "
                f"{interval.sharpness_vs_anchors:.0%} of the anchors' sharpness.",
                suggestion=f"{_again(start, end, [interval], 'sharpest')}, raise steps, or {more}."
                if rendered
                else f"{more.capitalize()}.",
            )
        )
    if interval.motion > FAST_ABOVE:
        found.append(
            Note(
                at_s=start,
                severity="info",
                what=f"From {start:.2f} to {end:.2f} s the picture moves {interval.motion:.1f} of its widths a second, "
                "which reads as a whip.",
                suggestion="Leave more time between the anchors around it, or pin what belongs nearer to each other.",
            )
        )
    return found


def _seam(seam: SeamReport) -> list[Note]:
    if seam.roughness <= ROUGH_SEAM:
        return []
    return [
        Note(
            at_s=seam.at_s,
            severity="warning",
            what=f"The seam at {seam.at_s:.2f} s may be visible ({seam.roughness:.1f} times its surroundings).",
            suggestion=f"Render {seam.at_s:.2f} to {seam.at_s + 0.1:.2f} s again with takes=3 and choose the smoothest "
            "one, or with another seed and after=follow.",
        )
    ]


def _cut(cut: CutReport, intervals: Sequence[IntervalReport], rendered: bool) -> Note:
    more = "leave more time between the anchors around it, or add one in between"
    again = f"{_again(cut.at_s - 0.1, cut.at_s + 0.1, intervals, 'smoothest')}, {more}."
    return Note(
        at_s=cut.at_s,
        severity="problem",
        what=f"The picture changes suddenly at {cut.at_s:.2f} s, which looks like a cut ({cut.score:.1f} times its "
        "surroundings).",
        suggestion=again if rendered else f"{more.capitalize()}.",
    )


def _freeze(freeze: Freeze, fps: int) -> Note:
    start, stop = freeze.start / fps, freeze.stop / fps
    return Note(
        at_s=round(start, 3),
        severity="warning",
        what=f"The picture stands still from {start:.2f} to {stop:.2f} s.",
        suggestion="Add a beat with a camera move there, such as a slow pan or zoom in.",
    )
