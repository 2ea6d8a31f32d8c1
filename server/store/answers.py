"""Answers kept under idempotency keys, so that a repeated call gets the first one's answer and changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dreamontage.schemas import limits

from .db import Database

if TYPE_CHECKING:
    import sqlite3


class AlreadyAnswered(Exception):
    """Another call with the same key was faster; what this one wrote must be rolled back."""


@dataclass(frozen=True)
class Call:
    """A call that is carried out once: who makes it, under which key, and the hash of its tool's arguments."""

    actor: str
    key: str
    tool: str
    sha256: str

    def keep(self, connection: sqlite3.Connection, answer: str) -> None:
        """Record the answer within the caller's transaction. Raises AlreadyAnswered."""
        now = time.time()
        connection.execute("DELETE FROM answer WHERE at < ?", (now - limits.ANSWER_TTL_S,))
        kept = connection.execute(
            "INSERT INTO answer (actor, key, tool, sha256, answer, at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING key",
            (self.actor, self.key, self.tool, self.sha256, answer, now),
        ).fetchone()
        if kept is None:
            raise AlreadyAnswered(self.key)


@dataclass(frozen=True)
class KeptAnswer:
    """What was answered under a key, as JSON, and to which call."""

    tool: str
    sha256: str
    answer: str


class AnswerStore:
    """The kept answers of a studio."""

    db: Database

    def kept_answer(self, actor: str, key: str) -> KeptAnswer | None:
        """What this actor was answered under this key within the last seven days."""
        with self.db.read() as connection:
            row: Any = connection.execute(
                "SELECT tool, sha256, answer FROM answer WHERE actor = ? AND key = ? AND at >= ?",
                (actor, key, time.time() - limits.ANSWER_TTL_S),
            ).fetchone()
        return None if row is None else KeptAnswer(**dict(row))

    def keep_answer(self, call: Call, answer: str) -> None:
        """Record an answer in a transaction of its own. Raises AlreadyAnswered."""
        with self.db.write() as connection:
            call.keep(connection, answer)
