"""Pictures and clips as RGB frames of the delivered size: upright, sRGB, fitted, resampled by timestamp. No torch."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps

from dreamontage.generator.timeline import clip_frames
from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Fit
from dreamontage.schemas.errors import InvalidInput, MediaRejected

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
Point = tuple[float, float]

CENTRE: Point = (0.5, 0.5)
SEEK_FROM_S = 2.0
"""Trims that begin earlier are reached by decoding, later ones by the nearest key frame before them."""
TICK_TOLERANCE_S = 1e-6
HD_HEIGHT = 720
"""Untagged video of at least this height is BT.709 by convention, smaller BT.601."""
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def load_still(
    path: Path, container: str, size: Size, fit: Fit = "cover", focus: Point = CENTRE
) -> Pixels:
    """One picture as [1,H,W,3] RGB of `size` (width, height): EXIF-transposed, sRGB, alpha over black, fitted.

    `container` is Media.container: a Pillow format, or a demuxer for a clip of one frame. Raises MediaRejected if it
    cannot be read or is beyond the limits.
    """
    if container.islower():
        return load_clip(path, container, size=size, fps=limits.DEFAULT_FPS, fit=fit, focus=focus, max_frames=1)
    with _opened(path, limits.MAX_IMAGE_BYTES) as file:
        return np.asarray(fitted(_upright_srgb(file, container, size), size, fit, focus))[None]


def load_clip(
    path: Path,
    container: str,
    in_s: float = 0.0,
    out_s: float | None = None,
    fps: int = limits.DEFAULT_FPS,
    size: Size = (512, 288),
    fit: Fit = "cover",
    focus: Point = CENTRE,
    max_frames: int | None = None,
) -> Pixels:
    """The piece [in_s, out_s) of a clip as [1+4m,H,W,3] RGB at `fps`, each frame the one shown at its time (VFR too).

    `container` is Media.container (mov, matroska, gif, ...). Rotation tags and pixel aspect are honoured, sound is
    ignored. Only fitted frames are kept, at most `max_frames`. Raises MediaRejected if the clip cannot be read or is
    beyond the limits, InvalidInput if nothing is shown after in_s.
    """
    room = max_frames if max_frames is not None else int(limits.MAX_CLIP_DURATION_S * fps) + 1
    demuxer = "gif" if container == "GIF" else container
    with _opened(path, limits.MAX_CLIP_BYTES) as file:
        try:
            shown = _resampled(_decoded(file, demuxer, in_s), in_s, out_s, fps, size, fit, focus)
            frames = list(itertools.islice(shown, room))
        except av.error.FFmpegError as error:
            raise MediaRejected(
                f"the clip cannot be decoded ({error.strerror})",
                allowed="a complete mp4, mov, mkv, webm or animated gif",
                next_call="add_media with a file that plays to its end",
            ) from error
    if not frames:
        problem = f"the clip shows nothing from {in_s:g} s on"
        raise InvalidInput(problem, field="in_s", allowed="a time before the clip's end")
    return np.stack(frames[: clip_frames(len(frames), room)])


def fitted(picture: Image.Image, size: Size, fit: Fit = "cover", focus: Point = CENTRE) -> Image.Image:
    """An RGB picture at `size`: cover crops around `focus` (shares of width and height), contain adds a blurred border,
    stretch distorts. Lanczos throughout."""
    if fit == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    (width, height), (wide, high) = picture.size, size
    scale = max(wide / width, high / height)
    view_w, view_h = min(width, wide / scale), min(height, high / scale)
    if fit == "cover":
        left = min(max(focus[0] * width - view_w / 2, 0), width - view_w)
        top = min(max(focus[1] * height - view_h / 2, 0), height - view_h)
        return picture.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + view_w, top + view_h))
    fill = fitted(picture, size, "cover").filter(ImageFilter.GaussianBlur(max(size) / 24))
    inside = min(wide / width, high / height)
    whole = picture.resize((max(1, round(width * inside)), max(1, round(height * inside))), Image.Resampling.LANCZOS)
    fill.paste(whole, ((wide - whole.width) // 2, (high - whole.height) // 2))
    return fill


def _opened(path: Path, most: int) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as error:
        problem = f"the stored file of this media is gone ({error.strerror})"
        raise MediaRejected(problem, next_call="add_media again") from error
    if path.stat().st_size > most:
        file.close()
        raise MediaRejected(f"the file has more than {most // 2**20} MiB", allowed="a smaller file")
    return file


def _upright_srgb(file: BinaryIO, container: str, size: Size) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=[container])
        if picture.width * picture.height > limits.MAX_IMAGE_PIXELS:
            raise MediaRejected(
                f"the picture has {picture.width}x{picture.height} pixels",
                allowed=f"at most {limits.MAX_IMAGE_PIXELS // 10**6} million",
            )
        _shrink_while_decoding(picture, size)
        picture.load()
        return ImageOps.exif_transpose(_srgb(picture))
    except _UNREADABLE as error:
        raise MediaRejected(
            f"the picture cannot be read ({type(error).__name__})", allowed="a complete JPEG, PNG, WebP or GIF"
        ) from error


def _shrink_while_decoding(picture: Image.Image, size: Size) -> None:
    """Let a large JPEG decode at half, quarter or eighth size, never below twice what any fit needs."""
    scale = 2 * max(size) / min(picture.size)
    picture.draft(picture.mode, (round(picture.width * scale), round(picture.height * scale)))


def _srgb(picture: Image.Image) -> Image.Image:
    """RGB in sRGB, alpha over black, EXIF kept."""
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    base = _opaque(picture)
    profile = picture.info.get("icc_profile")
    colours = None
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            colours = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            colours = None  # a broken or mismatched profile: the numbers are taken as they are, as browsers do
    result = colours if colours is not None else base.convert("RGB")
    if alpha is not None:
        result = Image.composite(result, Image.new("RGB", result.size), alpha)
    exif = picture.getexif()
    result.info = {"exif": exif.tobytes()} if exif else {}
    return result


def _opaque(picture: Image.Image) -> Image.Image:
    """The colours without alpha, in a mode that colour management understands (L, RGB, CMYK)."""
    if picture.mode.startswith("I"):
        deep = np.asarray(picture, np.float32)
        return Image.fromarray(np.clip(np.rint(deep / 257), 0, 255).astype(np.uint8), "L")
    if picture.mode in ("L", "RGB", "CMYK"):
        return picture
    return picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")


class _Shown(NamedTuple):
    """A decoded frame with the seconds, from the clip's start, in which it is shown."""

    start: float
    end: float
    frame: av.VideoFrame
    aspect: float


