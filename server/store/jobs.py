"""Jobs: a durable queue in SQLite. A claim raises `attempt`; every later write of a worker names its own attempt.

Actors take turns: a claim serves the one who was served longest ago, so that many jobs of one never starve another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from dreamontage.schemas import limits
from dreamontage.schemas.errors import Cancelled
from dreamontage.schemas.job import Job, JobState, Progress, RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Estimate
from dreamontage.schemas.report import Video

from ..quotas import Quotas
from .db import Database, new_id, not_found
from .events import record
from .videos import insert_video

if TYPE_CHECKING:
    import sqlite3

FINAL: tuple[JobState, ...] = ("done", "failed", "cancelled")
_POLL_S = 0.25
Then = Callable[["sqlite3.Connection", Job], None]
_ABANDONED = """state = 'running' AND worker_id IN (
    SELECT id FROM worker WHERE id <> :me AND (gone OR device = :device OR heartbeat_at < :stale))"""
_PLAIN = ("id", "montage_id", "revision", "actor", "state", "attempt", "error", "video_id")
_LAST_SERVED = "SELECT max(claimed_at) FROM job AS served WHERE served.actor = job.actor"


class StaleAttempt(Exception):
    """The job has been claimed by another worker since; this one's writes no longer count."""


class DeviceLost(Exception):
    """Another worker took this one's device while it gave no sign of life; it claims nothing more."""


