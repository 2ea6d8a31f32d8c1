"""A montage as an OpenTimelineIO file, so that an editor can go on from it; https://opentimelineio.readthedocs.io.

Three tracks: the anchors (a still as one slot of frames) with a marker each, above them the newest video with its
segments and takes as metadata, below them the sound. Beats are markers of the timeline. What no editor knows stands in
the metadata under `dreamontage`, from which timeline_import makes the same montage again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange

from dreamontage.generator.files import replacing, write_whole
from dreamontage.generator.native import at_shown, shown_frames
from dreamontage.generator.planner import plan_montage
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Plan
from dreamontage.schemas.report import Video

from .context import fitted_card_of
from .store import Studio
from .store.delivery import human_name

KEY: Final = "dreamontage"
"""Where our metadata stands in an object's."""
VERSION: Final = 1
SUFFIXES: Final = {
    "JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "apng": ".png", "gif": ".gif",
    "mov": ".mp4", "matroska": ".mkv", "avi": ".avi", "flac": ".flac",
}  # fmt: skip
Where = Callable[[str], str]
"""The address of a medium, or of a video, by its id."""


def timeline_of(
    montage: Montage, plan: Plan, media: Mapping[str, Media], video: Video | None, where: Where
) -> otio.schema.Timeline:
    """The timeline of a montage, in the frames of its delivered video.

    `plan`: at the quality of `video`, the newest one, if there is any.
    """
    fps = montage.format.fps
    frames = shown_frames(plan.frames, plan.format.fps, fps)
    name = montage.title or montage.brief[:80] or montage.id
    timeline = otio.schema.Timeline(name, global_start_time=RationalTime(0, fps))
    settings = montage.model_dump(mode="json", exclude={"anchors", "beats", "archived"})
    segments = [{"start_s": s.start_s, "end_s": s.end_s, "seam": s.seam, "seed": s.seed} for s in plan.segments]
    timeline.metadata[KEY] = {"version": VERSION, "montage": settings, "frames": frames, "segments": segments}
    timeline.tracks.append(_anchors(montage, plan, frames, media, where))
    if video is not None:
        timeline.tracks.append(_shot(video, where))
    if montage.audio is not None:
        timeline.tracks.append(_sound(media[montage.audio], frames, fps, where))
    for beat in montage.beats:
        span = _span(beat.start_s * fps, (beat.end_s - beat.start_s) * fps, fps)
        marker = otio.schema.Marker(beat.prompt[:80] or beat.id, span, otio.schema.MarkerColor.CYAN)
        marker.comment = beat.prompt
        marker.metadata[KEY] = {"beat": beat.model_dump(mode="json"), "range": _numbers(span)}
        timeline.tracks.markers.append(marker)
    return timeline


def export_timeline(studio: Studio, montage: Montage, folder: Path, *, copies: bool) -> Path:
    """Write the timeline of a montage into a folder, its media in `media` beside it, and return the .otio file.

    With `copies` the folder can be taken anywhere: media and video are copied, and addresses are relative. Otherwise
    media are links into the studio, which gives them the names that editors want, and cost nothing. Raises StudioFull.
    """
    videos = [video for video in studio.videos(montage.id, 20) if video.quality != "previz"]
    video = next((v for v in videos if Path(v.path).is_file()), None)
    media = {media_id: studio.media(media_id) for media_id in montage.media_ids}
    quality = video.quality if video is not None else "standard"
    plan = plan_montage(montage, media, fitted_card_of(montage, quality), quality)
    files = {item.id: (studio.blob_path(item.id), _file_name(item)) for item in media.values()}
    if video is not None:
        files[video.id] = (Path(video.path), f"{human_name(montage, video.quality)}.mp4")
    shelf = folder / "media"
    shelf.mkdir(parents=True, exist_ok=True)
    if copies:
        studio.require_space(sum(source.stat().st_size for source, _ in files.values()))
    for source, name in files.values():
        _bring(source, shelf / name, copies)

    def where(name: str) -> str:
        place = shelf / files[name][1]
        return place.relative_to(folder).as_posix() if copies else place.absolute().as_uri()

    text = timeline_of(montage, plan, media, video, where).to_json_string()
    file = folder / f"{human_name(montage, quality)}.otio"
    write_whole(file, text.encode())
    return file


