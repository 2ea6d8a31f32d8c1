"""Sound files: what is kept of one is its sound alone, as FLAC written here, so nothing foreign is left in it.

Runs in the confined child process; no torch. Problems of MediaRejected are predicates, as in `probe`.
"""

from __future__ import annotations

import io
from typing import BinaryIO, Final

import av
from av.codec.context import Flags
from av.stream import Disposition

from dreamontage.schemas import limits
from dreamontage.schemas.errors import MediaRejected
from dreamontage.server.media.magic import SOUNDS
from dreamontage.server.media.probe import Probe

RATE: Final = 48_000
CODECS: Final = {"mp3", "mp3float", "aac", "alac", "flac", "vorbis", "opus", "libopus", "libvorbis"}
"""Codecs that are decoded, beside every kind of plain PCM."""
_MEASURED: Final = ("wav", "flac", "ogg", "mov", "matroska")
"""Containers that say how long they are; of the others a length is only guessed."""
_MOST_BAD: Final = 3
"""Packets that may be undecodable: what taggers and recorders leave at the ends."""


def is_sound(file: BinaryIO, container: str) -> bool:
    """Whether a file of this container (magic.container_of) holds sound and, but for a cover, no pictures."""
    if container in SOUNDS:
        return True
    if container not in ("mov", "matroska"):
        return False
    file.seek(0)
    try:
        with av.open(file, mode="r", format=container, options={"protocol_whitelist": "file"}) as opened:
            films = [s for s in opened.streams.video if not s.disposition & Disposition.attached_pic]
            return bool(opened.streams.audio) and not films
    except av.error.FFmpegError:
        return False


def keep_sound(file: BinaryIO, demuxer: str) -> Probe:
    """Rewrite a sound file, open for reading and writing, as 16-bit stereo FLAC at 48 kHz without metadata.

    The same bytes always give the same bytes. Raises MediaRejected for what does not decode to its end, or is too long.
    """
    kept = io.BytesIO()
    file.seek(0)
    try:
        samples = _rewritten(file, demuxer, kept)
    except av.error.FFmpegError as error:
        raise _damaged("is a damaged sound file, or cut short") from error
    file.seek(0)
    file.write(kept.getbuffer())
    file.truncate()
    file.flush()
    return Probe("sound", "flac", 0, 0, round(samples / RATE, 6), frames=0, sound=True)


def _rewritten(file: BinaryIO, demuxer: str, kept: BinaryIO) -> int:
    """Write the first sound stream as FLAC; how many samples it has."""
    count = bad = 0
    with (
        av.open(file, mode="r", format=demuxer, options={"protocol_whitelist": "file"}) as source,
        av.open(kept, "w", format="flac", options={"fflags": "+bitexact"}) as target,
    ):
        stream = _sound_stream(source)
        written = target.add_stream("flac", rate=RATE, layout="stereo", format="s16")
        written.codec_context.flags |= Flags.bitexact
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=RATE)
        for packet in source.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                bad += 1
                if bad > _MOST_BAD:
                    raise
                continue
            for frame in decoded:
                frame.pts = None
                for piece in resampler.resample(frame):
                    piece.pts = count
                    count += piece.samples
                    target.mux(written.encode(piece))
            if count > limits.MAX_CLIP_DURATION_S * RATE:
                raise _too_long()
        for piece in resampler.resample(None):
            piece.pts = count
            count += piece.samples
            target.mux(written.encode(piece))
        target.mux(written.encode(None))
        promised_s = (source.duration or 0) / av.time_base if demuxer in _MEASURED else 0.0
    if not count:
        raise _damaged("has no sound in it")
    if count / RATE < 0.9 * promised_s - 0.5:
        raise _damaged("is cut short")
    return count


def _sound_stream(source: av.container.InputContainer) -> av.AudioStream:
    stream = next(iter(source.streams.audio), None)
    if stream is None:
        raise _damaged("has no sound in it")
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "an unknown codec"
    if codec not in CODECS and not codec.startswith("pcm_"):
        raise MediaRejected(
            f"is coded as {codec}", allowed="MP3, AAC, FLAC, WAV, Vorbis and Opus",
            next_call="convert it to MP3 or WAV, then repeat the call",
        )  # fmt: skip
    return stream


def _damaged(problem: str) -> MediaRejected:
    return MediaRejected(
        problem, allowed="a sound file that plays to its end", next_call="export it again, then repeat the call"
    )


def _too_long() -> MediaRejected:
    most = f"{limits.MAX_CLIP_DURATION_S:.0f} s"
    return MediaRejected(
        f"lasts more than {most}", allowed=f"sound of up to {most}",
        next_call="cut out the part you need, then repeat the call",
    )  # fmt: skip
