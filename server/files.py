"""Finished files over HTTP: expiring links, one per file and actor, that carry their own signature, with ranges."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from dreamontage.schemas import limits

from .actors import OWNER, SCOPE_KEY
from .store import Studio

ROUTE = "/files/{actor}/{expires:int}/{signature}/{path:path}"
_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".json": "application/json"}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "sandbox",
}


class FileLinks:
    """Signs and serves files of a studio.

    Who has a link can read that one file until it expires, or until the actor it was made for has no token any more.
    A request that shows a token of its own must be that actor's or the owner's.
    """

    def __init__(self, studio: Studio, key: str) -> None:
        self._studio = studio
        self._folder = studio.folder.resolve()
        self._key = hashlib.sha256(f"dreamontage file links/{key}".encode()).digest()

    def url(self, base: str, path: Path, actor: str = OWNER.name, now: float | None = None) -> str:
        """Link to a file in the studio for an actor, good for an hour."""
        name = path.resolve().relative_to(self._folder).as_posix()
        expires = int(time.time() if now is None else now) + limits.FILE_URL_TTL_S
        return f"{base.rstrip('/')}/files/{actor}/{expires}/{self._sign(actor, name, expires)}/{name}"

    async def serve(self, request: Request) -> Response:
        """Answer a link: the file or the asked range of it; 403 for a wrong or expired one, which never says which."""
        actor, name, expires = (request.path_params[key] for key in ("actor", "path", "expires"))
        shown = request.scope.get(SCOPE_KEY)
        signature = request.path_params["signature"].encode()
        signed = hmac.compare_digest(self._sign(actor, name, expires).encode(), signature)
        if (
            not signed
            or expires < time.time()
            or (shown is not None and shown.name not in (actor, OWNER.name))
            or not self._studio.may_enter(actor)
        ):
            return PlainTextResponse("This link is not valid or has expired; get_job gives a new one.", 403)
        path = self._folder / name
        if not path.is_file():
            return PlainTextResponse("This file is no longer here.", 404)
        return FileResponse(path, media_type=_TYPES.get(path.suffix, "application/octet-stream"), headers=_HEADERS)

    def _sign(self, actor: str, name: str, expires: int) -> str:
        return hmac.new(self._key, f"{actor}/{expires}/{name}".encode(), hashlib.sha256).hexdigest()[:40]
