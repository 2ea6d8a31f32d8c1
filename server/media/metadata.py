"""Metadata out: what a picture or clip says beside its samples is removed from the stored copy, without re-encoding.

Pictures lose EXIF (all but the orientation), XMP, IPTC, comments, previews, private blocks and whatever follows their
end; colour profiles stay. Clips lose titles, tags, places, dates, chapters and attachments, overwritten with empty
boxes of the same size (`boxes`). Runs in the confined child process.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from PIL import Image

from dreamontage.schemas.errors import MediaRejected
from dreamontage.server.media.boxes import blank_clip
from dreamontage.server.media.magic import PICTURES

_ORIENTATION: Final = 0x0112
_PNG_KEPT: Final = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV",
    b"cLLI", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT",
}  # fmt: skip
_WEBP_KEPT: Final = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"}
_GIF_KEPT: Final = (b"\x21\xf9", b"\x21\xff\x0bNETSCAPE2.0", b"\x21\xff\x0bANIMEXTS1.0")
_JPEG_KEPT: Final = ((0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe"))
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that ends entropy-coded data: no stuffed byte, no restart."""
_XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def remove_metadata(file: BinaryIO, container: str) -> None:
    """Rewrite a file, open for reading and writing, without metadata; the same bytes always give the same bytes.

    `container` as `magic.container_of` says. Raises MediaRejected for a picture whose structure is damaged.
    """
    if container not in PICTURES:
        blank_clip(file, container)
        return
    file.seek(0)
    data = file.read()
    try:
        clean = _CLEAN[container](data)
    except (IndexError, struct.error) as error:
        raise MediaRejected(
            f"is a damaged {container} picture, or cut short", allowed="a complete picture",
            next_call="copy or export it again, then add_media with the complete file",
        ) from error  # fmt: skip
    if clean != data:
        file.seek(0)
        file.write(clean)
        file.truncate()
        file.flush()


@dataclass
class _Parts:
    """What is kept of a picture, in order; what was said of its orientation; and where to say that again."""

    kept: list[bytes]
    exif: bytes = b""
    xmp: bytes = b""
    place: int = 0

    def orientation(self) -> bytes:
        """EXIF with nothing but the orientation, where there is one that matters; else nothing."""
        found, written = Image.Exif(), _XMP_ORIENTATION.search(self.xmp)
        with contextlib.suppress(Exception):  # a damaged block says nothing
            found.load(self.exif)
        turn = found.get(_ORIENTATION, int(written[1]) if written else 1)
        if turn not in range(2, 9):
            return b""
        return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, 3, 1, turn, 0, 0)

    def joined(self, wrap: Callable[[bytes], bytes]) -> bytes:
        """The picture; `wrap` makes a block of the format from the EXIF."""
        exif = self.orientation()
        return b"".join([*self.kept[: self.place], *([wrap(exif)] if exif else []), *self.kept[self.place :]])


def _jpeg(data: bytes) -> bytes:
    parts, at = _Parts([data[:2]], place=1), 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            parts.kept.append(b"\xff\xd9")
            break
        if marker == 0x01:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        body, at = data[at : at + length], at + length
        if len(body) < max(length, 2):
            raise IndexError
        if marker == 0xE1:
            parts.exif = parts.exif or (body[2:] if body.startswith(b"Exif\0\0", 2) else b"")
            parts.xmp = parts.xmp or (body[2:] if body.startswith(b"http://ns.adobe.com/xap/", 2) else b"")
        named = any(marker == kept and body.startswith(name, 2) for kept, name in _JPEG_KEPT)
        if named or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.kept.append(bytes((0xFF, marker)) + body)
            parts.place = 2 if marker == 0xE0 and len(parts.kept) == 2 else parts.place
        if marker == 0xDA:
            end = _JPEG_MARKER.search(data, at)
            parts.kept.append(data[at : end.start() if end else len(data)])
            at = end.start() if end else len(data)
    return parts.joined(lambda exif: b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif)


def _png(data: bytes) -> bytes:
    parts, at, kind = _Parts([data[:8]], place=2), 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk, at = data[at : at + 12 + length], at + 12 + length
        if len(chunk) < 12 + length:
            raise IndexError
        if kind in _PNG_KEPT:
            parts.kept.append(chunk)
        elif kind == b"eXIf":
            parts.exif = chunk[8:-4]
        elif kind == b"iTXt" and chunk.startswith(b"XML:com.adobe.xmp", 8):
            parts.xmp = chunk
    return parts.joined(
        lambda exif: struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    )


def _webp(data: bytes) -> bytes:
    end = min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])
    chunks, parts, at = [], _Parts([]), 12
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        body, at = data[at + 8 : at + 8 + length], at + 8 + length + length % 2
        if len(body) < length:
            raise IndexError
        parts.exif = body if kind == b"EXIF" else parts.exif
        parts.xmp = body if kind == b"XMP " else parts.xmp
        if kind in _WEBP_KEPT:
            chunks.append((kind, body))
    exif = parts.orientation()
    if chunks and chunks[0][0] == b"VP8X" and chunks[0][1]:
        flags = chunks[0][1][0] & ~0x0C | (0x08 if exif else 0)
        chunks[0] = (b"VP8X", bytes((flags,)) + chunks[0][1][1:])
        chunks += [(b"EXIF", exif)] if exif else []
    packed = b"".join(struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2) for kind, body in chunks)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(packed), b"WEBP") + packed


def _gif(data: bytes) -> bytes:
    at = 13 + _gif_colours(data[10])
    kept = [data[:at]]
    while data[at] != 0x3B:
        start = at
        if data[at] == 0x2C:
            at += 10 + _gif_colours(data[at + 9]) + 1
        elif data[at] == 0x21:
            at += 2
        else:
            raise IndexError
        while data[at]:
            at += 1 + data[at]
        at += 1
        if data[start] == 0x2C or data.startswith(_GIF_KEPT, start):
            kept.append(data[start:at])
    return b"".join([*kept, b"\x3b"])


def _gif_colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_CLEAN: Final = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "GIF": _gif}
