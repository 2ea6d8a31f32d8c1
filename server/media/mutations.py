"""Broken files for `dreamontage fuzz` and the tests: small real pictures, clips and sounds, and ways to spoil them."""

from __future__ import annotations

import io
import random
import re
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from PIL import Image

PICTURES: Final = ("PNG", "JPEG", "WEBP", "GIF")
CLIPS: Final = (("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("avi", "mpeg4"))
SOUNDS: Final = (("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("adts", "aac"))
_EXTREMES: Final = tuple(
    struct.pack(order + code, value)
    for order in "<>"
    for code, values in (
        ("B", (0, 1, 0x7F, 0x80, 0xFF)),
        ("H", (0, 1, 0x7FFF, 0x8000, 0xFFFF)),
        ("I", (0, 1, 7, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
        ("Q", (0, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1)),
    )
    for value in values
)
_NAMES: Final = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}")


@cache
def samples() -> dict[str, bytes]:
    """A small file of every kind that is taken in, by a name: 64x48 pixels, eight frames, a quarter second of sound."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 6, 8, 3), np.uint8)
    frames = [Image.fromarray(part).resize((64, 48)) for part in noise]
    made = {}
    for kind in PICTURES:
        file = io.BytesIO()
        frames[0].save(file, kind)
        made[kind.lower()] = file.getvalue()
    for kind in ("GIF", "PNG"):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:4], duration=80)
        made[f"animated {kind.lower()}"] = file.getvalue()
    made |= {form: _clip(form, codec, frames[:8]) for form, codec in CLIPS}
    return made | {form: _sound(form, codec) for form, codec in SOUNDS}


def _sound(form: str, codec: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 12_000)).astype(np.float32)
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def _clip(form: str, codec: str, frames: list[Image.Image]) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=form) as container:
            stream = container.add_stream(codec, rate=24)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.thread_count = 1
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
            container.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def mutated(dice: random.Random) -> tuple[str, bytes]:
    """A sample, spoiled in one to three ways; says how. The same dice give the same bytes."""
    name, data = dice.choice(sorted(samples().items()))
    steps = dice.choices(_WAYS, k=dice.randint(1, 3))
    for way in steps:
        data = way(dice, data) or data
    return f"{name}: {', '.join(way.__name__.strip('_') for way in steps)}", data


def _place(dice: random.Random, data: bytes) -> int:
    """Somewhere; rather in the head, or beside a name of a box or chunk, where the lengths are."""
    fate = dice.random()
    if fate < 0.4:
        return dice.randrange(min(len(data), 128))
    names = [match.start() for match in _NAMES.finditer(data)] if fate < 0.8 else []
    return max(0, min(len(data) - 1, dice.choice(names) + dice.randint(-8, 16))) if names else dice.randrange(len(data))


def _flip(dice: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    for _ in range(dice.randint(1, 16)):
        spoiled[_place(dice, data)] ^= 1 << dice.randrange(8)
    return bytes(spoiled)


def _extreme(dice: random.Random, data: bytes) -> bytes:
    at, value = _place(dice, data), dice.choice(_EXTREMES)
    return data[:at] + value + data[at + len(value) :]


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(1, len(data) + 1)]


def _drop(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + data[at + dice.randint(1, 64) :]


def _repeat(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + data[at : at + dice.randint(1, 256)] * dice.randint(2, 40) + data[at:]


def _insert(dice: random.Random, data: bytes) -> bytes:
    at = _place(dice, data)
    return data[:at] + dice.randbytes(dice.randint(1, 64)) + data[at:]


def _splice(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice(sorted(samples().values()))
    return data[: dice.randrange(1, len(data) + 1)] + other[dice.randrange(len(other)) :]


def _disguise(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice(sorted(samples().values()))
    return other[:16] + data[16:]


def _rename(dice: random.Random, data: bytes) -> bytes:
    names = [match.span() for match in _NAMES.finditer(data[:65_536])]
    if len(names) < 2:
        return data
    (a, b), (c, d) = dice.sample(names, 2)
    return data[:a] + data[c:d] + data[b:]


_WAYS: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _flip, _extreme, _extreme, _cut, _drop, _repeat, _insert, _splice, _disguise, _rename,
)  # fmt: skip
