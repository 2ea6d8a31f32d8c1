"""Small pictures of media for the timeline: drawn once by the confined child that reads foreign bytes, then kept."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from dreamontage.generator.files import replacing
from dreamontage.schemas import limits
from dreamontage.schemas.media import Media

from ..media.child import ask
from ..store import Studio

FOLDER = "thumbnails"


def pictures(studio: Studio, media: Sequence[Media]) -> dict[str, str]:
    """A data URL with a small JPEG for every medium, the first frame of a clip; one that cannot be drawn is left out.

    Blocks while a child process draws those that no one asked for before.
    """
    folder = studio.folder / FOLDER
    folder.mkdir(exist_ok=True)
    files = {item.id: folder / f"{item.sha256}.jpg" for item in media}
    _draw(studio, [item for item in media if not files[item.id].exists()], files)
    return {name: _data_url(file.read_bytes()) for name, file in files.items() if file.exists()}


def _draw(studio: Studio, missing: Sequence[Media], files: dict[str, Path]) -> None:
    for start in range(0, len(missing), limits.MAX_SOURCES_PER_CALL):
        part = missing[start : start + limits.MAX_SOURCES_PER_CALL]
        tiles = [
            {"path": str(studio.blob_path(item.id)), "container": item.container, "kind": item.kind, "at_s": 0.0}
            for item in part
        ]
        drawn = ask("pictures", {"tiles": tiles}, items=len(tiles)).replies
        for item, reply in zip(part, drawn, strict=False):  # a medium that cannot be read ends the child early
            with replacing(files[item.id]) as temporary:
                temporary.write_bytes(base64.b64decode(reply["jpeg"]))


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
