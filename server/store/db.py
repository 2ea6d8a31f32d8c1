"""The only place that owns SQLite connections: write-ahead log, one writer at a time, every write in BEGIN IMMEDIATE.

A plain BEGIN that reads, then writes fails at once with "database is locked" when another process wrote in between,
whatever the busy timeout: its snapshot cannot be upgraded. BEGIN IMMEDIATE takes the write lock first and waits.
"""

from __future__ import annotations

import difflib
import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dreamontage.schemas.errors import Busy, InvalidInput, NotFound, StudioFull

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        import pysqlite3 as sqlite3  # newer than Python 3.11's own SQLite, which has the WAL-reset bug
    except ImportError:
        import sqlite3

BUSY_TIMEOUT_S = 30.0
SCHEMA_VERSION = 2
"""Number of migrations; PRAGMA user_version of an up-to-date database."""


def new_id(prefix: str) -> str:
    """A fresh id such as m_5d1f0c2ab3e4: 48 random bits behind a prefix that tells the kind."""
    return f"{prefix}_{secrets.token_hex(6)}"


class Database:
    """One SQLite file shared by threads and processes. Connections are lent out, never held across calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        with self.read() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise InvalidInput(
                "the studio was made by a newer version of dreamontage", next_call="pip install --upgrade dreamontage"
            )
        if version < SCHEMA_VERSION:
            self._migrate()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for SELECTs; each statement sees the newest committed state."""
        connection = self._idle.pop() if self._idle else self._open()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    @contextmanager
    def write(self, wait_s: float = BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its first statement; rolled back when the block raises.

        Raises StudioFull when the disk is full, Busy when other writers hold the lock for `wait_s`.
        """
        with self.read() as connection:
            if wait_s != BUSY_TIMEOUT_S:
                connection.execute(f"PRAGMA busy_timeout = {round(1000 * wait_s)}")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise _as_lesson(error) from error
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if wait_s != BUSY_TIMEOUT_S:
                    connection.execute(f"PRAGMA busy_timeout = {round(1000 * BUSY_TIMEOUT_S)}")

    def close(self) -> None:
        """Close every connection that is not lent out."""
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _migrate(self) -> None:
        """Bring the schema up to date; a file lock lets one process do it while the others wait."""
        from .migrations import apply  # sqlite-utils takes a quarter of a second to import

        with self.path.with_suffix(".setup").open("w") as lock, self.read() as connection:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                apply(connection)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _as_lesson(error: sqlite3.OperationalError) -> Exception:
    if "full" in str(error):
        return StudioFull("the disk is full, so nothing was changed", next_call="free some space, then repeat the call")
    if "locked" in str(error):
        return Busy(
            f"the studio was busy for {BUSY_TIMEOUT_S:.0f} seconds, so nothing was changed", next_call="repeat the call"
        )
    return error


def not_found(connection: sqlite3.Connection, table: str, unknown: str, list_call: str) -> NotFound:
    """The error for an id that names no row of `table`: the nearest known ids, else the newest, and the list call."""
    known = [row[0] for row in connection.execute(f"SELECT id FROM {table} ORDER BY rowid DESC LIMIT 1000")]
    near = difflib.get_close_matches(unknown, known, n=3, cutoff=0.7)
    allowed = f"near: {', '.join(near)}" if near else f"newest: {', '.join(known[:3])}" if known else "none exists yet"
    shown = unknown if len(unknown) <= 64 else unknown[:61] + "..."
    return NotFound(f"no {table} is called {shown!r}", field=f"{table}_id", allowed=allowed, next_call=list_call)
