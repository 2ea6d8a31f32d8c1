"""Finished videos: one row per result folder, written when everything in the folder is on disk."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dreamontage.schemas.montage import Quality
from dreamontage.schemas.report import Video

from .db import Database, not_found
from .events import record

if TYPE_CHECKING:
    import sqlite3


def insert_video(connection: sqlite3.Connection, video: Video, actor: str) -> None:
    """Add a video's row, those of its alternatives and their takes, and one event within the caller's transaction."""
    for one in (video, *video.alternatives):
        body = one.model_dump_json()
        connection.execute(
            "INSERT INTO video (id, montage_id, revision, quality, body, created_at, alternative_of)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (one.id, one.montage_id, one.revision, one.quality, body, time.time(), one.alternative_of),
        )
        takes = [(take.fingerprint, one.id, ordinal) for ordinal, take in enumerate(one.segments)]
        connection.executemany("INSERT INTO take VALUES (?, ?, ?)", takes)
    made: dict[str, Any] = {"video_id": video.id, "revision": video.revision, "quality": video.quality}
    if video.alternatives:
        made["alternatives"] = [one.id for one in video.alternatives]
    record(connection, "add_video", made, actor=actor, montage_id=video.montage_id)


class VideoStore:
    """The videos of a studio."""

    db: Database
    folder: Path

    def video_folder(self, video_id: str) -> Path:
        """Where one-shot.mp4, sheet.jpg and report.json of a video are."""
        return self.folder / "videos" / video_id

    def add_video(self, video: Video, actor: str = "owner") -> Video:
        """Add a video whose files are complete."""
        with self.db.write() as connection:
            insert_video(connection, video, actor)
        return video

    def video(self, video_id: str) -> Video:
        """A video by id. Raises NotFound."""
        with self.db.read() as connection:
            row = connection.execute("SELECT body FROM video WHERE id = ?", (video_id,)).fetchone()
            if row is None:
                raise not_found(connection, "video", video_id, "get_job(), which lists the jobs with their videos")
        return Video.model_validate_json(row["body"])

    def videos(self, montage_id: str | None = None, limit: int = 20) -> list[Video]:
        """Videos of one montage or of the whole studio, the newest first; alternatives come with `alternatives_of`."""
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT body FROM video WHERE alternative_of IS NULL AND (:id IS NULL OR montage_id = :id)"
                " ORDER BY rowid DESC LIMIT :limit",
                {"id": montage_id, "limit": limit},
            ).fetchall()
        return [Video.model_validate_json(row["body"]) for row in rows]

    def alternatives_of(self, video_id: str) -> list[Video]:
        """The videos that the same job made of other takes, in order."""
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT body FROM video WHERE alternative_of = ? ORDER BY rowid", (video_id,)
            ).fetchall()
        return [Video.model_validate_json(row["body"]) for row in rows]

    def lesson(self, model: str, quality: Quality, profile: str) -> float:
        """Seconds measured ÷ estimated: the median of the last five videos of a model at a quality with a profile that
        were rendered among the last twenty of that quality; 1 where there is none."""
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT told ->> 'measured_s' * told ->> 'correction' / told ->> 'seconds' AS ratio FROM"
                " (SELECT body ->> '$.report.model' AS model, body -> '$.report.estimate' AS told FROM"
                " (SELECT body FROM video WHERE quality = ? AND alternative_of IS NULL ORDER BY rowid DESC LIMIT 20))"
                " WHERE model = ? AND told ->> 'profile' = ? AND told ->> 'seconds' > 0 LIMIT 5",
                (quality, model, profile),
            ).fetchall()
        return float(median(row["ratio"] for row in rows)) if rows else 1.0

    def latest_video(self, montage_id: str, quality: Quality) -> Video | None:
        """The newest video of a montage at a quality; alternatives do not count."""
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT body FROM video WHERE montage_id = ? AND quality = ? AND alternative_of IS NULL"
                " ORDER BY rowid DESC LIMIT 1",
                (montage_id, quality),
            ).fetchone()
        return None if row is None else Video.model_validate_json(row["body"])
