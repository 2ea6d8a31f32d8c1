"""What others did, in words. What somebody wrote is always in quotes, with a name beside it: data, no instructions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .store.events import Event

_MOST = 6
_MOST_CHARS = 80
_RENDERS = {
    "job.queued": "queued a render",
    "job.done": "finished a render",
    "job.failed": "could not finish a render",
    "job.cancel": "cancelled a render",
    "add_video": "made a video",
    "choose_take": "chose a take",
}


def quoted(text: str, by: str = "", most: int = _MOST_CHARS) -> str:
    """Somebody's words as data: one line in quotes, at most `most` characters of it, with who wrote them."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    shown = json.dumps(line if len(line) <= most else line[: most - 1] + "…", ensure_ascii=False)
    return f"{shown} by {by}" if by else shown


def told(event: Event, now: float | None = None) -> str | None:
    """One short line about an event, such as `revision 3, 20 s ago, ada: a2 second 3 → 4`; None for what is no news."""
    passed = ago((time.time() if now is None else now) - event.at)
    if event.revision is not None:
        done = {"undo_changes": "undid: ", "merge_montage": "merged: ", "fork": "forked: "}.get(event.op, "")
        return f"revision {event.revision}, {passed}, {event.actor}: {done}{told_patch(event.patch)}"
    if event.op not in _RENDERS:
        return None
    ids = ", ".join(str(event.args[name]) for name in ("job_id", "video_id", "take") if name in event.args)
    return f"{passed}, {event.actor} {_RENDERS[event.op]}" + (f" ({ids})" if ids else "")


def told_patch(patch: Mapping[str, tuple[Any, Any]]) -> str:
    """What a patch changed: `+a4 at 3 s "lake"; -b1; a2 second 3 → 4; duration_s 6 → 9`."""
    if all(before is None for before, _ in patch.values()) and "format" in patch:
        anchors = sum(key.startswith("anchor:") for key in patch)
        return f"created with {anchors} anchor{'s' * (anchors != 1)}, {patch['duration_s'][1]:g} s"
    parts = [_told_entity(key, *pair) for key, pair in patch.items()]
    return "; ".join(parts[:_MOST]) + (f"; and {len(parts) - _MOST} more" if len(parts) > _MOST else "")


def told_conflict(key: str, event: Event) -> str:
    """`ada changed a2 in revision 5, 12 s ago; now {...}`."""
    name = key.partition(":")[2] or key
    now = event.patch[key][1]
    what = "removed" if now is None else "changed"
    value = "" if now is None else f"; now {told_value(now)}"
    return f"{event.actor} {what} {name} in revision {event.revision}, {ago(time.time() - event.at)}{value}"


def told_value(value: Any) -> str:
    """A value as JSON, long words shortened."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        inner = ", ".join(f'"{name}": {told_value(part)}' for name, part in value.items() if part not in (None, ""))
        return f"{{{inner}}}"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def ago(seconds: float) -> str:
    """`12 s ago`, `3 min ago`, `2 h ago`, `5 days ago`."""
    for unit, size, below in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < below:
            return f"{max(0, seconds) / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def _told_entity(key: str, before: Any, after: Any) -> str:
    kind, _, name = key.rpartition(":")
    if not kind:
        return f"{key} {told_value(before)} → {told_value(after)}"
    if after is None:
        return f"-{name}"
    if before is None:
        at = f"at {after['second']:g} s" if kind == "anchor" else f"{after['start_s']:g}–{after['end_s']:g} s"
        words = after["label"] if kind == "anchor" else after["prompt"]
        return f"+{name} {at}" + (f" {quoted(words)}" if words else "")
    fields = [f for f in after if f not in ("id", "by") and before.get(f) != after[f]]
    return f"{name} " + ", ".join(f"{f} {told_value(before.get(f))} → {told_value(after[f])}" for f in fields)
