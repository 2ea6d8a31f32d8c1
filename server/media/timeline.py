"""What an OpenTimelineIO file holds, as plain rows in seconds. Runs in the confined child process; no torch.

Problems of MediaRejected are predicates, as in `probe`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from dreamontage.schemas import limits
from dreamontage.schemas.errors import MediaRejected

MAX_BYTES: Final = 16 * 2**20
_KEY: Final = "dreamontage"
_MOST: Final = 2_000
_DEEPEST: Final = 100


def read_timeline(file: BinaryIO) -> dict[str, Any]:
    """{name, fps, duration_s, ours, clips, beats}: every clip with its place and media, every marker with a length.

    `ours`: what an export of this program wrote into the metadata. A row's `range` is [start, length] in its medium or
    on the timeline. Raises MediaRejected for what is no timeline.
    """
    import opentimelineio as otio

    text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise MediaRejected(f"has more than {MAX_BYTES:,} bytes", allowed="a timeline without its media")
    try:
        _refuse_depth(json.loads(text))
        timeline = otio.core.deserialize_json_from_string(text.decode())
    except (ValueError, RecursionError, otio.exceptions.OTIOError) as error:
        raise _no_timeline() from error
    if not isinstance(timeline, otio.schema.Timeline):
        raise _no_timeline()
    try:
        clips = list(_clips(otio, timeline))
        return {
            "name": timeline.name,
            "fps": _rate(otio, timeline),
            "duration_s": timeline.duration().to_seconds(),
            "ours": _ours(otio, timeline),
            "clips": clips,
            "beats": list(_beats(otio, timeline)),
        }
    except (ValueError, otio.exceptions.OTIOError) as error:
        raise MediaRejected(
            f"holds times that fit nowhere ({type(error).__name__})", allowed="a timeline that its editor can play"
        ) from error


def _clips(otio: Any, timeline: Any) -> Iterator[dict[str, Any]]:
    for track in timeline.tracks:
        if not isinstance(track, otio.schema.Track):
            continue
        for number, clip in enumerate(track.find_clips()):
            if number >= _MOST:
                raise MediaRejected(f"holds more than {_MOST} clips", allowed=f"at most {limits.MAX_ANCHORS} clips")
            within = clip.trimmed_range()
            placed = clip.transformed_time_range(within, timeline.tracks)
            start = within.start_time.to_seconds()
            reference = clip.media_reference
            if reference is not None and not reference.is_missing_reference and reference.available_range is not None:
                start -= reference.available_range.start_time.to_seconds()  # a camera's clock may start at any hour
            yield {
                "name": clip.name,
                "sound": track.kind == otio.schema.TrackKind.Audio,
                "url": getattr(reference, "target_url", None),
                "second": placed.start_time.to_seconds(),
                "range": [start, within.duration.to_seconds()],
                "ours": _ours(otio, clip),
            }


def _beats(otio: Any, timeline: Any) -> Iterator[dict[str, Any]]:
    for holder in (timeline.tracks, *timeline.tracks):
        for marker in holder.markers:
            span = holder.transformed_time_range(marker.marked_range, timeline.tracks)
            if span.duration.value > 0:
                yield {
                    "name": marker.comment or marker.name,
                    "range": [span.start_time.to_seconds(), span.duration.to_seconds()],
                    "ours": _ours(otio, marker),
                }


def _rate(otio: Any, timeline: Any) -> float:
    if timeline.global_start_time is not None:
        return float(timeline.global_start_time.rate)
    rates = (clip.trimmed_range().duration.rate for clip in timeline.find_clips())
    return float(next(rates, limits.DEFAULT_FPS))


def _ours(otio: Any, item: Any) -> Any:
    """Our own metadata as plain JSON values; empty where there is none."""
    metadata = json.loads(otio.core.serialize_json_to_string(item.metadata, indent=-1))
    return metadata.get(_KEY) or {}


def _refuse_depth(value: Any) -> None:
    """Nested deeper than any timeline: a reader in C++ would run out of stack."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)
                 if isinstance(part, (dict, list))]  # fmt: skip
        if not level:
            return
    raise _no_timeline()


def _no_timeline() -> MediaRejected:
    return MediaRejected(
        "is no OpenTimelineIO timeline", allowed="an .otio file", next_call="export the timeline as .otio, then repeat"
    )
