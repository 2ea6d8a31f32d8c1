"""One labelled picture of a list of media, so that an agent sees what it took in. Drawn in the confined child."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyio import to_thread
from PIL import Image, ImageDraw, ImageFont

from dreamontage.generator.frames import load_clip, load_still
from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.media import Media
from dreamontage.server.media.child import ask

if TYPE_CHECKING:
    from dreamontage.server.store import Studio

_GAP: Final = 8
_LINE: Final = 15
_GROUND: Final = (24, 24, 24)
_INK: Final = (230, 230, 230)
_FAINT: Final = (150, 150, 150)


def thumbnails(studio: Studio, media: Sequence[Media]) -> bytes:
    """A JPEG of at most limits.MAX_PICTURE_BYTES: every picture, and every clip by its first and its last frame, with
    id, size and duration underneath. Blocks while a child process draws; `thumbnails_async` does not."""
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


async def thumbnails_async(studio: Studio, media: Sequence[Media]) -> bytes:
    """`thumbnails` without holding up the event loop."""
    return await to_thread.run_sync(partial(thumbnails, studio, media))


def _tiles(media: Media, path: Path) -> list[dict[str, Any]]:
    size = f"{media.width}x{media.height}"
    base = {"path": str(path), "container": media.container, "kind": media.kind, "title": media.id}
    if media.kind == "still":
        return [base | {"at_s": 0.0, "note": f"{size} {media.name}"}]
    last = max(0.0, media.duration_s - 1 / media.fps)
    length = f"{size}, {media.duration_s:.2f} s at {media.fps:.3g} fps"
    return [base | {"at_s": 0.0, "note": f"first: {length}"}, base | {"at_s": last, "note": f"last: {media.name}"}]


def draw(tiles: Sequence[dict[str, Any]], before_each: Callable[[], None]) -> bytes:
    """The grid as JPEG bytes; `tiles` as `thumbnails` makes them, `before_each` is called before a file is decoded."""
    columns, width = (len(tiles), 320) if len(tiles) <= 4 else (4, 256) if len(tiles) <= 16 else (7, 184)
    height = width * 9 // 16
    step_x, step_y = width + _GAP, height + 2 * _LINE + _GAP + 2
    sheet = Image.new("RGB", (columns * step_x + _GAP, -(-len(tiles) // columns) * step_y + _GAP), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for index, tile in enumerate(tiles):
        before_each()
        x, y = _GAP + index % columns * step_x, _GAP + index // columns * step_y
        sheet.paste(_picture(tile, (width, height)), (x, y))
        for line, (text, ink) in enumerate(((tile["title"], _INK), (tile["note"], _FAINT))):
            pen.text((x, y + height + 2 + line * _LINE), _cut(text, font, width), fill=ink, font=font)
    return _compressed(sheet)


def _picture(tile: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    path, container = Path(tile["path"]), tile["container"]
    if tile["kind"] == "still":
        return Image.fromarray(load_still(path, container, size, fit="contain")[0])
    frames = load_clip(path, container, in_s=tile["at_s"], size=size, fit="contain", max_frames=1)
    return Image.fromarray(frames[0])


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _compressed(sheet: Image.Image) -> bytes:
    while True:
        for quality in (88, 78, 66, 52):
            file = io.BytesIO()
            sheet.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= limits.MAX_PICTURE_BYTES:
                return file.getvalue()
        sheet = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS)
