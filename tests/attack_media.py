"""Files that want something: more memory, time or disk than they are worth, another file, a connection, or a belief.

`REFUSED` must not be taken in; `HARMLESS` may be, as what is wrong with them does no harm. All are made on the spot.
"""

from __future__ import annotations

import struct
import zlib

from dreamontage.server.media.mutations import samples

_MADE = samples()
PNG, JPEG, WEBP, GIF = (_MADE[kind] for kind in ("png", "jpeg", "webp", "gif"))
APNG, MOVING_GIF = _MADE["animated png"], _MADE["animated gif"]
MP4, MKV, AVI = (_MADE[kind] for kind in ("mp4", "matroska", "avi"))
HTTP = b"http://127.0.0.1:9/secret"


def put(data: bytes, at: int, new: bytes) -> bytes:
    """The bytes with others in their place."""
    return data[:at] + new + data[at + len(new) :]


def after(data: bytes, name: bytes, skip: int, new: bytes) -> bytes:
    """The bytes with others at `skip` after a name."""
    return put(data, data.index(name) + len(name) + skip, new)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def ihdr(width: int, height: int, depth: int = 8, kind: int = 2, *rest: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, *(rest or (0, 0, 0))))


def png(*chunks: bytes) -> bytes:
    return PNG[:8] + b"".join(chunks) + chunk(b"IEND", b"")


def pixels(rows: int, row_bytes: int, filter_type: int = 0) -> bytes:
    return chunk(b"IDAT", zlib.compress((bytes((filter_type,)) + bytes(row_bytes)) * rows, 1))


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(body)) + body


def nested(name: bytes, depth: int) -> bytes:
    size = 8 * depth
    return b"".join(struct.pack(">I", size - 8 * n) + name for n in range(depth))


_SOF = JPEG.index(b"\xff\xc0")
_BOMB = zlib.compress(bytes(64 * 2**20), 9)
_FTYP = MP4[: struct.unpack(">I", MP4[:4])[0]]
_EBML = MKV[: MKV.index(b"\x18\x53\x80\x67")]
_LISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%s\n#EXT-X-ENDLIST\n",
    "hls key": b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="%s"\n#EXTINF:1,\na.ts\n',
    "ffconcat": b"ffconcat version 1.0\nfile '%s'\nduration 5\n",
    "concat": b"concat:%s|/etc/passwd\n",
    "subfile": b"subfile,,start,0,end,99,,:%s\n",
    "dash": b'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>%s</BaseURL></Period></MPD>',
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="%s"/></svg>',
    "smil": b'<smil><body><video src="%s"/></body></smil>',
    "pls": b"[playlist]\nFile1=%s\nNumberOfEntries=1\n",
    "asx": b'<asx version="3.0"><entry><ref href="%s"/></entry></asx>',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=%s\n",
    "mvg": b"push graphic-context\nimage over 0,0 0,0 '%s'\n",
    "eps": b"%%!PS-Adobe-3.0 EPSF-3.0\n(%s) (r) file\n",
    "xml entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "%s">]><svg>&b;</svg>',
    "html": b"<!doctype html><img src='%s'>",
    "matroska in words": b"matroska segment uid %s\n",
}
_HEADS = {"": b"", "mark": b"\xef\xbb\xbf", "mp4": _FTYP, "gif": b"GIF89a", "avi": b"RIFF\xff\0\0\0AVI ", "mkv": _EBML}
_FOREIGN = {
    "pdf": b"%PDF-1.7\n", "psd": b"8BPS\0\1", "tiff": b"II*\0\x08\0\0\0", "big tiff": b"II+\0\x08\0\0\0",
    "tiff motorola": b"MM\0*", "bmp": b"BM\xff\xff\xff\x7f", "ico": b"\0\0\1\0\1\0", "icns": b"icns\0\0\1\0",
    "fits": b"SIMPLE  =                    T", "exr": b"v/1\x01", "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "jpeg xl": b"\xff\x0a", "avif": b"\0\0\0\x18ftypavif", "heic": b"\0\0\0\x18ftypheic", "dds": b"DDS |\0\0\0",
    "pcx": b"\x0a\x05\x01\x08", "sgi": b"\x01\xda\x01\x01", "tga": b"\0\0\x02\0\0\0\0\0", "ppm": b"P6\n9 9\n255\n",
    "xbm": b"#define a_width 9\n", "xpm": b"/* XPM */\n", "wmf": b"\xd7\xcd\xc6\x9a", "emf": b"\1\0\0\0\x6c\0\0\0",
    "flv": b"FLV\x01\x05", "ogg": b"OggS\0\2", "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "mpeg ts": b"\x47\x40\0\x10",
    "mpeg ps": b"\0\0\1\xba", "mp3": b"ID3\x04", "flac": b"fLaC", "wav": b"RIFF\xff\0\0\0WAVEfmt ",
    "nut": b"nut/multimedia container\0",
    "swf": b"CWS\x0a", "zip": b"PK\x03\x04", "gzip": b"\x1f\x8b\x08", "xz": b"\xfd7zXZ\0", "7z": b"7z\xbc\xaf\x27\x1c",
    "program": b"\x7fELF\2", "pickle": b"\x80\x04\x95", "numpy": b"\x93NUMPY", "sqlite": b"SQLite format 3\0",
    "script": b"#!/bin/sh\ncurl http://127.0.0.1:9\n", "lfs pointer": b"version https://git-lfs.github.com/spec/v1\n",
}  # fmt: skip

