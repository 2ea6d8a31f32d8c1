"""A stand-in for the generator, for tests of the queue only: it renders a segment when its gate is opened.

A montage's brief says how it behaves: "breaks" and "refuses" raise; anything else renders SEGMENTS segments, each kept
as a take. Run as a script it is a real worker process: slow_renderer.py STUDIO [IDLE_EXIT_S].
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable

from dreamontage.generator.render import RenderTask
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import Progress
from dreamontage.schemas.report import Report, Timing, Video
from dreamontage.server.logs import configure
from dreamontage.server.store import Studio
from dreamontage.server.worker import Worker, run_exclusively

SEGMENTS = 4
HELD_BY_ANOTHER = 3
"""Exit status of a worker process that found the device taken."""


def blank_report(duration_s: float) -> Report:
    """A report that measured nothing, of a shot of 49 frames."""
    return Report(
        requested_duration_s=duration_s,
        duration_s=49 / 24,
        fps=24,
        frames=49,
        width=256,
        height=144,
        model="nano",
        seed=0,
        segments=[],
        anchors=[],
        intervals=[],
        seams=[],
        cuts=[],
        notes=[],
        timing=Timing(encode_s=0, denoise_s=0, decode_s=0, total_s=0),
        peak_memory_bytes=1,
    )


def open_gates(studio: Studio, segments: int) -> None:
    """Let the renderers of this studio do their first `segments` segments."""
    part = studio.folder / "gates.new"
    part.write_text(str(segments))
    part.rename(studio.folder / "gates")


def rendered(studio: Studio) -> list[str]:
    """Every segment that was really rendered, in order, by whichever process."""
    path = studio.takes / "rendered.txt"
    return path.read_text().split() if path.exists() else []


def render(task: RenderTask, load_pipeline: object, on_progress: Callable[[Progress], None]) -> Video:
    """Keep the renderer's contract: takes are reused, progress at every step, the result in `task.out`."""
    if task.montage.brief == "breaks":
        raise RuntimeError("a secret in a traceback")
    if task.montage.brief == "refuses":
        raise InvalidInput("this cannot be rendered", next_call="plan_montage()")
    gates = task.takes.parent / "gates"
    for segment in range(SEGMENTS):
        take = task.takes / f"{task.montage.id}-{task.request.seed}-{segment}"
        while not take.exists():
            on_progress(Progress(stage="denoising", done=segment, total=SEGMENTS, segments_done=segment))
            if gates.exists() and int(gates.read_text()) > segment:
                with (task.takes / "rendered.txt").open("a") as file:
                    file.write(f"{segment}\n")
                take.touch()
            else:
                threading.Event().wait(0.02)
        on_progress(Progress(stage="denoising", done=segment + 1, total=SEGMENTS, segments_done=segment + 1))
    return delivered(task)


def delivered(task: RenderTask) -> Video:
    """A video of six bytes where a renderer puts it."""
    (task.out / "one-shot.mp4").write_bytes(b"frames")
    (task.out / "sheet.jpg").write_bytes(b"sheet")
    report = blank_report(task.montage.duration_s)
    return Video(
        id=task.video_id,
        montage_id=task.montage.id,
        revision=task.montage.revision,
        quality=task.request.quality,
        path=str(task.out / "one-shot.mp4"),
        sheet=str(task.out / "sheet.jpg"),
        report=report,
        bytes=6,
        sha256=hashlib.sha256(b"frames").hexdigest(),
    )


if __name__ == "__main__":
    configure()
    idle_exit_s = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with Studio(sys.argv[1]) as studio:
        ran = run_exclusively(Worker(studio, render=render, idle_exit_s=idle_exit_s))
    sys.exit(0 if ran else HELD_BY_ANOTHER)
