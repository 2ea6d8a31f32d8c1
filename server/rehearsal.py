"""The processes of the crash drill: real servers and real workers, but for a renderer that makes no pictures.

Only `dreamontage drill` starts them, on a studio of its own. What it drills is everything around the renderer: the
queue, the lock, the attempts, the files and the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dreamontage.generator.files import write_whole
from dreamontage.generator.render import RenderTask
from dreamontage.schemas.job import Progress
from dreamontage.schemas.report import Report, SegmentReport, Timing, Video, VideoSegment

from . import worker
from .store import Studio

MODULE = "dreamontage.server.rehearsal"
SEGMENTS, STEPS, STEP_S = 4, 4, 0.03
HEARTBEAT_S, STALE_S = 0.25, 3.0
LEDGER = "begun.log"
"""One line for every segment that a worker began to render, in the folder of takes."""


def rehearse(task: RenderTask, load_pipeline: object, on_progress: Callable[[Progress], None]) -> Video:
    """Keep the renderer's contract: takes that are there are reused, new ones kept whole, progress at every step."""
    reports, segments = [], []
    for index in range(SEGMENTS):
        name = f"{task.montage.id} {task.montage.revision} {task.request.seed} {index}"
        take = hashlib.sha256(name.encode()).hexdigest()
        sidecar = task.takes / f"{take}.json"
        reused = sidecar.exists()
        _tell(on_progress, "denoising", index, 0)
        if not reused:
            with (task.takes / LEDGER).open("a") as ledger:
                ledger.write(f"{take}\n")
            for step in range(STEPS):
                time.sleep(STEP_S)
                _tell(on_progress, "denoising", index, step + 1)
            write_whole(sidecar.with_suffix(".safetensors"), name.encode())
            write_whole(sidecar, json.dumps({"sha256": take, "info": {}}).encode())
        reports.append(
            SegmentReport(start_s=index, end_s=index + 1, seam="start", seed=0, fingerprint=take, reused=reused)
        )
        segments.append(
            VideoSegment(
                start=index, stop=index + 1, window_start=index, seam="start", seed=0, recipe=take, fingerprint=take
            )
        )
        _tell(on_progress, "denoising", index + 1, 0)
    _tell(on_progress, "decoding", SEGMENTS, 0)
    return _video(task, reports, segments)


def main() -> None:
    """`serve STUDIO NAME`: an MCP server on stdio whose workers rehearse; otherwise such a worker."""
    if sys.argv[1:2] != ["serve"]:
        worker.main(_rehearsing)
        return
    from .app import build_server

    folder, name = Path(sys.argv[2]), sys.argv[3]
    pid_file(folder, name).write_text(str(os.getpid()))
    worker.MODULE = MODULE
    with Studio(folder, folder / "out") as studio:
        studio.stale_after_s = STALE_S
        build_server(studio).run("stdio")


def pid_file(folder: Path, name: str) -> Path:
    """Where a rehearsing server leaves the number of its process."""
    return folder / f"{name}.pid"


def _rehearsing(studio: Studio, *, device: str) -> worker.Worker:
    studio.stale_after_s = STALE_S
    return worker.Worker(studio, device=device, render=rehearse, heartbeat_s=HEARTBEAT_S, idle_exit_s=STALE_S)


def _tell(on_progress: Callable[[Progress], None], stage: str, segments: int, steps: int) -> None:
    done, total = segments * STEPS + steps, SEGMENTS * STEPS
    on_progress(Progress(stage=stage, done=done, total=total, segments_done=segments, segments_total=SEGMENTS))


def _video(task: RenderTask, reports: list[SegmentReport], segments: list[VideoSegment]) -> Video:
    shape = task.montage.format
    report = Report(
        requested_duration_s=SEGMENTS, duration_s=SEGMENTS, fps=shape.fps, frames=SEGMENTS * shape.fps,
        width=shape.width, height=shape.height, model="rehearsal", seed=task.montage.seed, segments=reports,
        anchors=[], intervals=[], seams=[], cuts=[], notes=[],
        timing=Timing(encode_s=0, denoise_s=0, decode_s=0, total_s=0), peak_memory_bytes=0,
    )  # fmt: skip
    frames = task.video_id.encode()
    for name, content in {
        "one-shot.mp4": frames, "sheet.jpg": frames, "report.json": report.model_dump_json().encode(),
    }.items():  # fmt: skip
        write_whole(task.out / name, content)
    return Video(
        id=task.video_id, montage_id=task.montage.id, revision=task.montage.revision, quality=task.request.quality,
        path=str(task.out / "one-shot.mp4"), sheet=str(task.out / "sheet.jpg"), report=report, segments=segments,
        bytes=len(frames), sha256=hashlib.sha256(frames).hexdigest(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
