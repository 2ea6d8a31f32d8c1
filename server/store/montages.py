"""Montages and all their revisions. An edit is a function of the current body, run inside the write transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dreamontage.schemas.errors import Conflict, InvalidInput, NotFound
from dreamontage.schemas.montage import Montage, describe_validation_error

from .. import merging
from ..changes import told_conflict
from ..quotas import Quotas
from .db import Database, new_id, not_found
from .events import Patch, changes_since, record, standing

if TYPE_CHECKING:
    import sqlite3

Then = Callable[["sqlite3.Connection", Montage], None]
_CURRENT = "SELECT body FROM montage JOIN revision ON montage_id = id AND revision.revision = montage.revision"


class MontageStore:
    """The shared documents of a studio."""

    db: Database
    folder: Path
    quotas: Quotas

    def create_montage(self, montage: Montage, actor: str = "owner", then: Then | None = None) -> Montage:
        """Store a new montage, whose id comes from `new_id("m")`, as revision 1. Raises QuotaExceeded.

        `then` runs inside the write transaction when all is written.
        """
        with self.db.write() as connection:
            first = self._insert(connection, montage, "create", {"brief": montage.brief}, actor, montage.id)
            if then is not None:
                then(connection, first)
        return first

    def fork_montage(
        self, montage_id: str, revision: int | None, title: str, actor: str = "owner", then: Then | None = None
    ) -> Montage:
        """A branch: a new montage that starts as a revision of another one, and shares its media, takes and numbering.

        Raises NotFound, QuotaExceeded.
        """
        source = self.get_montage(montage_id, revision)
        branch = source.model_copy(update={"id": new_id("m"), "title": title, "archived": False})
        told = {"source": source.id, "source_revision": source.revision}
        with self.db.write() as connection:
            root, wrote = connection.execute("SELECT root, brief_by FROM montage WHERE id = ?", (source.id,)).fetchone()
            first = self._insert(connection, branch, "fork", told, actor, root, signed=True)
            connection.execute("UPDATE montage SET brief_by = ? WHERE id = ?", (wrote, first.id))
            if then is not None:
                then(connection, first)
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

    def list_montages(
        self, limit: int = 20, after: tuple[float, str] | None = None, archived: bool = False
    ) -> list[Montage]:
        """Montages, the last edited first; those that were put away, or the others.

        `after`: when the last one of an earlier page was edited, and its id.
        """
        at, last = after or (float("inf"), "")
        with self.db.read() as connection:
            rows = connection.execute(
                f"{_CURRENT} WHERE archived = :archived AND (updated_at < :at OR (updated_at = :at AND id > :last))"
                " ORDER BY updated_at DESC, id LIMIT :limit",
                {"archived": archived, "at": at, "last": last, "limit": limit},
            ).fetchall()
        return [Montage.model_validate_json(row["body"]) for row in rows]

    def edited_at(self, montage_id: str) -> float:
        """When a montage was edited last, Unix seconds."""
        with self.db.read() as connection:
            row = connection.execute("SELECT updated_at FROM montage WHERE id = ?", (montage_id,)).fetchone()
        return float(row["updated_at"])

    def edit_montage(
        self,
        montage_id: str,
        op: str,
        args: Mapping[str, Any],
        change: Callable[[Montage], Montage],
        actor: str = "owner",
        if_revision: int | None = None,
        *,
        touches: Collection[str] | None = None,
        as_is: bool = False,
        then: Then | None = None,
    ) -> Montage:
        """Replace a montage by `change(current)`, as the next revision with one event row, and return it.

        `change` runs inside the write transaction on what is stored then, so edits of different agents merge. Nothing
        is changed if it raises, and no revision is made if it returns an equal montage. It must be quick and open no
        write transaction of its own; neither may `then`, which runs when all is written.

        With `if_revision` the edit is refused where what it touches was changed since: the entities `touches` (left
        out: all that it changes). New anchors and beats get numbers never used before in the montage and its forks,
        and `actor` as author, unless `as_is`. Raises NotFound, Conflict, InvalidInput.
        """
        with self.db.write() as connection:
            current = _current(connection, montage_id)
            before = merging.entities_of(current)
            if if_revision is not None and touches is not None:
                _refuse_conflicts(connection, current, if_revision, touches)
            try:
                after = merging.entities_of(_checked(change(current)))
                if not as_is:
                    after = merging.renumbered(before, after, _used(connection, montage_id))
                    after = merging.stamped(before, after, actor)
                edited = merging.assembled(montage_id, current.revision + 1, after)
            except ValidationError as error:
                raise InvalidInput(describe_validation_error(error)) from error
            patch = merging.diff(before, after)
            if if_revision is not None and touches is None:
                _refuse_conflicts(connection, current, if_revision, patch)
            if not patch:
                edited = current
            elif current.archived and edited.archived:
                raise Conflict(
                    f"{montage_id} was put away",
                    field="montage_id",
                    next_call=f"update_montage(montage_id={montage_id!r}, archive=False) restores it",
                )
            else:
                connection.execute(
                    "UPDATE montage SET revision = ?, updated_at = ?, archived = ? WHERE id = ?",
                    (edited.revision, time.time(), edited.archived, montage_id),
                )
                _write(connection, edited, op, args, actor, patch)
            if then is not None:
                then(connection, edited)
        return edited

    def authors(self, montage_id: str) -> dict[str, str]:
        """Who wrote the title and the brief of a montage; empty where nobody did."""
        with self.db.read() as connection:
            row = connection.execute("SELECT title_by, brief_by FROM montage WHERE id = ?", (montage_id,)).fetchone()
        return {"title": row["title_by"], "brief": row["brief_by"]}

    def replay(self, montage_id: str) -> Montage:
        """The montage as its event log alone tells it: the same, byte for byte, as what is stored."""
        with self.db.read() as connection:
            events = changes_since(connection, montage_id, 0)
        return merging.replay(montage_id, [(event.revision or 0, event.patch) for event in events])

    def revision(self, montage_id: str) -> int:
        """The newest revision of a montage. Raises NotFound."""
        with self.db.read() as connection:
            row = connection.execute("SELECT revision FROM montage WHERE id = ?", (montage_id,)).fetchone()
            if row is None:
                raise not_found(connection, "montage", montage_id, "list_montages()")
        return int(row["revision"])

    def common_base(self, one: str, other: str) -> Montage | None:
        """The montage in which a fork and its source last agreed: where it was forked, or last merged; None if never.

        It is a revision of either. A merge that was undone does not count.
        """
        with self.db.read() as connection:
            edits = [e for name in (one, other) for e in standing(changes_since(connection, name, 0))]
        links = [e for e in edits if e.args.get("source") in (one, other) and "source_revision" in e.args]
        if not links:
            return None
        newest = max(links, key=lambda event: event.seq)
        return self.get_montage(newest.args["source"], newest.args["source_revision"])

    def _insert(
        self,
        connection: sqlite3.Connection,
        montage: Montage,
        op: str,
        args: Mapping[str, Any],
        actor: str,
        root: str,
        signed: bool = False,
    ) -> Montage:
        self.quotas.admit(connection, actor, self.folder, montages=1)
        parts = merging.entities_of(montage)
        parts = parts if signed else merging.stamped({}, parts, actor)
        first = merging.assembled(montage.id, 1, parts)
        now = time.time()
        connection.execute(
            "INSERT INTO montage (id, revision, created_at, updated_at, actor, root) VALUES (?, 1, ?, ?, ?, ?)",
            (first.id, now, now, actor, root),
        )
        _write(connection, first, op, args, actor, merging.diff({}, parts))
        return first


def _current(connection: sqlite3.Connection, montage_id: str) -> Montage:
    row = connection.execute(f"{_CURRENT} WHERE id = ?", (montage_id,)).fetchone()
    if row is None:
        raise not_found(connection, "montage", montage_id, "list_montages()")
    return Montage.model_validate_json(row["body"])


def _checked(montage: Montage) -> Montage:
    return Montage.model_validate(montage.model_dump())


def _used(connection: sqlite3.Connection, montage_id: str) -> dict[str, int]:
    row = connection.execute(
        "SELECT last_anchor, last_beat FROM montage WHERE id = (SELECT root FROM montage WHERE id = ?)", (montage_id,)
    ).fetchone()
    return {"anchor": row["last_anchor"], "beat": row["last_beat"]}


def _write(
    connection: sqlite3.Connection, montage: Montage, op: str, args: Mapping[str, Any], actor: str, patch: Patch
) -> None:
    """Add the revision and its event, and remember the numbers that are used now."""
    body = montage.model_dump_json()
    connection.execute("INSERT INTO revision VALUES (?, ?, ?)", (montage.id, montage.revision, body))
    highest = [max(merging.numbers(patch, kind), default=0) for kind in ("anchor", "beat")]
    connection.execute(
        "UPDATE montage SET last_anchor = max(last_anchor, ?), last_beat = max(last_beat, ?)"
        " WHERE id = (SELECT root FROM montage WHERE id = ?)",
        (*highest, montage.id),
    )
    for words in patch.keys() & {"title", "brief"}:
        connection.execute(f"UPDATE montage SET {words}_by = ? WHERE id = ?", (actor, montage.id))
    record(connection, op, args, actor=actor, montage_id=montage.id, revision=montage.revision, patch=patch)


def _refuse_conflicts(
    connection: sqlite3.Connection, current: Montage, if_revision: int, touches: Collection[str]
) -> None:
    """Raise Conflict where one of these entities was changed after a revision: what it is now, who did it and when."""
    if if_revision > current.revision:
        raise InvalidInput(
            f"{current.id} has no revision {if_revision} yet", field="if_revision", allowed=f"1 to {current.revision}"
        )
    latest = {key: event for event in changes_since(connection, current.id, if_revision) for key in event.patch}
    clashing = [key for key in touches if key in latest]
    if not clashing:
        return
    lines = [told_conflict(key, latest[key]) for key in clashing[:3]]
    more = f"; and {len(clashing) - 3} more" if len(clashing) > 3 else ""
    raise Conflict(
        f"changed since revision {if_revision}: {'; '.join(lines)}{more}",
        field="if_revision",
        allowed=f"{current.revision} for who has seen this, or none to write over it",
        next_call=f"the same call with if_revision={current.revision}, or first "
        f"get_changes(montage_id={current.id!r}, since_revision={if_revision})",
    )
