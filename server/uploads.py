"""Files sent over HTTP: one PUT to a single-use address, bounded in bytes and time, taken in like any other source."""

from __future__ import annotations

import tempfile
from functools import partial
from typing import BinaryIO

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError, MediaRejected, NotFound, QuotaExceeded, StudioFull
from dreamontage.schemas.media import Media

from .actors import OWNER, SCOPE_KEY
from .answers import MediaLine
from .store import Studio

ROUTE = "/uploads/{secret}/{name:path}"
_CHUNK = 1 << 20
_STATUS: tuple[tuple[type[DreamontageError], int], ...] = (
    (NotFound, 403), (MediaRejected, 415), (QuotaExceeded, 507), (StudioFull, 507),
)  # fmt: skip


class Uploads:
    """Makes upload addresses for actors, and receives what is sent to them."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def address(self, base: str, actor: str) -> str:
        """An address for one PUT; a file name may follow it. Raises QuotaExceeded."""
        return f"{base.rstrip('/')}/uploads/{self._studio.add_upload(actor)}/"

    async def receive(self, request: Request) -> Response:
        """Answer a PUT with the medium it became, or with a sentence. The address is used up either way."""
        shown = request.scope.get(SCOPE_KEY)
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limits.MAX_CLIP_BYTES:
            return _refusal(f"The file has {int(declared):,} bytes. Allowed: {limits.MAX_CLIP_BYTES:,}.", 413)
        try:
            actor = await anyio.to_thread.run_sync(
                self._studio.use_upload, request.path_params["secret"], shown.name if shown else None, OWNER.name
            )
            if not self._studio.may_enter(actor):
                return _refusal("The token this address was made with is no longer valid.", 403)
            self._studio.require_space(int(declared) if declared.isdigit() else 0)
            with tempfile.TemporaryFile(dir=self._studio.folder) as file, anyio.fail_after(limits.UPLOAD_TTL_S):
                await _save(request, file)
                media = await anyio.to_thread.run_sync(self._taken_in, file, request.path_params["name"], actor)
        except TimeoutError:
            return _refusal(f"The file did not arrive within {limits.UPLOAD_TTL_S // 60} minutes.", 408)
        except ClientDisconnect:
            return _refusal("The connection ended before the file was complete.", 400)
        except DreamontageError as error:
            return _refusal(str(error), next((code for kind, code in _STATUS if isinstance(error, kind)), 400))
        line = MediaLine.of(media).model_dump(exclude_none=True)
        return JSONResponse({"media": line, "next": [f"add_anchors(montage_id=..., anchors=['{media.id}'])"]}, 201)

    def _taken_in(self, file: BinaryIO, name: str, actor: str) -> Media:
        from .media.ingest import take_in_file

        return take_in_file(self._studio, file.fileno(), name.rpartition("/")[2] or "upload", actor)


async def _save(request: Request, file: BinaryIO) -> None:
    from .media.magic import HEAD_BYTES, byte_cap, container_of

    size, cap, waiting = 0, limits.MAX_CLIP_BYTES, bytearray()
    async for chunk in request.stream():
        size += len(chunk)
        waiting += chunk
        if size == len(waiting) >= HEAD_BYTES:
            cap = byte_cap(container_of(bytes(waiting[:HEAD_BYTES])))
        if size > cap:
            raise MediaRejected(f"the file has more than {cap:,} bytes", allowed=f"up to {cap:,} bytes")
        if len(waiting) >= _CHUNK:
            await anyio.to_thread.run_sync(partial(file.write, bytes(waiting)))
            waiting.clear()
    file.write(waiting)
    file.flush()


def _refusal(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status)
