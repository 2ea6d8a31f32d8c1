"""`dreamontage studio check`: is everything that the database names on disk, whole, and referred to rightly?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Video

from .store import Studio

Severity = Literal["problem", "note"]
Tick = Callable[[], object]

_REFERENCES = {
    "montages whose newest revision is missing": "SELECT montage.id FROM montage LEFT JOIN revision"
    " ON montage_id = id AND revision.revision = montage.revision WHERE body IS NULL",
    "revisions that skip a number": "SELECT montage_id FROM revision GROUP BY montage_id"
    " HAVING count(*) <> max(revision)",
    "revisions without their event": "SELECT montage_id || ' revision ' || revision FROM revision AS made"
    " WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.montage_id = made.montage_id"
    " AND event.revision = made.revision)",
    "anchors whose media is unknown": "SELECT DISTINCT montage_id || ' ' || (anchor.value ->> 'media_id')"
    " FROM revision, json_each(revision.body, '$.anchors') AS anchor"
    " WHERE anchor.value ->> 'media_id' NOT IN (SELECT id FROM media)",
    "montages whose sound is unknown": "SELECT DISTINCT montage_id || ' ' || (body ->> 'audio') FROM revision"
    " WHERE body ->> 'audio' IS NOT NULL AND body ->> 'audio' NOT IN (SELECT id FROM media)",
    "jobs of unknown revisions": "SELECT job.id FROM job LEFT JOIN revision"
    " ON revision.montage_id = job.montage_id AND revision.revision = job.revision WHERE body IS NULL",
    "running jobs without a worker": "SELECT id FROM job WHERE state = 'running' AND worker_id IS NULL",
    "jobs that ended more than once": "SELECT args ->> 'job_id' FROM event"
    " WHERE op IN ('job.done', 'job.failed', 'job.cancelled') GROUP BY 1 HAVING count(*) > 1",
}


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be. A note needs no action: the studio mends it by itself."""

    severity: Severity
    what: str


def size_of_check(studio: Studio) -> int:
    """How many times `check` will tick."""
    return len(_rows(studio, "SELECT id FROM media UNION ALL SELECT id FROM video")) + len(_takes(studio))


def check(studio: Studio, tick: Tick = lambda: None) -> Iterator[Fault]:
    """Faults of a studio: the database, every reference, every blob's, video's and take's hash. Reads every file once.

    `tick` is called after each file.
    """
    for (line,) in _rows(studio, "PRAGMA integrity_check"):
        if line != "ok":
            yield Fault("problem", f"database: {line}")
    for row in _rows(studio, "PRAGMA foreign_key_check"):
        yield Fault("problem", f"database: row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there")
    for what, query in _REFERENCES.items():
        if names := [str(row[0]) for row in _rows(studio, query)]:
            yield Fault("problem", f"{what}: {', '.join(names[:5])}" + (" and more" if len(names) > 5 else ""))
    yield from _astray(studio)
    for media_id, sha256 in _rows(studio, "SELECT id, sha256 FROM media"):
        yield from _file(f"media {media_id}", studio.folder / "blobs" / sha256, sha256)
        tick()
    for (body,) in _rows(studio, "SELECT body FROM video"):
        yield from _video(Video.model_validate_json(body))
        tick()
    for fingerprint in _takes(studio):
        yield from _take(studio.takes, fingerprint)
        tick()


def _video(video: Video) -> Iterator[Fault]:
    path = Path(video.path)
    yield from _file(f"video {video.id}", path, video.sha256)
    for part in (Path(video.sheet), path.with_name("report.json")):
        if not part.is_file():
            yield Fault("problem", f"video {video.id}: {part.name} is missing")


def _take(takes: Path, fingerprint: str) -> Iterator[Fault]:
    name, sidecar = f"take {fingerprint[:16]}", takes / f"{fingerprint}.json"
    try:
        sha256 = str(json.loads(sidecar.read_bytes())["sha256"])
    except FileNotFoundError:
        yield Fault("note", f"{name} is not there; the next render that needs it makes it again")
    except (ValueError, KeyError, TypeError):
        yield Fault("note", f"{name} is damaged; the next render that needs it makes it again")
    else:
        for fault in _file(name, sidecar.with_suffix(".safetensors"), sha256):
            yield Fault("note", f"{fault.what}; the next render that needs it makes it again")


def _file(name: str, path: Path, sha256: str) -> Iterator[Fault]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        yield Fault("problem", f"{name}: its file is missing")
        return
    if digest != sha256:
        yield Fault("problem", f"{name}: its file has sha256 {digest[:16]}…, not {sha256[:16]}…")


def _takes(studio: Studio) -> list[str]:
    return [row[0] for row in _rows(studio, "SELECT DISTINCT fingerprint FROM take")]


def _astray(studio: Studio) -> Iterator[Fault]:
    """Montages that are not what their event log tells."""
    current = "SELECT id, body FROM montage JOIN revision ON montage_id = id AND revision.revision = montage.revision"
    for montage_id, body in _rows(studio, current):
        try:
            whole = studio.replay(montage_id) == Montage.model_validate_json(body)
        except ValidationError:
            whole = False
        if not whole:
            yield Fault("problem", f"{montage_id} is not what its event log tells")


def _rows(studio: Studio, query: str) -> list[Any]:
    with studio.db.read() as connection:
        return connection.execute(query).fetchall()
