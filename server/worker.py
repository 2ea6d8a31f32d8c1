"""The worker: one process per device that renders what is queued, outlives its starter and leaves when idle.

It is exclusive by its device's lock (device.py), which vanishes with the process and is lost by one that stalls; then
the next worker claims what it left. Who starts a worker takes the lock and hands it over, so two never race for it.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamontage.schemas import limits
from dreamontage.schemas.errors import Busy, Cancelled, DreamontageError, RenderFailed
from dreamontage.schemas.job import Job, Progress
from dreamontage.schemas.profile import PLAIN, Switches
from dreamontage.schemas.report import Video

from .device import end_stalled, take_device
from .heartbeat import Heartbeat
from .housekeeping import collect, disk_bytes
from .logs import about, configure
from .store import DeviceLost, StaleAttempt, Studio, new_id
from .store.delivery import copy_for_people, human_name

if TYPE_CHECKING:
    from dreamontage.generator.engines.engine import Engine
    from dreamontage.generator.pipeline import DreaMontagePipeline
    from dreamontage.generator.render import RenderTask

    Load = Callable[[str, Switches], DreaMontagePipeline]
    Render = Callable[[RenderTask, Callable[[str], DreaMontagePipeline], Callable[[Progress], None]], Video]

MODULE = "dreamontage.server.worker"
"""What `ensure_worker` runs; the drill puts a worker with a fast renderer in its place."""
LOG_NAME = "worker.log"
RAY = "ray"
"""A device of this name, or `ray-1`, `ray-2` ..., has its segments rendered on a Ray cluster and delivers here."""
AND = "+"
"""Joins devices that share every window into one: `cuda:0+cuda:1`."""
_LOG_BYTES = 4 * 2**20
_POLL_S = 0.25
_BEGIN_WAIT_S = 5.0
"""So long no living process holds the database's lock; a stalled worker may."""
_PROGRESS_EVERY_S = 0.5

log = logging.getLogger(__name__)
_started: list[subprocess.Popen[bytes]] = []


