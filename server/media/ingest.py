"""Taking media in: any source of the union becomes a probed, private copy in the studio, or one clear error."""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from anyio import to_thread

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError, InvalidInput, MediaRejected, NotFound
from dreamontage.schemas.media import (
    InlineSource,
    Media,
    MediaIdSource,
    PathSource,
    Source,
    VideoFrameSource,
    VideoPieceSource,
)
from dreamontage.schemas.report import Video
from dreamontage.server.media.child import ask
from dreamontage.server.media.magic import HEAD_BYTES, byte_cap, container_of, room_for
from dreamontage.server.media.roots import clean_name, is_link, open_in_roots
from dreamontage.server.store import StagedBlob, Studio, measured

MEDIA_ID: Final = re.compile(r"(img|clip|snd)_[0-9a-f]{16}")
_INLINE_CHARS: Final = limits.MAX_INLINE_BYTES * 4 // 3 + 4096
"""Base64 text beyond this is not even decoded; the surplus leaves room for line breaks and a data: prefix."""
_BIGGER: Final = "put the file into a media root and use {path}"


@dataclass(frozen=True)
class _Copy:
    """A staged copy of new bytes that waits to be probed."""

    blob: StagedBlob
    name: str
    field: str
    room: int


def take_in(
    studio: Studio,
    source: Source,
    roots: Sequence[Path],
    field: str = "source",
    actor: str = "owner",
    links: bool = False,
) -> Media:
    """Media for one source: looked up by id, or copied, probed and kept. The same bytes give the same id.

    `links`: whether https links are fetched. Blocks for file, network and child work. Raises PathRefused,
    MediaRejected, InvalidInput, NotFound, QuotaExceeded or StudioFull, each naming `field`; nothing is stored then.
    """
    return _take_in(studio, [(source, field)], roots, actor, links)[0]


def take_in_all(
    studio: Studio,
    sources: Sequence[Source],
    roots: Sequence[Path],
    field: str = "sources",
    actor: str = "owner",
    links: bool = False,
) -> list[Media]:
    """Media for many sources, in their order: all of them or, when one is refused, none.

    Errors as take_in's, with the source's index from 0 (`sources[2]`).
    """
    if not 0 < len(sources) <= limits.MAX_SOURCES_PER_CALL:
        raise InvalidInput(
            f"{len(sources)} sources in one call", field=field, allowed=f"1 to {limits.MAX_SOURCES_PER_CALL}"
        )
    return _take_in(studio, [(source, f"{field}[{n}]") for n, source in enumerate(sources)], roots, actor, links)


def take_in_file(studio: Studio, descriptor: int, name: str, actor: str) -> Media:
    """Media for the bytes of an open file of whatever origin. Raises MediaRejected, QuotaExceeded or StudioFull."""
    with ExitStack() as staged, _naming("file"):
        found = _staged(studio, descriptor, clean_name(name), "file", staged)
        return found if isinstance(found, Media) else _kept(studio, [found], actor)[found.blob.sha256]


async def take_in_all_async(
    studio: Studio, sources: Sequence[Source], roots: Sequence[Path], field: str = "sources", actor: str = "owner"
) -> list[Media]:
    """`take_in_all` without holding up the event loop."""
    return await to_thread.run_sync(partial(take_in_all, studio, sources, roots, field, actor))


def _take_in(
    studio: Studio, sources: Sequence[tuple[Source, str]], roots: Sequence[Path], actor: str, links: bool
) -> list[Media]:
    with ExitStack() as staged:
        found: list[Media | _Copy] = []
        for source, field in sources:
            with _naming(field):
                found.append(_known(studio, source) or _copied(studio, source, roots, field, staged, links))
        kept = _kept(studio, [item for item in found if isinstance(item, _Copy)], actor)
        return [item if isinstance(item, Media) else kept[item.blob.sha256] for item in found]


