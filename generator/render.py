"""One job: a montage in, a video with its report out. Takes are saved as they are finished, so a job resumes.

Importing this module imports no torch; rendering with a model does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamontage.generator.delivery import SHEET_NAME, VIDEO_NAME, Delivery, deliver
from dreamontage.generator.fingerprint import Decision, decide, resolve_settings
from dreamontage.generator.fit import fitted
from dreamontage.generator.frames import load_clip, load_still
from dreamontage.generator.machine import pace_of
from dreamontage.generator.metering import Meter, foreseen_by, meter_of, steps_of
from dreamontage.generator.models import catalogue
from dreamontage.generator.native import at_native
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.errors import RenderFailed
from dreamontage.schemas.job import Progress, RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import PlacedAnchor, Plan
from dreamontage.schemas.report import EstimateReport, Report, SegmentReport, TakeChoice, Video, VideoSegment

if TYPE_CHECKING:
    from dreamontage.generator.engines.engine import Engine
    from dreamontage.generator.pipeline import DreaMontagePipeline
    from dreamontage.generator.sar import Rendered


@dataclass(frozen=True)
class RenderTask:
    """All that a job needs: the montage as pinned, its media and their files, what was asked, and where things go.

    `base` is the earlier video whose takes are kept, `choices` the takes that were chosen since, oldest first;
    `correction`: seconds measured ÷ estimated, as earlier videos taught.
    """

    montage: Montage
    media: Mapping[str, Media]
    blobs: Mapping[str, Path]
    request: RenderRequest
    base: Video | None
    takes: Path
    out: Path
    video_id: str
    choices: Sequence[TakeChoice] = ()
    correction: float = 1.0


def render(
    task: RenderTask,
    load_pipeline: Callable[[str], DreaMontagePipeline],
    on_progress: Callable[[Progress], None],
    engine: Callable[[str], Engine] | None = None,
) -> Video:
    """Render a montage: load anchors, decide, render the takes that are missing, deliver.

    Alternatives are delivered as further videos, in folders `take-2` and so on beside the first one's files.
    `on_progress` is called at least once per denoising step and delivered chunk; what it raises (Cancelled) ends the
    job between two steps, with all finished takes kept. `engine` gives what renders the segments of a model, and is
    called when there is something to render; by default they are rendered in this process. Raises DreamontageError
    subclasses.
    """
    began = time.perf_counter()
    card = fitted(catalogue.card(task.montage.model), task.request)
    card.check(task.request.settings.model_dump(exclude_none=True))
    plan = plan_montage(task.montage, task.media, card, task.request.quality)
    task = replace(task, montage=at_native(task.montage, card, task.request.quality))
    on_progress(Progress(stage="loading", segments_total=len(plan.segments)))
    anchors = load_anchors(plan, task)
    size = (plan.format.width, plan.format.height)
    previz = Previz(anchors, previz_beats(task.montage), plan.frames, size, plan.format.fps)
    if task.request.quality == "previz":
        meter = meter_of(on_progress, plan, pace_of(card, plan, task.request), [])
        video = _deliver(task, plan, previz, anchors, None, meter, [], time.perf_counter() - began)
        meter.tell("done")
        return video
    if not card.available:
        raise RenderFailed(
            f"the weights of model {card.id} are not on this machine",
            next_call=f"{catalogue.pull_command(card.id)}, or render_segments(quality='previz'), which needs no model",
        )
    return _render_takes(task, plan, previz, anchors, card, load_pipeline(card.id), on_progress, began, engine)


def load_anchors(plan: Plan, task: RenderTask) -> list[PrevizAnchor]:
    """The plan's anchors as pixels at the plan's size, in its order."""
    return [_load_anchor(placed, plan, task) for placed in plan.anchors]


def _load_anchor(placed: PlacedAnchor, plan: Plan, task: RenderTask) -> PrevizAnchor:
    anchor = next(a for a in task.montage.anchors if a.id == placed.anchor_id)
    media, path = task.media[placed.media_id], task.blobs[placed.media_id]
    size = (plan.format.width, plan.format.height)
    if media.kind == "still":
        frames = load_still(path, media.container, size, anchor.fit, anchor.focus)
    else:
        frames = load_clip(
            path, media.container, anchor.in_s, anchor.out_s, plan.format.fps, size, anchor.fit, anchor.focus,
            max_frames=placed.frames,
        )  # fmt: skip
    missing = placed.frames - len(frames)  # a container may promise more than its last frames hold
    if missing > 0:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    return PrevizAnchor(frames, placed.frame, placed.media_id)


def _render_takes(
    task: RenderTask, plan: Plan, previz: Previz, anchors: Sequence[PrevizAnchor], card: ModelCard,
    pipeline: DreaMontagePipeline, on_progress: Callable[[Progress], None], began: float,
    engine: Callable[[str], Engine] | None,
) -> Video:  # fmt: skip
    import torch

    from dreamontage.generator.graph import render_segments
    from dreamontage.generator.sar import Shot, assemble_latents
    from dreamontage.generator.takes import Takes

    takes = Takes(task.takes)
    decisions = decide(
        plan, task.montage, task.media, card, task.request, task.base,
        choices=[choice.segment for choice in task.choices], has_take=takes.has,
    )  # fmt: skip
    pace = pace_of(card, plan, task.request, task.correction)
    meter = meter_of(on_progress, plan, pace, decisions)

    def on_step(decision: Decision, done: int, steps: int, latents: Any) -> None:
        if latents.is_cuda:  # what was ordered of the GPU is done when its time is taken
            torch.cuda.synchronize(latents.device)
        meter.step(decision.segment, done)

    rendered: list[Rendered] = []
    shot = Shot(plan, task.montage, previz, anchors)
    where = None if engine is None or all(d.action == "reuse" and not d.others for d in decisions) else engine(card.id)
    for item in render_segments(pipeline, shot, decisions, takes, on_step, where):
        rendered.append(item)
        meter.segments_done += 1
        if item.reused and item.decision.action == "render":  # found from an earlier attempt
            meter.steps -= steps_of(item.decision, card)
        meter.tell("denoising")
    loading_s = time.perf_counter() - began - meter.denoise_s
    foreseen = foreseen_by(task.request.profile, plan, pace, meter, rendered)
    videos = []
    for number in range(1, 2 + max(len(decision.others) for decision in decisions)):
        shown = _shown(rendered, number)
        latents = assemble_latents(plan, [item.fingerprint for item in shown], takes)
        job = task if number == 1 else _alternative(task, number)
        model = pipeline, card, latents
        videos.append(_deliver(job, plan, previz, anchors, model, meter, shown, loading_s, foreseen))
    meter.tell("done")
    others = [video.model_copy(update={"alternative_of": task.video_id}) for video in videos[1:]]
    return videos[0].model_copy(update={"alternatives": others})


def _shown(rendered: Sequence[Rendered], number: int) -> list[Rendered]:
    """The takes of video `number`: of every segment its alternative of that number, else the first."""
    return [
        next((o for o in rendered if o.decision.segment == item.decision.segment and o.number == number), item)
        for item in rendered
        if item.number == 1
    ]


def _alternative(task: RenderTask, number: int) -> RenderTask:
    out = task.out / f"take-{number}"
    out.mkdir()
    return replace(task, out=out, video_id=f"{task.video_id}-{number}")


def _deliver(
    task: RenderTask, plan: Plan, previz: Previz, anchors: Sequence[PrevizAnchor],
    model: tuple[DreaMontagePipeline, ModelCard, Iterator[Any]] | None,
    meter: Meter, rendered: Sequence[Rendered], loading_s: float, foreseen: EstimateReport | None = None,
) -> Video:  # fmt: skip
    """One video of these takes, or of the previz; `loading_s` were spent on reading and encoding before.

    `foreseen`: the estimate, to be checked when the video is there.
    """
    meter.segments_done = meter.segments
    slots, seconds = meter.slots_done, meter.delivery_s

    def on_frames(done: int, total: int) -> None:
        meter.slots_done = slots + plan.slots * done / total
        meter.delivery_s = seconds + time.perf_counter() - decoding_began
        meter.tell("decoding")

    decoding_began = time.perf_counter()
    t0 = [1.0] * len(plan.segments)
    if model is not None:
        resolved = (resolve_settings(model[1], item.decision.settings, item.decision.segment) for item in rendered)
        t0 = [1.0 if settings.t0 is None else settings.t0 for settings, _ in resolved]
    report = deliver(
        Delivery(
            plan=plan,
            montage=task.montage,
            previz=previz,
            anchors=list(anchors),
            latents=None if model is None else model[2],
            vae=None if model is None else model[0].vae,
            segments=[_segment_report(item) for item in rendered],
            t0=t0,
            carry_over=True,
            model="previz" if model is None else model[1].id,
            encode_s=loading_s,
            denoise_s=meter.denoise_s,
            sound=_sound(task),
            estimate=foreseen,
        ),
        task.out,
        on_frames,
    )
    return _video(task, report, rendered)


def _sound(task: RenderTask) -> tuple[Path, str] | None:
    audio = task.montage.audio
    return None if audio is None else (task.blobs[audio], task.media[audio].container)


def _video(task: RenderTask, report: Report, rendered: Sequence[Rendered]) -> Video:
    path = task.out / VIDEO_NAME
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Video(
        id=task.video_id,
        montage_id=task.montage.id,
        revision=task.montage.revision,
        quality=task.request.quality,
        path=str(path),
        sheet=str(task.out / SHEET_NAME),
        report=report,
        segments=[_video_segment(item) for item in rendered],
        bytes=path.stat().st_size,
        sha256=digest,
        last_choice=max((choice.id for choice in task.choices), default=task.base.last_choice if task.base else 0),
    )


def _segment_report(item: Rendered) -> SegmentReport:
    segment = item.decision.segment
    return SegmentReport(
        start_s=segment.start_s, end_s=segment.end_s, seam=segment.seam, seed=item.decision.seed,
        fingerprint=item.fingerprint, reused=item.reused,
    )  # fmt: skip


def _video_segment(item: Rendered) -> VideoSegment:
    decision, segment = item.decision, item.decision.segment
    return VideoSegment(
        start=segment.start, stop=segment.stop, window_start=segment.window_start, seam=segment.seam,
        seed=decision.seed, recipe=decision.recipe, fingerprint=item.fingerprint, settings=decision.settings,
        tail=item.tail, held=item.held, end=item.end,
    )  # fmt: skip
