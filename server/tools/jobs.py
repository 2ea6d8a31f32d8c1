"""Wait for renders, list and cancel them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.job import Job
from dreamontage.schemas.report import Report, Video

from ..actors import actor_of
from ..answers import AlternativeLine, JobAnswer, JobLine, reply, reused, take_lines, verdict
from ..context import App, Ctx, app_of
from ..paging import Cursor, ResponseFormat, cursor_of, position_of
from ..store.jobs import FINAL
from ..toolkit import tool
from ..worker import ensure_worker

_POLL_S = 0.25
_MOST_TAKES = 20
_PAGE = 20
JobId = Annotated[str, Field(max_length=80, examples=["j_5t0v9e2a"])]


@tool("Wait for a render", read_only=True)
async def get_job(
    ctx: Ctx,
    job_id: Annotated[JobId | None, Field(description="Left out: list the jobs.")] = None,
    wait_s: Annotated[float, Field(ge=0, le=limits.MAX_WAIT_S, allow_inf_nan=False, description="At most 45.")] = 20,
    response_format: ResponseFormat = "concise",
    cursor: Cursor | None = None,
) -> Annotated[CallToolResult, JobAnswer]:
    """Wait up to wait_s seconds for a job. Finished: verdict, contact sheet, where the video is, what was reused.
    Unfinished: how far it is and when to ask again. detailed adds the measured report. Jobs outlive clients and
    servers."""
    app = app_of(ctx)
    if job_id is None:
        await anyio.to_thread.run_sync(ensure_worker, app.studio)
        return await anyio.to_thread.run_sync(_listed, app, cursor)
    deadline = anyio.current_time() + wait_s
    told = -1.0
    while True:
        await anyio.to_thread.run_sync(ensure_worker, app.studio)  # also when one dies while this call waits
        job = await anyio.to_thread.run_sync(app.studio.job, job_id)
        done = job.progress.done
        if done > told:
            await ctx.report_progress(done, max(job.progress.total, done), job.progress.stage)
            told = done
        left = deadline - anyio.current_time()
        if job.state in FINAL or left <= 0:
            return await anyio.to_thread.run_sync(partial(describe_job, app, ctx, job, response_format))
        await anyio.sleep(min(_POLL_S, left))


@tool("Cancel a render", scope="render", destructive=True, idempotent=True)
def cancel_job(ctx: Ctx, job_id: JobId) -> Annotated[CallToolResult, JobLine]:
    """Stop a job within one step. Finished segments are kept and reused by the next render."""
    job = app_of(ctx).studio.cancel(job_id, actor_of(ctx).name)
    state = "is being cancelled" if job.state == "running" else f"is {job.state}"
    return reply(f"{job.id} {state}. Finished segments are kept.", JobLine.of(job))


def describe_job(app: App, ctx: Ctx, job: Job, response_format: ResponseFormat = "concise") -> CallToolResult:
    """The answer for one job: final with the video, or how far it is."""
    if job.state == "done" and job.video_id is not None:
        return _finished(app, ctx, job, app.studio.video(job.video_id), response_format)
    if job.state in FINAL:
        again = [f"render_segments(montage_id={job.montage_id!r}, quality={job.request.quality!r})"]
        why = job.error or "Finished segments are kept."
        text = f"{job.id} {job.state}. {why}" + ("" if "Next: " in why else f" Next: {again[0]}.")
        return reply(text, JobAnswer(job_id=job.id, state=job.state, error=job.error, next=again))
    p = job.progress
    left = p.seconds_left if p.seconds_left is not None else (job.estimate.seconds if job.estimate else None)
    check = min(limits.MAX_WAIT_S, max(2.0, round(left or 5.0)))
    about = f", about {left:.0f} s left" if left is not None else ""
    share = f" {100 * p.done / max(p.total, 1e-9):.0f} %" if job.state == "running" else ""
    answer = JobAnswer(
        job_id=job.id,
        state=job.state,
        stage=p.stage,
        done=round(p.done, 2),
        total=round(p.total, 2),
        seconds_left=None if left is None else round(left, 1),
        check_again_in_s=check,
    )
    return reply(f"{job.id} {job.state}: {p.stage}{share}{about}. Ask again in {check:g} s.", answer)


def _finished(app: App, ctx: Ctx, job: Job, video: Video, response_format: ResponseFormat) -> CallToolResult:
    rendered, kept = reused(video)
    sentence = verdict(video.report)
    report = video.report
    file = app.file(ctx, Path(video.path), video.sha256, round(report.duration_s, 3))
    if video.delivered and Path(video.delivered).exists():
        file = file.model_copy(update={"path": video.delivered})
    notes = [f"{n.at_s:.2f} s, {n.severity}: {n.what} {n.suggestion}" for n in report.notes[:5]]
    others = app.studio.alternatives_of(video.id)
    calls = _next_calls(job, video, others)
    answer = JobAnswer(
        job_id=job.id,
        state=job.state,
        verdict=sentence,
        video_id=video.id,
        file=file,
        segments_rendered=rendered,
        segments_reused=kept,
        alternatives=[_alternative(app, ctx, video, other) for other in others] or None,
        notes=notes,
        next=calls,
        report=_measured(report) if response_format == "detailed" else None,
    )
    lines = [
        f"{job.id} done: {sentence}",
        f"Video {video.id}: {file.url or file.path} ({file.bytes / 1e6:.1f} MB).",
        f"Segments: {rendered} rendered, {kept} reused." if rendered + kept else "A previz: no model was used.",
        *(f"{_name(line)}: {line.verdict}" for line in answer.alternatives or []),
        *notes,
        "Next: " + " or ".join(calls) + ".",
    ]
    return reply("\n".join(lines), answer, Path(video.sheet).read_bytes())


def _measured(report: Report) -> dict[str, Any]:
    """The figures of a report, rounded; the notes are told already."""
    lists = report.model_dump(
        mode="json",
        include={"anchors", "intervals", "segments", "seams", "cuts"},
        exclude={"segments": {"__all__": {"fingerprint"}}},
    )
    return {
        name: [{key: round(v, 3) if isinstance(v, float) else v for key, v in line.items()} for line in lines_of]
        for name, lines_of in lists.items()
    }


def _alternative(app: App, ctx: Ctx, video: Video, other: Video) -> AlternativeLine:
    """What an alternative shows instead of the job's own takes."""
    own = {take.take_id for take in video.segments}
    takes = [line for line in take_lines(other) if line.take_id not in own]
    file = app.file(ctx, Path(other.path), other.sha256, round(other.report.duration_s, 3))
    return AlternativeLine(video_id=other.id, verdict=verdict(other.report), file=file, takes=takes[:_MOST_TAKES])


