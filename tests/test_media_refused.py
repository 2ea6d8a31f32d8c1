"""Media that are not taken in: one clear sentence for each, and nothing stored."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_files import Place, animation, clip_bytes, huge_png, nothing_stored, picture_bytes, refusal

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput, MediaRejected, NotFound, PathRefused
from dreamontage.schemas.media import (
    InlineSource,
    MediaIdSource,
    VideoFrameSource,
)
from dreamontage.server.media.ingest import take_in, take_in_all
from dreamontage.server.media.roots import clean_name


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
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "is a damaged sound file"),
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


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(magic=st.sampled_from(MAGIC), noise=st.binary(max_size=2000))
def test_random_bytes_behind_any_magic_are_rejected(place: Place, magic: bytes, noise: bytes) -> None:
    (place.root / "noise").write_bytes(magic + noise)
    with pytest.raises(MediaRejected):
        take_in(place.studio, "noise", [place.root])
    assert nothing_stored(place.studio)


WHOLE = [*map(picture_bytes, ("JPEG", "PNG", "WEBP")), animation(), clip_bytes(6), clip_bytes(6, form="matroska")]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


