"""Drawing the grid of labelled thumbnails. Runs in the confined child process; no torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from dreamontage.generator.frames import load_clip, load_still
from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Fit

_GAP: Final = 8
_LINE: Final = 15
_GROUND: Final = (24, 24, 24)
_INK: Final = (230, 230, 230)
_FAINT: Final = (150, 150, 150)
_SMALL: Final = (224, 126)


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


def small(tile: dict[str, Any]) -> bytes:
    """One picture without words, cropped to 16:9, as JPEG bytes; `tile` needs path, container, kind and at_s."""
    file = io.BytesIO()
    _picture(tile, _SMALL, "cover").save(file, "JPEG", quality=76, optimize=True)
    return file.getvalue()


def _picture(tile: dict[str, Any], size: tuple[int, int], fit: Fit = "contain") -> Image.Image:
    path, container = Path(tile["path"]), tile["container"]
    if tile["kind"] == "still":
        return Image.fromarray(load_still(path, container, size, fit=fit)[0])
    frames = load_clip(path, container, in_s=tile["at_s"], size=size, fit=fit, max_frames=1)
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
