"""`dreamontage render`: one shot into a folder. The job goes through the studio's queue like any agent's."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from dreamontage.generator.files import replacing
from dreamontage.generator.machine import fit_of, pinned
from dreamontage.schemas.errors import Cancelled, InvalidInput, RenderFailed
from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Beat
from dreamontage.schemas.report import Video

from .answers import describe_anchors, describe_outlook, reused, verdict
from .arguments import AnchorSpec
from .context import App
from .media.roots import media_roots
from .outlook import look_ahead, outlook_of, plan_answer, require_room
from .store import Studio
from .store.jobs import FINAL
from .tools.planning import compose
from .worker import ensure_worker

FILES = ("one-shot.mp4", "sheet.jpg", "report.json")
_NUMBER = r"-?\d+(?:\.\d+)?"
_ANCHOR = re.compile(rf"(?P<path>.+)@(?P<second>{_NUMBER})(?:#(?P<in_s>{_NUMBER})-(?P<out_s>{_NUMBER}))?", re.DOTALL)
_BEAT = re.compile(rf"\s*(?P<start_s>{_NUMBER})\s*-\s*(?P<end_s>{_NUMBER})\s*:\s*(?P<prompt>.+)", re.DOTALL)
_POLL_S = 0.25


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line, as it was typed."""

    anchors: list[str]
    beats: list[str] = field(default_factory=list)
    duration_s: float | None = None
    quality: str = "draft"
    format: str = "auto"
    fps: int = 24
    model: str = "auto"
    seed: int = 0
    steps: int | None = None
    guide: str | None = None
    brief: str = ""


def parse_anchor(text: str) -> AnchorSpec:
    """FILE[@SECOND[#IN-OUT]], split at the last @ that a number follows. Raises pydantic's ValidationError."""
    found = _ANCHOR.fullmatch(text)
    parts: dict[str, Any] = found.groupdict() if found else {"path": text}
    path = str(Path(parts.pop("path")).expanduser().absolute())
    return AnchorSpec.model_validate({"source": path} | {k: v for k, v in parts.items() if v is not None})


def parse_beat(text: str) -> Beat:
    """ "START-END: words", such as "0-4: slow pan left". Raises InvalidInput, or pydantic's ValidationError."""
    found = _BEAT.fullmatch(text)
    if found is None:
        raise InvalidInput(
            f"{text[:80]!r} is no beat", field="--beat", allowed='"START-END: words", as "0-4: slow pan left"'
        )
    return Beat.model_validate(found.groupdict())


def render_to_folder(wish: Wish, out: Path, studio_folder: Path | None) -> Video:
    """Plan, queue, wait with a live bar, write the three files whole. Raises DreamontageError or ValidationError."""
    console = Console(stderr=True)
    specs = [parse_anchor(text) for text in wish.anchors]
    beats = [parse_beat(text) for text in wish.beats]
    settings = RenderSettings.model_validate({"steps": wish.steps, "guide": wish.guide})
    request = RenderRequest.model_validate({"quality": wish.quality, "settings": settings})
    out.mkdir(parents=True, exist_ok=True)
    # The files go to `out` under fixed names, so the worker's copy for people stays in the studio.
    with Studio(studio_folder) as studio:
        studio.out = studio.folder / "exports"
        folders = [Path(str(spec.source)).parent for spec in specs]
        app = App(studio, media_roots(studio.inbox, folders))
        montage, notes = compose(
            app, specs, beats, brief=wish.brief, duration_s=wish.duration_s, form=_choice(wish.format), fps=wish.fps,
            model=wish.model, seed=wish.seed,
        )  # fmt: skip
        found = fit_of(montage, request.quality)
        require_room(montage, request.quality, found)
        request = pinned(montage, request, found)
        plan, decisions, cost = look_ahead(app, montage, request)
        montage = studio.create_montage(montage)
        answer = plan_answer(app, montage, request.quality)
        console.print(f"{montage.id}: {plan.duration_s:.2f} s, {describe_anchors(answer.anchors)}", highlight=False)
        console.print(describe_outlook(outlook_of(request.quality, decisions, cost)), highlight=False)
        for note in [*notes, *plan.warnings]:
            console.print(note, style="yellow", highlight=False)
        job = studio.enqueue(montage, request, cost)
        video = follow(studio, job, console)
        deliver(video, out)
    rendered, kept = reused(video)
    console.print(verdict(video.report), style="bold", highlight=False)
    console.print(
        f"{out / FILES[0]} ({video.bytes / 1e6:.1f} MB; {rendered} segments rendered, {kept} reused)", highlight=False
    )
    return video


def follow(studio: Studio, job: Job, console: Console) -> Video:
    """Show a job's progress until it ends. Ctrl-C cancels it. Raises Cancelled or RenderFailed."""
    columns = (
        TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("queued", total=1.0, left="")
        try:
            job = _watch(studio, job, lambda now: _show(bars, bar, now))
        except KeyboardInterrupt:
            studio.cancel(job.id)
            raise Cancelled(f"{job.id} was cancelled; finished segments are kept") from None
    if job.state != "done" or job.video_id is None:
        raise RenderFailed(job.error or f"{job.id} was {job.state}")
    return studio.video(job.video_id)


def deliver(video: Video, out: Path, names: tuple[str, str, str] = FILES) -> None:
    """Copy a video's three files into a folder, each whole or not at all. Raises StudioFull."""
    out.mkdir(parents=True, exist_ok=True)
    report = Path(video.path).with_name("report.json")
    for source, name in zip((Path(video.path), Path(video.sheet), report), names, strict=True):
        with replacing(out / name) as temporary:
            shutil.copyfile(source, temporary)


def _watch(studio: Studio, job: Job, show: Callable[[Job], None]) -> Job:
    while True:
        ensure_worker(studio)
        job = studio.job(job.id)
        show(job)
        if job.state in FINAL:
            return job
        time.sleep(_POLL_S)


def _show(bars: Progress, bar: Any, job: Job) -> None:
    now = job.progress
    left = f"about {now.seconds_left:.0f} s left" if now.seconds_left and job.state == "running" else ""
    total = max(now.total, now.done, 1e-9)
    bars.update(
        bar, description=now.stage if job.state == "running" else job.state, completed=now.done, total=total, left=left
    )


def _choice(text: str) -> Any:
    if text not in ("auto", "16:9", "9:16", "1:1"):
        raise InvalidInput(f"{text!r} is no format", field="--format", allowed="auto, 16:9, 9:16, 1:1")
    return text
