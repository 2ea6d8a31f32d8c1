"""Worker rows: who renders on which device and when it last gave a sign of life. For display; the file lock decides."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .db import Database


@dataclass(frozen=True)
class WorkerRow:
    """One worker process. Times are Unix seconds."""

    id: str
    device: str
    pid: int
    started_at: float
    heartbeat_at: float
    doing: str


class WorkerStore:
    """The workers of a studio."""

    db: Database

    def heartbeat(self, worker_id: str, device: str, pid: int, doing: str) -> None:
        """Show that a worker is alive and what it does."""
        with self.db.write() as connection:
            connection.execute(
                "INSERT INTO worker VALUES (:id, :device, :pid, :now, :now, :doing)"
                " ON CONFLICT (id) DO UPDATE SET heartbeat_at = :now, doing = :doing",
                {"id": worker_id, "device": device, "pid": pid, "now": time.time(), "doing": doing},
            )

    def workers(self, limit: int = 1) -> list[WorkerRow]:
        """The workers, the last heard of first."""
        with self.db.read() as connection:
            rows = connection.execute("SELECT * FROM worker ORDER BY heartbeat_at DESC LIMIT ?", (limit,))
            return [WorkerRow(**dict(row)) for row in rows]
