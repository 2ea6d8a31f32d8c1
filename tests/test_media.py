"""Media in: what is taken in, and how everything else is refused with one clear sentence and nothing stored."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dreamontage.generator.frames import load_clip, load_still
from dreamontage.generator.video import VideoWriter
from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError, InvalidInput, MediaRejected, NotFound, PathRefused
from dreamontage.schemas.media import (
    InlineSource,
    Media,
    MediaIdSource,
    PathSource,
    Source,
    VideoFrameSource,
    VideoPieceSource,
)
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Report, Timing, Video
from dreamontage.server.media.ingest import take_in, take_in_all, take_in_all_async
from dreamontage.server.media.roots import clean_name, media_roots
from dreamontage.server.media.thumbnails import thumbnails
from dreamontage.server.store import Studio


class Place(NamedTuple):
    """A studio, one media root, and a folder that is none."""

    studio: Studio
    root: Path
    outside: Path

    def take(self, source: Source) -> Media:
        return take_in(self.studio, source, (self.studio.inbox, self.root))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "elsewhere").mkdir()
    with Studio(tmp_path / "studio", tmp_path / "out") as studio:
        yield Place(studio, tmp_path / "pictures", tmp_path / "elsewhere")


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def picture_bytes(kind: str = "PNG", width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    file = io.BytesIO()
    picture(width, height, seed).save(file, kind)
    return file.getvalue()


def animation(kind: str = "GIF", count: int = 6) -> bytes:
    file = io.BytesIO()
    first, *others = [picture(seed=n) for n in range(count)]
    first.save(file, kind, save_all=True, append_images=others, duration=100)
    return file.getvalue()


def clip_bytes(
    count: int = 24, size: tuple[int, int] = (64, 48), form: str = "mp4", times: list[int] | None = None,
    codec: str = "libx264", faststart: bool = False, sound: bool = False,
) -> bytes:  # fmt: skip
    """A real clip at 24 fps, or with time stamps in 1/600 s."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (faststart reads back what it wrote, by name)
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(file.name, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 600 if times else 24)
        tone = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        for index in range(count):
            pixels = np.asarray(picture(*size, seed=index % 5))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = times[index] if times else index, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate, silence.pts = 44100, 0
            container.mux(tone.encode(silence))
            container.mux(tone.encode(None))
    with file:
        return file.read()


def turned(mp4: bytes) -> bytes:
    """The clip with a phone's quarter turn in its display matrix."""
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000)
    at = mp4.index(b"tkhd") + 44
    return mp4[:at] + matrix + mp4[at + 36 :]


