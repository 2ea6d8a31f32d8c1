"""Small real files for tests of what is taken in, made on the spot; and what every refusal promises."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from PIL import Image

from dreamontage.schemas.errors import DreamontageError, MediaRejected
from dreamontage.schemas.media import Media, Source
from dreamontage.server.media.ingest import take_in
from dreamontage.server.store import Studio

MILLISECOND = Fraction(1, 1000)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def picture_bytes(kind: str = "PNG", width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    file = io.BytesIO()
    picture(width, height, seed).save(file, kind)
    return file.getvalue()


def animation(kind: str = "GIF", count: int = 6) -> bytes:
    file = io.BytesIO()
    first, *others = [picture(seed=n) for n in range(count)]
    first.save(file, kind, save_all=True, append_images=others, duration=100)
    return file.getvalue()


def clip_bytes(
    count: int = 24, size: tuple[int, int] = (64, 48), form: str = "mp4", times: list[int] | None = None,
    codec: str = "libx264", faststart: bool = False, sound: bool = False,
) -> bytes:  # fmt: skip
    """A real clip at 24 fps, or with time stamps in 1/600 s."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (faststart reads back what it wrote, by name)
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(file.name, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 600 if times else 24)
        tone = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        for index in range(count):
            pixels = np.asarray(picture(*size, seed=index % 5))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = times[index] if times else index, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 44100, 0
            container.mux(tone.encode(silence))
            container.mux(tone.encode(None))
    with file:
        return file.read()


def turned(mp4: bytes) -> bytes:
    """The clip with a phone's quarter turn in its display matrix."""
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000)
    at = mp4.index(b"tkhd") + 44
    return mp4[:at] + matrix + mp4[at + 36 :]


def huge_png(side: int = 30_000) -> bytes:
    """A valid, highly compressed grey PNG of side x side pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    squeeze = zlib.compressobj(1)
    rows = b"".join(squeeze.compress(bytes(1 + side)) for _ in range(side // 100)) + squeeze.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Place(NamedTuple):
    """A studio, one media root, and a folder that is none."""

    studio: Studio
    root: Path
    outside: Path

    def take(self, source: Source) -> Media:
        return take_in(self.studio, source, (self.studio.inbox, self.root))


def nothing_stored(studio: Studio) -> bool:
    with studio.db.read() as connection:
        rows = connection.execute("SELECT count(*) FROM media").fetchone()[0]
    return not rows and not list((studio.folder / "blobs").iterdir())


def refusal(place: Place, source: Source, kind: type[DreamontageError] = MediaRejected) -> str:
    """The one sentence of a refusal, after checking what every refusal promises."""
    with pytest.raises(kind) as caught:
        place.take(source)
    text = str(caught.value)
    assert caught.value.field == "source"
    assert str(place.outside) not in text
    assert ".part-" not in text and "/blobs" not in text
    assert "pydantic" not in text and "Traceback" not in text and "\n" not in text
    assert len(text) < 700
    assert nothing_stored(place.studio)
    return text