def _decoded(file: BinaryIO, demuxer: str, from_s: float) -> Iterator[_Shown]:
    """Frames in order, beginning at or before from_s."""
    with av.open(file, mode="r", format=demuxer, options={"protocol_whitelist": "file"}) as container:
        if not container.streams.video:
            raise MediaRejected("the clip has no pictures", allowed="a clip with a video stream")
        stream = container.streams.video[0]
        if max(stream.width, stream.height) > limits.MAX_CLIP_SIDE_PX:
            raise MediaRejected(
                f"the clip is {stream.width}x{stream.height}", allowed=f"sides up to {limits.MAX_CLIP_SIDE_PX} pixels"
            )
        if stream.time_base is None:
            raise MediaRejected("the clip has no time stamps", allowed="a clip in mp4, mov, mkv, webm or gif")
        unit = float(stream.time_base)
        origin = (stream.start_time or 0) * unit
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        rate = float(stream.average_rate or limits.DEFAULT_FPS)
        if from_s > SEEK_FROM_S and demuxer != "gif":
            container.seek(int((origin + from_s - 1 / rate) / unit), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts is not None:
                start = frame.pts * unit - origin
                yield _Shown(start, start + (frame.duration * unit or 1 / rate), frame, aspect)


def _resampled(
    decoded: Iterator[_Shown], in_s: float, out_s: float | None, fps: int, size: Size, fit: Fit, focus: Point
) -> Iterator[Pixels]:
    """For each tick in_s + j/fps the frame shown then, to the nearest tick; a source frame is fitted at most once."""
    stop = float("inf") if out_s is None else out_s
    tick = 0
    shown: _Shown | None = None
    pixels: Pixels | None = None
    for upcoming in itertools.chain(decoded, [None]):
        if shown is not None:
            until = upcoming.start - 0.5 / fps if upcoming is not None else shown.end
            while in_s + tick / fps < min(until, stop) - TICK_TOLERANCE_S:
                if pixels is None:
                    pixels = np.asarray(fitted(_upright_rgb(shown), size, fit, focus))
                yield pixels
                tick += 1
        if in_s + tick / fps >= stop - TICK_TOLERANCE_S:
            return
        shown, pixels = upcoming, None


def _upright_rgb(shown: _Shown) -> Image.Image:
    frame = shown.frame
    untagged = frame.colorspace not in tuple(Colorspace)
    matrix = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
    pixels = frame.reformat(
        format="rgb24", src_colorspace=matrix if untagged else None, dst_color_range=ColorRange.JPEG
    ).to_ndarray()
    picture = Image.fromarray(pixels)
    if shown.aspect != 1.0:
        picture = picture.resize((max(1, round(frame.width * shown.aspect)), frame.height), Image.Resampling.LANCZOS)
    turns = round(frame.rotation / 90) % 4
    return picture.rotate(90 * turns, expand=True) if turns else picture