def huge_png(side: int = 30_000) -> bytes:
    """A valid, highly compressed grey PNG of side x side pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    squeeze = zlib.compressobj(1)
    rows = b"".join(squeeze.compress(bytes(1 + side)) for _ in range(side // 100)) + squeeze.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def nothing_stored(studio: Studio) -> bool:
    with studio.db.read() as connection:
        rows = connection.execute("SELECT count(*) FROM media").fetchone()[0]
    return not rows and not list((studio.folder / "blobs").iterdir())


def refusal(place: Place, source: Source, kind: type[DreamontageError] = MediaRejected) -> str:
    """The one sentence of a refusal, after checking what every refusal promises."""
    with pytest.raises(kind) as caught:
        place.take(source)
    text = str(caught.value)
    assert caught.value.field == "source"
    assert str(place.outside) not in text
    assert ".part-" not in text and "/blobs" not in text
    assert "pydantic" not in text and "Traceback" not in text and "\n" not in text
    assert len(text) < 700
    assert nothing_stored(place.studio)
    return text


# What is taken in


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_picture_is_known_by_its_bytes_whatever_its_name_says(place: Place, kind: str) -> None:
    (place.root / "lake.txt").write_bytes(picture_bytes(kind))
    media = take_in(place.studio, "lake.txt", [place.root])
    assert (media.kind, media.container, media.width, media.height, media.name) == ("still", kind, 64, 48, "lake.txt")
    assert media.id == f"img_{media.sha256[:16]}" and media.bytes == len(picture_bytes(kind))
    assert place.studio.blob_path(media.id).read_bytes() == picture_bytes(kind)


def test_the_same_bytes_get_the_same_id(place: Place) -> None:
    for name in ("a.png", "b.jpg"):
        (place.root / name).write_bytes(picture_bytes())
    inline = InlineSource(data=base64.b64encode(picture_bytes()).decode(), mime="image/png")
    path = PathSource(path=str(place.root / "b.jpg"))
    media = take_in_all(place.studio, ["a.png", path, inline], [place.root])
    assert len({item.id for item in media}) == 1
    again = take_in_all(place.studio, [media[0].id, MediaIdSource(media_id=media[0].id), "b.jpg"], [place.root])
    assert again == media
    assert len(list((place.studio.folder / "blobs").iterdir())) == 1


@pytest.mark.parametrize(
    ("form", "codec", "container"),
    [("mp4", "libx264", "mov"), ("mov", "mpeg4", "mov"), ("matroska", "libx264", "matroska"),
     ("webm", "libvpx", "matroska"), ("avi", "mpeg4", "avi")],
)  # fmt: skip
def test_a_clip_is_measured_by_its_time_stamps(place: Place, form: str, codec: str, container: str) -> None:
    (place.root / "walk").write_bytes(clip_bytes(30, form=form, codec=codec))
    media = take_in(place.studio, "walk", [place.root])
    assert (media.kind, media.container, media.frames, media.sound) == ("clip", container, 30, False)
    assert media.id.startswith("clip_")
    assert media.duration_s == pytest.approx(30 / 24, abs=0.02)
    assert media.fps == pytest.approx(24, rel=0.02)
    assert len(load_clip(place.studio.blob_path(media.id), media.container, size=(64, 48))) == 29


def test_sound_is_noticed(place: Place) -> None:
    (place.root / "a.mp4").write_bytes(clip_bytes(sound=True))
    assert take_in(place.studio, "a.mp4", [place.root]).sound


@pytest.mark.parametrize(("kind", "container"), [("GIF", "gif"), ("PNG", "apng")])
def test_an_animated_picture_is_a_clip(place: Place, kind: str, container: str) -> None:
    (place.root / "a").write_bytes(animation(kind))
    media = take_in(place.studio, "a", [place.root])
    assert (media.kind, media.container, media.frames) == ("clip", container, 6)
    assert media.duration_s == pytest.approx(0.6, abs=0.01) and media.fps == pytest.approx(10, rel=0.01)
    assert len(load_clip(place.studio.blob_path(media.id), media.container, size=(64, 48))) > 9


@pytest.mark.parametrize(("data", "container"), [(clip_bytes(1), "mov"), (picture_bytes("GIF"), "GIF")])
def test_a_clip_of_one_frame_is_a_still(place: Place, data: bytes, container: str) -> None:
    (place.root / "a").write_bytes(data)
    media = take_in(place.studio, "a", [place.root])
    assert (media.kind, media.container, media.frames, media.duration_s) == ("still", container, 1, 0)
    assert media.id.startswith("img_")
    assert load_still(place.studio.blob_path(media.id), media.container, (64, 48)).shape == (1, 48, 64, 3)


def test_odd_sizes_are_taken_as_they_are(place: Place) -> None:
    (place.root / "a.png").write_bytes(picture_bytes(width=65, height=47))
    (place.root / "b.gif").write_bytes(animation())
    assert take_in(place.studio, "a.png", [place.root]).width == 65


def test_rotation_tags_make_sizes_upright(place: Place) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(place.root / "a.jpg", exif=exif)
    (place.root / "b.mp4").write_bytes(turned(clip_bytes(8)))
    for media in take_in_all(place.studio, ["a.jpg", "b.mp4"], [place.root]):
        assert (media.width, media.height) == (48, 64)


def test_a_variable_frame_rate_is_measured_whole(place: Place) -> None:
    times = [0, 20, 40, 100, 200, 500, 525, 600]
    (place.root / "vfr.mp4").write_bytes(clip_bytes(8, times=times))
    media = take_in(place.studio, "vfr.mp4", [place.root])
    assert media.frames == 8
    assert media.fps == pytest.approx(7, rel=0.01)
    assert media.duration_s > 1
    frames = load_clip(place.studio.blob_path(media.id), media.container, size=(64, 48))
    assert abs(len(frames) - media.duration_s * 24) <= 4


def test_16_bit_transparent_and_ink_pictures_are_taken_in(place: Place) -> None:
    Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)).save(place.root / "deep.png")
    picture().convert("RGBA").save(place.root / "alpha.webp")
    picture().convert("CMYK").save(place.root / "ink.jpg")
    media = take_in_all(place.studio, ["deep.png", "alpha.webp", "ink.jpg"], [place.root])
    for item in media:
        assert load_still(place.studio.blob_path(item.id), item.container, (64, 48)).shape == (1, 48, 64, 3)


# Bad input, nothing stored


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b"just some words, no picture at all", "looks like text"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "looks like an ffconcat list"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "looks like an HLS playlist"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "looks like an SVG drawing"),
        (b"%PDF-1.7\n%\xe2\xe3\n", "looks like a PDF document"),
        (b"8BPS\0\1" + bytes(40), "looks like a Photoshop file"),
        (b"II*\0" + bytes(40), "looks like a TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "looks like a WAV sound"),
        (b"\x01\x9c\xe2" + b"\0\1\2\3" * 50, "looks like neither a picture nor a clip"),
        (picture_bytes("PNG", 200, 200)[:-4000], "is a damaged PNG picture, or cut short"),
        (picture_bytes("JPEG", 200, 200)[:-4000], "is a damaged JPEG picture, or cut short"),
        (picture_bytes("WEBP", 200, 200)[:-4000], "is a damaged WEBP picture, or cut short"),
        (picture_bytes("GIF", 200, 200)[:-4000], "is a damaged GIF picture, or cut short"),
        (clip_bytes()[:-2000], "cut short"),
        (clip_bytes(60, faststart=True)[:-4000], "is cut short"),
        (clip_bytes(60, form="matroska")[:-30000], "is cut short"),
        (clip_bytes()[:40], "is a damaged clip, or cut short"),
        (picture_bytes(width=1, height=1), "is only 1x1 pixels large"),
        (clip_bytes(4, size=(16, 8)), "is only 16x8 pixels large"),
        (huge_png(), "has 900 million pixels"),
        (animation("WEBP"), "is an animated WebP"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_is_no_picture_or_clip_is_refused_in_one_sentence(place: Place, data: bytes, expected: str) -> None:
    (place.root / "lake.jpg").write_bytes(data)
    text = refusal(place, "lake.jpg")
    assert text.startswith("source: 'lake.jpg' ")
    assert expected in text
    assert "Allowed:" in text


def test_a_disguised_playlist_opens_no_other_file(place: Place) -> None:
    (place.root / "secret.mp4").write_bytes(clip_bytes())
    (place.root / "list.mp4").write_bytes(b"ffconcat version 1.0\nfile 'secret.mp4'\n")
    assert "ffconcat" in refusal(place, "list.mp4")
    disguised = b"\0\0\0\x20ftypisom" + b"\n#EXTM3U\n#EXTINF:1,\nsecret.mp4\n"
    (place.root / "list.mp4").write_bytes(disguised)
    assert "damaged clip" in refusal(place, "list.mp4")


def test_a_clip_beyond_ten_minutes_is_refused(place: Place) -> None:
    (place.root / "long.mp4").write_bytes(clip_bytes(3, times=[0, 300, 610 * 600]))
    text = refusal(place, "long.mp4")
    assert "'long.mp4' lasts " in text and "up to 600 s" in text


def test_only_sound_is_refused(place: Place) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        tone = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.rate, silence.pts = 44100, 0
        container.mux(tone.encode(silence))
        container.mux(tone.encode(None))
    (place.root / "song.mp4").write_bytes(file.getvalue())
    assert "sound but no pictures" in refusal(place, "song.mp4")


def test_too_many_bytes_are_refused_before_they_are_read(place: Place) -> None:
    with (place.root / "big.png").open("wb") as file:
        file.write(picture_bytes())
        file.truncate(limits.MAX_IMAGE_BYTES + 1)
    began = time.monotonic()
    assert "67,108,865 bytes" in refusal(place, "big.png")
    assert time.monotonic() - began < 2


def test_a_missing_file_names_the_roots_and_how_to_add_one(place: Place) -> None:
    text = refusal(place, "nowhere.png", PathRefused)
    assert "there is no file 'nowhere.png'" in text
    assert str(place.root) in text and "--media-root" in text and "DREAMONTAGE_MEDIA_ROOTS" in text


def test_folders_pipes_and_devices_are_no_files(place: Place) -> None:
    (place.root / "folder.png").mkdir()
    os.mkfifo(place.root / "pipe.png")
    assert "'folder.png' is a folder" in refusal(place, "folder.png", PathRefused)
    assert "'pipe.png' is a named pipe" in refusal(place, "pipe.png", PathRefused)
    assert "is a folder" in refusal(place, str(place.root), PathRefused)
    with pytest.raises(PathRefused, match="'null' is a device"):
        take_in(place.studio, "/dev/null", [place.root, Path("/dev")])


def test_paths_outside_the_roots_are_refused_alike_whether_they_exist_or_not(place: Place) -> None:
    (place.outside / "lake.png").write_bytes(picture_bytes())
    texts = {
        refusal(place, str(place.outside / "lake.png"), PathRefused),
        refusal(place, str(place.outside / "no" / "lake.png"), PathRefused),
        refusal(place, "../elsewhere/lake.png", PathRefused),
        refusal(place, f"file://{place.outside}/lake.png", PathRefused),
    }
    assert len(texts) == 1 and "'lake.png' is outside the media roots" in texts.pop()


def test_symbolic_links_out_of_the_roots_are_refused_and_within_them_followed(place: Place) -> None:
    (place.outside / "lake.png").write_bytes(picture_bytes())
    (place.root / "final.png").symlink_to(place.outside / "lake.png")
    (place.root / "parent").symlink_to(place.outside)
    (place.root / "loop.png").symlink_to(place.root / "loop.png")
    for path in ("final.png", "parent/lake.png", str(place.root / "parent" / "lake.png")):
        assert "a link out of them" in refusal(place, path, PathRefused)
    assert "a link that leads nowhere" in refusal(place, "loop.png", PathRefused)
    (place.root / "real.png").write_bytes(picture_bytes())
    (place.root / "alias.png").symlink_to(place.root / "real.png")
    assert take_in(place.studio, "alias.png", [place.root]).name == "alias.png"


def test_a_link_put_in_place_after_the_check_is_not_followed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.outside / "lake.png").write_bytes(picture_bytes())
    (place.root / "sub").mkdir()
    (place.root / "sub" / "lake.png").write_bytes(picture_bytes(seed=1))
    resolve = os.path.lexists

    def swap(path: str) -> bool:
        present = resolve(path)
        if not (place.root / "sub").is_symlink():
            (place.root / "sub").rename(place.root / "moved")
            (place.root / "sub").symlink_to(place.outside)
        return present

    monkeypatch.setattr(os.path, "lexists", swap)
    assert "'lake.png' cannot be opened" in refusal(place, "sub/lake.png", PathRefused)


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "x" * 5000, "\ud800.png", "https://example.org/lake.png"])
def test_what_is_no_path_is_refused(place: Place, path: str) -> None:
    refusal(place, path, InvalidInput)


@pytest.mark.parametrize("path", ["y" * 300 + ".png", "~nobody-of-that-name/lake.png", "a/b/c.png"])
def test_strange_paths_are_refused(place: Place, path: str) -> None:
    refusal(place, path, PathRefused)


def test_inline_data_is_bounded_and_checked(place: Place) -> None:
    large = base64.b64encode(os.urandom(limits.MAX_INLINE_BYTES + 1)).decode()
    assert "65537 bytes decoded" in refusal(place, InlineSource(data=large, mime="image/png"), InvalidInput)
    assert "characters" in refusal(place, InlineSource(data=large * 2, mime="image/png"), InvalidInput)
    assert "not valid base64" in refusal(place, InlineSource(data="%%%", mime="image/png"), InvalidInput)
    assert "not valid base64" in refusal(place, InlineSource(data="ü", mime="image/png"), InvalidInput)
    assert "is empty" in refusal(place, InlineSource(data="", mime="image/png"))
    words = base64.b64encode(b"hello there").decode()
    assert "'inline image/png' looks like text" in refusal(place, InlineSource(data=words, mime="image/png"))
    uri = "data:image/png;base64," + base64.encodebytes(picture_bytes()).decode()
    assert take_in(place.studio, InlineSource(data=uri, mime="image/png"), []).width == 64


def test_an_unknown_id_is_told_apart_from_a_path(place: Place) -> None:
    assert "add_media" in refusal(place, "img_0123456789abcdef", NotFound)
    refusal(place, MediaIdSource(media_id="img_x"), NotFound)
    refusal(place, VideoFrameSource(video_id="v_x", at_s=0), NotFound)


def test_of_many_sources_all_are_taken_in_or_none(place: Place) -> None:
    (place.root / "a.png").write_bytes(picture_bytes())
    (place.root / "b.mp4").write_bytes(clip_bytes())
    (place.root / "c.png").write_bytes(picture_bytes("PNG", 200, 200)[:-4000])
    with pytest.raises(MediaRejected, match=r"^sources\[2\]: 'c.png' is a damaged PNG"):
        take_in_all(place.studio, ["a.png", "b.mp4", "c.png"], [place.root])
    assert nothing_stored(place.studio)
    with pytest.raises(PathRefused, match=r"^sources\[1\]: there is no file 'gone.png'"):
        take_in_all(place.studio, ["a.png", "gone.png"], [place.root])
    assert nothing_stored(place.studio)
    for count in (0, limits.MAX_SOURCES_PER_CALL + 1):
        with pytest.raises(InvalidInput, match=f"{count} sources"):
            take_in_all(place.studio, ["a.png"] * count, [place.root])
    kinds = [media.kind for media in take_in_all(place.studio, ["a.png", "b.mp4"], [place.root])]
    assert kinds == ["still", "clip"]


def test_names_are_cleaned(place: Place) -> None:
    (place.root / "la\u202eke\n\x1b[31m.png").write_bytes(picture_bytes())
    media = take_in(place.studio, "la\u202eke\n\x1b[31m.png", [place.root])
    assert media.name == "la ke [31m.png"
    assert len(clean_name("x" * 200)) == 80


MAGIC = [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8 ", b"RIFF\x40\0\0\0AVI LIST",
         b"\0\0\0\x18ftypisom", b"\x1a\x45\xdf\xa3", b"\0\0\0\x08moov"]  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(magic=st.sampled_from(MAGIC), noise=st.binary(max_size=2000))
def test_random_bytes_behind_any_magic_are_rejected(place: Place, magic: bytes, noise: bytes) -> None:
    (place.root / "noise").write_bytes(magic + noise)
    with pytest.raises(MediaRejected):
        take_in(place.studio, "noise", [place.root])
    assert nothing_stored(place.studio)


WHOLE = [*map(picture_bytes, ("JPEG", "PNG", "WEBP")), animation(), clip_bytes(6), clip_bytes(6, form="matroska")]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=st.sampled_from(WHOLE), data=st.data())
def test_damaged_bytes_are_taken_in_whole_or_rejected(place: Place, whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    (place.root / "noise").write_bytes(damaged)
    try:
        media = take_in(place.studio, "noise", [place.root])
    except MediaRejected as error:
        assert error.problem.startswith("'noise' ")
    else:
        assert place.studio.media(media.id) == media


# The child


def test_the_child_starts_fast_and_without_torch() -> None:
    script = (
        "import sys; import dreamontage.server.media.child as c; c._tasks(); import dreamontage.server.media.probe;"
        "print(sorted({'torch', 'mcp', 'sqlite3', 'pydantic', 'cv2'} & set(sys.modules)))"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - began < 3  # 0.2 s on an idle machine


def test_a_decoder_that_takes_too_long_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root / "a.png").write_bytes(picture_bytes())
    monkeypatch.setattr(limits, "PROBE_TIMEOUT_S", 0.001)
    assert "'a.png' takes more than 0.001 s or 4 GiB to read" in refusal(place, "a.png")


def test_the_event_loop_goes_on_while_media_are_taken_in(place: Place) -> None:
    (place.root / "a.png").write_bytes(picture_bytes())

    async def count_beats() -> int:
        beats = 0
        task = asyncio.create_task(take_in_all_async(place.studio, ["a.png"], [place.root]))
        while not task.done():
            await asyncio.sleep(0.001)
            beats += 1
        await task
        return beats

    assert asyncio.run(count_beats()) > 5


# Roots


def test_roots_leave_out_the_home_and_what_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for folder in ("Pictures", "Downloads", "project", "shared", "studio/inbox"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for variable in ("PICTURES", "VIDEOS", "DESKTOP", "DOWNLOAD"):
        monkeypatch.delenv(f"XDG_{variable}_DIR", raising=False)
    monkeypatch.setenv("XDG_DESKTOP_DIR", str(home))
    monkeypatch.setenv("DREAMONTAGE_MEDIA_ROOTS", os.pathsep.join(["~/shared", str(tmp_path / "gone"), ""]))
    inbox = home / "studio" / "inbox"
    usual = [home / "Pictures", home / "Downloads"]
    assert list(media_roots(inbox, start=home)) == [inbox, home / "shared", *usual]
    assert list(media_roots(inbox, start=Path("/"))) == [inbox, home / "shared", *usual]
    assert list(media_roots(inbox, start=home / "project")) == [inbox, home / "shared", home / "project", *usual]
    with Studio(home / "studio") as studio, pytest.raises(PathRefused, match="~/studio/inbox, ~/shared, ~/Pictures"):
        take_in(studio, "gone.png", media_roots(studio.inbox, start=home))


def test_relative_paths_are_looked_up_in_every_root(place: Place) -> None:
    (place.root / "trip").mkdir()
    (place.root / "trip" / "a.png").write_bytes(picture_bytes())
    roots = (place.studio.inbox, place.root)
    spellings: list[Source] = ["trip/a.png", "pictures/trip/a.png", f"file://{place.root}/trip/a.png"]
    assert len({media.id for media in take_in_all(place.studio, spellings, roots)}) == 1


# Earlier outputs


def finished_video(studio: Studio, frames: int = 49, size: tuple[int, int] = (256, 144)) -> Video:
    folder = studio.video_folder("v_1")
    folder.mkdir()
    ramp = np.linspace(20, 230, size[0], dtype=np.uint8)[None, :, None] * np.ones((size[1], 1, 3), np.uint8)
    with VideoWriter(folder / "one-shot.mp4", size, 24) as writer:
        writer.write(np.stack([np.roll(ramp, 3 * n, axis=1) for n in range(frames)]))
    report = Report(
        requested_duration_s=2, duration_s=frames / 24, fps=24, frames=frames, width=size[0], height=size[1],
        model="nano", seed=0, segments=[], anchors=[], intervals=[], seams=[], cuts=[], notes=[],
        timing=Timing(encode_s=0, denoise_s=0, decode_s=0, total_s=0), peak_memory_bytes=0,
    )  # fmt: skip
    montage_id = studio.create_montage(Montage(id="m_1", duration_s=2)).id
    return studio.add_video(
        Video(id="v_1", montage_id=montage_id, revision=1, quality="draft", path=str(folder / "one-shot.mp4"),
              sheet="", report=report, bytes=1, sha256="")
    )  # fmt: skip


def decoded(path: Path, container: str) -> NDArray[Any]:
    """Every frame's stored samples, [F,...]."""
    with path.open("rb") as file, av.open(file, "r", format=container) as source:
        return np.stack([frame.to_ndarray() for frame in source.decode(video=0)])


