"""What a picture or clip is, by reading it: size, frames, duration. Runs in the confined child process; no torch.

Every MediaRejected raised here has a predicate as its problem ("is cut short"): the caller puts the file's name before.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO, Final

import av
from av.stream import Disposition
from PIL import Image, ImageOps

from dreamontage.schemas import limits
from dreamontage.schemas.errors import MediaRejected
from dreamontage.server.media.magic import ALLOWED, HEAD_BYTES, PICTURES, container_of

CODECS: Final = {
    *("h264", "hevc", "av1", "vp8", "vp9", "theora", "mpeg1video", "mpeg2video", "mpeg4", "h263"),
    *("prores", "dnxhd", "cfhd", "dvvideo", "mjpeg", "msmpeg4v3", "ffv1", "huffyuv", "ffvhuff", "utvideo"),
    *("qtrle", "rawvideo", "gif", "apng", "png"),
}
"""Codecs that are decoded: what cameras, phones, browsers and editors write."""

MAX_FRAMES: Final = int(limits.MAX_CLIP_DURATION_S) * 240
_DEMUXERS: Final = {"GIF": "gif", "PNG": "apng"}
_AGAIN: Final = "copy or export it again, then add_media with the complete file"


@dataclass(frozen=True)
class Probe:
    """What Media says of the bytes: sizes upright in pixels, duration in seconds, mean frame rate."""

    kind: str
    container: str
    width: int
    height: int
    duration_s: float = 0.0
    fps: float = 0.0
    frames: int = 1
    sound: bool = False


def probe(file: BinaryIO) -> Probe:
    """Read a picture whole, or a clip's packets with its first and last frames.

    Raises MediaRejected for anything that is no complete picture or clip within dreamontage.schemas.limits.
    """
    container = container_of(file.read(HEAD_BYTES))
    file.seek(0)
    try:
        return _picture(file, container) if container in PICTURES else _clip(file, container)
    except av.error.FFmpegError as error:
        raise MediaRejected(
            "is a damaged clip, or cut short", allowed="a clip that plays to its end", next_call=_AGAIN
        ) from error


def _picture(file: BinaryIO, container: str) -> Probe:
    Image.MAX_IMAGE_PIXELS = limits.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=[container]) as picture:
                if container in ("PNG", "GIF", "WEBP") and getattr(picture, "is_animated", False):
                    if container == "WEBP":
                        raise MediaRejected(
                            "is an animated WebP", allowed=ALLOWED, next_call="convert it to MP4, then add_media again"
                        )
                    file.seek(0)
                    return _clip(file, _DEMUXERS[container])
                _require_side(*picture.size)
                picture.load()
                upright = ImageOps.exif_transpose(picture)
                upright.convert("RGB")
                return Probe("still", container, *upright.size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise MediaRejected(
            f"has {int(pixels[0]) / 1e6:.0f} million pixels" if pixels else "has too many pixels",
            allowed=f"pictures of up to {limits.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels",
            next_call="scale it down, then add_media again",
        ) from error
    except (MediaRejected, av.error.FFmpegError, MemoryError):
        raise
    except Exception as error:  # a damaged picture can make Pillow raise nearly anything
        raise MediaRejected(
            f"is a damaged {container} picture, or cut short", allowed="a complete picture", next_call=_AGAIN
        ) from error


@dataclass
class _Track:
    """What the packets of a clip say, in seconds: the pictures' times, and where anything in the file ends."""

    times: list[float]
    latest: float = -math.inf
    last_duration: float = 0.0
    packets: int = 0
    end: float = 0.0
    damaged: bool = False


