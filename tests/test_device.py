"""The lock of a device: exclusive, gone with its holder, and lost by a holder that gives no sign of life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import slow_renderer

from dreamontage.generator.render import RenderTask
from dreamontage.schemas.errors import Busy
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.server.device import keep_device, take_device
from dreamontage.server.store import Studio, new_id
from dreamontage.server.worker import Worker


def silence(studio: Studio, seconds: float = 3600) -> None:
    """Make the holder's last sign of life older."""
    at = time.time() - seconds
    os.utime(studio.folder / "worker-cpu.lock", (at, at))


def test_one_holder_at_a_time_and_the_lock_goes_with_it(studio: Studio) -> None:
    held = take_device(studio, "cpu")
    assert held is not None and take_device(studio, "cpu") is None
    other = take_device(studio, "cuda:0")
    assert other is not None
    os.close(held)
    again = take_device(studio, "cpu")
    assert again is not None
    os.close(again)
    os.close(other)


def test_a_silent_holder_loses_its_place_to_one_successor(studio: Studio) -> None:
    stalled = take_device(studio, "cpu")
    assert stalled is not None
    silence(studio, studio.stale_after_s / 2)
    assert take_device(studio, "cpu") is None
    silence(studio)
    successors: list[int | None] = []
    threads = [threading.Thread(target=lambda: successors.append(take_device(studio, "cpu"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (successor,) = [held for held in successors if held is not None]
    silence(studio, studio.stale_after_s / 2)
    keep_device(stalled)  # it wakes up, and touches a file that nobody looks at
    assert time.time() - (studio.folder / "worker-cpu.lock").stat().st_mtime >= studio.stale_after_s / 2
    os.close(stalled)
    assert take_device(studio, "cpu") is None  # the successor's place is its own
    os.close(successor)
    assert [path.name for path in studio.folder.glob(".worker*")] == []


def test_a_worker_at_work_gives_signs_of_life_however_long_a_step_takes(studio: Studio) -> None:
    held = take_device(studio, "cpu")
    assert held is not None
    silence(studio)
    seen = threading.Event()

    def render(task: RenderTask, load: object, on_progress: object) -> object:
        path = studio.folder / "worker-cpu.lock"
        silence(studio)
        deadline = time.monotonic() + 30
        while time.time() - path.stat().st_mtime > 60 and time.monotonic() < deadline:
            threading.Event().wait(0.01)  # one long step: no progress is reported
        seen.set()
        raise RuntimeError("enough")

    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=2))
    job = studio.enqueue(montage, RenderRequest(), None)
    worker = Worker(studio, render=render, idle_exit_s=0, heartbeat_s=0.02)  # type: ignore[arg-type]
    worker.lock = held
    worker.run()
    os.close(held)
    assert seen.is_set() and studio.job(job.id).state == "failed"
    assert time.time() - (studio.folder / "worker-cpu.lock").stat().st_mtime < 60


def test_a_worker_that_wakes_up_after_another_took_over_writes_nothing_and_leaves(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=2))
    job = studio.enqueue(montage, RenderRequest(), None)
    slow_renderer.open_gates(studio, slow_renderer.SEGMENTS)

    def render(task: RenderTask, load: object, on_progress: object) -> object:
        studio.begin_work("w_successor", "cpu", 1)  # while this one is stopped
        taken = studio.claim("w_successor")
        assert taken is not None and (taken.id, taken.attempt) == (job.id, 2)
        return slow_renderer.render(task, load, on_progress)  # type: ignore[arg-type]

    Worker(studio, render=render, idle_exit_s=3600).run()  # type: ignore[arg-type]
    assert (studio.job(job.id).state, studio.job(job.id).attempt) == ("running", 2)
    assert studio.videos() == [] and list((studio.folder / "videos").iterdir()) == []
    assert "overtaken" in caplog.text and "took over cpu" in caplog.text


def test_a_studio_that_is_opened_by_a_link_has_the_same_lock(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(studio.folder)
    with Studio(tmp_path / "link") as linked:
        held = take_device(studio, "cpu")
        assert held is not None and take_device(linked, "cpu") is None
        os.close(held)


STALLED_INSIDE_A_TRANSACTION = """
import os, signal, sys
from dreamontage.server.store import Studio
with Studio(sys.argv[1]) as studio:
    studio.begin_work("w_stalled", "cpu", os.getpid())
    with studio.db.write() as connection:
        connection.execute("UPDATE worker SET heartbeat_at = 0")
        connection.commit()
        connection.execute("BEGIN IMMEDIATE")
        os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_worker_that_stalled_inside_a_transaction_is_killed_because_it_would_hold_up_everybody(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamontage.server.worker._BEGIN_WAIT_S", 0.1)
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=2))
    job = studio.enqueue(montage, RenderRequest(), None)
    slow_renderer.open_gates(studio, slow_renderer.SEGMENTS)
    stalled = subprocess.Popen([sys.executable, "-c", STALLED_INSIDE_A_TRANSACTION, str(studio.folder)])
    os.waitid(os.P_PID, stalled.pid, os.WSTOPPED | os.WNOWAIT)
    with pytest.raises(Busy), studio.db.write(0.1):
        pass
    Worker(studio, render=slow_renderer.render, idle_exit_s=0).run()
    assert stalled.wait(10) == -signal.SIGKILL
    assert studio.job(job.id).state == "done"
