"""Pictures and clips arrive upright, in sRGB, fitted and at the right times."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dreamontage.generator.frames import fitted, load_clip, load_still
from dreamontage.generator.video import VideoWriter
from dreamontage.schemas.errors import InvalidInput, MediaRejected

SIZE = (256, 144)
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (40, 60, 220)


def quarters(width: int, height: int) -> Image.Image:
    """Left half red, right half green, with a blue block in the top left corner."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, GREEN
    pixels[: height // 4, : width // 8] = BLUE
    return Image.fromarray(pixels)


def close(pixel: NDArray[np.uint8], colour: tuple[int, int, int], within: int = 12) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= within)


def write_clip(
    path: Path,
    levels: list[int],
    times: list[int] | None = None,
    size: tuple[int, int] = (160, 90),
    rotation: int = 0,
    aspect: Fraction | None = None,
    rate: int = 24,
) -> Path:
    """A real H.264 mp4 of flat grey frames; `times` are their time stamps in 1/600 s."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.options = {"crf": "8"}
        stream.codec_context.time_base = Fraction(1, 600)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for index, level in enumerate(levels):
            picture = np.full((size[1], size[0], 3), level, np.uint8)
            picture[: size[1] // 4, : size[0] // 4] = 255 - level
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = times[index] if times else index * 600 // rate
            frame.time_base = Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if rotation:
        path.write_bytes(rotated(path.read_bytes(), rotation))
    return path


def rotated(mp4: bytes, clockwise: int) -> bytes:
    """Put a phone's rotation into the display matrix of the track header."""
    turn = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise]
    a, b, c, d = (value * 65536 for value in turn)
    matrix = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 0x40000000))
    at = mp4.index(b"tkhd") + 4 + 40
    return mp4[:at] + matrix + mp4[at + 36 :]