def _name(line: AlternativeLine) -> str:
    takes = ", ".join(f"{take.take_id} {take.start_s:g}–{take.end_s:g} s" for take in line.takes[:4])
    return f"Alternative {line.video_id} ({takes or 'the same takes'})"


def _next_calls(job: Job, video: Video, others: Sequence[Video]) -> list[str]:
    """At most three complete calls that make sense now."""
    calls = []
    if others:
        shown = [one.id for one in (video, *others)][: limits.MAX_VIEWS]
        part = [f"{name}={value:g}" for name, value in (("from_s", job.request.from_s), ("to_s", job.request.to_s))
                if value is not None]  # fmt: skip
        calls.append(f"view_video({', '.join([f'video_ids={shown}', *part])})")
        calls.append(f"choose_take(montage_id={job.montage_id!r}, take_ids=[...])")
    elif job.request.quality != "previz" and (at_s := _spot(video.report)) is not None:
        start = math.ceil(at_s * 100) / 100  # at or after a seam: the segment before it stays
        span = f"from_s={start:g}, to_s={start + 0.1:g}, takes=3"
        calls.append(f"render_segments(montage_id={job.montage_id!r}, quality={job.request.quality!r}, {span})")
    if job.request.quality != "standard":
        calls.append(f"render_segments(montage_id={job.montage_id!r}, quality='standard')")
    calls.append(f"get_montage(montage_id={job.montage_id!r})")
    return calls[:3]


def _spot(report: Report) -> float | None:
    """Where another seed may help: an anchor that is missed, else a carried seam with a note, else nowhere."""
    missed = [a.snapped_s for a in report.anchors if a.strength == 1.0 and a.best_offset_frames]
    carried = [s.start_s for s in report.segments if s.seam == "carried"]  # at a pinned one both sides are the clip's
    rough = [n.at_s for n in report.notes if any(abs(n.at_s - start) < 0.01 for start in carried)]
    return next(iter(missed + rough), None)


def _listed(app: App, cursor: str | None) -> CallToolResult:
    before = None if cursor is None else position_of(cursor, "jobs", str)[0]
    found = app.studio.jobs(limit=_PAGE + 1, before=before)
    lines = [JobLine.of(job) for job in found[:_PAGE]]
    more = f"get_job(cursor={cursor_of('jobs', lines[-1].job_id)!r})" if len(found) > _PAGE else None
    text = "\n".join(
        f"{j.job_id} {j.state}: {j.montage_id} revision {j.revision}, {j.quality}"
        + (f", {j.video_id}" if j.video_id else "")
        for j in lines
    )
    none = "No more jobs." if cursor else "No jobs yet; render_segments queues one."
    return reply((text or none) + (f"\nMore: {more}" if more else ""), JobAnswer(jobs=lines, more=more))
