"""A link that opens the page once: printed where the server starts, good for minutes, worth a look and no more."""

from __future__ import annotations

import hmac
import secrets
import time
from threading import Lock

from ..store import Studio

CODE_TTL_S = 15 * 60.0
LOOK_TTL_S = 12 * 3600.0
VIEWER = "page"
"""The actor of the tokens that invitations are exchanged for."""


class Invitation:
    """One code, exchanged once within 15 minutes for a token that may only read and lasts 12 hours."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._code: str | None = secrets.token_urlsafe(24)
        self._until = time.monotonic() + CODE_TTL_S
        self._lock = Lock()

    def link(self, base: str) -> str:
        """The address to open; a browser never sends the part behind #, so no log of a server or proxy has it."""
        return f"{base.rstrip('/')}/#code={self._code}"

    def redeem(self, code: str) -> str | None:
        """A fresh token; None for a wrong code, a used one or one that comes too late."""
        with self._lock:
            if self._code is None or time.monotonic() > self._until:
                return None
            if not hmac.compare_digest(code.encode(), self._code.encode()):
                return None
            self._code = None
        return self._studio.add_token(VIEWER, {"read"}, expires_at=time.time() + LOOK_TTL_S)