def test_a_frame_of_an_earlier_output_is_taken_without_loss(place: Place) -> None:
    video = finished_video(place.studio)
    first, last = take_in_all(
        place.studio,
        [VideoFrameSource(video_id="v_1", at_s=1.0), VideoFrameSource(video_id="v_1", at_s=video.report.duration_s)],
        [],
    )
    assert (first.kind, first.container, first.width, first.height) == ("still", "PNG", 256, 144)
    whole = load_clip(Path(video.path), "mov", size=(256, 144))
    for media, index in ((first, 24), (last, 48)):
        pixels = load_still(place.studio.blob_path(media.id), "PNG", (256, 144))[0]
        np.testing.assert_array_equal(pixels, whole[index])
    assert take_in(place.studio, VideoFrameSource(video_id="v_1", at_s=1.01), []) == first


def test_a_piece_of_an_earlier_output_has_the_same_samples(place: Place) -> None:
    video = finished_video(place.studio)
    source = VideoPieceSource(video_id="v_1", from_s=0.5, to_s=1.5)
    media = take_in(place.studio, source, [])
    assert (media.kind, media.container, media.frames, media.fps) == ("clip", "mov", 24, 24)
    assert media.duration_s == pytest.approx(1.0)
    piece = decoded(place.studio.blob_path(media.id), "mov")
    np.testing.assert_array_equal(piece, decoded(Path(video.path), "mov")[12:36])
    assert take_in(place.studio, source, []) == media


