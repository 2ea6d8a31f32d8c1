"""The worker: one per device, outlives its starter, and whatever kills it, the job is finished by the next one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import slow_renderer
from PIL import Image
from slow_renderer import HELD_BY_ANOTHER, SEGMENTS, open_gates, rendered

from dreamontage.generator.render import RenderTask
from dreamontage.generator.timeline import frame_count
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Busy
from dreamontage.schemas.job import Job, Progress, RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.profile import PLAIN, Switches
from dreamontage.schemas.report import Video
from dreamontage.server.store import Studio, new_id
from dreamontage.server.store.delivery import copy_for_people, human_name
from dreamontage.server.worker import LOG_NAME, Worker, ensure_worker, run_exclusively

DEADLINE_S = 60.0


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path / "studio", tmp_path / "out") as opened:
        yield opened


@pytest.fixture
def start(studio: Studio) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts real worker processes with the slow renderer; none is left behind."""
    started: list[subprocess.Popen[bytes]] = []

    def worker(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, slow_renderer.__file__, str(studio.folder), *arguments]
        started.append(subprocess.Popen(command, start_new_session=True))
        return started[-1]

    yield worker
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def signals() -> Iterator[None]:
    """Signal handlers are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other processes bring about; fails at the deadline."""

    async def poll() -> None:
        with anyio.fail_after(DEADLINE_S):
            while not condition():
                await anyio.sleep(0.02)

    anyio.run(poll)


def ended(studio: Studio, job: Job) -> Job:
    return anyio.run(partial(studio.wait, job.id, DEADLINE_S))


def queue(studio: Studio, brief: str = "A walk by the lake", seed: int = 0, switches: Switches | None = None) -> Job:
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=2, brief=brief))
    return studio.enqueue(montage, RenderRequest(seed=seed, switches=switches), None)


def segments_done(studio: Studio, job: Job, count: int) -> Callable[[], bool]:
    return lambda: studio.job(job.id).progress.segments_done == count


def work_off(studio: Studio) -> None:
    """Do everything that is queued, in this process."""
    Worker(studio, render=slow_renderer.render, idle_exit_s=0).run()


