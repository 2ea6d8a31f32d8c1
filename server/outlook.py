"""What a render would do now, in segments and seconds, computed without the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dreamontage.generator.estimating import Work, estimate
from dreamontage.generator.fit import Fit, fitted
from dreamontage.generator.machine import fit_of, pace_of, pinned
from dreamontage.generator.models.catalogue import missing
from dreamontage.generator.planner import plan_montage
from dreamontage.schemas.errors import Conflict, InvalidInput
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage, Quality
from dreamontage.schemas.plan import Estimate, Plan
from dreamontage.schemas.report import VideoSegment

from .answers import Outlook, PlanAnswer, anchor_lines
from .context import App, card_of

if TYPE_CHECKING:
    from dreamontage.generator.fingerprint import Decision


def require_anchors(montage: Montage) -> None:
    """Raise InvalidInput for a montage that pins nothing: there is nothing to show."""
    if not montage.anchors:
        raise InvalidInput(
            f"{montage.id} has no anchors, so there is nothing to show",
            field="montage_id",
            next_call=f"add_anchors(montage_id={montage.id!r}, anchors=[...])",
        )


def require_revision(montage: Montage, if_revision: int | None) -> None:
    """Raise Conflict unless the montage is at the revision the caller has seen, if one was named."""
    if if_revision not in (None, montage.revision):
        raise Conflict(
            f"{montage.id} is at revision {montage.revision}, not {if_revision}",
            field="if_revision",
            next_call=f"get_changes(montage_id={montage.id!r}, since_revision={if_revision})",
        )


def require_room(montage: Montage, quality: Quality, found: Fit, next_call: str | None = None) -> None:
    """Raise InvalidInput where the montage's model is not here or does not fit. `next_call`: what changes the model."""
    if quality != "previz" and not card_of(montage).available:
        raise InvalidInput(
            f"{missing(montage.model)} Nothing was queued",
            field="model",
            allowed="an installed model, or quality='previz', which needs none",
            next_call=next_call,
        )
    if found.fits:
        return
    smaller = quality == "standard" and fit_of(montage, "draft").fits
    raise InvalidInput(
        f"{found.note} Nothing was queued",
        field="quality",
        allowed=f"{'draft, which fits, or ' * smaller}previz; with the model nano, which runs on a CPU, any",
        next_call=next_call,
    )


def look_ahead(
    app: App, montage: Montage, request: RenderRequest, chosen: Sequence[VideoSegment] = ()
) -> tuple[Plan, list[Decision], Estimate]:
    """The plan of a montage, what a render would do with each segment, and its cost; as if these takes were chosen.

    The plan is made with the window that the request pins, else with the one that fits this machine now. Raises
    whatever is wrong with the montage or the request: SlotTaken, InvalidInput, NotFound.
    """
    from dreamontage.generator.fingerprint import decide  # brings OpenCV, which the first answer need not wait for

    fit = fit_of(montage, request.quality)
    request = pinned(montage, request, fit) if request.window is None else request
    card = fitted(card_of(montage), request)
    card.check(request.settings.model_dump(exclude_none=True))
    if request.takes > 1 and request.quality == "previz":
        raise InvalidInput("a previz has no takes", field="takes", allowed="1, or quality='draft' or 'standard'")
    media = app.media_of(montage)
    plan = plan_montage(montage, media, card, request.quality)
    plan = plan.model_copy(update={"warnings": [*plan.warnings, *filter(None, [fit.note])]})
    if request.from_s is not None and request.from_s >= plan.duration_s:
        raise InvalidInput(
            f"{request.from_s:g} s lies beyond the end", field="from_s", allowed=f"0 to {plan.duration_s:g}"
        )
    if request.from_s is not None and request.to_s is not None and request.to_s <= request.from_s:
        raise InvalidInput(f"{request.to_s:g} s is not after from_s {request.from_s:g} s", field="to_s")
    base, choices = app.studio.base(montage.id, request.quality)
    decisions = decide(
        plan, montage, media, card, request, base, choices=[*(choice.segment for choice in choices), *chosen],
        has_take=lambda fingerprint: (app.studio.takes / f"{fingerprint}.json").is_file(),
    )  # fmt: skip
    works = [Work.of(d.segment, card, d.settings) for d in decisions if d.action == "render"]
    others = [Work.of(d.segment, card, d.settings) for d in decisions for _ in d.others]
    pace = pace_of(card, plan, request, app.studio.lesson(card.id, request.quality, request.profile))
    return plan, decisions, estimate(plan, pace, works, others, request.takes if others else 1)


def outlook_of(quality: Quality, decisions: Sequence[Decision], cost: Estimate) -> Outlook:
    """The answer's form of a look ahead."""
    return Outlook(
        quality=quality,
        segments_to_render=cost.segments_to_render,
        segments_reused=cost.segments_reused,
        alternatives=cost.alternatives or None,
        seconds=cost.seconds,
        to_render_s=[
            [round(d.segment.start_s, 3), round(d.segment.end_s, 3)] for d in decisions if d.action == "render"
        ],
    )


def usual_quality(app: App, montage_id: str) -> Quality:
    """The quality of the montage's newest rendered video, else draft."""
    qualities = (v.quality for v in app.studio.videos(montage_id))
    return next((q for q in qualities if q != "previz"), "draft")


def plan_answer(
    app: App, montage: Montage, quality: Quality, *,
    stored: bool = True, notes: Sequence[str] = (), next_calls: Sequence[str] = (),
) -> PlanAnswer:  # fmt: skip
    """The plan of a montage as an answer."""
    plan, decisions, cost = look_ahead(app, montage, RenderRequest(quality=quality))
    shape = plan.shown or plan.format
    return PlanAnswer(
        montage_id=montage.id,
        revision=montage.revision,
        stored=stored,
        model=montage.model,
        size=f"{shape.width}x{shape.height}",
        fps=shape.fps,
        requested_duration_s=montage.duration_s,
        duration_s=round(plan.duration_s, 3),
        anchors=anchor_lines(plan, montage),
        seams_s=[round(seam.at_s, 3) for seam in plan.seams],
        outlook=outlook_of(quality, decisions, cost),
        warnings=[*notes, *plan.warnings],
        next=list(next_calls),
    )
