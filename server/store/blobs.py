"""Media files: content-addressed private copies. The file is safe on disk before the row that names it exists."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dreamontage.schemas import limits
from dreamontage.schemas.errors import Busy, InvalidInput, StudioFull
from dreamontage.schemas.media import Media

from ..quotas import Quotas, require_space
from .db import Database, not_found
from .events import record

if TYPE_CHECKING:
    import sqlite3

STALE_AFTER_S = 24 * 3600.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class StagedBlob:
    """A private copy that is complete but not yet kept: path, content hash, size in bytes."""

    path: Path
    sha256: str
    bytes: int


class MediaStore:
    """The media of a studio and their files."""

    db: Database
    folder: Path
    quotas: Quotas

    @contextlib.contextmanager
    def stage(self, source: BinaryIO | int, max_bytes: int = limits.MAX_CLIP_BYTES) -> Iterator[StagedBlob]:
        """A private copy of an open binary file or descriptor, read to its end while it is hashed.

        Probe the copy's `path`, then hand it to `add_media`; a copy that was not added vanishes with the block.
        Raises InvalidInput beyond `max_bytes`, StudioFull when the disk cannot hold it.
        """
        self.require_space()
        temporary = self.folder / "blobs" / f".{secrets.token_hex(8)}"
        descriptor = source if isinstance(source, int) else source.fileno()
        try:
            with _full_disk_explained():
                digest, size = _copy(descriptor, temporary, max_bytes)
            yield StagedBlob(temporary, digest, size)
        finally:
            temporary.unlink(missing_ok=True)

    def add_media(self, media: Media, source: StagedBlob | Path, actor: str = "owner") -> Media:
        """Keep a staged copy (or a copy of the file at a trusted path) as the bytes of `media`; returns what is stored.

        The same bytes always give the row that was there first. Raises InvalidInput if the hash is not the media's.
        """
        if isinstance(source, StagedBlob):
            return self.add_all_media([(media, source)], actor)[0]
        with source.open("rb") as file, self.stage(file) as staged:
            return self.add_media(media, staged, actor)

    def add_all_media(self, items: Sequence[tuple[Media, StagedBlob]], actor: str = "owner") -> list[Media]:
        """`add_media` for many: all rows in one transaction, or none. Raises QuotaExceeded too."""
        for media, staged in items:
            if staged.sha256 != media.sha256:
                raise InvalidInput(f"the bytes have sha256 {staged.sha256}, not {media.sha256}", field="sha256")
        with self.db.read() as connection:
            self._admit(connection, items, actor)
        for _, staged in items:
            os.replace(staged.path, self.folder / "blobs" / staged.sha256)
        fsync_folder(self.folder / "blobs")
        with self.db.write() as connection:
            self._admit(connection, items, actor)
            if not all((self.folder / "blobs" / media.sha256).exists() for media, _ in items):
                raise Busy("the same bytes were being removed from the studio", next_call="repeat the call")
            return [_kept(connection, media, actor) for media, _ in items]

    def media(self, media_id: str) -> Media:
        """A medium by id. Raises NotFound."""
        with self.db.read() as connection:
            row = connection.execute("SELECT body FROM media WHERE id = ?", (media_id,)).fetchone()
            if row is None:
                raise not_found(connection, "media", media_id, "add_media(sources=[...]), which answers with the id")
        return Media.model_validate_json(row["body"])

    def media_by_hash(self, sha256: str) -> Media | None:
        """The medium with these bytes, if the studio has it."""
        with self.db.read() as connection:
            row = connection.execute("SELECT body FROM media WHERE sha256 = ?", (sha256,)).fetchone()
        return None if row is None else Media.model_validate_json(row["body"])

    def blob_path(self, media_id: str) -> Path:
        """Where the bytes of a medium are. Raises NotFound."""
        return self.folder / "blobs" / self.media(media_id).sha256

    def _admit(self, connection: sqlite3.Connection, items: Sequence[tuple[Media, StagedBlob]], actor: str) -> None:
        asked = {media.sha256: media.bytes for media, _ in items}
        for row in connection.execute(
            "SELECT sha256 FROM media WHERE sha256 IN (SELECT value FROM json_each(?))", (json.dumps([*asked]),)
        ):
            del asked[row["sha256"]]
        self.quotas.admit(connection, actor, self.folder, media=len(asked), disk_bytes=sum(asked.values()))

    def require_space(self, size: int = 0) -> None:
        """Raise StudioFull unless `size` bytes fit and the floor of free space stays."""
        require_space(self.folder, size, self.quotas.keep_free_bytes)

    def orphans(self, older_than_s: float = STALE_AFTER_S) -> list[Path]:
        """What crashes left behind: unfinished files, and media and videos that no row names.

        Only entries untouched for `older_than_s` seconds, so that nothing in the making is among them.
        """
        before = time.time() - older_than_s
        with self.db.read() as connection:  # a file still being written has a name that starts with a dot
            known = {row[0] for row in connection.execute("SELECT id FROM video UNION ALL SELECT sha256 FROM media")}
        nameless = [path for place in ("blobs", "videos") for path in (self.folder / place).iterdir()]
        unfinished = [path for path in (self.folder / "takes").rglob(".*") if path.is_file()]
        unfinished += (self.folder / "previews").glob(".part-*")
        found = []
        for path in nameless + unfinished:
            with contextlib.suppress(FileNotFoundError):  # others finish their files and sweep, too
                if path.name not in known and path.stat().st_mtime < before:
                    found.append(path)
        return found

    def sweep(self, older_than_s: float = STALE_AFTER_S) -> int:
        """Remove the orphans; returns their count."""
        return sum(map(remove, self.orphans(older_than_s)))


def _kept(connection: sqlite3.Connection, media: Media, actor: str) -> Media:
    row = connection.execute("SELECT body FROM media WHERE sha256 = ?", (media.sha256,)).fetchone()
    if row is not None:
        return Media.model_validate_json(row["body"])
    connection.execute(
        "INSERT INTO media (id, sha256, body, added_at, actor, bytes) VALUES (?, ?, ?, ?, ?, ?)",
        (media.id, media.sha256, media.model_dump_json(), time.time(), actor, media.bytes),
    )
    record(connection, "add_media", {"media_id": media.id, "name": media.name}, actor=actor)
    return media


def remove(path: Path) -> bool:
    """Remove a file or a folder; whether it was still there."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except FileNotFoundError:
        return False
    return True


def measured(path: Path) -> StagedBlob:
    """A staged copy as it is now, on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return StagedBlob(path, digest, path.stat().st_size)


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(descriptor: int, target: Path, max_bytes: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with target.open("xb", buffering=0) as file:
        while chunk := os.read(descriptor, _CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise InvalidInput(f"the file is larger than {max_bytes} bytes", allowed=f"up to {max_bytes} bytes")
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(file.fileno(), view) :]
        os.fsync(file.fileno())
    return digest.hexdigest(), size


@contextlib.contextmanager
def _full_disk_explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StudioFull(
                "the disk filled up while the file was copied, so nothing was kept",
                next_call="free some space, then repeat the call",
            ) from error
        raise
