"""Writing the delivered mp4 as a stream, and reading it back: H.264, yuv420p, BT.709, the same bytes every time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from dreamontage.generator.files import replacing
from dreamontage.generator.soundtrack import Soundtrack, SoundWriter
from dreamontage.schemas.errors import RenderFailed

BT709 = 1
LIMITED_RANGE = 1
CRF = 14
ENCODER = {"preset": "medium", "x264-params": "cpu-independent=1"}
"""Without cpu-independent about one write in a hundred differed in a B-frame, and every CPU wrote its own bytes."""
ENCODER_THREADS = 1
"""Fixed, because x264's decisions depend on it."""
WITHOUT_USER_DATA = "filter_units=remove_types=6"
"""x264 writes its version and settings into an SEI unit; without it the bytes hold nothing but pictures."""


class VideoWriter:
    """Writes `path` frame by frame; the file appears when the block ends well, and nothing is left when it does not.

    >>> with VideoWriter(path, size=(512, 288), fps=24) as writer:
    ...     writer.write(frames)  # uint8 [n,H,W,3] RGB, any n

    Width and height are even; `crf` is x264's quality, lower is better; `soundtrack` is laid under the pictures.
    Raises StudioFull if the disk has no room.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: int, crf: int = CRF, soundtrack: Soundtrack | None = None
    ) -> None:
        self.path, self.size, self.fps, self.crf, self.soundtrack = path, size, fps, crf, soundtrack
        self.count = 0

    def __enter__(self) -> Self:
        self._file = replacing(self.path)
        temporary = self._file.__enter__()
        try:
            self._open(temporary)
        except BaseException as error:
            self._file.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self, temporary: Path) -> None:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(temporary), "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", rate=self.fps)
        self._stream.width, self._stream.height = self.size
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count = ENCODER_THREADS
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        codec.color_range = LIMITED_RANGE
        codec.flags |= Flags.bitexact
        codec.options = ENCODER | {"crf": str(self.crf)}
        self._sound = None if self.soundtrack is None else SoundWriter(self._container, self.soundtrack)
        self._container.start_encoding()
        self._filter = BitStreamFilterContext(WITHOUT_USER_DATA, in_stream=self._stream)

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Append RGB frames [n,H,W,3]."""
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            picture.pts = self.count
            self.count += 1
            self._encode(picture)
            if self._sound is not None:
                self._sound.write_until(self.count / self.fps)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self._container.mux(self._filter.filter(packet))
        if picture is None:
            self._container.mux(self._filter.filter(None))
            if self._sound is not None:
                self._sound.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(*((av.error.FFmpegError, OSError) if error else ())):
                if error is None:
                    self._encode(None)
                self._container.close()
        except BaseException as late:
            self._file.__exit__(type(late), late, late.__traceback__)
            raise
        self._file.__exit__(kind, error, trace)


class ReadBack(NamedTuple):
    """What a video file really holds."""

    frames: int
    width: int
    height: int
    fps: float


def read_back(path: Path) -> ReadBack:
    """Decode a written mp4 whole and count. Raises RenderFailed if it does not decode."""
    try:
        with path.open("rb") as file, av.open(file, mode="r", format="mov") as container:
            stream = container.streams.video[0]
            count = sum(1 for _ in container.decode(stream))
            return ReadBack(count, stream.width, stream.height, float(stream.average_rate or 0))
    except (av.error.FFmpegError, IndexError) as error:
        raise RenderFailed(f"{path.name} does not decode: {error}", next_call="render again") from error
