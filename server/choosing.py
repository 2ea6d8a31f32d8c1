"""Whether takes can be shown in a montage, and where."""

from __future__ import annotations

from collections.abc import Sequence

from dreamontage.schemas.errors import Conflict, InvalidInput, NotFound
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Segment
from dreamontage.schemas.report import Video, VideoSegment

from .answers import Outlook
from .context import App, fitted_card_of
from .outlook import look_ahead, outlook_of
from .store.choices import Found


def takes_between(video: Video, from_s: float | None, to_s: float | None) -> list[Found]:
    """The takes of a video that show something of these seconds. Raises InvalidInput."""
    if not video.segments:
        raise InvalidInput(f"{video.id} is a previz, which has no takes", field="video_id", allowed="a rendered video")
    low, high = from_s or 0.0, video.report.duration_s if to_s is None else to_s
    parts = enumerate(video.report.segments)
    found = [Found(video, number) for number, part in parts if part.start_s < high and part.end_s > low]
    if not found:
        raise InvalidInput(
            f"{low:g} to {high:g} s shows no take of {video.id}", field="from_s",
            allowed=f"from_s < to_s, within 0 to {video.report.duration_s:g}",
        )  # fmt: skip
    return found


def fitting(
    app: App, montage: Montage, found: Sequence[Found]
) -> tuple[list[tuple[VideoSegment, Segment]], Outlook]:
    """Each take with the segment of the montage that would show it, and what the next render would then do.

    Raises InvalidInput where a take belongs to another content, Conflict where it continues from something else than
    the montage would show before it, NotFound where its latents are gone.
    """
    from dreamontage.generator.fingerprint import place_of, recipe

    quality = found[0].video.quality
    if any(item.video.quality != quality for item in found):
        raise InvalidInput("the takes are of different qualities", field="take_ids", allowed="one quality a call")
    request, card, media = RenderRequest(quality=quality), fitted_card_of(montage, quality), app.media_of(montage)
    plan = look_ahead(app, montage, request)[0]

    def recipe_with(segment: Segment, settings: RenderSettings) -> str:
        return recipe(plan, segment, montage, media, card, settings)

    placed: dict[int, tuple[Found, VideoSegment]] = {}
    for item in found:
        place = place_of(item.take, plan.segments, recipe_with)
        if place is None:
            raise _another_content(montage, item)
        if place.index in placed:
            both = f"{placed[place.index][1].take_id} and {item.take.take_id}"
            raise InvalidInput(f"{both} are takes of the same segment", field="take_ids", allowed="one take a segment")
        at = {"start": place.start, "stop": place.stop, "window_start": place.window_start}
        placed[place.index] = item, item.take.model_copy(update=at)
    takes = [take for _, take in placed.values()]
    _, decisions, cost = look_ahead(app, montage, request, takes)
    for index, (item, take) in placed.items():
        if decisions[index].take != take.fingerprint:
            raise _unfit(app, montage, item)
    places = [plan.segments[index] for index in placed]
    return list(zip(takes, places, strict=True)), outlook_of(quality, decisions, cost)


def _another_content(montage: Montage, item: Found) -> InvalidInput:
    video, part = item.video, item.video.report.segments[item.ordinal]
    if video.montage_id != montage.id:
        way = f"merge_montage(montage_id={montage.id!r}, source_id={video.montage_id!r}), then choose_take again"
    else:
        way = f"get_montage(montage_id={montage.id!r}, since_revision={video.revision}), which tells what changed"
    return InvalidInput(
        f"{item.take.take_id} was rendered for {part.start_s:.2f}–{part.end_s:.2f} s of {video.montage_id} revision "
        f"{video.revision}; no segment of {montage.id} revision {montage.revision} has the same anchors and beats",
        field="take_ids",
        allowed="takes of segments that did not change",
        next_call=way,
    )


def _unfit(app: App, montage: Montage, item: Found) -> Conflict | NotFound:
    if not (app.studio.takes / f"{item.take.fingerprint}.json").is_file():
        return NotFound(
            f"{item.take.take_id} was cleaned up: only its video is left",
            field="take_ids",
            next_call=f"render_segments(montage_id={montage.id!r}, quality={item.video.quality!r}, takes=3)",
        )
    before = item.video.segments[item.ordinal - 1].take_id
    return Conflict(
        f"{item.take.take_id} continues from {before}, which {montage.id} would not show before it",
        field="take_ids",
        allowed="that take chosen as well, or an alternative of the segment, which fits anyway",
        next_call=f"choose_take(montage_id={montage.id!r}, take_ids={[before, item.take.take_id]})",
    )