def _clip(file: BinaryIO, demuxer: str) -> Probe:
    with av.open(file, mode="r", format=demuxer, options={"protocol_whitelist": "file"}) as container:
        stream = _picture_stream(container)
        track = _demuxed(container, stream)
        promised_s = (container.duration or 0) / av.time_base
        if track.damaged or 0 < track.packets < stream.frames or track.end < 0.9 * promised_s - 0.5:
            raise MediaRejected("is cut short", allowed="a clip that plays to its end", next_call=_AGAIN)
        if not track.times:
            raise MediaRejected("has no frame in it", allowed="a clip with at least one frame", next_call=_AGAIN)
        sound = bool(container.streams.audio)
    width, height = _decoded_size(file, demuxer, track.latest)
    _require_side(width, height)
    if len(track.times) == 1:
        return Probe("still", {"gif": "GIF", "apng": "PNG"}.get(demuxer, demuxer), width, height, sound=sound)
    span = track.latest - min(track.times)
    if span <= 0:
        raise MediaRejected("has no time stamps", allowed="a clip whose frames have times", next_call=_AGAIN)
    fps = (len(track.times) - 1) / span
    duration = span + (track.last_duration or 1 / fps)
    if duration > limits.MAX_CLIP_DURATION_S:
        raise MediaRejected(
            f"lasts {duration:.0f} s",
            allowed=f"clips of up to {limits.MAX_CLIP_DURATION_S:.0f} s",
            next_call="cut out the part you need, then add_media again",
        )
    return Probe(
        "clip", demuxer, width, height, round(duration, 6), round(fps, 6), len(track.times), sound
    )


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream, checked for codec and size before anything of it is decoded."""
    stream = next(iter(container.streams.video), None)
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise MediaRejected("has sound but no pictures", allowed=ALLOWED, next_call="add_media with a picture or clip")
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "an unknown codec"
    if codec not in CODECS:
        raise MediaRejected(
            f"is coded as {codec}", allowed="H.264, HEVC, AV1, VP9 and other common codecs",
            next_call="convert it to an H.264 MP4, then add_media again",
        )
    if max(stream.codec_context.width, stream.codec_context.height) > limits.MAX_CLIP_SIDE_PX:
        raise MediaRejected(
            f"is {stream.codec_context.width}x{stream.codec_context.height} pixels large",
            allowed=f"clips with sides of up to {limits.MAX_CLIP_SIDE_PX} pixels",
            next_call="scale it down, then add_media again",
        )
    return stream


def _demuxed(container: av.container.InputContainer, stream: av.VideoStream) -> _Track:
    track = _Track([])
    for packet in container.demux():
        if packet.size == 0 or packet.time_base is None:
            continue
        track.damaged |= packet.is_corrupt
        stamp = packet.pts if packet.pts is not None else packet.dts
        seconds = None if stamp is None else float(stamp * packet.time_base)
        duration = float((packet.duration or 0) * packet.time_base)
        if seconds is not None:
            track.end = max(track.end, seconds + duration)
        if packet.stream_index != stream.index:
            continue
        track.packets += 1
        if packet.is_discard or seconds is None:
            continue
        if seconds >= track.latest:  # packets come in decoding order
            track.latest, track.last_duration = seconds, duration
        track.times.append(seconds)
        if len(track.times) > MAX_FRAMES:
            raise MediaRejected(f"has more than {MAX_FRAMES} frames", allowed=f"up to {MAX_FRAMES} frames")
    return track


def _decoded_size(file: BinaryIO, demuxer: str, last_s: float) -> tuple[int, int]:
    """Upright width and height of the first frame, pixel aspect applied; the last frame must decode too."""
    file.seek(0)
    with av.open(file, mode="r", format=demuxer, options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(limits.MAX_CLIP_SIDE_PX**2)}
        first = next(container.decode(stream), None)
        if first is None:
            raise MediaRejected("has no frame that can be decoded", allowed="a clip that plays", next_call=_AGAIN)
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        if demuxer not in _DEMUXERS.values() and stream.time_base:
            container.seek(int(last_s / stream.time_base), stream=stream, backward=True)
        rest = deque(container.decode(stream), maxlen=1)
        if any(frame.is_corrupt for frame in rest):
            raise MediaRejected("is cut short", allowed="a clip that plays to its end", next_call=_AGAIN)
    width, height = max(1, round(first.width * aspect)), first.height
    return (height, width) if round(first.rotation / 90) % 2 else (width, height)


def _require_side(width: int, height: int) -> None:
    if min(width, height) < limits.MIN_SIDE_PX:
        raise MediaRejected(
            f"is only {width}x{height} pixels large",
            allowed=f"sides of at least {limits.MIN_SIDE_PX} pixels",
            next_call="add_media with a larger picture",
        )
