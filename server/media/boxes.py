"""Metadata out of clips, in place: boxes that hold none of the samples become empty ones of the same size.

No sample moves, so every index in the file stays right. Damage ends the walk: a demuxer reads no further either, and
judges the file. Formats: ISO/IEC 14496-12 and QuickTime; RFC 9559 (Matroska); the AVI RIFF reference.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Final

_MOST: Final = 200_000
"""Boxes looked at in one file; ten minutes of film have a few thousand outside their samples."""

_MOV_INSIDE: Final = (b"moov", b"trak", b"mdia", b"moof", b"traf")
_MOV_BLANKED: Final = (b"udta", b"meta", b"uuid", b"meco", b"Xtra", b"XMP_")
_MOV_DATED: Final = (b"mvhd", b"tkhd", b"mdhd")
_AVI_INSIDE: Final = (b"AVI ", b"AVIX", b"hdrl", b"strl")
_AVI_BLANKED: Final = (b"IDIT", b"ISMP", b"strn", b"strd", b"_PMX")
_MKV_INSIDE: Final = (0x18538067, 0x1549A966, 0x1654AE6B, 0xAE)  # Segment, Info, Tracks, TrackEntry
_MKV_BLANKED: Final = (
    0x1254C367, 0x1941A469, 0x1043A770,  # Tags, Attachments, Chapters
    0x7BA9, 0x7384, 0x4461, 0x536E,  # Title, SegmentFilename, DateUTC, a track's Name
)  # fmt: skip
_MKV_EMPTIED: Final = (0x4D80, 0x5741)
"""MuxingApp and WritingApp must be there: their text is overwritten."""


def blank_clip(file: BinaryIO, container: str) -> None:
    """Blank the metadata of a clip that is open for reading and writing. `container`: mov, matroska or avi."""
    size = file.seek(0, os.SEEK_END)
    {"mov": _mov, "avi": _avi, "matroska": _matroska}[container](file, size)
    file.flush()


def _mov(file: BinaryIO, size: int) -> None:
    at = 0
    for _ in range(_MOST):
        head = _read(file, at, 16)
        length, kind, body = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, body = int.from_bytes(head[8:16], "big"), 16
        if len(head) < 8 or (length and length < body):
            return
        end = min(size, at + length) if length else size
        if kind in _MOV_BLANKED:
            _write(file, at + 4, b"free")
            _zero(file, at + body, end)
        elif kind in _MOV_DATED:
            wide = _read(file, at + body, 1) == b"\x01"
            _zero(file, at + body + 4, min(end, at + body + (20 if wide else 12)))
        elif kind == b"trak":
            _silence(file, at + body, end, size)
        elif kind == b"hdlr":
            _zero(file, at + body + 24, end)  # a free name; what the track is stands before it
        at = at + body if kind in _MOV_INSIDE else end


def _silence(file: BinaryIO, at: int, end: int, size: int) -> None:
    """Overwrite the samples of a track that is neither picture nor sound: chapter names, subtitles, telemetry."""
    tables: dict[bytes, bytes] = {}
    handlers = set()
    for _ in range(_MOST):
        head = _read(file, at, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if at + 8 > end or length < 8:
            break
        if kind in (b"stsz", b"stsc", b"stco", b"co64"):
            tables[kind] = _read(file, at + 8, min(length, end - at) - 8)
        elif kind == b"hdlr":
            handlers.add(_read(file, at + 16, 4))
        at += 8 if kind in (b"mdia", b"minf", b"stbl") else length
    if handlers & {b"vide", b"soun"}:
        return
    sizes, runs = tables.get(b"stsz", b""), tables.get(b"stsc", b"")
    common, count = (int.from_bytes(sizes[place : place + 4], "big") for place in (4, 8))
    wide = 8 if b"co64" in tables else 4
    chunks = tables.get(b"co64", tables.get(b"stco", b""))[8:]
    sample, per_chunk, firsts = 0, 0, {runs[n : n + 4]: runs[n + 4 : n + 8] for n in range(8, len(runs), 12)}
    for number in range(len(chunks) // wide):
        per_chunk = int.from_bytes(firsts.get((number + 1).to_bytes(4, "big"), per_chunk.to_bytes(4, "big")), "big")
        place = int.from_bytes(chunks[number * wide : (number + 1) * wide], "big")
        for _ in range(min(per_chunk, count - sample)):
            length = common or int.from_bytes(sizes[12 + 4 * sample : 16 + 4 * sample], "big")
            _zero(file, place, min(size, place + length))
            place, sample = place + length, sample + 1


def _avi(file: BinaryIO, size: int) -> None:
    at = 0
    for _ in range(_MOST):
        head = _read(file, at, 12)
        if len(head) < 8:
            return
        length, listed = int.from_bytes(head[4:8], "little"), head[:4] in (b"RIFF", b"LIST")
        kind = head[8:12] if listed else head[:4]
        end = min(size, at + 8 + length)
        if kind == b"INFO" or kind in _AVI_BLANKED:
            _write(file, at, b"JUNK")
            _zero(file, at + 8, end)
        at = at + 12 if listed and kind in _AVI_INSIDE else at + 8 + length + length % 2


def _matroska(file: BinaryIO, size: int) -> None:
    at = 0
    for _ in range(_MOST):
        head = _read(file, at, 12)
        kind, width = _vint(head, marked=True)
        length, more = _vint(head[width:], marked=False)
        if not width or not more or width > 4:
            return
        body = at + width + more
        unknown = length == (1 << 7 * more) - 1  # a live recording: it ends where the file or its parent does
        end = body if unknown or kind in _MKV_INSIDE else min(size, body + length)
        if not unknown and kind in _MKV_BLANKED:
            _write(file, at, _void(end - at))
            _zero(file, body, end)
        elif not unknown and kind in _MKV_EMPTIED:
            _zero(file, body, end)
        at = end


def _vint(data: bytes, *, marked: bool) -> tuple[int, int]:
    """A variable-length number of EBML and its width in bytes, with its length marker or without; (0, 0) for none."""
    if not data or not data[0]:
        return 0, 0
    width = 9 - data[0].bit_length()
    if len(data) < width:
        return 0, 0
    number = int.from_bytes(data[:width], "big")
    return number if marked else number & ~(1 << 7 * width), width


def _void(total: int) -> bytes:
    """The head of a Void element of `total` bytes in all."""
    width = next(w for w in range(1, 9) if total - 1 - w < (1 << 7 * w) - 1)
    return b"\xec" + (total - 1 - width | 1 << 7 * width).to_bytes(width, "big")


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _write(file: BinaryIO, at: int, data: bytes) -> None:
    file.seek(at)
    file.write(data)


def _zero(file: BinaryIO, at: int, end: int) -> None:
    file.seek(at)
    while at < end:
        at += file.write(bytes(min(end - at, 1 << 20)))
