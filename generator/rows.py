"""Videos compared: one row a video at the same times, in one picture; pinned frames under their anchors. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dreamontage.generator.frames import load_clip, load_still
from dreamontage.generator.sheet import BACKGROUND, GAP, INK, LINE, PINNED, SOFT, WIDTH, as_jpeg, font, timecode, within
from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Fit

HEIGHT = 1500
TITLE = 18
WIDEST = 480
SEEK_BEYOND = 250
"""Frames ahead from which seeking is shorter than decoding on: x264's longest distance between key frames."""


@dataclass(frozen=True)
class Pin:
    """The anchor pinned at a frame: its name and, as in the montage, the file, its piece and how it is fitted."""

    name: str
    path: str
    container: str
    kind: str
    in_s: float
    fit: Fit
    focus: tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """One cell: frame `index` of the row's video, None beyond its end; its second; the anchor pinned there, if any."""

    index: int | None
    second: float
    pin: Pin | None = None


@dataclass(frozen=True)
class Row:
    """One video: the line above it, its mp4 and as many spots as every other row has."""

    title: str
    video: str
    fps: int
    spots: list[Spot]

    @classmethod
    def of(cls, content: dict[str, Any]) -> Row:
        """A row from plain values, as `dataclasses.asdict` and JSON leave it."""
        spots = [Spot(**{**spot, "pin": spot["pin"] and Pin(**spot["pin"])}) for spot in content["spots"]]
        return cls(**{**content, "spots": spots})


def draw_rows(
    rows: Sequence[Row], aspect: float, limit: int = limits.MAX_PICTURE_BYTES,
    before_each: Callable[[], None] = lambda: None,
) -> bytes:  # fmt: skip
    """All rows as one JPEG of at most `limit` bytes; `aspect` is width ÷ height of a cell.

    Where one line would make the cells small, the rows are broken into bands like a table. Every cell carries its time
    code; a pinned one is outlined, and its anchor's own picture stands above it (not again where the row above has the
    same anchors). `before_each` is called before a file is decoded.
    """
    strips = [_pins(row) if number == 0 or _pins(row) != _pins(rows[number - 1]) else {} for number, row in
              enumerate(rows)]  # fmt: skip
    columns, width, height = _layout(len(rows[0].spots), len(rows), sum(map(bool, strips)), aspect)
    shown = []
    for row in rows:
        before_each()
        wanted = [spot.index for spot in row.spots if spot.index is not None]
        shown.append(dict(frames_at(Path(row.video), wanted, row.fps, (width, height))))
    bands = [range(start, min(start + columns, len(rows[0].spots))) for start in range(0, len(rows[0].spots), columns)]
    lines = [
        (band, number, kind)
        for band in bands
        for number, _ in enumerate(rows)
        for kind in ("title", "anchors", "frames")
        if kind != "anchors" or any(column in strips[number] for column in band)
    ]
    high = sum(TITLE if kind == "title" else height + GAP for _, _, kind in lines) + GAP
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, high), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    top = GAP // 2
    for band, number, kind in lines:
        row = rows[number]
        if kind == "title":
            pen.text((GAP, top), within(pen, row.title, sheet.width - 2 * GAP, TITLE - 5), INK, font(TITLE - 5))
            top += TITLE
            continue
        for place, column in enumerate(band):
            corner = (GAP + place * (width + GAP), top)
            spot = row.spots[column]
            if kind == "frames":
                picture = None if spot.index is None else shown[number].get(spot.index)
                _frame(sheet, pen, corner, (width, height), spot, picture)
            elif column in strips[number]:
                before_each()
                pin = strips[number][column]
                sheet.paste(Image.fromarray(_anchor(pin, (width, height))), corner)
                _caption(pen, corner, (width, height), pin.name, PINNED)
        top += height + GAP
    return as_jpeg(sheet, limit)


def frames_at(
    video: Path, indices: Sequence[int], fps: int, size: tuple[int, int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Frames of a delivered mp4 by number, scaled to `size`, in order; a number beyond the end is left out."""
    with video.open("rb") as file, av.open(file, mode="r", format="mov") as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        decoded, at = container.decode(stream), -1
        for index in sorted(set(indices)):
            if index - at > SEEK_BEYOND:
                container.seek(int(index / fps / stream.time_base), stream=stream, backward=True)
                decoded = container.decode(stream)
            for frame in decoded:
                at = round((frame.time or 0.0) * fps)
                if at >= index:
                    small = frame.reformat(
                        *size, format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=Interpolation.AREA
                    )
                    yield index, np.asarray(small.to_ndarray(), np.uint8)
                    break


def _pins(row: Row) -> dict[int, Pin]:
    return {column: spot.pin for column, spot in enumerate(row.spots) if spot.pin is not None}


def _layout(count: int, rows: int, strips: int, aspect: float) -> tuple[int, int, int]:
    """(columns, width, height) of the largest even-sided cells with which all bands fit the picture."""
    best = (1, 0)
    for columns in range(1, count + 1):
        bands = math.ceil(count / columns)
        room = (HEIGHT / bands - rows * TITLE) / (rows + strips) - GAP
        width = min((WIDTH - GAP) // columns - GAP, int(room * aspect), WIDEST)
        if width >= best[1]:
            best = (columns, width)
    columns, width = best
    columns = math.ceil(count / math.ceil(count / columns))
    return columns, max(width, 32) // 2 * 2, max(round(width / aspect), 18) // 2 * 2


def _anchor(pin: Pin, size: tuple[int, int]) -> NDArray[np.uint8]:
    path = Path(pin.path)
    if pin.kind == "still":
        frames = load_still(path, pin.container, size, pin.fit, pin.focus)
    else:
        frames = load_clip(path, pin.container, pin.in_s, size=size, fit=pin.fit, focus=pin.focus, max_frames=1)
    return np.asarray(frames[0])


def _frame(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], size: tuple[int, int], spot: Spot,
    picture: NDArray[np.uint8] | None,
) -> None:  # fmt: skip
    (left, upper), (width, height) = corner, size
    if picture is None:
        pen.rectangle((left, upper, left + width - 1, upper + height - 1), outline=SOFT)
        _caption(pen, corner, size, "ended before", SOFT)
        return
    sheet.paste(Image.fromarray(picture), corner)
    if spot.pin is not None:
        out = LINE // 2
        pen.rectangle((left - out, upper - out, left + width + out - 1, upper + height + out - 1), None, PINNED, LINE)
    _caption(pen, corner, size, timecode(spot.second), INK)


def _caption(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], size: tuple[int, int], text: str, ink: tuple[int, int, int]
) -> None:
    """Text burnt into the lower left of a cell, on a ground of its own."""
    points = max(10, min(16, size[0] // 9))
    text = within(pen, text, size[0] - 6, points)
    left, bottom, long = corner[0], corner[1] + size[1], pen.textlength(text, font=font(points))
    pen.rectangle((left, bottom - points - 5, left + long + 6, bottom - 1), BACKGROUND)
    pen.text((left + 3, bottom - points - 4), text, ink, font(points))
