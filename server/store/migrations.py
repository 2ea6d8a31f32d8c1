"""The schema of studio.db, step by step. A step is never edited after a release; SCHEMA_VERSION counts them."""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from dreamontage.schemas.montage import Montage

from .. import merging

if TYPE_CHECKING:
    import sqlite3

steps = Migrations("dreamontage.studio")


@steps()
def first_release(db: Database) -> None:
    """Montages with all their revisions, the event log, media, jobs, videos and workers."""
    db.table("montage", strict=True).create(
        {"id": str, "revision": int, "created_at": float, "updated_at": float},
        pk="id",
        not_null={"revision", "created_at", "updated_at"},
    )
    db.table("revision", strict=True).create(
        {"montage_id": str, "revision": int, "body": str},
        pk=("montage_id", "revision"),
        foreign_keys=[("montage_id", "montage", "id")],
        not_null={"body"},
    )
    db.table("event", strict=True).create(
        {"seq": int, "montage_id": str, "revision": int, "actor": str, "op": str, "args": str, "at": float},
        pk="seq",
        foreign_keys=[("montage_id", "montage", "id")],
        not_null={"actor", "op", "args", "at"},
    )
    db.table("event").create_index(["montage_id", "seq"])
    db.table("media", strict=True).create(
        {"id": str, "sha256": str, "body": str, "added_at": float}, pk="id", not_null={"sha256", "body", "added_at"}
    )
    db.table("media").create_index(["sha256"], unique=True)
    db.table("worker", strict=True).create(
        {"id": str, "device": str, "pid": int, "started_at": float, "heartbeat_at": float, "doing": str},
        pk="id",
        not_null={"device", "pid", "started_at", "heartbeat_at", "doing"},
    )
    db.table("video", strict=True).create(
        {"id": str, "montage_id": str, "revision": int, "quality": str, "body": str, "created_at": float},
        pk="id",
        foreign_keys=[("montage_id", "montage", "id")],
        not_null={"montage_id", "revision", "quality", "body", "created_at"},
    )
    db.table("video").create_index(["montage_id", "created_at"])
    db.table("job", strict=True).create(
        {
            "id": str,
            "montage_id": str,
            "revision": int,
            "request": str,
            "estimate": str,
            "out_dir": str,
            "state": str,
            "attempt": int,
            "fruitless": int,
            "most_segments": int,
            "cancel_requested": int,
            "worker_id": str,
            "progress": str,
            "error": str,
            "video_id": str,
            "created_at": float,
            "updated_at": float,
        },
        pk="id",
        foreign_keys=[("montage_id", "montage", "id"), ("worker_id", "worker", "id"), ("video_id", "video", "id")],
        not_null={"montage_id", "revision", "request", "out_dir", "state", "progress", "created_at", "updated_at"},
        defaults={"state": "queued", "attempt": 0, "fruitless": 0, "most_segments": 0, "cancel_requested": 0},
    )
    db.table("job").create_index(["state", "created_at"])


@steps()
def shared_narratives(db: Database) -> None:
    """Who edits, what every edit changed, answers kept for repeated calls, and the owner of every job."""
    db.table("job").add_column("actor", str, not_null_default="owner")
    db.table("job").add_column("claimed_at", float)
    db.table("job").add_column("bytes", int, not_null_default=0)
    db.table("job").create_index(["actor", "claimed_at"])
    db.table("worker").add_column("gone", int, not_null_default=0)
    for table in ("montage", "media"):
        db.table(table).add_column("actor", str, not_null_default="owner")
        db.table(table).create_index(["actor"])
    db.table("media").add_column("bytes", int, not_null_default=0)
    db.execute("UPDATE media SET bytes = body ->> 'bytes'")
    db.table("montage").add_column("root", str)
    for column in ("archived", "last_anchor", "last_beat"):
        db.table("montage").add_column(column, int, not_null_default=0)
    for column in ("title_by", "brief_by"):
        db.table("montage").add_column(column, str, not_null_default="")
    db.execute(
        "UPDATE montage SET root = id, brief_by = coalesce("
        "(SELECT actor FROM event WHERE montage_id = id AND op = 'create'), '')"
    )
    db.table("montage").create_index(["archived", "updated_at"])
    db.table("event").add_column("patch", str)
    _patch_what_is_there(db)
    db.table("token", strict=True).create(
        {
            "hash": str, "actor": str, "scopes": str, "expires_at": float, "created_at": float, "revoked_at": float,
        },
        pk="hash",
        not_null={"actor", "scopes", "created_at"},
    )  # fmt: skip
    db.table("answer", strict=True).create(
        {"actor": str, "key": str, "tool": str, "sha256": str, "answer": str, "at": float},
        pk=("actor", "key"),
        not_null={"tool", "sha256", "answer", "at"},
    )
    db.table("answer").create_index(["at"])
    db.table("task", strict=True).create(
        {
            "id": str, "actor": str, "tool": str, "job_id": str, "state": str, "questions": str, "answers": str,
            "cancelled": int, "created_at": float, "updated_at": float,
        },
        pk="id",
        not_null={"actor", "tool", "state", "questions", "answers", "cancelled", "created_at", "updated_at"},
    )  # fmt: skip
    db.table("task").create_index(["created_at"])
    db.table("video").add_column("alternative_of", str, fk="video")
    db.table("take", strict=True).create(
        {"fingerprint": str, "video_id": str, "ordinal": int},
        pk=("fingerprint", "video_id", "ordinal"),
        foreign_keys=[("video_id", "video", "id")],
    )
    db.execute(
        "INSERT INTO take SELECT segment.value ->> 'fingerprint', video.id, segment.key"
        " FROM video, json_each(body, '$.segments') AS segment"
    )
    db.table("choice", strict=True).create(
        {"id": int, "montage_id": str, "quality": str, "body": str},
        pk="id",
        foreign_keys=[("montage_id", "montage", "id")],
        not_null={"montage_id", "quality", "body"},
    )
    db.table("choice").create_index(["montage_id", "quality"])


def _patch_what_is_there(db: Database) -> None:
    """Give every edit so far its patch, worked out from the stored revisions, and every montage its numbering."""
    rows = db.query("SELECT montage_id, revision, body FROM revision ORDER BY montage_id, revision")
    for montage_id, revisions in groupby(rows, key=itemgetter("montage_id")):
        before: dict[str, Any] = {}
        used = {"anchor": 0, "beat": 0}
        for row in list(revisions):
            after = merging.entities(Montage.model_validate_json(row["body"]).model_dump(mode="json"))
            patch = merging.diff(before, after)
            used = {kind: max([most, *merging.numbers(after, kind)]) for kind, most in used.items()}
            changed = "UPDATE event SET patch = ? WHERE montage_id = ? AND revision = ?"
            db.execute(changed, (json.dumps(patch), montage_id, row["revision"]))
            before = after
        numbered = "UPDATE montage SET last_anchor = ?, last_beat = ? WHERE id = ?"
        db.execute(numbered, (used["anchor"], used["beat"], montage_id))
    db.table("upload", strict=True).create(
        {"hash": str, "actor": str, "expires_at": float}, pk="hash", not_null={"actor", "expires_at"}
    )


def apply(connection: sqlite3.Connection) -> None:
    """Run the steps that this database has not seen, each in one transaction."""
    steps.apply(Database(connection))