def middle(frames: NDArray[np.uint8]) -> list[int]:
    return [int(frame[frame.shape[0] // 2, frame.shape[1] // 2].mean().round()) for frame in frames]


@pytest.mark.parametrize(("container", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif")])
def test_a_picture_of_every_format_arrives_at_the_asked_size(tmp_path: Path, container: str, suffix: str) -> None:
    quarters(641, 359).save(tmp_path / f"a.{suffix}", container)
    frames = load_still(tmp_path / f"a.{suffix}", container, SIZE)
    assert frames.shape == (1, 144, 256, 3)
    assert frames.dtype == np.uint8
    assert close(frames[0, 100, 20], RED)
    assert close(frames[0, 100, 230], GREEN)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    upright = quarters(320, 180)
    turn = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]  # the stored picture, turned so that the tag makes it upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.rotate(turn, expand=True).save(tmp_path / "a.jpg", exif=exif, quality=95)
    frames = load_still(tmp_path / "a.jpg", "JPEG", SIZE)
    assert close(frames[0, 5, 5], BLUE)
    assert close(frames[0, 120, 20], RED)
    assert close(frames[0, 20, 240], GREEN)


def test_transparent_parts_are_black(tmp_path: Path) -> None:
    picture = quarters(256, 144).convert("RGBA")
    alpha = np.full((144, 256), 255, np.uint8)
    alpha[:, 128:], alpha[:72, :128] = 0, 128
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "a.png")
    frames = load_still(tmp_path / "a.png", "PNG", SIZE)
    assert close(frames[0, 120, 20], RED)
    assert close(frames[0, 60, 40], (110, 15, 15))
    assert close(frames[0, 60, 200], (0, 0, 0))


def test_a_colour_profile_is_converted_to_srgb_and_a_broken_one_is_ignored(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = lab.replace(b"rXYZ", b"tXYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tXYZ", b"bXYZ", 1)
    flat = Image.new("RGB", (64, 64), (200, 100, 50))
    for name, profile in (("same", lab), ("swapped", swapped), ("broken", b"no profile at all")):
        flat.save(tmp_path / f"{name}.png", icc_profile=profile)
    assert close(load_still(tmp_path / "same.png", "PNG", (64, 64))[0, 9, 9], (200, 100, 50), 2)
    assert close(load_still(tmp_path / "broken.png", "PNG", (64, 64))[0, 9, 9], (200, 100, 50), 0)
    assert close(load_still(tmp_path / "swapped.png", "PNG", (64, 64))[0, 9, 9], (50, 100, 200), 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "I;16"])
def test_every_colour_mode_is_read(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.tile(np.linspace(0, 255, 256).astype(np.uint8), (144, 1)))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        picture = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    container = "JPEG" if mode == "CMYK" else "PNG"
    picture.save(tmp_path / "a", container)
    frames = load_still(tmp_path / "a", container, SIZE)
    assert frames[0, :, :64].mean() < 60
    assert frames[0, :, 192:].mean() > 195


def test_cover_keeps_the_focus_point_contain_keeps_everything_stretch_distorts() -> None:
    wide = quarters(1000, 200)
    left = np.asarray(fitted(wide, (200, 200), "cover", (0.0, 0.5)))
    right = np.asarray(fitted(wide, (200, 200), "cover", (1.0, 0.5)))
    assert close(left[150, 100], RED) and close(right[150, 100], GREEN)
    contained = np.asarray(fitted(wide, (200, 200), "contain"))
    assert close(contained[115, 5], RED) and close(contained[115, 195], GREEN)
    assert contained[5].std(axis=0).max() > 5, "the border is a blurred fill, not a flat bar"
    stretched = np.asarray(fitted(wide, (200, 200), "stretch"))
    assert close(stretched[20, 5], BLUE) and close(stretched[150, 50], RED) and close(stretched[150, 150], GREEN)


def test_an_exactly_fitting_picture_is_untouched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (144, 256, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(load_still(tmp_path / "a.png", "PNG", SIZE)[0], pixels)


@pytest.mark.parametrize("content", [b"", b"just words", b"\xff\xd8\xff\xe0 nothing"])
def test_a_file_that_is_no_picture_is_refused_without_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(MediaRejected) as caught:
        load_still(tmp_path / "a.jpg", "JPEG", SIZE)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("container", ["JPEG", "PNG"])
def test_a_truncated_picture_is_refused(tmp_path: Path, container: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)).save(whole, container)
    (tmp_path / "a").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(MediaRejected):
        load_still(tmp_path / "a", container, SIZE)


def test_a_picture_of_900_million_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "a.png")
    with pytest.raises(MediaRejected):
        load_still(tmp_path / "a.png", "PNG", SIZE)


def test_a_clip_is_resampled_by_time_stamp(tmp_path: Path) -> None:
    slow = write_clip(tmp_path / "a.mp4", list(range(20, 200, 15)), rate=12)
    frames = load_clip(slow, "mov", fps=24, size=SIZE)
    assert len(frames) == 21, "12 frames at 12 fps last 24 ticks at 24 fps, cut to 1+4m"
    expected = [20 + 15 * (tick // 2) for tick in range(21)]
    assert np.abs(np.subtract(middle(frames), expected)).max() <= 3


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [30, 90, 150, 210], times=[0, 25, 300, 350])
    frames = load_clip(clip, "mov", fps=24, size=SIZE, out_s=0.6)
    assert np.abs(np.subtract(middle(frames), [30] + [90] * 11 + [150])).max() <= 3


@pytest.mark.parametrize("in_s", [0.5, 4.0])
def test_a_trim_begins_at_its_frame(tmp_path: Path, in_s: float) -> None:
    clip = write_clip(tmp_path / "a.mp4", [20 + index for index in range(150)])
    frames = load_clip(clip, "mov", in_s=in_s, out_s=in_s + 0.4, fps=24, size=SIZE)
    assert len(frames) == 9
    assert np.abs(np.subtract(middle(frames), [20 + round(in_s * 24) + tick for tick in range(9)])).max() <= 1


def test_a_clip_is_cut_to_max_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [100] * 48)
    assert len(load_clip(clip, "mov", fps=24, size=SIZE)) == 45
    assert len(load_clip(clip, "mov", fps=24, size=SIZE, max_frames=15)) == 13


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_tags_are_honoured(tmp_path: Path, clockwise: int) -> None:
    size = (90, 160) if clockwise != 180 else (160, 90)
    clip = write_clip(tmp_path / "a.mp4", [60] * 5, size=size, rotation=clockwise)
    frame = load_clip(clip, "mov", fps=24, size=(160, 90), fit="stretch")[0]
    bright = {90: frame[:20, -20:], 180: frame[-20:, -20:], 270: frame[-20:, :20]}[clockwise]
    assert bright.mean() > 180, "the bright corner of the stored picture, turned clockwise"
    assert frame.mean() < 80


def test_wide_pixels_are_widened(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [60] * 5, size=(90, 90), aspect=Fraction(2))
    frame = load_clip(clip, "mov", fps=24, size=(180, 90))[0]
    assert frame[:20, :40].mean() > 180, "nothing was cropped away"


def test_odd_sizes_are_read(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 161, 91, "bgr0"
        for level in (10, 60, 110, 160, 210):
            frame = av.VideoFrame.from_ndarray(np.full((91, 161, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode(None))
    assert middle(load_clip(tmp_path / "a.mkv", "matroska", fps=24, size=SIZE)) == [10, 60, 110, 160, 210]


def test_an_animated_gif_is_a_clip(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (80, 60), (level, level, level)) for level in (0, 80, 160, 240)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100, loop=0)
    frames = load_clip(tmp_path / "a.gif", "gif", fps=20, size=SIZE)
    assert np.abs(np.subtract(middle(frames), [0, 0, 80, 80, 160])).max() <= 3
    assert np.array_equal(load_still(tmp_path / "a.gif", "GIF", SIZE), frames[:1])
    assert np.array_equal(load_clip(tmp_path / "a.gif", "GIF", fps=20, size=SIZE), frames)


def test_a_clip_of_one_frame_is_one_frame_and_can_be_read_as_a_still(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [77])
    assert len(load_clip(clip, "mov", fps=24, size=SIZE)) == 1
    assert middle(load_still(clip, "mov", SIZE)) == pytest.approx([77], abs=2)


def test_a_trim_after_the_end_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [77] * 12)
    with pytest.raises(InvalidInput, match="in_s"):
        load_clip(clip, "mov", in_s=9.0, fps=24, size=SIZE)


def test_a_truncated_or_disguised_clip_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", list(range(20, 200, 3)))
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with VideoWriter(tmp_path / "whole.mp4", (160, 96), 24) as writer:  # its index stands in front and promises all
        writer.write(np.random.default_rng(0).integers(0, 256, (30, 96, 160, 3)).astype(np.uint8))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "front.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    (tmp_path / "hls.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n")
    for name in ("half.mp4", "front.mp4", "list.mp4", "hls.mp4"):
        with pytest.raises(MediaRejected):
            load_clip(tmp_path / name, "mov", fps=24, size=SIZE)