def test_a_job_survives_the_kill_of_its_worker_and_finished_segments_are_not_rendered_again(
    studio: Studio, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job = queue(studio)
    open_gates(studio, 2)
    first = start()
    until(segments_done(studio, job, 2))
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert studio.job(job.id).state == "running"  # nobody could tell the studio
    open_gates(studio, SEGMENTS)
    start()
    done = ended(studio, job)
    assert (done.state, done.attempt, done.error) == ("done", 2, None)
    assert done.video_id and Path(studio.video(done.video_id).path).read_bytes() == b"frames"
    assert rendered(studio) == ["0", "1", "2", "3"]


def test_a_worker_asked_to_stop_puts_its_job_back_and_leaves_no_half_result(
    studio: Studio, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job = queue(studio)
    open_gates(studio, 1)
    first = start()
    until(segments_done(studio, job, 1))
    first.terminate()
    assert first.wait(DEADLINE_S) == 0
    assert studio.job(job.id).state == "queued"
    assert list((studio.folder / "videos").iterdir()) == []
    open_gates(studio, SEGMENTS)
    work_off(studio)
    assert studio.job(job.id).state == "done"
    assert rendered(studio) == ["0", "1", "2", "3"]


def test_a_running_job_is_cancelled_within_a_step_and_the_worker_goes_on(
    studio: Studio, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job, following = queue(studio), queue(studio)
    open_gates(studio, 1)
    start()
    until(segments_done(studio, job, 1))
    assert studio.cancel(job.id).state == "running"
    assert ended(studio, job).state == "cancelled"
    open_gates(studio, SEGMENTS)
    assert ended(studio, following).state == "done"
    assert len(list((studio.folder / "videos").iterdir())) == 1


def test_only_one_worker_runs_per_device_and_a_killed_one_frees_it(
    studio: Studio, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job = queue(studio)
    first = start()
    until(lambda: studio.job(job.id).progress.stage == "denoising")
    assert start().wait(DEADLINE_S) == HELD_BY_ANOTHER
    assert not ensure_worker(studio)
    until(lambda: studio.workers()[0].doing == f"{job.id} denoising")
    (row,) = studio.workers(limit=9)
    assert (row.pid, row.device) == (first.pid, "cpu")
    first.kill()
    first.wait()
    open_gates(studio, SEGMENTS)
    assert start("0").wait(DEADLINE_S) == 0
    assert studio.job(job.id).state == "done"


def test_an_unexpected_error_is_tried_three_times_and_told_in_one_honest_sentence(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = queue(studio, "breaks"), queue(studio)
    open_gates(studio, SEGMENTS)
    work_off(studio)
    failed = studio.job(broken.id)
    assert (failed.state, failed.attempt) == ("failed", 3)
    assert failed.error is not None and LOG_NAME in failed.error and "RuntimeError" in failed.error
    assert "secret" not in failed.error and "Traceback" not in failed.error
    assert "a secret in a traceback" in caplog.text  # for people
    assert studio.job(sound.id).state == "done"


def test_an_error_that_teaches_ends_the_job_at_once_with_its_words(studio: Studio) -> None:
    job = queue(studio, "refuses")
    work_off(studio)
    failed = studio.job(job.id)
    assert (failed.state, failed.attempt) == ("failed", 1)
    assert failed.error == "this cannot be rendered. Next: plan_montage()."
    assert list((studio.folder / "videos").iterdir()) == []


def test_a_job_that_met_a_busy_studio_is_tried_again(studio: Studio) -> None:
    job = queue(studio)
    open_gates(studio, SEGMENTS)
    refusals = iter([Busy("the studio was busy")])

    def render(*arguments: Any) -> Video:
        for refusal in refusals:
            raise refusal
        return slow_renderer.render(*arguments)

    Worker(studio, render=render, idle_exit_s=0).run()
    assert (studio.job(job.id).state, studio.job(job.id).attempt) == ("done", 2)


def test_every_video_is_also_copied_under_a_human_name_and_replaces_nothing(studio: Studio) -> None:
    open_gates(studio, SEGMENTS)
    first = queue(studio)
    work_off(studio)
    again = studio.enqueue(studio.get_montage(first.montage_id), RenderRequest(seed=1), None)
    with Studio(studio.folder, studio.folder.parent / "elsewhere") as worker_side:
        work_off(worker_side)
    delivered = [studio.video(studio.job(job.id).video_id or "").delivered for job in (first, again)]
    names = ["a-walk-by-the-lake-r1-draft.mp4", "a-walk-by-the-lake-r1-draft-2.mp4"]
    assert delivered == [str(studio.out / name) for name in names]
    assert sorted(path.name for path in studio.out.iterdir()) == sorted(names)


def test_a_video_is_kept_when_the_out_dir_cannot_take_the_copy(studio: Studio) -> None:
    studio.out.write_text("a file where the folder should be")
    open_gates(studio, SEGMENTS)
    job = queue(studio)
    work_off(studio)
    video = studio.video(studio.job(job.id).video_id or "")
    assert video.delivered is None and Path(video.path).is_file()


def test_a_job_queued_while_the_worker_was_leaving_is_still_done(studio: Studio, signals: None) -> None:
    late: list[Job] = []

    class Leaving(Worker):
        def run(self) -> None:
            super().run()
            if not late:  # the lock is still held, so this starts no worker
                late.append(queue(studio))
                assert not ensure_worker(studio)

    open_gates(studio, SEGMENTS)
    assert run_exclusively(Leaving(studio, render=slow_renderer.render, idle_exit_s=0))
    assert studio.job(late[0].id).state == "done"


def test_the_model_is_loaded_once_for_many_jobs_and_let_go_when_idle(studio: Studio) -> None:
    loaded: list[tuple[str, Switches]] = []

    class Model:
        pass

    def load(model_id: str, switches: Switches) -> Any:
        loaded.append((model_id, switches))
        model = Model()
        weakref.finalize(model, worker.stop)  # ends the test: the worker itself would wait for further jobs
        return model

    def render(task: RenderTask, load_pipeline: Callable[[str], Any], on_progress: Callable[[Progress], None]) -> Video:
        load_pipeline(task.montage.model)
        return slow_renderer.render(task, load_pipeline, on_progress)

    worker = Worker(studio, render=render, load=load, idle_unload_s=0, idle_exit_s=DEADLINE_S)
    open_gates(studio, SEGMENTS)
    jobs = [queue(studio, seed=seed) for seed in (1, 2)]
    worker.run()
    assert worker.stopping
    assert loaded == [("nano", PLAIN)]
    assert [studio.job(job.id).state for job in jobs] == ["done", "done"]


def test_a_job_under_other_switches_has_the_model_loaded_anew(studio: Studio) -> None:
    loaded: list[tuple[str, Switches]] = []

    def load(model_id: str, switches: Switches) -> Any:
        loaded.append((model_id, switches))

    def render(task: RenderTask, load_pipeline: Callable[[str], Any], on_progress: Callable[[Progress], None]) -> Video:
        load_pipeline(task.montage.model)
        return slow_renderer.render(task, load_pipeline, on_progress)

    open_gates(studio, SEGMENTS)
    for seed, switches in enumerate((None, PLAIN, Switches(offload="group"))):
        queue(studio, seed=seed, switches=switches)
    Worker(studio, render=render, load=load, idle_exit_s=0).run()
    assert loaded == [("nano", PLAIN), ("nano", Switches(offload="group"))]


def test_no_worker_is_started_when_nothing_waits(studio: Studio) -> None:
    assert not ensure_worker(studio)
    assert not (studio.folder / LOG_NAME).exists()


CLIENT = """
import os, signal, sys
from dreamontage.schemas.job import RenderRequest
from dreamontage.server.store import Studio
from dreamontage.server.worker import ensure_worker
studio = Studio(sys.argv[1], sys.argv[2])
studio.enqueue(studio.get_montage(sys.argv[3]), RenderRequest(quality="previz"), None)
assert ensure_worker(studio)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_goes_on_when_the_client_that_started_the_worker_is_killed(studio: Studio) -> None:
    pixels = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(pixels, "PNG")
    digest = hashlib.sha256(pixels.getvalue()).hexdigest()
    (studio.inbox / "ramp.png").write_bytes(pixels.getvalue())
    size = len(pixels.getvalue())
    ramp = Media(id="img_0", sha256=digest, kind="still", container="PNG", width=256, height=256, bytes=size)
    studio.add_media(ramp, studio.inbox / "ramp.png")
    anchors = [Anchor(id="a1", media_id="img_0", second=0)]
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=0.5, anchors=anchors))
    client = subprocess.run([sys.executable, "-c", CLIENT, studio.folder, studio.out, montage.id], timeout=DEADLINE_S)
    assert client.returncode == -signal.SIGKILL
    (job,) = studio.jobs()
    try:
        done = ended(studio, job)
        assert done.state == "done", f"{done.error}\n{(studio.folder / LOG_NAME).read_text()}"
        assert studio.video(done.video_id or "").report.frames == frame_count(0.5, 24)
    finally:
        (worker,) = studio.workers()
        with contextlib.suppress(ProcessLookupError):
            assert os.getsid(worker.pid) == worker.pid  # a session of its own
            os.kill(worker.pid, signal.SIGTERM)
    until(lambda: not _alive(worker.pid))


def test_human_names_are_short_readable_and_safe(tmp_path: Path) -> None:
    def name(brief: str) -> str:
        return human_name(Montage(id="m_1", revision=3, duration_s=1, brief=brief), "standard")

    assert name("Lake: walk!") == "lake-walk-r3-standard"
    assert name("") == name("…/../") == "m_1-r3-standard"
    assert name("Über den See") == "über-den-see-r3-standard"
    assert name("a very long brief that says much more than a name can hold") == (
        "a-very-long-brief-that-says-much-more-r3-standard"
    )
    assert name("x" * 100) == "x" * 40 + "-r3-standard"


def test_copies_made_at_the_same_time_get_different_names(tmp_path: Path) -> None:
    source = tmp_path / "one-shot.mp4"
    source.write_bytes(b"frames")
    made: list[Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(copy_for_people(source, tmp_path / "out", "walk")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted((tmp_path / "out").iterdir())
    assert len(made) == 8 and all(path.read_bytes() == b"frames" for path in made)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
