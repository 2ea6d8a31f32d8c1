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
    for place in ("previews", "thumbnails"):
        found += _old(studio.folder / place, limits.PREVIEW_KEPT_S, "an old preview, drawn again when asked for")
    named = _named_takes(studio)
    takes = _old(studio.takes, limits.TAKE_KEPT_S, "a take that no video and no choice names")
    found += [take for take in takes if take.path.name.partition(".")[0] not in named]
    return list({leftover.path: leftover for leftover in reversed(found)}.values())[::-1]


def collect(studio: Studio) -> list[Leftover]:
    """Remove the leftovers; returns what went."""
    return [leftover for leftover in leftovers(studio) if remove(leftover.path)]


def unpinned_media(studio: Studio) -> list[str]:
    """Media that no revision of any montage uses and that were added more than a day ago."""
    with studio.db.read() as connection:
        rows = connection.execute(
            "SELECT id FROM media WHERE added_at < ? AND id NOT IN (SELECT anchor.value ->> 'media_id'"
            " FROM revision, json_each(revision.body, '$.anchors') AS anchor)"
            " AND id NOT IN (SELECT body ->> 'audio' FROM revision WHERE body ->> 'audio' IS NOT NULL)",
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


def superseded_videos(studio: Studio, older_than_days: float) -> list[str]:
    """Videos of that age after which the same montage got a newer one at the same quality; none with a chosen take."""
    with studio.db.read() as connection:
        rows = connection.execute(
            "SELECT id FROM video AS old WHERE created_at < ? AND alternative_of IS NULL"
            " AND EXISTS (SELECT 1 FROM video AS newer WHERE newer.montage_id = old.montage_id"
            "  AND newer.quality = old.quality AND newer.alternative_of IS NULL AND newer.rowid > old.rowid)"
            " AND NOT EXISTS (SELECT 1 FROM choice JOIN video AS shown ON shown.id = choice.body ->> 'video_id'"
            "  WHERE old.id IN (shown.id, shown.alternative_of))",
            (time.time() - older_than_days * 86_400,),
        )
        return [row["id"] for row in rows]


def remove_videos(studio: Studio, video_ids: Sequence[str]) -> None:
    """Remove videos with their alternatives, rows first. Their takes go with the leftovers once nothing names them."""
    for video_id in video_ids:
        with studio.db.write() as connection:
            rows = connection.execute("SELECT id FROM video WHERE ? IN (id, alternative_of)", (video_id,))
            gone = [(row["id"],) for row in rows]
            connection.executemany("DELETE FROM take WHERE video_id = ?", gone)
            connection.execute(
                "UPDATE job SET video_id = NULL, bytes = 0, error = 'Its video was removed to free space.'"
                " WHERE video_id = ?",
                (video_id,),
            )
            connection.execute("DELETE FROM video WHERE alternative_of = ?", (video_id,))
            montage = connection.execute("DELETE FROM video WHERE id = ? RETURNING montage_id", (video_id,)).fetchone()
            record(connection, "remove_video", {"video_id": video_id}, actor="owner", montage_id=montage["montage_id"])
        for (one,) in gone:
            remove(studio.video_folder(one))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def disk_bytes(video: Video, takes: Path) -> int:
    """Bytes that a job's videos need: their files, the copy for people, and the takes rendered for them."""
    videos = (video, *video.alternatives)
    paths = {Path(video.path).parent}  # alternatives lie inside
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