def _known(studio: Studio, source: Source) -> Media | None:
    """The media that a source names by its id; None where it names bytes."""
    if isinstance(source, MediaIdSource):
        return studio.media(source.media_id)
    if isinstance(source, str) and MEDIA_ID.fullmatch(source.strip()):
        return studio.media(source.strip())
    return None


def _copied(
    studio: Studio, source: Source, roots: Sequence[Path], field: str, staged: ExitStack, links: bool
) -> Media | _Copy:
    with _bytes_of(studio, source, roots, links) as (descriptor, name):
        return _staged(studio, descriptor, name, field, staged)


def _staged(studio: Studio, descriptor: int, name: str, field: str, staged: ExitStack) -> Media | _Copy:
    size = os.fstat(descriptor).st_size
    with _about(name):
        if size == 0:
            raise MediaRejected("is empty (0 bytes)", allowed="a picture or clip")
        container = container_of(os.pread(descriptor, HEAD_BYTES, 0))
        cap = byte_cap(container)
        if size > cap:
            raise MediaRejected(
                f"has {size:,} bytes",
                allowed=f"pictures of up to {byte_cap('PNG'):,} bytes, clips of up to {byte_cap('mov'):,} "
                f"and sounds of up to {byte_cap('wav'):,}",
                next_call="make it smaller, then add_media again",
            )
    studio.require_space(size)
    os.lseek(descriptor, 0, os.SEEK_SET)
    blob = staged.enter_context(studio.stage(descriptor, cap))
    return studio.media_by_hash(blob.sha256) or _Copy(blob, name, field, room_for(container, size))


def _kept(studio: Studio, copies: Sequence[_Copy], actor: str) -> dict[str, Media]:
    """The media that copies become, by the hashes of what was given; all are added, or none."""
    distinct = list({copy.blob.sha256: copy for copy in reversed(copies)}.values())[::-1]
    if not distinct:
        return {}
    replies = _probed(distinct)
    # The child took metadata out. What it left is measured here: it need not be believed.
    cleaned = [replace(copy, blob=measured(copy.blob.path)) for copy in distinct]
    media = [_media(copy, reply) for copy, reply in zip(cleaned, replies, strict=True)]
    added = studio.add_all_media([(item, copy.blob) for item, copy in zip(media, cleaned, strict=True)], actor)
    return {copy.blob.sha256: item for copy, item in zip(distinct, added, strict=True)}


def _probed(distinct: Sequence[_Copy]) -> list[dict[str, object]]:
    """What one child process finds in each copy, after removing its metadata. Raises the first fault, and names it."""
    with ExitStack() as opened:
        files = [opened.enter_context(copy.blob.path.open("rb+")) for copy in distinct]
        room = max(copy.room for copy in distinct)
        replies, fault, _ = ask("probe", {}, [file.fileno() for file in files], output_bytes=room, items=len(files))
    if fault:
        culprit = distinct[len(replies)]
        with _naming(culprit.field), _about(culprit.name):
            raise fault
    return replies


def _media(copy: _Copy, probe: dict[str, object]) -> Media:
    prefix = {"still": "img", "clip": "clip", "sound": "snd"}[str(probe["kind"])]
    identity = {"id": f"{prefix}_{copy.blob.sha256[:16]}", "sha256": copy.blob.sha256, "bytes": copy.blob.bytes}
    return Media.model_validate({**probe, **identity, "name": copy.name})


