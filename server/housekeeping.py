"""What a studio need not keep: takes that nothing names, old previews, and what crashes left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamontage.schemas import limits
from dreamontage.schemas.report import Video

from .store import Studio
from .store.blobs import remove
from .store.events import record


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go, and why."""

    path: Path
    bytes: int
    why: str


def leftovers(studio: Studio) -> list[Leftover]:
    """Everything in a studio that can go now, without touching what a montage, video, choice or running job needs."""
    found = [Leftover(path, size_of(path), "left behind by a crash") for path in studio.orphans()]
    found += _old(studio.folder / "previews", limits.PREVIEW_KEPT_S, "an old preview, drawn again when asked for")
    named = _named_takes(studio)
    takes = _old(studio.takes, limits.TAKE_KEPT_S, "a take that no video and no choice names")
    found += [take for take in takes if take.path.name.partition(".")[0] not in named]
    return list({leftover.path: leftover for leftover in reversed(found)}.values())[::-1]


def collect(studio: Studio) -> list[Leftover]:
    """Remove the leftovers; returns what went."""
    return [leftover for leftover in leftovers(studio) if remove(leftover.path)]


def unpinned_media(studio: Studio) -> list[str]:
    """Media that no revision of any montage pins and that were added more than a day ago."""
    with studio.db.read() as connection:
        rows = connection.execute(
            "SELECT id FROM media WHERE added_at < ? AND id NOT IN (SELECT anchor.value ->> 'media_id'"
            " FROM revision, json_each(revision.body, '$.anchors') AS anchor)",
            (time.time() - limits.PREVIEW_KEPT_S,),
        )
        return [row["id"] for row in rows]


def remove_media(studio: Studio, media_ids: Sequence[str]) -> None:
    """Remove media that are pinned nowhere, rows and files; one that was pinned meanwhile stays."""
    with studio.db.write() as connection:
        still = set(unpinned_media(studio))
        gone = [studio.media(media_id) for media_id in media_ids if media_id in still]
        for media in gone:
            connection.execute("DELETE FROM media WHERE id = ?", (media.id,))
            record(connection, "remove_media", {"media_id": media.id, "name": media.name}, actor="owner")
            remove(studio.folder / "blobs" / media.sha256)  # within: who adds the same bytes now notices


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def disk_bytes(video: Video, takes: Path) -> int:
    """Bytes that a job's videos need: their files, the copy for people, and the takes rendered for them."""
    videos = (video, *video.alternatives)
    paths = {Path(one.path).parent for one in videos}
    paths |= {takes / f"{s.fingerprint}.{end}" for one in videos for s in one.report.segments if not s.reused
              for end in ("safetensors", "json")}  # fmt: skip
    if video.delivered:
        paths.add(Path(video.delivered))
    return sum(map(size_of, filter(Path.exists, paths)))


def _old(folder: Path, kept_s: float, why: str) -> Iterator[Leftover]:
    before = time.time() - kept_s
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stat().st_mtime < before:
            yield Leftover(path, size_of(path), why)


def _named_takes(studio: Studio) -> set[str]:
    with studio.db.read() as connection:
        rows = connection.execute(
            "SELECT fingerprint FROM take UNION SELECT body ->> '$.segment.fingerprint' FROM choice"
        )
        return {row[0] for row in rows}
