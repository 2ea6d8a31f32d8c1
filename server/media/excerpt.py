"""Frames and pieces of earlier outputs, without loss. Runs in the confined child process; no torch."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.context import Flags
from av.video.frame import PictureType
from PIL import Image

from dreamontage.generator.frames import load_clip


def write_frame(video: Path, size: tuple[int, int], fps: int, index: int, output: BinaryIO) -> None:
    """Frame `index` of a delivered mp4 as a PNG: the pixels that a clip anchor of it would have."""
    pixels = load_clip(video, "mov", in_s=index / fps, fps=fps, size=size, max_frames=1)
    Image.fromarray(pixels[0]).save(output, "PNG", compress_level=4)


def write_piece(video: Path, fps: int, first: int, stop: int, output: BinaryIO) -> None:
    """Frames [first, stop) of a delivered mp4 as an mp4 with the same samples: H.264 without loss, same colour tags."""
    with (
        av.open(str(video), "r", format="mov", options={"protocol_whitelist": "file"}) as source,
        av.open(output, "w", format="mp4", options={"fflags": "+bitexact"}) as target,
    ):
        shown = source.streams.video[0]
        assert shown.time_base is not None
        stream = target.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, "yuv420p"
        codec, given = stream.codec_context, shown.codec_context
        codec.thread_count = 1
        codec.flags |= Flags.bitexact
        codec.options = {"qp": "0", "preset": "veryfast"}
        codec.color_primaries, codec.color_trc = given.color_primaries, given.color_trc
        codec.colorspace, codec.color_range = given.colorspace, given.color_range
        source.seek(round(first / fps / shown.time_base), stream=shown, backward=True)
        written = 0
        for frame in source.decode(shown):
            if frame.time is None or round(frame.time * fps) < first:
                continue
            if written == stop - first:
                break
            frame.pts, frame.time_base, frame.pict_type = written, Fraction(1, fps), PictureType.NONE
            target.mux(stream.encode(frame))
            written += 1
        target.mux(stream.encode(None))
