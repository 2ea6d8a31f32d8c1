"""One labelled picture of a list of media, so that an agent sees what it took in; a confined child draws it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.media import Media
from dreamontage.server.media.child import ask
from dreamontage.server.store import Studio


def thumbnails(studio: Studio, media: Sequence[Media]) -> bytes:
    """A JPEG of at most limits.MAX_PICTURE_BYTES: every picture, and every clip by its first and its last frame, with
    id, size and duration underneath. Blocks while a child process draws."""
    if not 0 < len(media) <= limits.MAX_SOURCES_PER_CALL:
        raise InvalidInput(f"{len(media)} media for one picture", allowed=f"1 to {limits.MAX_SOURCES_PER_CALL}")
    tiles = [tile for item in media for tile in _tiles(item, studio.blob_path(item.id))]
    with tempfile.TemporaryFile(dir=studio.folder) as output:
        room = 2 * limits.MAX_PICTURE_BYTES
        fault = ask("thumbnails", {"tiles": tiles}, output=output.fileno(), output_bytes=room, items=len(tiles)).fault
        if fault:
            raise fault
        output.seek(0)
        return output.read()


def _tiles(media: Media, path: Path) -> list[dict[str, Any]]:
    size = f"{media.width}x{media.height}"
    base = {"path": str(path), "container": media.container, "kind": media.kind, "title": media.id}
    if media.kind == "still":
        return [base | {"at_s": 0.0, "note": f"{size} {media.name}"}]
    last = max(0.0, media.duration_s - 1 / media.fps)
    length = f"{size}, {media.duration_s:.2f} s at {media.fps:.3g} fps"
    return [base | {"at_s": 0.0, "note": f"first: {length}"}, base | {"at_s": last, "note": f"last: {media.name}"}]