class Worker:
    """Claims jobs of a studio one after the other and renders them, keeping the model loaded in between.

    `render` and `load` stand in for the generator in tests of the queue.
    """

    def __init__(
        self,
        studio: Studio,
        *,
        device: str = "cpu",
        render: Render | None = None,
        load: Load | None = None,
        idle_unload_s: float = limits.WORKER_IDLE_UNLOAD_S,
        idle_exit_s: float = limits.WORKER_IDLE_EXIT_S,
        heartbeat_s: float = limits.HEARTBEAT_S,
    ) -> None:
        self.studio = studio
        self.device = device
        self.id = ""
        self.lock: int | None = None
        self.idle_unload_s = idle_unload_s
        self.idle_exit_s = idle_exit_s
        self.heartbeat_s = heartbeat_s
        self._render = render
        self._read_model = load or self._from_weights
        self._models: dict[tuple[str, Switches], DreaMontagePipeline] = {}
        self._engines: dict[tuple[str, Switches], Engine] = {}
        self._stop = threading.Event()
        self._heart: Heartbeat

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the worker to leave at its next step; the job in hand is queued again, its finished segments kept."""
        self._stop.set()

    def run(self) -> None:
        """Render until `stop` is called or nothing has been queued for `idle_exit_s`. The caller holds the lock.

        Ends as well when another worker has taken the device, because this one was stalled.
        """
        self.id = new_id("w")
        try:
            self.studio.begin_work(self.id, self.device, os.getpid(), _BEGIN_WAIT_S)
        except Busy:
            end_stalled(self.studio, self.device)
            self.studio.begin_work(self.id, self.device, os.getpid())
        with Heartbeat(self.studio, self.id, self.device, self.lock, self.heartbeat_s) as self._heart:
            try:
                self._work()
            except DeviceLost:
                log.warning("another worker took over %s while this one was stalled", self.device)

    def _work(self) -> None:
        idle_since, tidy = time.monotonic(), False
        while not self._stop.is_set():
            self._heart.now("waiting")
            job = self.studio.claim(self.id, self.device) if self.studio.jobs_wait() else None
            if job is not None:
                with about(montage_id=job.montage_id, job_id=job.id):
                    self._do(job)
                idle_since, tidy = time.monotonic(), False
                continue
            idle_s = time.monotonic() - idle_since
            if not tidy and idle_s >= min(self.idle_unload_s, self.idle_exit_s):
                collect(self.studio)
                tidy = True
            if idle_s >= self.idle_exit_s:
                return
            if self._models and idle_s >= self.idle_unload_s:
                self._unload()
            self._stop.wait(_POLL_S)

    def _do(self, job: Job) -> None:
        """Render one claimed job and record how it ended; a result that was not recorded is removed."""
        log.info("attempt %d begins", job.attempt)
        result = self.studio.video_folder(new_id("v"))
        result.mkdir()
        try:
            ended = self._attempt(job, result)
        except StaleAttempt:
            log.warning("attempt %d was overtaken by another worker", job.attempt)
            shutil.rmtree(result, ignore_errors=True)
        else:
            log.info("attempt %d ends: %s", job.attempt, ended.state)
            if ended.video_id != result.name:
                shutil.rmtree(result, ignore_errors=True)

    def _attempt(self, job: Job, result: Path) -> Job:
        try:
            return self._rendered(job, result)
        except StaleAttempt:
            raise
        except Cancelled:
            if self._stop.is_set():
                return self.studio.release(job.id, job.attempt)
            return self.studio.end_cancelled(job.id, job.attempt)
        except Busy as error:
            log.warning("attempt %d: %s", job.attempt, error)
            return self.studio.retry(job.id, job.attempt, str(error))
        except DreamontageError as error:
            log.warning("failed: %s", error)
            return self.studio.fail(job.id, job.attempt, str(error))
        except Exception as error:
            log.exception("attempt %d broke", job.attempt)
            self._unload()
            what = f"The renderer broke unexpectedly ({type(error).__name__}); details are in {LOG_NAME} in the studio."
            return self.studio.retry(job.id, job.attempt, what)

    def _rendered(self, job: Job, result: Path) -> Job:
        from dreamontage.generator.memory import reset_peak_memory
        from dreamontage.generator.render import RenderTask

        studio = self.studio
        reset_peak_memory()
        montage = studio.get_montage(job.montage_id, job.revision)
        media = {media_id: studio.media(media_id) for media_id in montage.media_ids}
        base, choices = studio.base(montage.id, job.request.quality)
        task = RenderTask(
            montage=montage,
            media=media,
            blobs={media_id: studio.blob_path(media_id) for media_id in media},
            request=job.request,
            base=base,
            takes=studio.takes,
            out=result,
            video_id=result.name,
            choices=choices,
            correction=job.estimate.correction if job.estimate else 1.0,
        )
        studio.require_space()
        switches = job.request.switches or PLAIN
        load = partial(self._load, switches=switches)
        video = (self._render or self._generator_render(switches))(task, load, self._reporter(job))
        name = human_name(montage, job.request.quality)
        try:
            copy = copy_for_people(Path(video.path), studio.out_dir(job.id), name)
        except OSError as error:  # the video itself is safe in the studio
            log.warning("no copy in the out-dir: %s", error)
            return studio.finish(job.id, job.attempt, video, disk_bytes(video, studio.takes))
        video = video.model_copy(update={"delivered": str(copy)})
        try:
            return studio.finish(job.id, job.attempt, video, disk_bytes(video, studio.takes))
        except BaseException:
            copy.unlink()
            raise

    def _reporter(self, job: Job) -> Callable[[Progress], None]:
        """Progress to the database at most twice a second, at once for a new stage or segment.

        Whether the job is still wanted is looked up every time, so that a cancel waits for one step at most. Raises
        Cancelled, StaleAttempt.
        """
        last: tuple[str, int] = ("", -1)
        next_at = 0.0

        def report(progress: Progress) -> None:
            nonlocal last, next_at
            if self._stop.is_set():
                raise Cancelled("the worker was asked to stop")
            now, key = time.monotonic(), (progress.stage, progress.segments_done)
            if key == last and now < next_at:
                self.studio.require_wanted(job.id, job.attempt)
                return
            last, next_at = key, now + _PROGRESS_EVERY_S
            self.studio.progress(job.id, job.attempt, progress)
            self._heart.now(f"{job.id} {progress.stage}")

        report(Progress(stage="loading"))
        return report

    def _load(self, model_id: str, switches: Switches) -> DreaMontagePipeline:
        """The model under these switches, loaded once; another one, or other switches, take its place."""
        if (model_id, switches) not in self._models:
            self._unload()
            self._models[model_id, switches] = self._read_model(model_id, switches)
        return self._models[model_id, switches]

    def _from_weights(self, model_id: str, switches: Switches) -> Any:
        import torch

        from dreamontage.generator.models.catalogue import card
        from dreamontage.generator.models.delivering import load_deliverer
        from dreamontage.generator.models.loading import load_model

        torch.set_num_threads(_cores())
        if self.device.startswith(RAY):
            return load_deliverer(model_id, switches=switches)
        first, *others = self.device.split(AND)
        if others and card(model_id).family != "nano":
            return load_deliverer(model_id, first, switches)
        return load_model(model_id, first, switches)

    def _generator_render(self, switches: Switches) -> Render:
        from dreamontage.generator.render import render

        if self.device.startswith(RAY):
            return partial(render, engine=partial(_cluster, switches=switches))
        return partial(render, engine=partial(self._sharing, switches=switches)) if AND in self.device else render

    def _sharing(self, model_id: str, switches: Switches) -> Engine:
        """What renders on all of several devices, kept as the model is; nano is small and renders on the first."""
        from dreamontage.generator.engines.engine import InProcess
        from dreamontage.generator.engines.parallel import ParallelEngine

        model = self._load(model_id, switches)
        if model.card.family == "nano":
            return InProcess(model)
        if (model_id, switches) not in self._engines:
            self._engines[model_id, switches] = ParallelEngine(model, self.device.split(AND), switches)
        return self._engines[model_id, switches]

    def _unload(self) -> None:
        from dreamontage.generator.memory import give_back_memory

        self._engines.clear()
        self._models.clear()
        give_back_memory()


def devices() -> list[str]:
    """What this machine renders on: what DREAMONTAGE_DEVICES lists (`cuda:0,cuda:1`; `cuda:0+cuda:1` is one
    whose GPUs share every window), else its GPUs, else the CPU."""
    from dreamontage.generator.models.catalogue import gpus

    named = [name.strip() for name in os.environ.get("DREAMONTAGE_DEVICES", "").split(",")]
    found = [f"cuda:{number}" for number in range(len(gpus()))]
    return list(dict.fromkeys(filter(None, named))) or found or ["cpu"]


def ensure_worker(studio: Studio) -> bool:
    """Start a worker on every device of `devices` if jobs wait and no living worker holds the device's lock; returns
    whether one was started.

    A worker runs in its own session, so that it outlives this process, and logs to worker.log in the studio.
    """
    _started[:] = [process for process in _started if process.poll() is None]
    return studio.jobs_wait() and any([_start(studio, device) for device in devices()])


def _start(studio: Studio, device: str) -> bool:
    lock = take_device(studio, device)
    if lock is None:
        return False
    log_file = studio.folder / LOG_NAME
    fresh = not log_file.exists() or log_file.stat().st_size > _LOG_BYTES
    command = [sys.executable, "-P", "-m", MODULE]
    try:
        with log_file.open("wb" if fresh else "ab") as output:
            process = subprocess.Popen(
                [*command, "--studio", str(studio.folder), "--device", device, "--lock", str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=studio.folder,
                pass_fds=(lock,),
                start_new_session=True,
            )
    finally:
        os.close(lock)  # the child's inherited descriptor keeps the lock
    _started.append(process)
    return True


def run_exclusively(worker: Worker, lock: int | None = None) -> bool:
    """Run a worker while it holds its device's lock, `lock` if it was inherited; False if another worker holds it.

    SIGTERM and SIGINT make it leave cleanly.
    """
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    signal.signal(signal.SIGINT, lambda *_: worker.stop())
    ran = False
    while True:
        held = lock if lock is not None else take_device(worker.studio, worker.device)
        if held is None:
            return ran
        lock, ran, worker.lock = None, True, held
        worker.run()
        os.close(held)
        # A job queued while the lock was still held started no worker: look once more after letting go.
        if worker.stopping or not worker.studio.jobs_wait():
            return ran


def _cluster(model_id: str, switches: Switches) -> Engine:
    from dreamontage.generator.models.catalogue import weights_hash

    try:
        from dreamontage.generator.engines.ray_engine import RayEngine
    except ImportError as error:
        raise RenderFailed(
            "rendering on a Ray cluster needs Ray, which is not installed here",
            next_call="pip install 'dreamontage[ray]', or leave DREAMONTAGE_DEVICES unset",
        ) from error
    return RayEngine(model_id, weights_hash(model_id), switches)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(make: Callable[..., Worker] = Worker) -> None:
    """Run a worker on a studio: python -m dreamontage.server.worker --studio DIR."""
    parser = argparse.ArgumentParser(prog="dreamontage-worker", description="Renders what is queued in a studio.")
    parser.add_argument("--studio", type=Path, help="the studio's folder; default: the user's studio")
    parser.add_argument(
        "--device", default="cpu", help="cpu, another torch device, several (cuda:0+cuda:1), or ray (ray-1, ray-2 ...)"
    )
    parser.add_argument("--lock", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure()
    if arguments.lock is not None:
        os.set_inheritable(arguments.lock, False)
    with Studio(arguments.studio) as studio:
        if not run_exclusively(make(studio, device=arguments.device), arguments.lock):
            log.info("another worker is at work on %s", arguments.device)


if __name__ == "__main__":
    main()
