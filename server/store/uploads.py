"""Upload addresses: secrets of which only the hash is stored, each good for one file of one actor for ten minutes."""

from __future__ import annotations

import hashlib
import secrets
import time

from dreamontage.schemas import limits
from dreamontage.schemas.errors import NotFound, QuotaExceeded

from .db import Database


class UploadStore:
    """The upload addresses of a studio that wait to be used."""

    db: Database

    def add_upload(self, actor: str) -> str:
        """A fresh secret of 256 bits for one upload. Raises QuotaExceeded where too many of the actor's still wait."""
        secret, now = secrets.token_urlsafe(32), time.time()
        with self.db.write() as connection:
            connection.execute("DELETE FROM upload WHERE expires_at < ?", (now,))
            waiting = connection.execute("SELECT count(*) FROM upload WHERE actor = ?", (actor,)).fetchone()[0]
            if waiting >= limits.MAX_OPEN_UPLOADS:
                raise QuotaExceeded(
                    f"{waiting} upload addresses of yours still wait to be used",
                    allowed=f"up to {limits.MAX_OPEN_UPLOADS} at a time, each for {limits.UPLOAD_TTL_S // 60} minutes",
                    next_call="PUT a file to one of them, or wait",
                )
            connection.execute(
                "INSERT INTO upload (hash, actor, expires_at) VALUES (?, ?, ?)",
                (_digest(secret), actor, now + limits.UPLOAD_TTL_S),
            )
        return secret

    def use_upload(self, secret: str, shown: str | None, privileged: str) -> str:
        """Use an address up and return whose it is; `shown` names the actor of the request, if it says so.

        Raises NotFound, in the same words, for an address that is unknown, expired, used, or of another actor than
        `shown`, unless that is `privileged`.
        """
        anyone = shown is None or shown == privileged
        with self.db.write() as connection:
            row = connection.execute(
                "DELETE FROM upload WHERE hash = ? AND expires_at > ? AND (? OR actor = ?) RETURNING actor",
                (_digest(secret), time.time(), anyone, shown),
            ).fetchone()
        if row is None:
            raise NotFound(
                "this upload address is not valid, has expired, or was used",
                next_call="add_media(upload=true), which answers a new one",
            )
        return str(row["actor"])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
