"""The shipped model with real photographs, through the studio and a real worker process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from test_worker import until

from dreamontage.generator.video import read_back
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.montage import Format, Montage
from dreamontage.schemas.report import Video
from dreamontage.server.media.ingest import take_in_all
from dreamontage.server.store import Studio, new_id

WORKER = [sys.executable, "-m", "dreamontage.server.worker", "--studio"]


def pinned(studio: Studio, files: list[Path], gap_s: float, duration_s: float) -> Montage:
    media = take_in_all(studio, [str(file) for file in files], (files[0].parent,))
    anchors = [
        Anchor(id=f"a{i}", media_id=item.id, second=i * gap_s, out_s=1.0 if item.kind == "clip" else None)
        for i, item in enumerate(media)
    ]
    montage = Montage(id=new_id("m"), format=Format(fps=12), duration_s=duration_s, anchors=anchors)
    studio.create_montage(montage)
    return montage


def finish(studio: Studio, job: Job) -> Video:
    """Run a worker process until the job has ended."""
    with subprocess.Popen([*WORKER, str(studio.folder)]) as worker:
        ended = anyio.run(studio.wait, job.id, 300)
        worker.send_signal(signal.SIGTERM)
    assert ended.state == "done", ended.error
    assert ended.video_id
    return studio.video(ended.video_id)


def draft(studio: Studio, montage: Montage) -> Job:
    return studio.enqueue(montage, RenderRequest(quality="draft"), None)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    from conftest import DEMO

    folder = tmp_path_factory.mktemp("nano")
    names = ["aitzgorri.jpg", "picosdeeuropa.jpg", "bunny.mp4", "sunset.jpg"]
    files = [Path(shutil.copy(DEMO / name, folder)) for name in names]
    with Studio(folder / "studio", folder / "out") as studio:
        return finish(studio, draft(studio, pinned(studio, files, gap_s=2, duration_s=6)))


def test_every_pinned_still_comes_out_on_its_frame_and_as_sharp_as_promised(video: Video) -> None:
    assert [anchor.kind for anchor in video.report.anchors] == ["still", "still", "clip", "still"]
    for anchor in video.report.anchors:
        assert anchor.best_offset_frames == 0
        assert anchor.reference_psnr_db is not None
        assert anchor.psnr_db >= max(22, anchor.reference_psnr_db - 1)


def test_unrelated_photographs_are_joined_by_visible_travel_without_a_cut_or_a_freeze(video: Video) -> None:
    assert video.report.cuts == []
    for interval in video.report.intervals:
        assert interval.motion > 0.01
        assert interval.static_share * (interval.end_s - interval.start_s) <= 0.3
        assert interval.sharpness_vs_anchors > 0.5


def test_the_mp4_decodes_again_with_the_reported_count_size_and_fps(video: Video) -> None:
    report = video.report
    assert read_back(Path(video.path)) == (report.frames, report.width, report.height, report.fps)
    assert report.frames == 73


def test_a_render_killed_between_two_segments_ends_as_if_it_had_not_been(studio: Studio, pictures: list[Path]) -> None:
    montage = pinned(studio, pictures[:3], gap_s=4, duration_s=8)
    job = draft(studio, montage)
    with subprocess.Popen([*WORKER, str(studio.folder)]) as worker:
        until(lambda: studio.job(job.id).progress.segments_done > 0)
        os.kill(worker.pid, signal.SIGKILL)
    kept = {take.name: take.stat().st_mtime_ns for take in studio.takes.glob("*.safetensors")}
    assert kept
    killed = finish(studio, job)
    assert studio.job(job.id).attempt == 2
    assert {name: (studio.takes / name).stat().st_mtime_ns for name in kept} == kept

    for take in studio.takes.iterdir():
        take.unlink()
    other = montage.model_copy(update={"id": new_id("m")})
    studio.create_montage(other)
    whole = finish(studio, draft(studio, other))
    assert killed.sha256 == whole.sha256
