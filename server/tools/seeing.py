"""Look at finished videos side by side, and choose among their takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import anyio.to_thread
from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.montage import Quality
from dreamontage.schemas.report import TakeChoice

from ..actors import actor_of
from ..answers import Answer, Outlook, describe_outlook, reply
from ..arguments import MontageId, Revision, Second
from ..calls import carry_out
from ..choosing import fitting, takes_between
from ..context import App, Ctx, app_of
from ..findings import ViewRow, best, describe_row, row_of, summary
from ..outlook import require_revision
from ..store.choices import TAKE_ID
from ..toolkit import tool
from ..viewing import At, View, draw, moments, view_of

VideoId = Annotated[str, Field(max_length=80, examples=["v_8c2m1x0d"])]
TakeId = Annotated[str, Field(pattern=f"^{TAKE_ID}$", examples=["t_5d1f0c2ab3e4a1b2"])]
_MOST = 50


class ViewAnswer(Answer):
    times_s: list[float]
    rows: list[ViewRow]
    notes: list[str]
    next: list[str]


class ChosenTake(Answer):
    take_id: str
    start_s: float
    end_s: float
    video_id: str


class ChoiceAnswer(Answer):
    montage_id: str
    quality: Quality
    chosen: list[ChosenTake]
    outlook: Outlook
    next: list[str]


@tool("Look at videos", read_only=True)
async def view_video(
    ctx: Ctx,
    video_ids: Annotated[list[VideoId] | None, Field(max_length=limits.MAX_VIEWS, description="1 to 3, or")] = None,
    take_ids: Annotated[list[TakeId] | None, Field(max_length=limits.MAX_VIEWS, description="1 to 3.")] = None,
    from_s: Second | None = None,
    to_s: Second | None = None,
    frames: Annotated[int, Field(ge=1, le=limits.MAX_VIEW_FRAMES, description="Of each, up to 24.")] = 8,
    at: Annotated[At, Field(description="worst: what the reports complain of.")] = "even",
) -> Annotated[CallToolResult, ViewAnswer]:
    """Look closely, or compare: a row of frames per video or take at the same times, with time codes; pinned frames are
    outlined, their anchors above them. In words beside it, per interval: sharpness, motion, seams, notes, take ids."""
    app = app_of(ctx)
    views = await anyio.to_thread.run_sync(partial(_views, app, video_ids or [], take_ids or []))
    low, high = _range(views, from_s, to_s)
    notes = []
    if not (times := moments(views, low, high, frames, at)):
        notes.append(f"No {'findings' if at == 'worst' else at} from {low:g} to {high:g} s: even instead.")
        times = moments(views, low, high, frames, "even")
    picture = await anyio.to_thread.run_sync(partial(draw, app, views, times))
    rows = [row_of(view, low + view.shift_s, high + view.shift_s, len(views)) for view in views]
    answer = ViewAnswer(times_s=times, rows=rows, notes=notes, next=_next_calls(views, rows, low, high))
    lines = [*(describe_row(row) for row in rows), *([summary(rows)] if len(rows) > 1 else []), *notes]
    return reply("\n".join([*lines, f"Next: {' or '.join(answer.next)}."]), answer, picture)


@tool("Choose a take", idempotent=True)
def choose_take(
    ctx: Ctx,
    montage_id: MontageId,
    take_ids: Annotated[list[TakeId] | None, Field(max_length=_MOST, description="For their segments, or")] = None,
    video_id: Annotated[VideoId | None, Field(description="all takes of this video, also of a fork,")] = None,
    from_s: Annotated[Second | None, Field(description="from here")] = None,
    to_s: Annotated[Second | None, Field(description="to here.")] = None,
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, ChoiceAnswer]:
    """Choose which take a segment shows: an alternative from render_segments(takes=...), a take of an earlier video, or
    of a fork. It counts from the next render of that quality on, which then only decodes; view_video names takes."""
    app = app_of(ctx)
    montage = app.studio.get_montage(montage_id)
    require_revision(montage, if_revision)
    if bool(take_ids) == (video_id is not None):
        raise InvalidInput("name the takes by their ids, or a video", field="take_ids", allowed="one of the two")
    if video_id is not None:
        found = takes_between(app.studio.video(video_id), from_s, to_s)
    else:
        found = [app.studio.find_take(take_id) for take_id in take_ids or []]
    quality = found[0].video.quality
    placed, outlook = fitting(app, montage, found)

    def answer(chosen: list[TakeChoice]) -> CallToolResult:
        lines = [
            ChosenTake(
                take_id=choice.segment.take_id, start_s=round(segment.start_s, 3), end_s=round(segment.end_s, 3),
                video_id=choice.video_id,
            )
            for choice, (_, segment) in zip(chosen, placed, strict=True)
        ]  # fmt: skip
        call = f"render_segments(montage_id={montage_id!r}, quality={quality!r})"
        shown = ", ".join(f"{line.take_id} at {line.start_s:g}–{line.end_s:g} s" for line in lines[:6])
        more = f" and {len(lines) - 6} more" if len(lines) > 6 else ""
        only = "The next render only decodes." if not outlook.segments_to_render else describe_outlook(outlook)
        body = ChoiceAnswer(montage_id=montage_id, quality=quality, chosen=lines, outlook=outlook, next=[call])
        return reply(f"Chosen for {montage_id}: {shown}{more}. {only} Next: {call}.", body)

    takes = [(take, item.video.id) for (take, _), item in zip(placed, found, strict=True)]
    return carry_out(partial(app.studio.choose, montage_id, quality, takes, actor_of(ctx).name), answer)


def _views(app: App, video_ids: Sequence[str], take_ids: Sequence[str]) -> list[View]:
    """What was asked for, in order. Raises InvalidInput, NotFound."""
    if not 1 <= len(video_ids) + len(take_ids) <= limits.MAX_VIEWS or (video_ids and take_ids):
        raise InvalidInput(
            f"{len(video_ids)} videos and {len(take_ids)} takes",
            field="video_ids",
            allowed=f"1 to {limits.MAX_VIEWS} video_ids, or as many take_ids",
            next_call="get_job(), which lists the jobs with their videos",
        )
    found = [app.studio.find_take(take_id) for take_id in take_ids]
    starts = [item.video.report.segments[item.ordinal].start_s for item in found]
    return [
        *(view_of(app, app.studio.video(video_id)) for video_id in video_ids),
        *(view_of(app, item.video, item.take.take_id, at - starts[0]) for item, at in zip(found, starts, strict=True)),
    ]


def _range(views: Sequence[View], from_s: float | None, to_s: float | None) -> tuple[float, float]:
    """The common seconds to look at: of takes their own, else the whole videos. Raises InvalidInput."""
    end = max(view.report.duration_s - view.shift_s for view in views)
    own = [part for view in views for part in view.own_s]
    low = from_s if from_s is not None else min((start for start, _ in own), default=0.0)
    high = to_s if to_s is not None else max((stop for _, stop in own), default=end)
    if low >= min(high, end):
        field, value = ("from_s", low) if low >= end or to_s is None else ("to_s", high)
        raise InvalidInput(f"{value:g} s leaves nothing to see", field=field, allowed=f"from_s < to_s <= {end:g}")
    return low, min(high, end)


def _next_calls(views: Sequence[View], rows: Sequence[ViewRow], low: float, high: float) -> list[str]:
    """At most three complete calls that make sense now: to keep another row, the best one first, else to try again."""
    video, calls = views[0].video, []
    better = best(rows)
    for number in sorted(range(1, len(rows)), key=lambda number: number != better):
        row, view = rows[number], views[number]
        if not row.takes or row.quality != rows[0].quality or row.takes == rows[0].takes:
            continue
        part = f"video_id={row.video_id!r}, from_s={low + view.shift_s:g}, to_s={high + view.shift_s:g}"
        what = part if row.take_id is None else f"take_ids={[row.take_id]}"
        calls.append(f"choose_take(montage_id={video.montage_id!r}, {what})")
    if not calls and video.quality != "previz":
        part = f"from_s={low:g}, to_s={high:g}, takes=3"
        calls.append(f"render_segments(montage_id={video.montage_id!r}, quality={video.quality!r}, {part})")
    return [*calls, f"get_montage(montage_id={video.montage_id!r})"][:3]
