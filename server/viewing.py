"""What to look at in finished videos: which frames, under which anchors, and what the reports say there, in lines."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dreamontage.generator.models.catalogue import cards
from dreamontage.generator.native import at_native, at_shown
from dreamontage.generator.planner import place_anchors
from dreamontage.schemas import limits
from dreamontage.schemas.errors import NotFound
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import PlacedAnchor
from dreamontage.schemas.report import Report, Video

if TYPE_CHECKING:
    from dreamontage.generator.rows import Pin

    from .context import App

At = Literal["even", "anchors", "seams", "worst"]
_GRAVE = {"problem": 0.0, "warning": 1.0, "info": 2.0}
_ROUGH = 1.5


@dataclass(frozen=True)
class View:
    """One video to look at; `shift_s` is added to the common times, so that takes at different places line up."""

    video: Video
    anchors: list[PlacedAnchor]
    take_id: str | None = None
    shift_s: float = 0.0

    @property
    def own_s(self) -> list[tuple[float, float]]:
        """The common seconds of the first and the last frame of the take that was asked for, if one was."""
        parts = zip(self.video.segments, self.report.segments, strict=True)
        own = [part for take, part in parts if take.take_id == self.take_id]
        late = self.shift_s + 1 / self.report.fps
        return [(part.start_s - self.shift_s, part.end_s - late) for part in own]

    @property
    def report(self) -> Report:
        """Its measured report."""
        return self.video.report

    def frame(self, second: float) -> int | None:
        """The frame shown at a common time; None beyond the end."""
        index = math.floor((second + self.shift_s) * self.report.fps + 0.5)
        return index if 0 <= index < self.report.frames else None

    def anchor_at(self, index: int) -> PlacedAnchor | None:
        """The anchor that covers a frame."""
        return next((a for a in self.anchors if a.frame <= index < a.frame + a.frames), None)

    def pinned(self) -> list[int]:
        """The first and the last frame of every anchor."""
        ends = {f for a in self.anchors for f in (a.frame, min(a.frame + a.frames, self.report.frames) - 1)}
        return sorted(ends)


def view_of(app: App, video: Video, take_id: str | None = None, shift_s: float = 0.0) -> View:
    """A video with its anchors, as they were at its revision. Raises NotFound if its file is gone."""
    if not Path(video.path).is_file():
        raise NotFound(f"the file of {video.id} is gone", next_call="render_segments to make it again")
    montage = app.studio.get_montage(video.montage_id, video.revision)
    return View(video, anchors_of(app.media_of(montage), montage, video), take_id, shift_s)


def anchors_of(media: Mapping[str, Media], montage: Montage, video: Video) -> list[PlacedAnchor]:
    """A video's anchors, at frames of its file: those of its model's grid, resampled where the video is."""
    card = cards().get(montage.model)
    if card is None:
        return place_anchors(montage, media)[0]
    own = at_native(montage, card, video.quality)
    placed = place_anchors(own, media, card.stride)[0]
    return at_shown(placed, own.format.fps, video.report.fps)


def moments(views: Sequence[View], from_s: float, to_s: float, frames: int, at: At) -> list[float]:
    """At most `frames` common times within [from_s, to_s], in order, on the first video's frames; none where `at` names
    nothing there."""
    fps = views[0].report.fps
    low, high = math.ceil(from_s * fps - 1e-6), math.floor(to_s * fps + 1e-6)
    if at == "even":
        found = _even(views, low, high, frames, fps)
    else:
        asked = {"anchors": _anchors, "seams": _seams, "worst": _worst}[at](views, fps)
        inside = [group for group in asked if all(low <= index <= high for index in group)]
        found = _first(inside, frames)
    return [round(index / fps, 4) for index in sorted(found)]


def _even(views: Sequence[View], low: int, high: int, frames: int, fps: int) -> set[int]:
    """Evenly spread, both ends included; a frame next to a pinned one gives way to it."""
    count = min(frames, high - low + 1)
    step = (high - low) / max(1, count - 1)
    found = {low + round(step * number) for number in range(count)}
    pinned = {index for view in views for index in _common(view, view.pinned(), fps) if low <= index <= high}
    for index in sorted(found - pinned):
        near = min(pinned - found, key=lambda pin: abs(pin - index), default=None)
        if near is not None and abs(near - index) <= step / 2:
            found = found - {index} | {near}
    return found


def _common(view: View, indices: Iterable[int], fps: int) -> list[int]:
    """Frames of a video as frames of the first one, at the same common time."""
    return [math.floor((index / view.report.fps - view.shift_s) * fps + 0.5) for index in indices]


def _anchors(views: Sequence[View], fps: int) -> list[list[int]]:
    found = sorted({index for view in views for index in _common(view, view.pinned(), fps)})
    middle_out = sorted(range(len(found)), key=lambda n: (n % 2, n))  # if there are too many, every other one
    return [[found[n]] for n in middle_out]


def _seams(views: Sequence[View], fps: int) -> list[list[int]]:
    """The frames on both sides of every seam, the roughest first."""
    seams = [(seam.roughness, view, seam.at_s) for view in views for seam in view.report.seams]
    return [_sides(view, at_s, fps) for _, view, at_s in sorted(seams, key=lambda seam: -seam[0])]


def _sides(view: View, at_s: float, fps: int) -> list[int]:
    (index,) = _common(view, [round(at_s * view.report.fps)], fps)
    return [index - 1, index]


def _worst(views: Sequence[View], fps: int) -> list[list[int]]:
    """What the notes complain of, the most serious first; then the softest and stillest stretches and rough seams."""
    spots: list[tuple[float, list[int]]] = []
    for view in views:
        report = view.report
        borders = {round(at_s, 3) for at_s in (*(c.at_s for c in report.cuts), *(s.at_s for s in report.seams))}
        middles = {round(i.start_s, 3): (i.start_s + i.end_s) / 2 for i in report.intervals}
        for note in report.notes:
            at_s = round(note.at_s, 3)
            if at_s in borders:
                group = _sides(view, note.at_s, fps)
            else:
                group = _common(view, [round(middles.get(at_s, note.at_s) * report.fps)], fps)
            spots.append((_GRAVE[note.severity], group))
        for interval in report.intervals:
            weak = 3 + min(interval.sharpness_vs_anchors, 1.0) - interval.static_share
            spots.append((weak, _common(view, [round((interval.start_s + interval.end_s) / 2 * report.fps)], fps)))
        for seam in report.seams:
            if seam.roughness > _ROUGH:
                spots.append((3 + _ROUGH / seam.roughness, _sides(view, seam.at_s, fps)))
    return [group for _, group in sorted(spots, key=lambda spot: spot[0])]


def _first(groups: Sequence[Sequence[int]], most: int) -> set[int]:
    """The frames of the first groups that fit whole."""
    found: set[int] = set()
    for group in groups:
        if len(found | set(group)) <= most:
            found |= set(group)
    return found


def draw(app: App, views: Sequence[View], times: Sequence[float]) -> bytes:
    """One JPEG of at most limits.MAX_PICTURE_BYTES: a row per video. Blocks while a confined child process draws."""
    from dreamontage.generator.rows import Row, Spot  # brings OpenCV, which the first answer need not wait for

    from .media.child import ask

    rows = []
    for view in views:
        spots = []
        for second in times:
            index = view.frame(second)
            anchor = None if index is None else view.anchor_at(index)
            pin = None if anchor is None or index is None else _pin(app, view, anchor, index)
            spots.append(Spot(index, second + view.shift_s if index is None else index / view.report.fps, pin))
        rows.append(Row(title_of(view), view.video.path, view.report.fps, spots))
    paths = {row.video for row in rows} | {spot.pin.path for row in rows for spot in row.spots if spot.pin}
    aspect = views[0].report.width / views[0].report.height
    arguments = {"rows": [asdict(row) for row in rows], "aspect": aspect, "paths": sorted(paths)}
    with tempfile.TemporaryFile(dir=app.studio.folder) as output:
        room, items = 2 * limits.MAX_PICTURE_BYTES, len(paths)
        fault = ask("rows", arguments, output=output.fileno(), output_bytes=room, items=items).fault
        if fault:
            raise fault
        output.seek(0)
        return output.read()


def title_of(view: View) -> str:
    """The line above a row."""
    video = view.video
    shown = f"{view.take_id} in {video.id}" if view.take_id else video.id
    how = video.quality if video.report.model == video.quality else f"{video.quality} by {video.report.model}"
    return f"{shown}  |  {how}, revision {video.revision}"


def _pin(app: App, view: View, placed: PlacedAnchor, index: int) -> Pin:
    """The anchor's own picture at a frame that it covers."""
    from dreamontage.generator.rows import Pin
    from dreamontage.generator.sheet import anchor_name

    montage = app.studio.get_montage(view.video.montage_id, view.video.revision)
    anchor = next(a for a in montage.anchors if a.id == placed.anchor_id)
    media = app.studio.media(placed.media_id)
    into = (index - placed.frame) / view.report.fps if media.kind == "clip" else 0.0
    blob = str(app.studio.blob_path(media.id))
    return Pin(
        anchor_name(placed), blob, media.container, media.kind, round(anchor.in_s + into, 4), anchor.fit, anchor.focus
    )
