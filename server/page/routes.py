"""The page's addresses: its files for anyone, what it shows for who may read, a token for who has an invitation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dreamontage.schemas.errors import DreamontageError, NotFound

from ..actors import SCOPE_KEY, Actor
from ..context import App
from . import views
from .invitation import Invitation
from .thumbs import pictures

API = "/page/api/"
SESSION = "/page/session"
FILES = {
    "/": "index.html",
    "/page/page.css": "page.css",
    "/page/page.js": "page.js",
    "/page/draw.js": "draw.js",
    "/page/timeline.js": "timeline.js",
    "/page/report.js": "report.js",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # text can only ever become text: no innerHTML, no eval
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MAX_CODE_BYTES = 200


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no token: the page's own files say nothing about a studio, an invitation is a key."""
    return (path in FILES and method in ("GET", "HEAD")) or (path == SESSION and method == "POST")


def page_routes(app: App, invitation: Invitation | None = None) -> list[Route]:
    """Everything the page needs from the server. `app.links` must be there: videos are played through its links."""
    drawing = anyio.CapacityLimiter(1)

    def montages(request: Request) -> views.Data:
        return views.montages(app)

    def montage(request: Request) -> views.Data:
        viewer = request.scope[SCOPE_KEY].name
        return views.montage(app, request.path_params["montage_id"], str(request.base_url), viewer)

    def pulse(request: Request) -> views.Data:
        return views.pulse(app, request.path_params["montage_id"])

    def thumbnails(request: Request) -> views.Data:
        stored = app.studio.get_montage(request.path_params["montage_id"])
        return {"thumbnails": pictures(app.studio, list(app.media_of(stored).values()))}

    async def session(request: Request) -> Response:
        if int(request.headers.get("content-length", _MAX_CODE_BYTES + 1)) > _MAX_CODE_BYTES:
            return _json({"error": "A code is a few letters."}, 413)
        code = (await request.body()).decode(errors="replace")
        token = await anyio.to_thread.run_sync(invitation.redeem, code) if invitation is not None else None
        if token is None:
            return _json({"error": "This link was used or is too old. A token opens the page as well."}, 403)
        return _json({"token": token})

    one = f"{API}montages/{{montage_id}}"
    return [
        *(Route(path, _file(name), methods=["GET"]) for path, name in FILES.items()),
        Route(SESSION, session, methods=["POST"]),
        Route(f"{API}montages", _read(montages), methods=["GET"]),
        Route(one, _read(montage), methods=["GET"]),
        Route(f"{one}/pulse", _read(pulse), methods=["GET"]),
        Route(f"{one}/thumbnails", _read(thumbnails, drawing), methods=["GET"]),
    ]


Endpoint = Callable[[Request], Awaitable[Response]]


def _read(answer: Callable[[Request], views.Data], limiter: anyio.CapacityLimiter | None = None) -> Endpoint:
    """An address that answers JSON to actors with the scope read; what can be mended is a sentence."""

    async def endpoint(request: Request) -> Response:
        actor = request.scope.get(SCOPE_KEY)
        if not isinstance(actor, Actor) or "read" not in actor.scopes:
            return _json({"error": "This token may not read."}, 403)
        try:
            return _json(await anyio.to_thread.run_sync(answer, request, limiter=limiter))
        except DreamontageError as error:
            return _json({"error": str(error)}, 404 if isinstance(error, NotFound) else 400)

    return endpoint


def _file(name: str) -> Endpoint:
    content = (files(__package__) / name).read_bytes()
    media_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"

    async def endpoint(request: Request) -> Response:
        return Response(content, headers={**_HEADERS, "Content-Type": media_type})

    return endpoint


def _json(data: views.Data, status: int = 200) -> JSONResponse:
    return JSONResponse(data, status, headers=_HEADERS)
