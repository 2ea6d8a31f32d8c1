"""What reports say about a stretch of a video, in few words: for agents that see no pictures, and beside those."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from .answers import Answer, TakeLine, take_lines
from .changes import quoted
from .viewing import View

_MOST_LINES = 24
_MOST_NOTES = 6
_EXACT_DB = 60.0
"""Above which no pixel differs to the eye or in print."""


class IntervalLine(Answer):
    start_s: float
    end_s: float
    sharpness: float = Field(description="1 is the anchors'.")
    motion: float = Field(description="Widths per second.")
    still: float = Field(description="Share of frames that do not change.")


class AnchorMark(Answer):
    name: str
    at_s: float
    psnr_db: float
    frames_off: int


class SeamMark(Answer):
    at_s: float
    roughness: float = Field(description="Up to 1 is unseen, above 3 visible.")


class ViewRow(Answer):
    """One video, and what its report says of the stretch that is shown."""

    video_id: str
    take_id: str | None = None
    montage_id: str
    revision: int
    quality: str
    duration_s: float
    takes: list[TakeLine]
    intervals: list[IntervalLine]
    anchors: list[AnchorMark]
    seams: list[SeamMark]
    cuts_s: list[float]
    notes: list[str]
    problems: int
    warnings: int
    left_out: int | None = Field(None, description="Lines; look at a shorter stretch.")


def row_of(view: View, from_s: float, to_s: float, rows: int) -> ViewRow:
    """What the report says between two seconds of the video; shorter where several `rows` share an answer."""
    report, video, most = view.report, view.video, _MOST_LINES // rows
    takes = [t for t in take_lines(video) if t.start_s < to_s and t.end_s > from_s]
    if view.take_id is not None:
        takes = [t for t in takes if t.take_id == view.take_id]
    intervals = [
        IntervalLine(
            start_s=round(i.start_s, 2), end_s=round(i.end_s, 2), sharpness=round(i.sharpness_vs_anchors, 2),
            motion=round(i.motion, 3), still=round(i.static_share, 2),
        )
        for i in report.intervals if i.start_s < to_s and i.end_s > from_s
    ]  # fmt: skip
    anchors = [
        AnchorMark(name=a.label, at_s=round(a.snapped_s, 2), psnr_db=a.psnr_db, frames_off=a.best_offset_frames)
        for a in report.anchors if from_s <= a.snapped_s <= to_s
    ]  # fmt: skip
    seams = [
        SeamMark(at_s=round(s.at_s, 2), roughness=round(s.roughness, 1))
        for s in report.seams if from_s <= s.at_s <= to_s
    ]  # fmt: skip
    notes = [n for n in report.notes if from_s <= n.at_s <= to_s]
    lists: tuple[Sequence[object], ...] = (takes, intervals, anchors, seams)
    return ViewRow(
        video_id=video.id,
        take_id=view.take_id,
        montage_id=video.montage_id,
        revision=video.revision,
        quality=video.quality,
        duration_s=round(report.duration_s, 2),
        takes=takes[:most],
        intervals=intervals[:most],
        anchors=anchors[:most],
        seams=seams[:most],
        cuts_s=[round(c.at_s, 2) for c in report.cuts if from_s <= c.at_s <= to_s][:most],
        notes=[f"{n.at_s:.2f} s, {n.severity}: {n.what} {n.suggestion}" for n in notes][: _MOST_NOTES // rows],
        problems=sum(n.severity == "problem" for n in notes),
        warnings=sum(n.severity == "warning" for n in notes),
        left_out=sum(max(0, len(lines) - most) for lines in lists) or None,
    )


def describe_row(row: ViewRow) -> str:
    """The row in words, one line a subject."""
    name = f"{row.take_id} in {row.video_id}" if row.take_id else row.video_id
    lines = [f"{name} ({row.quality}, revision {row.revision} of {row.montage_id}, {row.duration_s:g} s):"]
    for i in row.intervals:
        still = f", {i.still:.0%} of it still" if i.still else ""
        lines.append(
            f"  {i.start_s:g}–{i.end_s:g} s: {i.sharpness:.0%} of the anchors' sharpness, "
            f"motion {i.motion:g} widths/s{still}"
        )
    if row.anchors:
        lines.append("  anchors: " + "; ".join(map(_anchor, row.anchors)))
    if row.seams:
        lines.append("  seams (above 3 is visible): " + "; ".join(f"{s.at_s:g} s {s.roughness:g}" for s in row.seams))
    if row.takes:
        lines.append("  takes: " + "; ".join(f"{t.take_id} {t.start_s:g}–{t.end_s:g} s" for t in row.takes))
    lines += [f"  {note}" for note in row.notes] or ["  nothing to complain of"]
    if row.left_out:
        lines.append(f"  {row.left_out} further lines are left out; look at a shorter stretch")
    return "\n".join(lines)


def _anchor(mark: AnchorMark) -> str:
    on_time = "on time" if not mark.frames_off else f"{abs(mark.frames_off)} frames {_side(mark.frames_off)}"
    true = "exact" if mark.psnr_db >= _EXACT_DB else f"{mark.psnr_db:.1f} dB"
    return f"{quoted(mark.name)} at {mark.at_s:g} s {on_time}, {true}"


def _side(frames: int) -> str:
    return "late" if frames > 0 else "early"


def summary(rows: Sequence[ViewRow]) -> str:
    """One sentence that compares: findings, the softest stretch, the roughest seam, and which row has the least."""
    parts = []
    for number, row in enumerate(rows, 1):
        softest = min((i.sharpness for i in row.intervals), default=None)
        roughest = max((s.roughness for s in row.seams), default=None)
        parts.append(
            f"row {number}: {row.problems} problems, {row.warnings} warnings"
            + (f", softest {softest:.0%}" if softest is not None else "")
            + (f", roughest seam {roughest:g}" if roughest is not None else "")
        )
    better = best(rows)
    choice = "none stands out" if better is None else f"row {better + 1} has the fewest findings"
    return f"Compared: {'; '.join(parts)}; {choice}."


def best(rows: Sequence[ViewRow]) -> int | None:
    """The row with the fewest problems, then warnings; None where several have as few."""
    counts = [(row.problems, row.warnings) for row in rows]
    return counts.index(min(counts)) if counts.count(min(counts)) == 1 else None
