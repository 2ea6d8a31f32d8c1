"""The mp4 decodes again with the reported count, size and fps, in true colours, with the same bytes every time."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamontage.generator.files import replacing, write_whole
from dreamontage.generator.video import VideoWriter, read_back
from dreamontage.schemas.errors import RenderFailed, StudioFull

PURE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
COLOURS = [*PURE, (128, 128, 128), (200, 120, 40), (30, 60, 220)]


def noise(count: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def write(path: Path, frames: NDArray[np.uint8], fps: int = 24, chunk: int = 5) -> Path:
    with VideoWriter(path, (frames.shape[2], frames.shape[1]), fps) as writer:
        for start in range(0, len(frames), chunk):
            writer.write(frames[start : start + chunk])
    return path


@pytest.mark.parametrize(("size", "fps"), [((512, 288), 24), ((144, 256), 30), ((192, 192), 8)])
def test_a_written_video_reads_back_with_its_count_size_and_fps(
    tmp_path: Path, size: tuple[int, int], fps: int
) -> None:
    path = write(tmp_path / "a.mp4", noise(13, *size), fps)
    assert read_back(path) == (13, *size, fps)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    assert read_back(write(tmp_path / "a.mp4", noise(1))).frames == 1


def test_flat_colours_survive_within_two_levels(tmp_path: Path) -> None:
    frames = np.stack([np.broadcast_to(np.array(colour, np.uint8), (64, 96, 3)) for colour in COLOURS])
    with av.open(str(write(tmp_path / "a.mp4", frames))) as container:
        for frame, colour in zip(container.decode(video=0), COLOURS, strict=True):
            assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - colour).max() <= 2
            assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
            assert frame.format.name == "yuv420p"


def test_two_writes_give_identical_bytes_whatever_the_chunks(tmp_path: Path) -> None:
    frames = noise(12)
    first, second = write(tmp_path / "a.mp4", frames), write(tmp_path / "b.mp4", frames, chunk=1)
    assert first.read_bytes() == second.read_bytes()
    assert b"x264" not in first.read_bytes()
    assert b"Lav" not in first.read_bytes()


def test_the_index_stands_before_the_pictures(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mp4", noise(12)).read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(3))
    before = path.read_bytes()
    with pytest.raises(KeyError), VideoWriter(path, (96, 64), 24) as writer:
        writer.write(noise(9))
        raise KeyError
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the system refuses to write on, as a full disk does
    try:
        with pytest.raises(StudioFull, match=r"a\.mp4"):
            write(tmp_path / "a.mp4", noise(24, 256, 144))
        with pytest.raises(StudioFull):
            write_whole(tmp_path / "sheet.jpg", b"x" * 40_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_write_on_a_full_disk_stays_a_cancelled_write(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", (96, 64), 24) as writer:
            writer.write(noise(9))
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            raise KeyError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_only_a_full_disk_is_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replacing(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")


def test_a_broken_video_does_not_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(12))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RenderFailed):
        read_back(path)