def test_seconds_beyond_an_earlier_output_are_refused(place: Place) -> None:
    finished_video(place.studio)
    assert "0 to 2.04167 seconds" in refusal(place, VideoFrameSource(video_id="v_1", at_s=9), InvalidInput)
    for piece in ((1.0, 9.0), (1.0, 1.0), (1.5, 1.0), (1.0, 1.01)):
        source = VideoPieceSource(video_id="v_1", from_s=piece[0], to_s=piece[1])
        assert "is no piece of v_1" in refusal(place, source, InvalidInput)


# Thumbnails


def test_thumbnails_of_fifty_media_fit_into_one_small_picture(place: Place) -> None:
    for n in range(46):
        (place.root / f"{n}.png").write_bytes(picture_bytes(seed=n, width=200, height=120))
    for n in range(4):
        (place.root / f"{n}.mp4").write_bytes(clip_bytes(10 + n))
    names: list[Source] = [*(f"{n}.png" for n in range(46)), *(f"{n}.mp4" for n in range(4))]
    media = take_in_all(place.studio, names, [place.root])
    drawn = thumbnails(place.studio, media)
    assert len(drawn) <= limits.MAX_PICTURE_BYTES
    with Image.open(io.BytesIO(drawn), formats=["JPEG"]) as sheet:
        assert 500 < sheet.width < 1600
    one = Image.open(io.BytesIO(thumbnails(place.studio, media[-1:])))
    assert one.width > 2 * 256  # first and last frame
