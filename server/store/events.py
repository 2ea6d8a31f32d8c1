"""The event log: one row for every write, in the same transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .db import Database

if TYPE_CHECKING:
    import sqlite3

Patch = dict[str, tuple[Any, Any]]
"""What was there and what is there now, as JSON values, by entity: `anchor:a1`, `beat:b2`, `duration_s` and so on."""


@dataclass(frozen=True)
class Event:
    """Something that happened. `revision` is the montage's new revision, None where it did not change.

    `patch` is what an edit changed, entity by entity: see `server/merging.py`.
    """

    seq: int
    montage_id: str | None
    revision: int | None
    actor: str
    op: str
    args: dict[str, Any]
    at: float
    patch: Patch = field(default_factory=dict)


def record(
    connection: sqlite3.Connection,
    op: str,
    args: Mapping[str, Any],
    *,
    actor: str,
    montage_id: str | None = None,
    revision: int | None = None,
    patch: Patch | None = None,
) -> None:
    """Append one event within the caller's transaction."""
    told = json.dumps(dict(args), ensure_ascii=False, default=str)
    changed = json.dumps(patch, ensure_ascii=False) if patch else None
    connection.execute(
        "INSERT INTO event (montage_id, revision, actor, op, args, at, patch) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (montage_id, revision, actor, op, told, time.time(), changed),
    )


def changes_since(connection: sqlite3.Connection, montage_id: str, revision: int) -> list[Event]:
    """The edits of a montage after `revision`, oldest first."""
    rows = connection.execute(
        "SELECT * FROM event WHERE montage_id = ? AND revision > ? ORDER BY seq", (montage_id, revision)
    )
    return [_event(row) for row in rows]


def standing(edits: Sequence[Event]) -> list[Event]:
    """Those of a montage's edits (oldest first) that no undo took back, the newest first. Undoing an undo counts."""
    gone: set[int] = set()
    found = []
    for event in reversed(edits):
        if event.revision not in gone:
            found.append(event)
            gone |= set(event.args["revisions"]) if event.op == "undo_changes" else set()
    return found


class EventStore:
    """What happened in a studio."""

    db: Database

    def events(self, montage_id: str | None = None, since: int = 0, limit: int = 100) -> list[Event]:
        """Events after sequence number `since`, oldest first, of one montage or of the whole studio."""
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT * FROM event WHERE seq > :since AND (:id IS NULL OR montage_id = :id)"
                " ORDER BY seq LIMIT :limit",
                {"since": since, "id": montage_id, "limit": limit},
            )
            return [_event(row) for row in rows]

    def events_after(self, montage_id: str, revision: int) -> list[Event]:
        """Everything that happened to a montage after a revision, renders as well, oldest first."""
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT * FROM event WHERE montage_id = :id AND seq > coalesce("
                " (SELECT max(seq) FROM event WHERE montage_id = :id AND revision <= :revision), 0) ORDER BY seq",
                {"id": montage_id, "revision": revision},
            )
            return [_event(row) for row in rows]

    def changes(self, montage_id: str, since_revision: int) -> list[Event]:
        """The edits of a montage after `since_revision`, oldest first."""
        with self.db.read() as connection:
            return changes_since(connection, montage_id, since_revision)

    def last_event(self) -> int:
        """The sequence number of the newest event, 0 without one."""
        with self.db.read() as connection:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

    def changed_montages(self, since: int) -> tuple[int, list[str]]:
        """The newest sequence number, and the montages whose revision was raised after `since`."""
        newest = self.last_event()
        if newest <= since:
            return newest, []
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT montage_id FROM event WHERE seq > ? AND seq <= ? AND revision IS NOT NULL",
                (since, newest),
            )
            return newest, [row[0] for row in rows]


def _event(row: sqlite3.Row) -> Event:
    patch = {key: (before, after) for key, (before, after) in json.loads(row["patch"] or "{}").items()}
    return Event(**{**dict(row), "args": json.loads(row["args"]), "patch": patch})
