"""The bearer token of the HTTP server: made on first use, kept in a file only the user can read."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dreamontage.schemas.errors import InvalidInput

from .actors import OWNER, SCOPE_KEY

TOKEN_FILE = "http-token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def load_token(file: Path) -> str:
    """The token in a file; a fresh one (256 bits, mode 0600) where there is none.

    Raises InvalidInput if others can read the file, or if it holds no token.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if file.stat().st_mode & 0o077:
            raise InvalidInput(f"{file} can be read by others", next_call=f"chmod 600 {file}") from None
        token = file.read_text().strip()
        if len(token) < 16:
            raise InvalidInput(
                f"{file} holds no token of at least 16 characters", next_call=f"rm {file}; a new one is made then"
            ) from None
        return token
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(token + "\n")
    return token


class BearerAuth:
    """ASGI middleware: everything but signed file links needs `Authorization: Bearer <token>`."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "http" and not scope["path"].startswith("/files/"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                refusal = JSONResponse(
                    {"error": "A bearer token is needed; the server's terminal shows the file that holds it."},
                    401,
                    {"WWW-Authenticate": 'Bearer realm="dreamontage"'},
                )
                await refusal(scope, receive, send)
                return
            scope[SCOPE_KEY] = OWNER
        await self._app(scope, receive, send)
