"""The server over HTTP: behind tokens always, bound to this machine unless told otherwise."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.types import ASGIApp

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput

from .actors import SCOPES, Actor
from .app import build_server
from .auth import LOOPBACK, Door
from .context import App
from .files import FileLinks
from .page.invitation import Invitation
from .page.routes import page_routes
from .store import Studio

if TYPE_CHECKING:
    from .oauth import IssuedTokens


def http_app(
    studio: Studio,
    token: str,
    *,
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
    roots: Sequence[str | Path] = (),
    urls: bool = False,
    issued: IssuedTokens | None = None,
    invitation: Invitation | None = None,
) -> ASGIApp:
    """The ASGI app: MCP under /mcp for who holds a token of the studio, files and uploads under addresses of their own.

    `token`: the owner's, accepted beside those of `dreamontage token add`. `names`: further host names clients may use.
    A request for another host or from another origin is refused, which keeps web pages from reaching a server on this
    machine (DNS rebinding). `urls`: whether https links are taken as sources. `issued`: verifies tokens of an OAuth
    issuer, taken beside the studio's own. `invitation`: a link that opens the page at / once without a token. Raises
    InvalidInput for a revoked token.
    """
    studio.keep_token(token)
    if studio.actor_of_token(token) is None:
        raise InvalidInput(
            "the owner's token was revoked", next_call="remove the token file and start again: a new one is made"
        )

    async def known(given: str) -> Actor | None:
        actor = studio.actor_of_token(given)
        return await issued.actor(given) if actor is None and issued is not None else actor

    if issued is not None:
        names = [*names, urlsplit(issued.resource).hostname or ""]
    security = _security(host, names)
    app = build_server(studio, roots=roots, links_key=token, urls=urls).streamable_http_app(
        host=host, transport_security=security, max_request_body_size=limits.MAX_HTTP_BODY_BYTES
    )
    app.router.routes.extend(page_routes(App(studio, (), FileLinks(studio, token)), invitation))
    challenge = ""
    if issued is not None:
        address = AnyHttpUrl(issued.resource)
        app.router.routes.extend(
            create_protected_resource_routes(address, [AnyHttpUrl(issued.issuer)], sorted(SCOPES), "Dreamontage")
        )
        challenge = f', resource_metadata="{build_resource_metadata_url(address)}"'
    return Door(app, known, security, challenge)


def _security(host: str, names: Sequence[str]) -> TransportSecuritySettings:
    known = [*(f"[{h}]" if ":" in h else h for h in LOOPBACK), *names]
    if host not in LOOPBACK:
        known += [socket.gethostname(), *(() if host in ("0.0.0.0", "::") else (host,))]
    hosts = [entry for name in known for entry in (name, f"{name}:*")]
    origins = [f"{scheme}://{entry}" for scheme in ("http", "https") for entry in hosts]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)


def check_host(host: str, allow_remote: bool) -> None:
    """Refuse to listen beyond this machine unless asked to in so many words. Raises InvalidInput."""
    if host not in LOOPBACK and not allow_remote:
        raise InvalidInput(
            f"{host} would let other machines reach this studio",
            field="--host",
            allowed=", ".join(LOOPBACK),
            next_call="add --allow-remote if that is wanted; the token is still needed, over plain HTTP",
        )
