"""The HTTP door: the same server behind a bearer token, bound to this machine unless told otherwise."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput

from .app import build_server
from .auth import LOOPBACK, BearerAuth
from .store import Studio


def http_app(
    studio: Studio, token: str, *, host: str = "127.0.0.1", names: Sequence[str] = (), roots: Sequence[str | Path] = ()
) -> ASGIApp:
    """The ASGI app: MCP under /mcp for who holds the token, finished files under expiring signed links.

    `names`: further host names clients may use. A request for another host or from another origin is refused, which
    keeps web pages from reaching a server on this machine (DNS rebinding).
    """
    known = [*(f"[{h}]" if ":" in h else h for h in LOOPBACK), *names]
    if host not in LOOPBACK:
        known += [socket.gethostname(), *(() if host in ("0.0.0.0", "::") else (host,))]
    security = TransportSecuritySettings(
        allowed_hosts=[entry for name in known for entry in (name, f"{name}:*")],
        allowed_origins=[f"http://{entry}" for name in known for entry in (name, f"{name}:*")],
    )
    app = build_server(studio, roots=roots, links_key=token).streamable_http_app(
        host=host, transport_security=security, max_request_body_size=limits.MAX_HTTP_BODY_BYTES
    )
    return BearerAuth(app, token)


def check_host(host: str, allow_remote: bool) -> None:
    """Refuse to listen beyond this machine unless asked to in so many words. Raises InvalidInput."""
    if host not in LOOPBACK and not allow_remote:
        raise InvalidInput(
            f"{host} would let other machines reach this studio",
            field="--host",
            allowed=", ".join(LOOPBACK),
            next_call="add --allow-remote if that is wanted; the token is still needed, over plain HTTP",
        )