class JobStore:
    """The jobs of a studio."""

    db: Database
    folder: Path
    out: Path
    quotas: Quotas
    stale_after_s: float = limits.STALE_HEARTBEAT_S

    def enqueue(
        self, montage: Montage, request: RenderRequest, estimate: Estimate | None, actor: str = "owner",
        then: Then | None = None,
    ) -> Job:  # fmt: skip
        """Queue a render of this revision. An actor's same request, while it waits or runs, is answered with the same
        job; another actor's is a job of its own, which finds the takes of the first. `then` runs inside the write
        transaction when all is written.

        Raises QuotaExceeded, or StudioFull if the disk cannot hold what the estimate says.
        """
        with self.db.write() as connection:
            same = connection.execute(
                "SELECT * FROM job WHERE montage_id = ? AND revision = ? AND request = ? AND out_dir = ? AND actor = ?"
                " AND state IN ('queued', 'running') AND NOT cancel_requested",
                (montage.id, montage.revision, request.model_dump_json(), str(self.out), actor),
            ).fetchone()
            job = self._queued(connection, montage, request, estimate, actor) if same is None else _job(same)
            if then is not None:
                then(connection, job)
        return job

    def _queued(
        self, connection: sqlite3.Connection, montage: Montage, request: RenderRequest, estimate: Estimate | None,
        actor: str,
    ) -> Job:  # fmt: skip
        now, size = time.time(), estimate.bytes if estimate else 0
        self.quotas.admit(connection, actor, self.folder, jobs=1, disk_bytes=size)
        row = connection.execute(
            "INSERT INTO job (id, montage_id, revision, request, estimate, out_dir, progress, actor, bytes,"
            " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
            (
                new_id("j"),
                montage.id,
                montage.revision,
                request.model_dump_json(),
                estimate.model_dump_json() if estimate else None,
                str(self.out),
                Progress().model_dump_json(),
                actor,
                size,
                now,
                now,
            ),
        ).fetchone()
        return _recorded(connection, "job.queued", row, actor)

    def job(self, job_id: str) -> Job:
        """A job by id. Raises NotFound."""
        with self.db.read() as connection:
            row = connection.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise not_found(connection, "job", job_id, "get_job(), which lists the jobs")
        return _job(row)

    def jobs(
        self,
        montage_id: str | None = None,
        states: Sequence[JobState] = (),
        limit: int = 20,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, the newest first; of one montage, in some states, queued before another."""
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT * FROM job WHERE (:id IS NULL OR montage_id = :id)"
                " AND (:states = '[]' OR state IN (SELECT value FROM json_each(:states)))"
                " AND (:before IS NULL OR rowid < (SELECT rowid FROM job WHERE id = :before))"
                " ORDER BY rowid DESC LIMIT :limit",
                {"id": montage_id, "states": json.dumps(list(states)), "limit": limit, "before": before},
            ).fetchall()
        return [_job(row) for row in rows]

    def jobs_wait(self) -> bool:
        """Whether any job is queued or running, so that a worker is needed."""
        with self.db.read() as connection:
            return connection.execute("SELECT 1 FROM job WHERE state IN ('queued', 'running')").fetchone() is not None

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job as soon as it is done, failed or cancelled, at the latest after `seconds`. Raises NotFound."""
        with anyio.move_on_after(seconds):
            while (job := await anyio.to_thread.run_sync(self.job, job_id)).state not in FINAL:
                await anyio.sleep(_POLL_S)
            return job
        return self.job(job_id)

    def cancel(self, job_id: str, actor: str = "owner") -> Job:
        """Cancel a queued job at once; ask the worker of a running one, which stops within a step. Raises NotFound."""
        with self.db.write() as connection:
            before = connection.execute("SELECT state, cancel_requested FROM job WHERE id = ?", (job_id,)).fetchone()
            if before is None:
                raise not_found(connection, "job", job_id, "get_job(), which lists the jobs")
            row = connection.execute(
                "UPDATE job SET cancel_requested = state IN ('queued', 'running'), updated_at = :now,"
                " bytes = CASE state WHEN 'queued' THEN 0 ELSE bytes END,"
                " state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END WHERE id = :id RETURNING *",
                {"id": job_id, "now": time.time()},
            ).fetchone()
            if before["state"] in FINAL or before["cancel_requested"]:
                return _job(row)
            return _recorded(connection, "job.cancel", row, actor)

    def claim(self, worker_id: str, device: str = "cpu") -> Job | None:
        """The next job, now running as the next attempt of this worker; None without one.

        An abandoned job comes first, then the oldest job of the actor whose last turn is longest ago. The caller holds
        the device's lock, so a running job of another worker on this device was abandoned. Abandoned jobs that were
        cancelled, or have used up their attempts, end here. Raises DeviceLost if another worker has the device by now.
        """
        now = time.time()
        own = {"me": worker_id, "device": device, "stale": now - self.stale_after_s, "now": now}
        with self.db.write() as connection:
            if connection.execute("SELECT 1 FROM worker WHERE id = ? AND gone", (worker_id,)).fetchone():
                raise DeviceLost(device)
            ended = connection.execute(
                f"UPDATE job SET state = CASE cancel_requested WHEN 1 THEN 'cancelled' ELSE 'failed' END,"
                f" bytes = 0, updated_at = :now, error = CASE cancel_requested WHEN 1 THEN NULL ELSE :why END"
                f" WHERE {_ABANDONED} AND (cancel_requested OR fruitless >= :most) RETURNING *",
                {**own, "most": limits.MAX_ATTEMPTS_WITHOUT_TAKE, "why": _given_up("the worker was killed")},
            ).fetchall()
            for row in ended:
                _recorded(connection, f"job.{row['state']}", row, "worker")
            claimed = connection.execute(
                f"UPDATE job SET state = 'running', attempt = attempt + 1, fruitless = fruitless + 1, worker_id = :me,"
                f" claimed_at = :now, updated_at = :now, progress = json_set(progress, '$.stage', 'loading')"
                f" WHERE id = (SELECT id FROM job WHERE state = 'queued' OR {_ABANDONED}"
                f" ORDER BY state = 'queued', ({_LAST_SERVED}) NULLS FIRST, created_at, rowid LIMIT 1) RETURNING *",
                own,
            ).fetchone()
            return None if claimed is None else _recorded(connection, "job.claimed", claimed, "worker")

    def progress(self, job_id: str, attempt: int, progress: Progress) -> None:
        """Record how far an attempt is; a take that no attempt had before makes further attempts worth while.

        Raises Cancelled when someone asked for that, StaleAttempt when the job is another worker's by now.
        """
        with self.db.write() as connection:
            row = connection.execute(
                "UPDATE job SET progress = :progress, updated_at = :now,"
                " fruitless = CASE WHEN :segments > most_segments THEN 0 ELSE fruitless END,"
                " most_segments = max(most_segments, :segments)"
                " WHERE id = :id AND attempt = :attempt AND state = 'running' RETURNING cancel_requested",
                {
                    "progress": progress.model_dump_json(),
                    "segments": progress.segments_done,
                    "now": time.time(),
                    "id": job_id,
                    "attempt": attempt,
                },
            ).fetchone()
        _require_wanted(row, job_id)

    def require_wanted(self, job_id: str, attempt: int) -> None:
        """Raise Cancelled or StaleAttempt as `progress` does, at the cost of one small read."""
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT cancel_requested FROM job WHERE id = ? AND attempt = ? AND state = 'running'", (job_id, attempt)
            ).fetchone()
        _require_wanted(row, job_id)

    def finish(self, job_id: str, attempt: int, video: Video, size: int | None = None) -> Job:
        """Add the video and mark the job done, both or neither. Raises StaleAttempt.

        `size`: bytes of disk that its files and takes really need; the estimate stands where it is not known.
        """
        with self.db.write() as connection:
            insert_video(connection, video, "worker")
            connection.execute("UPDATE job SET bytes = coalesce(?, bytes) WHERE id = ?", (size, job_id))
            return self._end(connection, job_id, attempt, "done", video_id=video.id)

    def fail(self, job_id: str, attempt: int, error: str) -> Job:
        """End an attempt that cannot succeed. Raises StaleAttempt."""
        with self.db.write() as connection:
            return self._end(connection, job_id, attempt, "failed", error=error)

    def end_cancelled(self, job_id: str, attempt: int) -> Job:
        """End a running attempt that was cancelled. Raises StaleAttempt."""
        with self.db.write() as connection:
            return self._end(connection, job_id, attempt, "cancelled")

    def retry(self, job_id: str, attempt: int, error: str) -> Job:
        """Queue the job again after an unexpected error, or fail it after three attempts without a new take.

        Raises StaleAttempt.
        """
        with self.db.write() as connection:
            fruitless = "SELECT 1 FROM job WHERE id = ? AND attempt = ? AND fruitless >= ?"
            if connection.execute(fruitless, (job_id, attempt, limits.MAX_ATTEMPTS_WITHOUT_TAKE)).fetchone():
                return self._end(connection, job_id, attempt, "failed", error=_given_up(error))
            return self._end(connection, job_id, attempt, "queued", error=error)

    def release(self, job_id: str, attempt: int) -> Job:
        """Queue the job again because its worker was asked to stop; the attempt is not held against it.

        Raises StaleAttempt.
        """
        with self.db.write() as connection:
            connection.execute(
                "UPDATE job SET fruitless = max(0, fruitless - 1) WHERE id = ? AND attempt = ?", (job_id, attempt)
            )
            return self._end(connection, job_id, attempt, "queued")

    def out_dir(self, job_id: str) -> Path:
        """The folder for the human copy of the result, as it was where the job was queued."""
        with self.db.read() as connection:
            return Path(connection.execute("SELECT out_dir FROM job WHERE id = ?", (job_id,)).fetchone()["out_dir"])

    def _end(
        self,
        connection: sqlite3.Connection,
        job_id: str,
        attempt: int,
        state: JobState,
        error: str | None = None,
        video_id: str | None = None,
    ) -> Job:
        row = connection.execute(
            "UPDATE job SET state = :state, error = :error, video_id = :video, updated_at = :now,"
            " bytes = CASE WHEN :state IN ('failed', 'cancelled') THEN 0 ELSE bytes END,"
            " progress = CASE :state WHEN 'done' THEN json_set(progress, '$.stage', 'done', '$.done',"
            " progress ->> 'total', '$.seconds_left', 0) ELSE progress END"
            " WHERE id = :id AND attempt = :attempt AND state = 'running' RETURNING *",
            {"state": state, "error": error, "video": video_id, "now": time.time(), "id": job_id, "attempt": attempt},
        ).fetchone()
        if row is None:
            raise StaleAttempt(job_id)
        return _recorded(connection, f"job.{state}", row, "worker")


def _require_wanted(row: sqlite3.Row | None, job_id: str) -> None:
    if row is None:
        raise StaleAttempt(job_id)
    if row["cancel_requested"]:
        raise Cancelled(f"{job_id} was cancelled; finished segments are kept")


def _given_up(reason: str) -> str:
    return (
        f"Given up after {limits.MAX_ATTEMPTS_WITHOUT_TAKE} attempts without a new segment: {reason.rstrip('.')}. "
        "Finished segments are kept. Next: render_segments again, with quality='draft' or a shorter part."
    )


def _job(row: sqlite3.Row) -> Job:
    return Job(
        **{key: row[key] for key in _PLAIN},
        request=RenderRequest.model_validate_json(row["request"]),
        progress=Progress.model_validate_json(row["progress"]),
        estimate=Estimate.model_validate_json(row["estimate"]) if row["estimate"] else None,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _recorded(connection: sqlite3.Connection, op: str, row: sqlite3.Row, actor: str) -> Job:
    job = _job(row)
    record(connection, op, {"job_id": job.id, "attempt": job.attempt}, actor=actor, montage_id=job.montage_id)
    return job
