"""The door of the HTTP server: whose token a request carries, and who is turned away."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput

from .actors import SCOPE_KEY, Actor
from .page.routes import is_open as is_page_file
from .rates import Rates

TOKEN_FILE = "http-token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/files/", "/uploads/", "/.well-known/oauth-protected-resource")
"""Paths whose address is proof enough, or that tell nothing: everything else needs a token."""

TokenReader = Callable[[str], Awaitable[Actor | None]]
"""Whose token a string is; None for one that opens nothing."""


def is_open(method: str, path: str) -> bool:
    """Whether a request may come without a token."""
    return path.startswith(OPEN) or is_page_file(method, path)


def load_token(file: Path) -> str:
    """The owner's token in a file; a fresh one (256 bits, mode 0600) where there is none.

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


class Door:
    """ASGI middleware that every request passes: known host and origin, a token where one is needed, bounded rates.

    Who passes is in the scope under SCOPE_KEY as an `Actor`. Requests for open paths may do without a token, as they
    carry proof of their own in the address; a wrong token is refused even there.
    """

    def __init__(
        self, app: ASGIApp, known: TokenReader, security: TransportSecuritySettings, challenge: str = ""
    ) -> None:
        self._app = app
        self._known = known
        self._guard = TransportSecurityMiddleware(security)
        self._challenge = f'Bearer realm="dreamontage"{challenge}'
        self._actors = Rates(limits.CALLS_PER_S, limits.CALLS_BURST, limits.CALLS_AT_ONCE)
        self._strangers = Rates(
            limits.STRANGER_CALLS_PER_S, limits.STRANGER_CALLS_BURST, limits.STRANGER_CALLS_AT_ONCE
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403, 421 or 429."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":  # there are no web sockets here
            request = Request(scope)
            refusal = await self._guard.validate_request(request)
            if refusal is None:
                actor, refusal = await self._admitted(request)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            scope[SCOPE_KEY] = actor
            if actor is not None:  # the SDK keeps sessions to the principal that opened them
                scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=actor.name, scopes=[*actor.scopes]))
                send = self._while_valid(send, _token(request))
            rates, who = self._place(request, actor)
            with rates.under_way(who):
                await self._app(scope, receive, send)

    def _while_valid(self, send: Send, token: str) -> Send:
        """`send` for as long as the token opens the door: a stream that outlives it ends with its next message."""
        checked_at, over = time.monotonic(), False

        async def sent(message: Message) -> None:
            nonlocal checked_at, over
            if over:
                return
            if message["type"] == "http.response.body" and time.monotonic() - checked_at > limits.TOKEN_RECHECK_S:
                checked_at, over = time.monotonic(), await self._known(token) is None
            await send({"type": "http.response.body", "body": b"", "more_body": False} if over else message)

        return sent

    async def _admitted(self, request: Request) -> tuple[Actor | None, Response | None]:
        token = _token(request)
        actor = await self._known(token) if token else None
        rates, who = self._place(request, actor)
        if seconds := rates.wait(who):
            retry = math.ceil(seconds)
            body = {"error": f"Too many calls at once or in a row. Next: repeat the call after {retry} s."}
            return None, JSONResponse(body, 429, {"Retry-After": str(retry)})
        shown = "authorization" in request.headers
        if actor is None and (shown or not is_open(request.method, request.url.path)):
            body = {"error": "A valid bearer token is needed; `dreamontage token add NAME` makes one."}
            return None, JSONResponse(body, 401, {"WWW-Authenticate": self._challenge})
        return actor, None

    def _place(self, request: Request, actor: Actor | None) -> tuple[Rates, str]:
        if actor is not None:
            return self._actors, actor.name
        return self._strangers, request.client.host if request.client else ""


def _token(request: Request) -> str:
    """The bearer token a request shows, if any."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
