"""Media in: what is taken in, what becomes of it, and where it is looked for."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_files import Place, animation, clip_bytes, picture, picture_bytes, refusal, turned
from numpy.typing import NDArray
from PIL import Image

from dreamontage.generator.frames import load_clip, load_still
from dreamontage.generator.video import VideoWriter
from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput, PathRefused
from dreamontage.schemas.media import (
    InlineSource,
    MediaIdSource,
    PathSource,
    Source,
    VideoFrameSource,
    VideoPieceSource,
)
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Report, Timing, Video
from dreamontage.server.media.ingest import take_in, take_in_all, take_in_all_async
from dreamontage.server.media.roots import media_roots
from dreamontage.server.media.thumbnails import thumbnails
from dreamontage.server.store import Studio


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
