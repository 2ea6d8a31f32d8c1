"""Worker rows: who renders on which device, when it last gave a sign of life, and whether another took its device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .db import BUSY_TIMEOUT_S, Database

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True)
class WorkerRow:
    """One worker at work. Times are Unix seconds; `gone` says that another one holds its device now."""

    id: str
    device: str
    pid: int
    started_at: float
    heartbeat_at: float
    doing: str
    gone: int = 0


class WorkerStore:
    """The workers of a studio."""

    db: Database

    def begin_work(self, worker_id: str, device: str, pid: int, wait_s: float = BUSY_TIMEOUT_S) -> None:
        """Make a worker the one of its device. The caller has just taken the device's lock.

        Every other worker of the device is gone from now on: one that was stalled and wakes up claims nothing more.
        Raises Busy when others hold the database's lock for `wait_s`.
        """
        with self.db.write(wait_s) as connection:
            connection.execute("UPDATE worker SET gone = 1 WHERE device = ?", (device,))
            _beat(connection, worker_id, device, pid, "waiting")

    def heartbeat(self, worker_id: str, device: str, pid: int, doing: str) -> None:
        """Show that a worker is alive and what it does."""
        with self.db.write() as connection:
            _beat(connection, worker_id, device, pid, doing)

    def workers(self, limit: int = 1) -> list[WorkerRow]:
        """The workers, the last heard of first."""
        with self.db.read() as connection:
            rows = connection.execute("SELECT * FROM worker ORDER BY heartbeat_at DESC LIMIT ?", (limit,))
            return [WorkerRow(**dict(row)) for row in rows]


def _beat(connection: sqlite3.Connection, worker_id: str, device: str, pid: int, doing: str) -> None:
    connection.execute(
        "INSERT INTO worker (id, device, pid, started_at, heartbeat_at, doing)"
        " VALUES (:id, :device, :pid, :now, :now, :doing)"
        " ON CONFLICT (id) DO UPDATE SET heartbeat_at = :now, doing = :doing",
        {"id": worker_id, "device": device, "pid": pid, "now": time.time(), "doing": doing},
    )
