"""The contact sheet: the shot at a glance, with time codes, the pinned frames outlined. Pillow only."""

from __future__ import annotations

import bisect
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dreamontage.schemas import limits
from dreamontage.schemas.plan import PlacedAnchor, Plan

BACKGROUND, INK, SOFT, PINNED = (18, 18, 22), (240, 240, 240), (170, 170, 178), (255, 176, 32)
WIDTH = 1400
HEIGHT = 1800
"""The sheet is at most about this high; more cells make the cells smaller."""
GAP, TEXT, TITLE, LINE = 8, 20, 22, 4
EVENLY = 12
SMALLEST_CELL = 96
QUALITIES = (86, 76, 66, 54, 42, 30)


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet: RGB [H,W,3] of any size, its second, its label if it is pinned ("" if it is not)."""

    picture: NDArray[np.uint8]
    second: float
    label: str = ""


def sheet_frames(plan: Plan, evenly: int = EVENLY) -> dict[int, str]:
    """Frames the sheet shows, in time order, each with its label, "" where nothing is pinned.

    `evenly` frames spread over the shot, first and last included, and every pinned frame: of a clip its first and last,
    and those of the evenly spread ones that lie in it. Evenly spread frames next to a pinned one give way to it.
    """
    pinned: dict[int, str] = {}
    for anchor in plan.anchors:
        last = min(anchor.frame + anchor.frames, plan.frames) - 1
        for frame in sorted({anchor.frame, last}):
            pinned[frame] = anchor_name(anchor)
    shown = dict(pinned)
    spread = np.linspace(0, plan.frames - 1, min(evenly, plan.frames)).round().astype(int)
    crowded = (plan.frames - 1) / max(1, evenly - 1) / 3
    for frame in (int(at) for at in spread):
        inside = [a for a in plan.anchors if a.frame <= frame < a.frame + a.frames]
        if inside:
            shown.setdefault(frame, anchor_name(inside[0]))
        elif all(abs(frame - other) >= crowded for other in pinned):
            shown.setdefault(frame, "")
    return dict(sorted(shown.items()))


def anchor_name(anchor: PlacedAnchor) -> str:
    """Label or id, and the strength where it is not pinned exactly."""
    name = anchor.label or anchor.anchor_id
    return name if anchor.strength == 1 else f"{name} ({anchor.strength:.0%})"


def cell_size(count: int, aspect: float) -> tuple[int, int, int]:
    """(columns, width, height) of `count` cells of an aspect (width ÷ height), as large as the sheet allows."""
    best = (1, 0, 0)
    for columns in range(1, count + 1):
        width = (WIDTH - GAP) // columns - GAP
        rows = math.ceil(count / columns)
        room = (HEIGHT - TITLE - 3 * GAP) / rows - GAP - TEXT
        width = min(width, int(room * aspect), 480)
        if width >= best[1]:
            best = (columns, width, round(width / aspect))
    columns, width, height = best
    if width < SMALLEST_CELL:
        columns = max(1, WIDTH // (SMALLEST_CELL + GAP))
        width, height = SMALLEST_CELL, round(SMALLEST_CELL / aspect)
    return columns, width, height


def contact_sheet(cells: Sequence[Cell], title: str = "", limit: int = limits.MAX_PICTURE_BYTES) -> bytes:
    """Cells in the order given as one JPEG of at most `limit` bytes; quality, then size, give way where needed.

    Every cell carries its time code below; pinned ones (those with a label) are outlined and named.
    """
    aspect = cells[0].picture.shape[1] / cells[0].picture.shape[0]
    columns, width, height = cell_size(len(cells), aspect)
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    top = GAP + (TITLE + GAP if title else 0)
    sheet_width = max(columns * (width + GAP) + GAP, 480)
    sheet = Image.new("RGB", (sheet_width, top + rows * (height + TEXT + GAP)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((GAP, GAP // 2), within(draw, title, sheet_width - 2 * GAP, TITLE), fill=INK, font=font(TITLE))
    for index, cell in enumerate(cells):
        left = GAP + index % columns * (width + GAP)
        upper = top + index // columns * (height + TEXT + GAP)
        picture = Image.fromarray(cell.picture).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, upper))
        if cell.label:
            box = (left - LINE // 2, upper - LINE // 2, left + width + LINE // 2 - 1, upper + height + LINE // 2 - 1)
            draw.rectangle(box, outline=PINNED, width=LINE)
        text = f"{timecode(cell.second)}  {cell.label}".rstrip()
        text = within(draw, text, width, TEXT - 3)
        draw.text((left, upper + height + 1), text, fill=PINNED if cell.label else SOFT, font=font(TEXT - 3))
    return as_jpeg(sheet, limit)


def timecode(second: float) -> str:
    """Minutes, seconds and hundredths, as 0:07.25."""
    hundredths = round(second * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at about `size` pixels."""
    return ImageFont.load_default(size)


def within(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """The text on one line, shortened with dots until it fits."""
    text = " ".join(text.split())
    own = font(size)
    if len(text) < width and draw.textlength(text, font=own) <= width:
        return text
    lengths = range(min(len(text), width))
    fitting = bisect.bisect_right(lengths, width, key=lambda n: math.ceil(draw.textlength(text[:n] + "...", font=own)))
    return text[: max(0, fitting - 1)] + "..."


def as_jpeg(sheet: Image.Image, limit: int) -> bytes:
    """A picture as JPEG of at most `limit` bytes; quality, then size, give way."""
    while True:
        for quality in QUALITIES:
            content = io.BytesIO()
            sheet.save(content, "JPEG", quality=quality, optimize=True)
            if content.tell() <= limit:
                return content.getvalue()
        sheet = sheet.resize((sheet.width * 4 // 5, sheet.height * 4 // 5), Image.Resampling.LANCZOS)
