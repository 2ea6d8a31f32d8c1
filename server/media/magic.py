"""What a file is, decided by its first bytes alone; neither its name nor a library's guess has a say."""

from __future__ import annotations

from typing import Final

from dreamontage.schemas import limits
from dreamontage.schemas.errors import MediaRejected

HEAD_BYTES: Final = 512
"""How many leading bytes `container_of` wants to see."""

ALLOWED: Final = "JPEG, PNG, WebP, GIF pictures; MP4/MOV, Matroska/WebM, AVI clips; MP3, AAC, FLAC, WAV, Ogg sound"

PICTURES: Final = ("JPEG", "PNG", "WEBP", "GIF")
"""Containers that Pillow reads, by its format name; an animated PNG or GIF turns out to be a clip when probed."""

SOUNDS: Final = ("wav", "flac", "ogg", "mp3", "aac")
"""Containers of sound, by PyAV's demuxer; MP4 and Matroska can hold nothing but sound, too."""

_STILL_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp2 ")
_LOOKS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop file"),
    (b"II*\0", "a TIFF or camera raw picture"),
    (b"MM\0*", "a TIFF or camera raw picture"),
    (b"BM", "a BMP picture"),
    (b"\0\0\1\0", "an icon file"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"#EXTM3U", "an HLS playlist"),
    (b"ffconcat", "an ffconcat list"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"FLV\x01", "a Flash video"),
    (b"\x30\x26\xb2\x75", "a Windows Media file"),
    (b"\0\0\1\xba", "an MPEG program stream"),
    (b"\x7fELF", "a program"),
)


def container_of(head: bytes) -> str:
    """The container of a file by its first bytes: JPEG, PNG, WEBP, GIF (Pillow), mov, matroska, avi or one of SOUNDS
    (PyAV demuxers).

    `head`: the first HEAD_BYTES bytes, fewer if the file is shorter.
    Raises MediaRejected, saying what the bytes look like, for everything else; its problem is a predicate that follows
    the file's name.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith((b"fLaC", b"OggS")):
        return "flac" if head[:1] == b"f" else "ogg"
    if head.startswith((b"\xff\xf1", b"\xff\xf9")):
        return "aac"
    if head.startswith((b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")):
        return "mp3"
    # QuickTime files from before the ftyp box begin with one of the other top-level atoms.
    if head[4:8] in (b"moov", b"mdat", b"wide") or (head[4:8] == b"ftyp" and head[8:12] not in _STILL_BRANDS):
        return "mov"
    raise MediaRejected(f"looks like {looks_like(head)}", allowed=ALLOWED, next_call=_way_out(head))


def looks_like(head: bytes) -> str:
    """A plain noun phrase for bytes that are not taken in."""
    if head[4:8] == b"ftyp":
        return "an AVIF picture" if head[8:12] in (b"avif", b"avis") else "a HEIC, JPEG 2000 or camera raw picture"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, name in _LOOKS:
        if head.startswith(signature) or text.startswith(signature):
            return name
    lowered = text.lower()
    if b"<svg" in lowered[:400]:
        return "an SVG drawing"
    if lowered.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return "neither a picture nor a clip"


def byte_cap(container: str) -> int:
    """Largest file in bytes that is taken in of a container."""
    if container in SOUNDS:
        return limits.MAX_SOUND_BYTES
    return limits.MAX_IMAGE_BYTES if container in PICTURES else limits.MAX_CLIP_BYTES


def room_for(container: str, size: int) -> int:
    """Most bytes that are kept of a file of `size` bytes: metadata goes, but sound is written anew."""
    return max(size, limits.MAX_KEPT_SOUND_BYTES) if container in (*SOUNDS, "mov", "matroska") else size


def _way_out(head: bytes) -> str:
    kind = looks_like(head)
    if kind.startswith("neither"):
        return "add_media with a picture or clip"
    if "picture" in kind or "drawing" in kind or "Photoshop" in kind:
        return "export it as PNG or JPEG, then add_media again"
    if "video" in kind or "Media" in kind or "stream" in kind:
        return "convert it to MP4, then add_media again"
    return "add_media with a picture or clip"