REFUSED: dict[str, bytes] = {
    # PNG
    "png 0x0": png(ihdr(0, 0), pixels(1, 1)),
    "png of negative width": png(ihdr(2**31, 64), pixels(1, 1)),
    "png 2147483647 wide": png(ihdr(2**31 - 1, 1), pixels(1, 9)),
    "png 2147483647 high": png(ihdr(16, 2**31 - 1), pixels(64, 48)),
    "png 65535 square": png(ihdr(65535, 65535), pixels(9, 9)),
    "png 30000 square of zeros": png(ihdr(30_000, 30_000, 1, 0), pixels(3_000, 3_750)),
    "png of 3 bits": png(ihdr(64, 48, 3), pixels(48, 192)),
    "png of colour type 9": png(ihdr(64, 48, 8, 9), pixels(48, 192)),
    "png of compression 9": png(ihdr(64, 48, 8, 2, 9, 0, 0), b"\0\0\0\4IDATnone\0\0\0\0"),
    "png without header": png(pixels(48, 192)),
    "png without pixels": png(ihdr(64, 48)),
    "png of filter 255": png(ihdr(64, 48), pixels(48, 192, 255)),
    "png with a chunk of 4 GiB": PNG[:33] + b"\xff\xff\xff\xffIDAT" + PNG[41:],
    "png with a chunk of 2 GiB at the end": PNG[:-12] + b"\x7f\xff\xff\xffIDATx",
    "png with a wrong checksum": after(PNG, b"IHDR", 13, b"\0\0\0\0"),
    "png whose colour profile unpacks to 64 MiB": PNG[:33] + chunk(b"iCCP", b"a\0\0" + _BOMB) + PNG[33:],
    "png that ends in its signature": PNG[:8],
    "png of another compression": png(ihdr(64, 48), chunk(b"IDAT", b"\x1f\x8b\x08" + bytes(99))),
    "apng of no frame": after(APNG, b"acTL", 0, struct.pack(">II", 0, 0)),
    "apng 65535 square": after(APNG, b"IHDR", 0, struct.pack(">II", 65535, 65535)),
    # GIF
    "gif 65535 square": put(GIF, 6, b"\xff" * 4),
    "gif without picture": GIF[: 13 + 768] + b";",
    "gif that is cut in a block": GIF[:-9],
    "gif of unknown blocks": GIF[: 13 + 768] + b"\x99" * 99,
    "gif of nothing": b"GIF89a",
    # JPEG
    "jpeg 65535 square": put(JPEG, _SOF + 5, b"\xff" * 4),
    "jpeg 0x0": put(JPEG, _SOF + 5, bytes(4)),
    "jpeg of 255 components": put(JPEG, _SOF + 9, b"\xff"),
    "jpeg of no component": put(JPEG, _SOF + 9, b"\0"),
    "jpeg of 12 bits": put(JPEG, _SOF + 4, b"\x0c"),
    "jpeg of arithmetic coding without tables": put(JPEG, _SOF + 1, b"\xcb"),
    "jpeg with a segment longer than itself": JPEG[:2] + b"\xff\xe1\xff\xff" + JPEG[2:],
    "jpeg with a segment of length 0": JPEG[:2] + b"\xff\xdb\0\0" + JPEG[2:],
    "jpeg without tables": JPEG[:2] + JPEG[_SOF:],
    "jpeg of two bytes": b"\xff\xd8",
    "jpeg of fill bytes": b"\xff\xd8" + b"\xff" * 2**20,
    # WebP
    "webp of 16384 squared": after(WEBP, b"VP8 ", 10, b"\xff\x3f\xff\x3f"),
    "webp of 0x0": after(WEBP, b"VP8 ", 10, bytes(4)),
    "webp with a chunk of 4 GiB": after(WEBP, b"VP8 ", 0, b"\xff" * 4),
    "webp of no chunk": b"RIFF\x04\0\0\0WEBP",
    "webp of lossless garbage": b"RIFF\x1c\0\0\0WEBPVP8L\x10\0\0\0\x2f" + b"\xff" * 15,
    # MP4
    "mp4 of boxes in boxes": _FTYP + nested(b"moov", 100_000),
    "mp4 of a million empty boxes": _FTYP + box(b"free", b"") * 1_000_000,
    "mp4 of a box that is everything": _FTYP + b"\0\0\0\0moov" + b"\0\0\0\0trak" * 999,
    "mp4 of a box of 2^64 bytes": _FTYP + b"\0\0\0\1moov" + b"\xff" * 8,
    "mp4 of a box of 3 bytes": _FTYP + b"\0\0\0\3moov" + bytes(99),
    "mp4 without samples": _FTYP + MP4[MP4.index(b"moov") - 4 :],
    "mp4 without an index": MP4[: MP4.index(b"moov") - 4],
    "mp4 of a codec nobody knows": MP4.replace(b"avc1", b"zzzz"),
    "mp4 that is sealed": MP4.replace(b"avc1", b"encv"),
    "mp4 of one track without a codec": MP4.replace(b"stsd", b"free"),
    "mp4 whose samples lie beyond its end": after(MP4, b"stco", 8, b"\x7f\xff\xff\xff"),
    "mp4 whose samples are 4 GiB": after(MP4, b"stsz", 4, b"\xff\xff\xff\xff"),
    "mp4 of an index of 4294967295 samples": after(MP4, b"stsz", 8, b"\xff\xff\xff\xff"),
    "mp4 of a clip of 4294967295 samples of one duration": after(MP4, b"stts", 8, b"\xff" * 8),
    "mp4 whose index unpacks to 64 MiB": _FTYP + box(
        b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", 2**26) + _BOMB))
    ),
    # Matroska
    "mkv of sizes in sizes": _EBML + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + b"\x1f\x43\xb6\x75\x01" * 9_999,
    "mkv of an element of 2^56 bytes": _EBML + b"\x18\x53\x80\x67\x01" + b"\xff" * 6 + b"\xfe" + bytes(99),
    "mkv of nothing but its head": _EBML,
    "mkv of a head of 0 bytes": b"\x1a\x45\xdf\xa3\x80",
    "mkv of a codec nobody knows": MKV.replace(b"V_MPEG4/ISO/AVC", b"V_ZZZZZ/ISO/AVC"),
    # AVI
    "avi of no stream": AVI[:12] + b"LIST\x04\0\0\0movi",
    "avi of a codec nobody knows": AVI.replace(b"FMP4", b"ZZZZ"),
    # What is something else
    **{f"{name}{' behind ' + head if head else ''}": start + text % what
       for name, text in _LISTS.items()
       for (head, start), what in zip(_HEADS.items(), [HTTP, b"/etc/passwd"] * 3, strict=True)},
    **{f"{name} under another name": data + bytes(600) for name, data in _FOREIGN.items()},
}  # fmt: skip

