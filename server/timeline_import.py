"""A montage from an OpenTimelineIO file: clips of the video tracks become anchors, markers with a length become beats.

What an export of ours wrote into the metadata comes back as it was, unless an editor has moved or trimmed it since.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, FiniteFloat, ValidationError

from dreamontage.generator.models.catalogue import cards
from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import DreamontageError, InvalidInput, MediaRejected
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Beat, BeatSpec, Format, Montage, describe_validation_error

from .actors import OWNER
from .arguments import AnchorSpec
from .changes import quoted
from .context import App
from .media.child import ask
from .media.roots import is_link, located, open_in_roots
from .tools.planning import begin, sound_notes

_NEAR_S: Final = 1e-3
"""Times that differ by less were not changed by an editor."""
Span = tuple[FiniteFloat, FiniteFloat]


class _Settings(BaseModel):
    title: str
    brief: str
    format: Format
    duration_s: FiniteFloat
    model: str
    seed: int


class _Ours(BaseModel):
    """What an export wrote into the metadata of a timeline, clip or marker, as far as it is there."""

    montage: _Settings | None = None
    frames: int | None = None
    anchor: Anchor | None = None
    beat: Beat | None = None
    sha256: str | None = None
    video_id: str | None = None
    frame: int | None = None
    range: Span | None = None


class _Row(BaseModel):
    """A clip or a marker; `range` is [start, length] in its medium, or on the timeline."""

    name: str | None = None
    range: Span
    ours: _Ours
    sound: bool = False
    url: str | None = None
    second: FiniteFloat = 0.0

    def unchanged(self) -> bool:
        """Whether it still has the length and place that an export gave it."""
        before = self.ours.range
        return before is not None and all(abs(a - b) < _NEAR_S for a, b in zip(self.range, before, strict=True))


class _Timeline(BaseModel):
    name: str | None
    fps: FiniteFloat
    duration_s: FiniteFloat
    ours: _Ours
    clips: list[_Row]
    beats: list[_Row]


def montage_from_timeline(app: App, requested: str, actor: str = OWNER.name) -> tuple[Montage, list[str]]:
    """A new montage that is not stored yet, its media taken in, and notes. `requested`: a path in the media roots.

    Raises PathRefused, MediaRejected, InvalidInput and whatever else is wrong with the media.
    """
    try:
        timeline = _read(app, requested)
        return _montage(app, timeline, located(requested, app.roots).parent, actor)
    except ValidationError as error:
        raise InvalidInput(describe_validation_error(error), field="timeline") from error


def _montage(app: App, timeline: _Timeline, folder: Path, actor: str) -> tuple[Montage, list[str]]:
    films = [row for row in timeline.clips if not row.sound and row.ours.video_id is None]
    found = [(row, source) for row in films if (source := _source(app, row, folder)) is not None]
    notes = [f"{len(films) - len(found)} clips without a media file were left out."] if len(found) < len(films) else []
    if not found:
        raise InvalidInput(
            "the timeline has no clip with a media file", field="timeline", allowed="pictures and clips on video tracks"
        )
    fps, settings = _fps(timeline.fps), timeline.ours.montage
    known = settings is not None and settings.model in cards()
    if settings is not None and not known:
        notes.append(f"Model {quoted(settings.model)} is not known here; another one was taken.")
    media = _taken_in(app, [source for _, source in found], actor)
    beats = [_beat(row) for row in timeline.beats]
    montage = begin(
        [(_anchor(row, item, fps), item) for (row, _), item in zip(found, media, strict=True)],
        beats,
        brief=settings.brief if settings else "",
        duration_s=_duration(timeline, beats, fps),
        form=settings.format.aspect if settings else "auto",
        fps=fps,
        model=settings.model if settings and known else "auto",
        seed=settings.seed if settings else 0,
    )
    title = settings.title if settings else (timeline.name or "")
    sounds = [source for row in timeline.clips if row.sound and (source := _source(app, row, folder)) is not None]
    audio = _taken_in(app, sounds[:1], actor)
    if len(sounds) > 1:
        notes.append(f"Of {len(sounds)} clips of sound, the first is laid under the video.")
    changes = {"title": title[: limits.MAX_TITLE_CHARS], "audio": next((m.id for m in audio if m.sound), None)}
    return montage.model_copy(update=changes), [*notes, *sound_notes(media)]


def _read(app: App, requested: str) -> _Timeline:
    """What the file holds, read by the confined child."""
    try:
        descriptor, name = open_in_roots(requested, app.roots)
        try:
            replies, fault, _ = ask("timeline", {}, [descriptor])
        finally:
            os.close(descriptor)
        if fault:
            raise MediaRejected(f"'{name}' {fault.problem}", allowed=fault.allowed, next_call=fault.next_call)
    except DreamontageError as error:
        raise type(error)(error.problem, field="timeline", allowed=error.allowed, next_call=error.next_call) from error
    return _Timeline.model_validate(replies[0])


def _source(app: App, row: _Row, folder: Path) -> str | None:
    """Where the medium of a clip comes from: the studio, if it has it; else a link, or a path beside the timeline."""
    if row.ours.sha256 is not None and (stored := app.studio.media_by_hash(row.ours.sha256)) is not None:
        return stored.id
    url = (row.url or "").strip()
    if not url or is_link(url):
        return url or None
    return str(folder / unquote(urlsplit(url).path if url[:5].lower() == "file:" else url))


def _taken_in(app: App, sources: Sequence[str], actor: str) -> list[Media]:
    """Media for all sources, each taken in once."""
    distinct = list(dict.fromkeys(sources))
    found: dict[str, Media] = {}
    for start in range(0, len(distinct), limits.MAX_SOURCES_PER_CALL):
        part = distinct[start : start + limits.MAX_SOURCES_PER_CALL]
        found |= zip(part, app.take_in(part, "timeline", actor), strict=True)
    return [found[source] for source in sources]


def _anchor(row: _Row, media: Media, fps: int) -> AnchorSpec:
    """The anchor that a clip stands for."""
    ours, (start, length) = row.ours.anchor, row.range
    second = max(0.0, round(row.second, 6))
    trim: dict[str, Any] = {"in_s": max(0.0, round(start, 6)), "out_s": round(start + length, 6)}
    trim = trim if media.kind == "clip" else {}
    if ours is None:
        label = (row.name or "")[: limits.MAX_LABEL_CHARS]
        return AnchorSpec.model_validate({"source": media.id, "second": second, "label": label, **trim})
    if round(second * fps) == row.ours.frame:
        second = ours.second
    if row.unchanged():
        trim = {"in_s": ours.in_s, "out_s": ours.out_s}
    look = ours.model_dump(include={"strength", "fit", "focus", "label"})
    return AnchorSpec.model_validate({"source": media.id, "second": second, **look, **trim})


def _beat(row: _Row) -> BeatSpec:
    """The beat that a marker stands for; its words are what the editor shows."""
    ours, (start, length) = row.ours.beat, row.range
    words = (row.name or "")[: limits.MAX_PROMPT_CHARS]
    times = {"start_s": max(0.0, round(start, 6)), "end_s": round(start + length, 6)}
    if ours is None:
        return BeatSpec.model_validate({"prompt": words, **times})
    times = {"start_s": ours.start_s, "end_s": ours.end_s} if row.unchanged() else times
    words = "" if not ours.prompt and words == ours.id else words
    return BeatSpec.model_validate({"prompt": words, "camera": ours.camera, "guide": ours.guide, **times})


def _duration(timeline: _Timeline, beats: Sequence[BeatSpec], fps: int) -> float:
    """As it was asked for, where the timeline is still as long as it was exported; else the timeline's."""
    ours = timeline.ours
    if ours.montage is not None and round(timeline.duration_s * fps) == ours.frames:
        return ours.montage.duration_s
    return max([round(timeline.duration_s, 6), *(beat.end_s for beat in beats)])


def _fps(rate: float) -> int:
    if not limits.MIN_FPS <= round(rate) <= limits.MAX_FPS:
        raise InvalidInput(
            f"{rate:g} frames per second", field="timeline", allowed=f"{limits.MIN_FPS} to {limits.MAX_FPS}"
        )
    return round(rate)
