"""The queue: every job is done once, whatever happens to the workers that claim it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from slow_renderer import blank_report

from dreamontage.schemas import limits
from dreamontage.schemas.errors import Cancelled, NotFound
from dreamontage.schemas.job import Job, Progress, RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Video
from dreamontage.server.store import StaleAttempt, Studio, new_id


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path / "studio", tmp_path / "out") as opened:
        for worker in ("w_1", "w_2", "w_3", "w_4"):
            opened.heartbeat(worker, "cpu", 1, "waiting")
        yield opened


@pytest.fixture
def montage(studio: Studio) -> Montage:
    return studio.create_montage(Montage(id=new_id("m"), duration_s=2))


def video_of(job: Job, video_id: str = "v_1") -> Video:
    report = blank_report(2)
    return Video(
        id=video_id,
        montage_id=job.montage_id,
        revision=job.revision,
        quality=job.request.quality,
        path="one-shot.mp4",
        sheet="sheet.jpg",
        report=report,
        bytes=1,
        sha256="0",
    )


def claimed(studio: Studio, worker: str = "w_1") -> Job:
    job = studio.claim(worker)
    assert job is not None
    return job


def test_a_job_runs_from_queued_to_done_with_its_video(studio: Studio, montage: Montage) -> None:
    queued = studio.enqueue(montage, RenderRequest(seed=7), None)
    assert (queued.state, queued.revision, queued.request.seed) == ("queued", 1, 7)
    assert studio.jobs_wait()
    running = claimed(studio)
    assert (running.id, running.state, running.attempt) == (queued.id, "running", 1)
    studio.progress(running.id, 1, Progress(stage="denoising", done=3, total=8, segments_done=1, segments_total=2))
    assert studio.job(running.id).progress.done == 3
    done = studio.finish(running.id, 1, video_of(running))
    assert (done.state, done.video_id, done.progress.stage, done.progress.done) == ("done", "v_1", "done", 8)
    assert studio.video("v_1") == studio.latest_video(montage.id, "draft") == video_of(running)
    assert studio.latest_video(montage.id, "standard") is None
    assert studio.videos(montage.id) == studio.videos() == [video_of(running)]
    assert not studio.jobs_wait()
    assert [event.op for event in studio.events(montage.id)] == [
        "create",
        "job.queued",
        "job.claimed",
        "add_video",
        "job.done",
    ]


def test_the_same_request_is_the_same_job_while_it_waits_or_runs(studio: Studio, montage: Montage) -> None:
    first = studio.enqueue(montage, RenderRequest(), None)
    assert studio.enqueue(montage, RenderRequest(), None) == first
    assert studio.enqueue(montage, RenderRequest(seed=1), None).id != first.id
    assert claimed(studio).id == studio.enqueue(montage, RenderRequest(), None).id
    studio.fail(first.id, 1, "no")
    assert studio.enqueue(montage, RenderRequest(), None).id != first.id


def test_each_job_is_claimed_once_and_the_oldest_first(studio: Studio, montage: Montage) -> None:
    queued = [studio.enqueue(montage, RenderRequest(seed=seed), None).id for seed in range(12)]
    got: dict[str, list[str]] = {f"w_{number}": [] for number in range(1, 5)}
    for worker in got:  # one lock per device: workers that are alive at the same time are on different devices
        studio.heartbeat(worker, worker, 1, "waiting")

    def work(worker: str) -> None:
        while (job := studio.claim(worker, device=worker)) is not None:
            got[worker].append(job.id)

    with studio.db.write() as connection:
        connection.execute("UPDATE worker SET device = id")
    threads = [threading.Thread(target=work, args=(worker,)) for worker in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job for jobs in got.values() for job in jobs) == sorted(queued)
    assert all(jobs == sorted(jobs, key=queued.index) for jobs in got.values())


def test_a_stale_attempt_cannot_overwrite_what_its_successor_does(studio: Studio, montage: Montage) -> None:
    studio.enqueue(montage, RenderRequest(), None)
    old = claimed(studio, "w_1")
    new = claimed(studio, "w_2")  # it holds the device's lock now, so w_1 is gone or stalled
    assert (new.id, new.attempt) == (old.id, 2)
    before = studio.job(new.id)
    writes: list[Callable[[str, int], object]] = [
        partial(studio.progress, progress=Progress(done=9)),
        partial(studio.finish, video=video_of(old, "v_old")),
        partial(studio.fail, error="late"),
        partial(studio.retry, error="late"),
        studio.release,
        studio.end_cancelled,
    ]
    for write in writes:
        with pytest.raises(StaleAttempt):
            write(old.id, old.attempt)
    assert studio.job(new.id) == before
    with pytest.raises(NotFound):
        studio.video("v_old")
    assert studio.finish(new.id, new.attempt, video_of(new)).state == "done"
    with pytest.raises(StaleAttempt):  # nor after the end
        studio.fail(new.id, new.attempt, "late")


def test_three_attempts_without_a_new_take_fail_the_job_with_the_reason(studio: Studio, montage: Montage) -> None:
    studio.enqueue(montage, RenderRequest(), None)
    for attempt in (1, 2):
        assert studio.retry(claimed(studio).id, attempt, "The disk made a noise.").state == "queued"
    failed = studio.retry(claimed(studio).id, 3, "The disk made a noise.")
    assert failed.state == "failed" and failed.error is not None
    assert "3 attempts" in failed.error and "made a noise" in failed.error and "render_segments" in failed.error


def test_a_job_whose_workers_were_killed_three_times_fails(studio: Studio, montage: Montage) -> None:
    job = studio.enqueue(montage, RenderRequest(), None)
    assert [claimed(studio, f"w_{number}").attempt for number in (1, 2, 3)] == [1, 2, 3]
    assert studio.claim("w_4") is None
    failed = studio.job(job.id)
    assert failed.state == "failed" and failed.error is not None and "killed" in failed.error


def test_a_new_take_makes_further_attempts_worth_while_and_a_repeated_one_does_not(
    studio: Studio, montage: Montage
) -> None:
    job = studio.enqueue(montage, RenderRequest(), None)
    for attempt in range(1, 6):  # each attempt gets one segment further than all before
        claimed(studio)
        studio.progress(job.id, attempt, Progress(segments_done=attempt))
        assert studio.retry(job.id, attempt, "again").state == "queued"
    for attempt in (6, 7):
        claimed(studio)
        studio.progress(job.id, attempt, Progress(segments_done=5))
        assert studio.retry(job.id, attempt, "again").state == "queued"
    claimed(studio)
    assert studio.retry(job.id, 8, "again").state == "failed"


def test_a_released_attempt_is_not_held_against_the_job(studio: Studio, montage: Montage) -> None:
    studio.enqueue(montage, RenderRequest(), None)
    for attempt in range(1, limits.MAX_ATTEMPTS_WITHOUT_TAKE + 3):
        job = claimed(studio)
        assert job.attempt == attempt
        assert studio.release(job.id, attempt).state == "queued"


def test_cancel_ends_a_queued_job_at_once_and_a_running_one_at_its_next_step(studio: Studio, montage: Montage) -> None:
    queued = studio.enqueue(montage, RenderRequest(), None)
    assert studio.cancel(queued.id).state == "cancelled"
    assert studio.claim("w_1") is None
    running = studio.enqueue(montage, RenderRequest(), None)
    claimed(studio)
    assert studio.cancel(running.id).state == "running"
    with pytest.raises(Cancelled):
        studio.progress(running.id, 1, Progress())
    assert studio.end_cancelled(running.id, 1).state == "cancelled"
    events = studio.events()
    assert studio.cancel(running.id).state == "cancelled"  # again: no effect
    assert studio.events() == events


def test_a_cancelled_job_whose_worker_died_is_not_rendered_again(studio: Studio, montage: Montage) -> None:
    job = studio.enqueue(montage, RenderRequest(), None)
    claimed(studio, "w_1")
    studio.cancel(job.id)
    assert studio.claim("w_2") is None
    assert studio.job(job.id).state == "cancelled"


def test_a_running_job_of_another_device_is_taken_over_only_when_its_worker_is_silent(
    studio: Studio, montage: Montage
) -> None:
    studio.heartbeat("w_gpu", "cuda", 1, "waiting")
    studio.enqueue(montage, RenderRequest(), None)
    assert studio.claim("w_gpu", device="cuda") is not None
    assert studio.claim("w_1") is None
    with studio.db.write() as connection:
        connection.execute("UPDATE worker SET heartbeat_at = ? WHERE id = 'w_gpu'", (time.time() - 3600,))
    assert claimed(studio).attempt == 2


def test_jobs_are_listed_newest_first_by_montage_and_state(studio: Studio, montage: Montage) -> None:
    other = studio.create_montage(Montage(id=new_id("m"), duration_s=1))
    first, second = (studio.enqueue(montage, RenderRequest(seed=seed), None) for seed in (1, 2))
    third = studio.enqueue(other, RenderRequest(), None)
    studio.cancel(first.id)
    assert [job.id for job in studio.jobs()] == [third.id, second.id, first.id]
    assert [job.id for job in studio.jobs(montage.id)] == [second.id, first.id]
    assert [job.id for job in studio.jobs(montage.id, states=["cancelled", "failed"])] == [first.id]
    assert [job.id for job in studio.jobs(limit=1)] == [third.id]


def test_wait_answers_when_the_job_ends_or_the_time_is_up(studio: Studio, montage: Montage) -> None:
    job = studio.enqueue(montage, RenderRequest(), None)

    async def waiting() -> None:
        assert (await studio.wait(job.id, 0)).state == "queued"
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(ends_while_another_waits)
                studio.cancel(job.id)
        with pytest.raises(NotFound):
            await studio.wait("j_0", 1)

    async def ends_while_another_waits() -> None:
        assert (await studio.wait(job.id, 60)).state == "cancelled"

    anyio.run(waiting)
