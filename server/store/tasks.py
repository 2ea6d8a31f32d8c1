"""Tasks of the protocol: unguessable handles bound to the actor that made them and to the job that does the work.

A task holds no state of its own beyond the questions it waits for: how far it is, is what its job says.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dreamontage.schemas import limits
from dreamontage.schemas.errors import NotFound

from .db import Database

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True)
class Task:
    """One task. `job_id` is None while `questions` wait for their `answers`; `state` is what its tool then needs."""

    id: str
    actor: str
    tool: str
    job_id: str | None
    state: str
    questions: dict[str, Any]
    answers: dict[str, Any]
    cancelled: bool
    created_at: float
    updated_at: float

    @property
    def pending(self) -> dict[str, Any]:
        """The questions that have no answer yet."""
        return {key: question for key, question in self.questions.items() if key not in self.answers}


class TaskStore:
    """The tasks of a studio, kept for `limits.TASK_TTL_S`."""

    db: Database

    def add_task(
        self,
        actor: str,
        tool: str,
        *,
        job_id: str | None = None,
        questions: Mapping[str, Any] | None = None,
        state: str = "",
    ) -> Task:
        """Store a task under a fresh id of 192 random bits; forgets tasks older than their time to live."""
        now = time.time()
        with self.db.write() as connection:
            connection.execute("DELETE FROM task WHERE created_at < ?", (now - limits.TASK_TTL_S,))
            row = connection.execute(
                "INSERT INTO task VALUES (?, ?, ?, ?, ?, ?, '{}', 0, ?, ?) RETURNING *",
                (secrets.token_urlsafe(24), actor, tool, job_id, state, json.dumps(dict(questions or {})), now, now),
            ).fetchone()
        return _task(row)

    def task(self, task_id: str, actor: str) -> Task:
        """A task this actor made; the owner has all. Raises NotFound, which never tells whether another has it."""
        with self.db.read() as connection:
            return _owned(connection, task_id, actor)

    def answer_task(self, task_id: str, actor: str, answers: Mapping[str, Any]) -> Task:
        """Keep the answers to questions that still wait; others are ignored. Raises NotFound."""
        with self.db.write() as connection:
            task = _owned(connection, task_id, actor)
            kept = task.answers | {key: answer for key, answer in answers.items() if key in task.pending}
            return _changed(connection, task, "answers = ?", json.dumps(kept))

    def give_task_job(self, task_id: str, actor: str, job_id: str) -> Task:
        """Bind a task whose questions are answered to the job that now does the work. Raises NotFound."""
        with self.db.write() as connection:
            return _changed(connection, _owned(connection, task_id, actor), "job_id = ?", job_id)

    def cancel_task(self, task_id: str, actor: str) -> Task:
        """Mark a task that has no job yet as cancelled. Raises NotFound."""
        with self.db.write() as connection:
            return _changed(connection, _owned(connection, task_id, actor), "cancelled = ?", 1)


def _owned(connection: sqlite3.Connection, task_id: str, actor: str) -> Task:
    row = connection.execute(
        "SELECT * FROM task WHERE id = :id AND (actor = :actor OR :actor = 'owner')", {"id": task_id, "actor": actor}
    ).fetchone()
    if row is None:
        raise NotFound("no such task, or its time to live is over", field="taskId")
    return _task(row)


def _changed(connection: sqlite3.Connection, task: Task, assignment: str, value: object) -> Task:
    row = connection.execute(
        f"UPDATE task SET {assignment}, updated_at = ? WHERE id = ? RETURNING *", (value, time.time(), task.id)
    ).fetchone()
    return _task(row)


def _task(row: sqlite3.Row) -> Task:
    columns = dict(row)
    columns |= {key: json.loads(columns[key]) for key in ("questions", "answers")}
    return Task(**{**columns, "cancelled": bool(columns["cancelled"])})
