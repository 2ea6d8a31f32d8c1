"""Access tokens: random strings of which only the hash is stored, each with an actor, scopes and an expiry."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dreamontage.schemas.errors import InvalidInput, NotFound

from ..actors import OWNER, SCOPES, VOUCHED_PREFIX, Actor, Scope, check_name
from .db import Database
from .events import record

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True)
class Token:
    """What is known of a token: the start of its hash as id, whose it is, what it allows. Times in Unix seconds."""

    id: str
    actor: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def valid(self, now: float) -> bool:
        """Whether it opens the door at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class TokenStore:
    """The tokens of a studio."""

    db: Database

    def add_token(self, actor: str, scopes: Collection[Scope] = SCOPES, expires_at: float | None = None) -> str:
        """A new token of 256 random bits for `actor`; returned once, only its hash is kept. Raises InvalidInput.

        Who may edit or render may also read.
        """
        token = f"dm_{secrets.token_urlsafe(32)}"
        self.keep_token(token, actor, scopes, expires_at)
        return token

    def keep_token(
        self, token: str, actor: str = OWNER.name, scopes: Collection[Scope] = SCOPES, expires_at: float | None = None
    ) -> None:
        """Accept a token that exists already, such as the one in the owner's file; a known one stays as it is."""
        if unknown := sorted(set(scopes) - SCOPES):
            raise InvalidInput(
                f"there is no scope {unknown[0][:40]!r}", field="scope", allowed=", ".join(sorted(SCOPES))
            )
        granted = sorted({"read", *scopes})
        digest = _digest(token)
        with self.db.write() as connection:
            if connection.execute("SELECT 1 FROM token WHERE hash = ?", (digest,)).fetchone() is not None:
                return
            connection.execute(
                "INSERT INTO token (hash, actor, scopes, expires_at, created_at) VALUES (?, ?, ?, ?, ?)",
                (digest, check_name(actor), json.dumps(granted), expires_at, time.time()),
            )
            told = {"token": digest[:8], "actor": actor, "scopes": granted}
            record(connection, "token.add", told, actor=OWNER.name)

    def actor_of_token(self, token: str) -> Actor | None:
        """Whose token this is; None for an unknown, expired or revoked one."""
        with self.db.read() as connection:
            row = connection.execute("SELECT * FROM token WHERE hash = ?", (_digest(token),)).fetchone()
        if row is None or not (known := _token(row)).valid(time.time()):
            return None
        return Actor(known.actor, known.scopes)

    def may_enter(self, actor: str) -> bool:
        """Whether an actor still has a token, or is one that an authorization server vouches for anew every time."""
        if actor.startswith(VOUCHED_PREFIX):
            return True
        with self.db.read() as connection:
            rows = connection.execute("SELECT * FROM token WHERE actor = ?", (actor,)).fetchall()
        return any(_token(row).valid(time.time()) for row in rows)

    def tokens(self) -> list[Token]:
        """Every token ever added, the oldest first."""
        with self.db.read() as connection:
            return [_token(row) for row in connection.execute("SELECT * FROM token ORDER BY created_at, hash")]

    def revoke_token(self, which: str) -> list[Token]:
        """Close the door to a token (by its id) or to all tokens of an actor (by name). Raises NotFound.

        Returns the tokens that are closed now.
        """
        now = time.time()
        with self.db.write() as connection:
            rows = connection.execute(
                "UPDATE token SET revoked_at = coalesce(revoked_at, ?) WHERE actor = ? OR substr(hash, 1, 8) = ?"
                " RETURNING *",
                (now, which, which),
            ).fetchall()
            if not rows:
                known = [row[0] for row in connection.execute("SELECT DISTINCT actor FROM token ORDER BY actor")]
                raise NotFound(
                    f"no token is called {which[:40]!r}",
                    allowed=f"the actors {', '.join(known)}, or a token's id" if known else "none exists yet",
                    next_call="dreamontage token list",
                )
            closed = [_token(row) for row in rows]
            told = {"tokens": [token.id for token in closed], "actors": sorted({token.actor for token in closed})}
            record(connection, "token.revoke", told, actor=OWNER.name)
        return closed


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _token(row: sqlite3.Row) -> Token:
    return Token(
        row["hash"][:8], row["actor"], frozenset(json.loads(row["scopes"])),
        row["created_at"], row["expires_at"], row["revoked_at"],
    )  # fmt: skip