@contextmanager
def _bytes_of(studio: Studio, source: Source, roots: Sequence[Path], links: bool) -> Iterator[tuple[int, str]]:
    """An open descriptor of the source's bytes, and a clean name for them."""
    text = source.path if isinstance(source, PathSource) else source
    linked = isinstance(text, str) and is_link(text)
    if linked and not links:
        raise InvalidInput(
            "links are not fetched by this server",
            allowed="a media id, or the path of a file in the media roots",
            next_call="download the file into a media root, then add_media with its path; "
            "or restart the server with --allow-urls",
        )
    if isinstance(text, str) and not linked:
        descriptor, name = open_in_roots(text, roots)
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)
        return
    studio.require_space()
    with tempfile.TemporaryFile(dir=studio.folder) as file:
        if isinstance(text, str):
            from dreamontage.server.media.fetch import fetch

            name = fetch(text, file)
        elif isinstance(source, InlineSource):
            file.write(_decoded(source.data))
            name = f"inline {clean_name(source.mime)}".strip()
        elif isinstance(source, VideoFrameSource):
            name = _frame(studio, source, file)
        elif isinstance(source, VideoPieceSource):
            name = _piece(studio, source, file)
        else:
            raise TypeError(f"no source of bytes: {type(source).__name__}")
        file.flush()
        yield file.fileno(), name


def _decoded(text: str) -> bytes:
    bound = f"base64 of at most {limits.MAX_INLINE_BYTES // 1024} KiB decoded"
    if len(text) > _INLINE_CHARS:
        raise InvalidInput(f"data has {len(text)} characters", allowed=bound, next_call=_BIGGER)
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("data is not valid base64", allowed=bound) from error
    if len(data) > limits.MAX_INLINE_BYTES:
        raise InvalidInput(f"data has {len(data)} bytes decoded", allowed=bound, next_call=_BIGGER)
    return data


def _frame(studio: Studio, source: VideoFrameSource, output: BinaryIO) -> str:
    video = studio.video(source.video_id)
    report = video.report
    if not 0 <= source.at_s <= report.duration_s:
        raise InvalidInput(f"at_s {source.at_s:g} is beyond {video.id}", allowed=f"0 to {report.duration_s:g} seconds")
    index = min(math.floor(source.at_s * report.fps + 1e-6), report.frames - 1)
    size = [report.width, report.height]
    room = 4 * report.width * report.height + 65_536
    arguments = {"video": _mp4(video), "size": size, "fps": report.fps, "index": index}
    _write("frame", arguments, output, room, items=1)
    return f"{video.id} at {index / report.fps:.3f} s"


def _piece(studio: Studio, source: VideoPieceSource, output: BinaryIO) -> str:
    video = studio.video(source.video_id)
    report = video.report
    first, stop = (math.floor(second * report.fps + 1e-6) for second in (source.from_s, source.to_s))
    if source.to_s > report.duration_s + 1 / report.fps or stop <= first:
        raise InvalidInput(
            f"from_s {source.from_s:g} to_s {source.to_s:g} is no piece of {video.id}",
            allowed=f"0 <= from_s < to_s <= {report.duration_s:g} seconds, at least one frame (1/{report.fps} s)",
        )
    stop = min(stop, report.frames)
    arguments = {"video": _mp4(video), "fps": report.fps, "first": first, "stop": stop}
    _write("piece", arguments, output, limits.MAX_CLIP_BYTES, items=1 + (stop - first) // (20 * report.fps))
    return f"{video.id} from {first / report.fps:.3f} to {stop / report.fps:.3f} s"


def _write(task: str, arguments: dict[str, object], output: BinaryIO, room: int, items: int) -> None:
    fault = ask(task, arguments, output=output.fileno(), output_bytes=room, items=items).fault
    if fault:
        with _about("the stored video"):
            raise fault


def _mp4(video: Video) -> str:
    if not Path(video.path).is_file():
        raise NotFound(f"the file of {video.id} is gone", next_call="render_segments to make it again")
    return video.path


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Turn a predicate ("is empty") into a sentence about the named file."""
    try:
        yield
    except MediaRejected as error:
        raise MediaRejected(f"'{name}' {error.problem}", allowed=error.allowed, next_call=error.next_call) from error


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """Let an error name the source it is about."""
    try:
        yield
    except DreamontageError as error:
        raise type(error)(error.problem, field=field, allowed=error.allowed, next_call=error.next_call) from error
