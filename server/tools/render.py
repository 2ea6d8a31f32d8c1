"""Queue renders. The work itself is done by the worker process and outlives this call, this client and this server."""

from __future__ import annotations

import math
from typing import Annotated

from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.generator.machine import fit_of, pinned
from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import After, Job, RenderRequest
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Quality
from dreamontage.schemas.plan import Estimate, Plan

from ..actors import actor_of
from ..answers import RenderAnswer, describe_outlook, reply
from ..arguments import MontageId, Revision, Second
from ..calls import carry_out
from ..context import Ctx, app_of
from ..outlook import look_ahead, outlook_of, require_anchors, require_revision, require_room
from ..toolkit import tool
from ..worker import ensure_worker


@tool("Render a montage", scope="render")
def render_segments(
    ctx: Ctx,
    montage_id: MontageId,
    quality: Quality = "draft",
    from_s: Annotated[Second | None, Field(description="Render anew from here")] = None,
    to_s: Annotated[Second | None, Field(description="to here, widened to whole segments.")] = None,
    seed: Annotated[int | None, Field(ge=0, le=limits.MAX_SEED, description="Another try of that part.")] = None,
    settings: RenderSettings | None = None,
    after: Annotated[After, Field(description="What follows that part: keep, or render on.")] = "hold",
    takes: Annotated[int, Field(ge=1, le=limits.MAX_TAKES, description="Up to 4: alternatives of that part.")] = 1,
    max_minutes: Annotated[float | None, Field(gt=0, allow_inf_nan=False, description="Refuse what takes longer.")]
    = None,
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, RenderAnswer]:
    """Queue a render and answer at once with the job and its estimate; get_job(job_id) waits for the video. Only what
    has no earlier take is rendered, the rest is reused; from_s and to_s (seconds) render that part anew, e.g. with
    another seed. takes=3 keeps what is there and renders two alternatives of that part, to compare with view_video and
    pick from with choose_take. quality: previz (seconds, no model), draft (small), standard (full size). The job is
    pinned to the montage's present revision."""
    app = app_of(ctx)
    montage = app.studio.get_montage(montage_id)
    require_anchors(montage)
    require_revision(montage, if_revision)
    if from_s is not None and to_s is not None and to_s <= from_s:
        raise InvalidInput(
            f"{to_s:g} s is not after from_s {from_s:g} s", field="to_s", allowed=f"more than {from_s:g}"
        )
    request = RenderRequest(
        quality=quality, from_s=from_s, to_s=to_s, seed=seed, settings=settings or RenderSettings(), after=after,
        takes=takes,
    )  # fmt: skip
    found = fit_of(montage, quality)
    require_room(montage, quality, found, f"update_montage(montage_id={montage_id!r}, model='nano')")
    request = pinned(montage, request, found)
    plan, decisions, cost = look_ahead(app, montage, request)
    if max_minutes is not None and cost.seconds > 60 * max_minutes:
        raise too_long(request, cost, max_minutes)
    range_s, note = widened(plan, request)
    if takes > 1 and not cost.alternatives:
        note = f"{note} Clips fix that part whole, so it has no alternatives.".strip()
    notes = [*filter(None, [note, found.note])]
    outlook = outlook_of(quality, decisions, cost)

    def answer(job: Job) -> CallToolResult:
        said = RenderAnswer(
            job_id=job.id,
            state=job.state,
            montage_id=montage.id,
            revision=montage.revision,
            range_s=range_s,
            outlook=outlook,
            check_again_in_s=min(30.0, max(1.0, round(cost.seconds * 0.8))),
            notes=notes,
            next=[f"get_job(job_id={job.id!r}, wait_s={limits.MAX_WAIT_S:g})"],
        )
        text = f"{job.id} {job.state}: {describe_outlook(outlook)} {' '.join(notes)} Next: {said.next[0]}."
        return reply(" ".join(text.split()), said)

    queued = carry_out(lambda then: app.studio.enqueue(montage, request, cost, actor_of(ctx).name, then=then), answer)
    ensure_worker(app.studio)
    return queued


def too_long(request: RenderRequest, cost: Estimate, max_minutes: float) -> InvalidInput:
    """The refusal of a render that would take longer than allowed: the estimate, and what takes less."""
    low, likely, high = (seconds / 60 for seconds in (cost.low_s, cost.seconds, cost.high_s))
    takes = cost.segments_to_render + cost.alternatives
    less = ["a shorter part with from_s and to_s"]
    if request.takes > 1:
        less.append("fewer takes")
    if request.quality != "previz":
        less.append("quality='draft'" if request.quality == "standard" else "quality='previz'")
    return InvalidInput(
        f"{takes} takes at {request.quality} would need about {likely:.1f} minutes ({low:.1f} to {high:.1f}), "
        f"more than {max_minutes:g}; nothing was queued",
        field="max_minutes",
        allowed=f"{math.ceil(10 * likely) / 10:g} or more, or {', or '.join(less)}",
        next_call=f"the same call with max_minutes={math.ceil(10 * likely) / 10:g}",
    )


def widened(plan: Plan, request: RenderRequest) -> tuple[list[float], str]:
    """The seconds a range was widened to, and a sentence that says so."""
    from dreamontage.generator.fingerprint import widened_range

    wide = widened_range(plan, request)
    if wide is None or (request.from_s is None and request.to_s is None):
        return [0.0, round(plan.duration_s, 3)], ""
    low, high = (round(t, 3) for t in wide)
    asked = (request.from_s or 0.0, plan.duration_s if request.to_s is None else request.to_s)
    note = f"{asked[0]:g}–{asked[1]:g} s was widened to the whole segments {low:g}–{high:g} s."
    return [low, high], note if (low, high) != asked else ""