def _bring(source: Path, target: Path, copy: bool) -> None:
    with replacing(target) as temporary:
        if copy:
            shutil.copyfile(source, temporary)
        else:
            os.symlink(source, temporary)


def _file_name(media: Media) -> str:
    words = re.sub(r"[^\w.-]+", "-", Path(media.name).stem).strip("-.")[:40]
    return f"{words or media.kind}-{media.id[-8:]}{SUFFIXES.get(media.container, '')}"


def _anchors(montage: Montage, plan: Plan, frames: int, media: Mapping[str, Media], where: Where) -> otio.schema.Track:
    track = otio.schema.Track("Anchors", kind=otio.schema.TrackKind.Video)
    stored = {anchor.id: anchor for anchor in montage.anchors}
    fps, at = montage.format.fps, 0
    slot = round(plan.stride * fps / plan.format.fps)
    for placed in at_shown(plan.anchors, plan.format.fps, fps):
        anchor, item = stored[placed.anchor_id], media[placed.media_id]
        length = placed.frames if placed.kind == "clip" else min(slot, frames - placed.frame)
        span = _span(anchor.in_s * fps if placed.kind == "clip" else 0.0, length, fps)
        length_s = item.duration_s if item.kind == "clip" else span.duration.to_seconds()
        clip = otio.schema.Clip(placed.label, _reference(where(item.id), length_s, fps), span)
        clip.metadata[KEY] = {
            "anchor": anchor.model_dump(mode="json"), "sha256": item.sha256, "frame": placed.frame,
            "range": _numbers(span),
        }  # fmt: skip
        colour = otio.schema.MarkerColor.GREEN if anchor.pinned else otio.schema.MarkerColor.YELLOW
        clip.markers.append(otio.schema.Marker(placed.label, TimeRange(span.start_time, RationalTime(1, fps)), colour))
        _gap(track, placed.frame - at, fps)
        track.append(clip)
        at = placed.frame + round(span.duration.value)
    _gap(track, frames - at, fps)
    return track


def _shot(video: Video, where: Where) -> otio.schema.Track:
    track = otio.schema.Track("Shot", kind=otio.schema.TrackKind.Video)
    report = video.report
    span = _span(0, report.frames, report.fps)
    clip = otio.schema.Clip("Shot", _reference(where(video.id), report.duration_s, report.fps), span)
    takes = [
        {"take_id": take.take_id, "start_s": s.start_s, "end_s": s.end_s, "seam": s.seam, "seed": s.seed}
        for take, s in zip(video.segments, report.segments, strict=True)
    ]
    clip.metadata[KEY] = {
        "video_id": video.id, "revision": video.revision, "quality": video.quality, "model": report.model,
        "sha256": video.sha256, "takes": takes,
    }  # fmt: skip
    track.append(clip)
    return track


def _sound(media: Media, frames: int, fps: int, where: Where) -> otio.schema.Track:
    track = otio.schema.Track("Sound", kind=otio.schema.TrackKind.Audio)
    length = min(frames, media.duration_s * fps)
    clip = otio.schema.Clip(
        media.name or media.id, _reference(where(media.id), media.duration_s, fps), _span(0, length, fps)
    )
    clip.metadata[KEY] = {"media_id": media.id, "sha256": media.sha256}
    track.append(clip)
    return track


def _reference(address: str, length_s: float, fps: int) -> otio.schema.ExternalReference:
    return otio.schema.ExternalReference(address, _span(0, length_s * fps, fps))


def _gap(track: otio.schema.Track, frames: int, fps: int) -> None:
    if frames > 0:
        track.append(otio.schema.Gap(source_range=_span(0, frames, fps)))


def _span(start: float, length: float, fps: int) -> TimeRange:
    return TimeRange(RationalTime(start, fps), RationalTime(length, fps))


def _numbers(span: TimeRange) -> list[Any]:
    """Start and length in seconds, by which an import sees what an editor changed."""
    return [span.start_time.to_seconds(), span.duration.to_seconds()]
