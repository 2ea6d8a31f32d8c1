"""Contact sheets: ways of making one shot as rows, the same times as columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.renditions import FPS

COLUMNS = 9
CELL = (192, 108)
GAP, TEXT, TITLE = 6, 20, 26
PAPER, INK, PINNED = (18, 18, 22), (240, 240, 240), (255, 176, 32)


class Row(NamedTuple):
    """A way of making the shot: its label, its frames [F,H,W,3] (or those of the columns) and what was measured."""

    label: str
    frames: Frames | Mapping[int, Frames]
    score: str = ""


def draw_sheet(rows: Sequence[Row], title: str, pinned: Collection[int], path: Path) -> None:
    """Write a JPEG of the first row's frames and the others'; pinned frames are outlined."""
    times = columns_of(len(rows[0].frames), pinned, COLUMNS)
    width, row_height = GAP + len(times) * (CELL[0] + GAP), TEXT + CELL[1] + GAP
    sheet = Image.new("RGB", (width, TITLE + len(rows) * row_height), PAPER)
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(13)
    shown = "  ".join(f"{frame / FPS:.2f}" for frame in times)
    draw.text((GAP, 5), f"{title}; seconds {shown}; outlined: given", INK, font)
    for index, row in enumerate(rows):
        y = TITLE + index * row_height
        draw.text((GAP, y + 2), f"{row.label}   {row.score}", INK, small)
        for column, frame in enumerate(times):
            x = GAP + column * (CELL[0] + GAP)
            cell = Image.fromarray(np.asarray(row.frames[frame])).resize(CELL, Image.Resampling.LANCZOS)
            sheet.paste(cell, (x, y + TEXT))
            if frame in pinned:
                draw.rectangle((x - 2, y + TEXT - 2, x + CELL[0] + 1, y + TEXT + CELL[1] + 1), None, PINNED, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=85)


def columns_of(frames: int, pinned: Collection[int], columns: int) -> list[int]:
    """Evenly spread frames; those beside a given one move onto it, so that some columns show what was given."""
    even = np.linspace(0, frames - 1, min(columns, frames)).round().astype(int)
    near = max(1, (frames - 1) // (3 * columns))
    moved = [min(pinned, key=lambda given: (abs(given - frame), given), default=frame) for frame in even]
    return sorted({given if abs(given - frame) <= near else int(frame) for given, frame in zip(moved, even,
                                                                                          strict=True)})  # fmt: skip
