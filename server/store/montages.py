"""Montages and all their revisions. An edit is a function of the current body, run inside the write transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dreamontage.schemas.errors import Conflict, InvalidInput, NotFound
from dreamontage.schemas.montage import Montage, describe_validation_error

from ..quotas import Quotas
from .db import Database, not_found
from .events import changes_since, record

_CURRENT = "SELECT body FROM montage JOIN revision ON montage_id = id AND revision.revision = montage.revision"


class MontageStore:
    """The shared documents of a studio."""

    db: Database
    folder: Path
    quotas: Quotas

    def create_montage(self, montage: Montage, actor: str = "agent") -> Montage:
        """Store a new montage, whose id comes from `new_id("m")`, as revision 1. Raises QuotaExceeded."""
        first = montage.model_copy(update={"revision": 1})
        now = time.time()
        with self.db.write() as connection:
            self.quotas.admit(connection, actor, self.folder, montages=1)
            connection.execute(
                "INSERT INTO montage (id, revision, created_at, updated_at, actor) VALUES (?, 1, ?, ?, ?)",
                (first.id, now, now, actor),
            )
            connection.execute("INSERT INTO revision VALUES (?, 1, ?)", (first.id, first.model_dump_json()))
            record(connection, "create", {"brief": first.brief}, actor=actor, montage_id=first.id, revision=1)
        return first

    def get_montage(self, montage_id: str, revision: int | None = None) -> Montage:
        """The newest body of a montage, or that of an earlier revision. Raises NotFound."""
        with self.db.read() as connection:
            if revision is None:
                row = connection.execute(f"{_CURRENT} WHERE id = ?", (montage_id,)).fetchone()
            else:
                row = connection.execute(
                    "SELECT body FROM revision WHERE montage_id = ? AND revision = ?", (montage_id, revision)
                ).fetchone()
            if row is None:
                newest = connection.execute("SELECT revision FROM montage WHERE id = ?", (montage_id,)).fetchone()
                if newest is None:
                    raise not_found(connection, "montage", montage_id, "list_montages()")
                raise NotFound(
                    f"{montage_id} has no revision {revision}",
                    field="revision",
                    allowed=f"1 to {newest[0]}",
                    next_call=f"get_montage(montage_id={montage_id!r})",
                )
        return Montage.model_validate_json(row["body"])

    def list_montages(self, limit: int = 20, offset: int = 0) -> list[Montage]:
        """Montages, the last edited first."""
        with self.db.read() as connection:
            newest = f"{_CURRENT} ORDER BY updated_at DESC LIMIT ? OFFSET ?"
            rows = connection.execute(newest, (limit, offset)).fetchall()
        return [Montage.model_validate_json(row["body"]) for row in rows]

    def edit_montage(
        self,
        montage_id: str,
        op: str,
        args: Mapping[str, Any],
        change: Callable[[Montage], Montage],
        actor: str = "agent",
        if_revision: int | None = None,
    ) -> Montage:
        """Replace a montage by `change(current)`, as the next revision with one event row, and return it.

        `change` runs inside the write transaction on what is stored then, so edits of different agents merge. Nothing
        is changed if it raises, and no revision is made if it returns an equal montage. It must be quick and open no
        transaction of its own. Raises NotFound, Conflict (`if_revision` is no longer the newest), InvalidInput.
        """
        with self.db.write() as connection:
            row = connection.execute(f"{_CURRENT} WHERE id = ?", (montage_id,)).fetchone()
            if row is None:
                raise not_found(connection, "montage", montage_id, "list_montages()")
            current = Montage.model_validate_json(row["body"])
            if if_revision is not None and if_revision != current.revision:
                since = "; ".join(str(event) for event in changes_since(connection, montage_id, if_revision)[-5:])
                raise Conflict(
                    f"{montage_id} is at revision {current.revision}, not {if_revision}; since: {since or 'nothing'}",
                    field="if_revision",
                    allowed=f"{current.revision}, or none to merge with what is there",
                    next_call=f"get_montage(montage_id={montage_id!r})",
                )
            fixed = {"id": current.id, "revision": current.revision}
            try:
                edited = Montage.model_validate({**change(current).model_dump(), **fixed})
            except ValidationError as error:
                raise InvalidInput(describe_validation_error(error)) from error
            if edited == current:
                return current
            edited = edited.model_copy(update={"revision": current.revision + 1})
            moved = (edited.revision, time.time(), montage_id)
            connection.execute("UPDATE montage SET revision = ?, updated_at = ? WHERE id = ?", moved)
            connection.execute(
                "INSERT INTO revision VALUES (?, ?, ?)", (montage_id, edited.revision, edited.model_dump_json())
            )
            record(connection, op, args, actor=actor, montage_id=montage_id, revision=edited.revision)
        return edited