HARMLESS: dict[str, bytes] = {
    "png with too few pixels": png(ihdr(64, 48), pixels(2, 192)),
    "gif of code size 255": put(GIF, GIF.index(b",") + 10, b"\xff"),
    "mp4 of 65535 pixels square": after(MP4, b"avc1", 24, b"\xff" * 4),
    "mp4 of ten years": after(MP4, b"stts", 12, struct.pack(">I", 2**31 - 1)),
    "avi of a list of 4 GiB": put(AVI, 16, b"\xff" * 4),
    "avi 65535 square": after(AVI, b"strf", 8, struct.pack("<ii", 65535, 65535)),
    "png whose comment unpacks to 64 MiB": PNG[:33] + chunk(b"zTXt", b"a\0\0" + _BOMB) + PNG[33:],
    "png with ten thousand comments": PNG[:33] + chunk(b"tEXt", b"Title\0run rm") * 10_000 + PNG[33:],
    "png that is also a zip": PNG + b"PK\x05\x06" + bytes(18),
    "png that is also a web page": PNG + b"<script>alert(1)</script>",
    "png with exif that points at itself": PNG[:33] + chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(99)) + PNG[33:],
    "gif with a comment": MOVING_GIF[:-1] + b"\x21\xfe\x05rm -r\0;",
    "jpeg that is also a program": JPEG + b"\x7fELF" + bytes(64),
    "jpeg with exif that points at itself": JPEG[:2]
    + segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\4\0\0\0\1\0\0\0\x08")
    + JPEG[2:],
    "jpeg of sixty thousand comments": JPEG[:2] + segment(0xFE, b"hello") * 60_000 + JPEG[2:],
    "mp4 whose samples are said to be elsewhere": put(
        MP4, MP4.index(b"url \0\0\0\x01"), b"url \0\0\0\0"
    ),
    "mp4 of no time scale": after(MP4, b"mvhd", 12, bytes(4)),
    "mp4 with a hundred thousand tags": MP4 + box(b"udta", box(b"name", b"run") * 100_000),
    "mkv with an attachment": MKV + b"\x19\x41\xa4\x69\x88" + b"program!",
    "avi with a hundred thousand tags": AVI + struct.pack("<4sI4s", b"LIST", 4, b"INFO") * 100_000,
}  # fmt: skip
