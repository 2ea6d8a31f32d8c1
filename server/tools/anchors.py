"""Pin, move and unpin anchors: a list is applied whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Annotated, Any

from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.montage import Montage

from .. import edits
from ..actors import actor_of
from ..answers import EditAnswer, reply
from ..arguments import AnchorChange, AnchorSpec, Duration, MontageId, Revision
from ..calls import carry_out
from ..context import App, Ctx, app_of, card_of, grid_of
from ..outlook import plan_answer, usual_quality
from ..toolkit import tool
from .planning import describe_plan, next_calls, sound_notes

SHOWN = ("AnchorLine", "Outlook")
"""Parts of an edit's answer that add_anchors shows."""
Ripple = Annotated[bool, Field(description="Shift what is later.")]


@tool("Pin anchors", known=["SourceForm"])
def add_anchors(
    ctx: Ctx,
    montage_id: MontageId,
    anchors: Annotated[list[AnchorSpec], Field(min_length=1, max_length=limits.MAX_SOURCES_PER_CALL)],
    ripple: Ripple = False,
    duration_s: Duration | None = None,
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, EditAnswer]:
    """Pin more pictures or clips. Each at a second, or after an anchor with gap_s, or, without either, evenly after the
    last anchor. ripple makes room: what is later shifts by the new length plus gap_s. duration_s sets a new duration.
    Answers the new revision, requested and snapped times and what would now be rendered."""
    app = app_of(ctx)
    media = app.take_in([spec.source for spec in anchors], "anchors", actor_of(ctx).name)
    new = list(zip(anchors, media, strict=True))

    def change(montage: Montage) -> Montage:
        return edits.add_anchors(
            montage, new, app.media_of(montage), grid_of(montage), ripple=ripple, duration_s=duration_s
        )

    added: dict[str, Any] = {"media": [m.id for m in media], "ripple": ripple}
    added |= {} if duration_s is None else {"duration_s": duration_s}
    touches = touched([spec.after for spec in anchors], duration_s)
    return edited(ctx, montage_id, "add_anchors", added, change, if_revision, touches, sound_notes(media))


@tool("Change anchors", destructive=True, idempotent=True, known=["SourceForm", *SHOWN])
def update_anchors(
    ctx: Ctx,
    montage_id: MontageId,
    anchors: Annotated[list[AnchorChange], Field(max_length=limits.MAX_ANCHORS)],
    ripple: Ripple = False,
    duration_s: Duration | None = None,
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, EditAnswer]:
    """Move, swap, trim anchors or give them other media; fields left out stay. All changes count together, so two
    anchors can swap seconds. ripple shifts what is later by as much as the anchor moved."""
    app = app_of(ctx)
    actor = actor_of(ctx).name
    media = [app.take_in([c.source], f"{c.id}.source", actor)[0] if c.source is not None else None for c in anchors]
    changes = list(zip(anchors, media, strict=True))

    def change(montage: Montage) -> Montage:
        return edits.update_anchors(
            montage, changes, app.media_of(montage), grid_of(montage), ripple=ripple, duration_s=duration_s
        )

    told = [c.model_dump(exclude_none=True, exclude={"source"}) | ({"media": m.id} if m else {}) for c, m in changes]
    changed = {"anchors": told, "ripple": ripple} | ({} if duration_s is None else {"duration_s": duration_s})
    touches = touched([name for c in anchors for name in (c.id, c.after)], duration_s)
    return edited(ctx, montage_id, "update_anchors", changed, change, if_revision, touches)


@tool("Unpin anchors", destructive=True, known=SHOWN)
def remove_anchors(
    ctx: Ctx,
    montage_id: MontageId,
    ids: Annotated[list[str], Field(min_length=1, max_length=limits.MAX_ANCHORS)],
    ripple: Ripple = False,
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, EditAnswer]:
    """Unpin anchors by id. Their media stay in the studio. ripple also takes out the stretch that led to each."""
    app = app_of(ctx)

    def change(montage: Montage) -> Montage:
        return edits.remove_anchors(montage, ids, app.media_of(montage), grid_of(montage), ripple=ripple)

    return edited(ctx, montage_id, "remove_anchors", {"ids": ids, "ripple": ripple}, change, if_revision, touched(ids))


def touched(anchors: Iterable[str | None], duration_s: float | None = None) -> list[str]:
    """The entities that an edit of these anchors, and of the duration where it is given, is about."""
    names = [f"anchor:{name}" for name in anchors if name is not None]
    return [*names, "duration_s"] if duration_s is not None else names


def edited(
    ctx: Ctx,
    montage_id: str,
    op: str,
    args: Mapping[str, Any],
    change: edits.Change,
    if_revision: int | None,
    touches: Collection[str] | None,
    notes: list[str] | None = None,
    *,
    as_is: bool = False,
) -> CallToolResult:
    """Store a change that the planner accepts, and answer with the new plan; otherwise raise and change nothing.

    `touches` (what must not have changed since `if_revision`) and `as_is`: see Studio.edit_montage.
    """
    from dreamontage.generator.planner import plan_montage

    app = app_of(ctx)

    def checked(montage: Montage) -> Montage:
        after = change(montage)
        plan_montage(after, app.media_of(after), card_of(after))
        return after

    def answer(montage: Montage) -> CallToolResult:
        told, text = edit_answer(app, montage, notes or [], next_calls(app, montage))
        return reply(text, told)

    actor = actor_of(ctx).name
    write = partial(
        app.studio.edit_montage, montage_id, op, args, checked, actor, if_revision, touches=touches, as_is=as_is
    )
    return carry_out(lambda then: write(then=then), answer)


def edit_answer(app: App, montage: Montage, notes: list[str], calls: list[str]) -> tuple[EditAnswer, str]:
    """What an edit led to, and the same in a few sentences."""
    plan = plan_answer(app, montage, usual_quality(app, montage.id), notes=notes, next_calls=calls)
    answer = EditAnswer(
        montage_id=plan.montage_id,
        revision=plan.revision,
        duration_s=plan.duration_s,
        anchors=plan.anchors,
        beat_ids=[beat.id for beat in montage.beats],
        outlook=plan.outlook,
        warnings=plan.warnings,
        next=plan.next,
    )
    return answer, describe_plan(plan)
