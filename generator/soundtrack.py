"""The sound under a delivered video: one file, trimmed and faded to the shot, as AAC. Nothing is generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from numpy.typing import NDArray

RATE = 48_000
BIT_RATE = 192_000
FADE_IN_S = 0.02
FADE_OUT_S = 1.5


@dataclass(frozen=True)
class Soundtrack:
    """The first sound stream of a file (PyAV demuxer `container`) from its start, for a shot of `seconds`."""

    path: Path
    container: str
    seconds: float

    @property
    def samples(self) -> int:
        """How many samples the shot has room for."""
        return round(self.seconds * RATE)

    def envelope(self, start: int, count: int) -> NDArray[np.float32]:
        """Loudness 0..1 of `count` samples from `start`: no click at the start, faded out at the shot's end."""
        at = np.arange(start, start + count)
        fade_out = min(FADE_OUT_S, self.seconds / 4) * RATE
        rising = (at + 1) / (FADE_IN_S * RATE)
        falling = (self.samples - at) / fade_out
        return np.clip(np.minimum(rising, falling), 0.0, 1.0).astype(np.float32)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """The faded sound as float32 [2,n] at 48 kHz; it ends with the shot, or before it with the file."""
        done = 0
        with self.path.open("rb") as file, av.open(file, mode="r", format=self.container) as source:
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
            for frame in _frames(source, resampler):
                sound = frame.to_ndarray()[:, : self.samples - done]
                yield np.asarray(sound * self.envelope(done, sound.shape[1]), np.float32)
                done += sound.shape[1]
                if done >= self.samples:
                    return


def _frames(source: av.container.InputContainer, resampler: av.AudioResampler) -> Iterator[av.AudioFrame]:
    for frame in source.decode(source.streams.audio[0]):
        frame.pts = None
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


class SoundWriter:
    """Encodes a soundtrack into an mp4 that is being written, as far as its pictures have come."""

    def __init__(self, container: OutputContainer, soundtrack: Soundtrack) -> None:
        self._container = container
        self._stream = container.add_stream("aac", rate=RATE, layout="stereo", format="fltp")
        self._stream.codec_context.bit_rate = BIT_RATE
        self._stream.codec_context.flags |= Flags.bitexact
        self._pieces = soundtrack.pieces()
        self._done = 0

    def write_until(self, seconds: float) -> None:
        """Encode what is heard before `seconds` of the shot."""
        while self._done < seconds * RATE and (piece := next(self._pieces, None)) is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, self._done
            self._done += frame.samples
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Encode the rest."""
        self.write_until(float("inf"))
        self._container.mux(self._stream.encode(None))
