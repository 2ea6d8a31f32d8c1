"""Finished files over HTTP: expiring links, one per file, that carry their own signature; Range is honoured."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from dreamontage.schemas import limits

ROUTE = "/files/{expires:int}/{signature}/{path:path}"
_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".json": "application/json"}


class FileLinks:
    """Signs and serves files below one folder. Who has a link can read that one file until it expires."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder.resolve()
        self._key = hashlib.sha256(f"dreamontage file links/{key}".encode()).digest()

    def url(self, base: str, path: Path, now: float | None = None) -> str:
        """Link to a file in the folder, good for an hour."""
        name = path.resolve().relative_to(self._folder).as_posix()
        expires = int(time.time() if now is None else now) + limits.FILE_URL_TTL_S
        return f"{base.rstrip('/')}/files/{expires}/{self._sign(name, expires)}/{name}"

    async def serve(self, request: Request) -> Response:
        """Answer a link: the file or the asked range of it; 403 for a wrong or expired one, which never says which."""
        name, expires = request.path_params["path"], request.path_params["expires"]
        signed = hmac.compare_digest(self._sign(name, expires), request.path_params["signature"])
        if not signed or expires < time.time():
            return PlainTextResponse("This link is not valid or has expired; get_job gives a new one.", 403)
        path = self._folder / name
        if not path.is_file():
            return PlainTextResponse("This file is no longer here.", 404)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private", "Referrer-Policy": "no-referrer"}
        return FileResponse(path, media_type=_TYPES.get(path.suffix, "application/octet-stream"), headers=headers)

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._key, f"{expires}/{name}".encode(), hashlib.sha256).hexdigest()[:40]
