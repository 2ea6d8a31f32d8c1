"""What decides a take: recipes, fingerprints, and which segments of a changed montage have to be rendered. No torch.

A recipe is the canonical JSON of everything that decides a segment but its seed, tail and held end. All positions are
relative to the window, so a stretch that only moved along the timeline keeps its recipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from dreamontage.generator.models import catalogue
from dreamontage.generator.native import at_native
from dreamontage.generator.planner import segment_seed
from dreamontage.generator.previz import VERSION as PREVIZ_VERSION
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.timeline import frames_of_slot
from dreamontage.generator.windows import previz_beats, window_anchors, window_beats, window_frames, window_slots
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard, RenderSettings, lora_name
from dreamontage.schemas.montage import Guide, Montage
from dreamontage.schemas.plan import Plan, Segment
from dreamontage.schemas.report import Video, VideoSegment

FORMAT = 2
"""Raised whenever the same recipe would no longer give the same take."""


@dataclass(frozen=True)
class Decision:
    """What a render does with a segment: reuse `take`, or render it with this seed, holding the end of `held_take`.

    `others`: seeds of alternatives, rendered besides. Where the next segment continues from this one, their ends are
    held at its take's, so that any of them can be chosen without touching what follows.
    """

    segment: Segment
    action: Literal["render", "reuse"]
    reason: str
    seed: int
    recipe: str
    settings: RenderSettings = field(default_factory=RenderSettings)
    take: str | None = None
    held_take: str | None = None
    others: tuple[int, ...] = ()

    @property
    def hold_end(self) -> bool:
        """Whether the window's last slots are held at an earlier take's, because what follows is kept."""
        return self.held_take is not None


def resolve_settings(card: ModelCard, settings: RenderSettings, segment: Segment) -> tuple[RenderSettings, Guide]:
    """A segment's settings over its LoRAs' and the card's; its guide mode: the one that is named, else the plan's."""
    resolved = card.resolve(settings)
    guide = settings.guide or segment.guide
    return resolved.model_copy(update={"guide": guide, "t0": resolved.t0 if guide == "follow" else None}), guide


def previz_key(media: Media, anchor: Anchor) -> str:
    """Identity of an anchor's pixels: content, start of the trim, fit, and the focus point where it counts."""
    focus = anchor.focus if anchor.fit == "cover" else None
    return json.dumps([media.sha256, anchor.in_s if media.kind == "clip" else 0, anchor.fit, focus])


def recipe_of(
    plan: Plan, segment: Segment, montage: Montage, media: Mapping[str, Media], card: ModelCard,
    settings: RenderSettings, weights: str, shape: Previz | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that decides a segment but its seed, tail and held end, as JSON; positions in slots of its window."""
    resolved, guide = resolve_settings(card, settings, segment)
    anchors = {anchor.id: anchor for anchor in montage.anchors}
    conditions = [
        {
            "pixels": previz_key(media[inside.anchor.media_id], anchors[inside.anchor.anchor_id]),
            "slot": inside.slot, "skipped": inside.skipped, "slots": inside.slots, "strength": inside.anchor.strength,
        }
        for inside in window_anchors(plan, segment)
    ]  # fmt: skip
    beats = [
        {"start": b.start, "end": b.end, "prompt": b.prompt, "camera": b.camera and b.camera.model_dump(mode="json")}
        for b in window_beats(montage, segment)
    ]
    return {
        "format": FORMAT,
        "model": card.id,
        "weights": weights,
        "size": [plan.format.width, plan.format.height],
        "fps": plan.format.fps,
        "window": [card.window, card.overlap],
        "slots": window_slots(segment),
        "seam": segment.seam,
        "settings": resolved.model_dump(mode="json"),
        "conditions": conditions,
        "beats": beats,
        "previz": None if guide == "off" else PREVIZ_VERSION,
        "guide": [] if guide == "off" else guide_inputs(segment, shape or outline(plan, montage, media)),
        **_read(montage, card, resolved),
    }


def _read(montage: Montage, card: ModelCard, settings: RenderSettings) -> dict[str, Any]:
    """What only models that read text, or take LoRAs, depend on."""
    loras = {lora: catalogue.lora_hash(card.id, lora_name(lora)) for lora in settings.loras or ()}
    return ({} if card.family == "nano" else {"brief": montage.brief.strip()}) | ({"loras": loras} if loras else {})


def outline(plan: Plan, montage: Montage, media: Mapping[str, Media]) -> Previz:
    """The previz of a whole shot without its pixels: what its frames are made of, the same for all its segments."""
    anchors = {anchor.id: anchor for anchor in montage.anchors}
    blank = np.zeros((1, 1, 1, 3), np.uint8)
    placed = [
        PrevizAnchor(
            np.broadcast_to(blank, (anchor.frames, 1, 1, 3)),
            anchor.frame,
            previz_key(media[anchor.media_id], anchors[anchor.anchor_id]),
        )
        for anchor in plan.anchors
    ]
    size = (plan.format.width, plan.format.height)
    return Previz(placed, previz_beats(montage), plan.frames, size, plan.format.fps)


def guide_inputs(segment: Segment, shape: Previz) -> list[dict[str, Any]]:
    """What decides the previz that reaches a window: gaps, their anchors and camera moves, relative to its first frame.

    Over a carried tail nothing of the previz is used, so only the gaps of the new slots count.
    """
    frames = window_frames(segment)
    start = frames_of_slot(segment.start, segment.stride).start if segment.seam == "carried" else frames.start
    return shape.inputs(start, frames.stop)


def canonical_hash(content: Mapping[str, Any]) -> str:
    """sha256 of canonical JSON: sorted keys, no spaces."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def recipe(
    plan: Plan, segment: Segment, montage: Montage, media: Mapping[str, Media], card: ModelCard,
    settings: RenderSettings, weights: str | None = None, shape: Previz | None = None,
) -> str:  # fmt: skip
    """Hash of `recipe_of`; the weights' hash and the shot's outline are made where they are not given."""
    weights = catalogue.weights_hash(card.id) if weights is None else weights
    return canonical_hash(recipe_of(plan, segment, montage, media, card, settings, weights, shape))


def fingerprint(recipe: str, seed: int, dtype: str, tail: str | None, held: str | None) -> str:
    """Identity of a take: its recipe, seed and number type, and the sha256 of the tail and the held end it met."""
    return canonical_hash({"recipe": recipe, "seed": seed, "dtype": dtype, "tail": tail, "held": held})


def chosen_segments(plan: Plan, request: RenderRequest) -> set[int]:
    """Segments a request names: its range widened to whole segments; a seed alone, or several takes alone: all."""
    if request.from_s is None and request.to_s is None and request.seed is None and request.takes == 1:
        return set()
    low, high = request.from_s or 0.0, plan.duration_s if request.to_s is None else request.to_s
    return {s.index for s in plan.segments if s.start_s < high and s.end_s > low}


def widened_range(plan: Plan, request: RenderRequest) -> tuple[float, float] | None:
    """The seconds that the requested range was widened to; None where no range was named."""
    chosen = [s for s in plan.segments if s.index in chosen_segments(plan, request)]
    return (chosen[0].start_s, chosen[-1].end_s) if chosen else None


def decide(
    plan: Plan, montage: Montage, media: Mapping[str, Media], card: ModelCard, request: RenderRequest,
    base: Video | None, *, choices: Sequence[VideoSegment] = (), weights: str | None = None,
    has_take: Callable[[str], bool] = lambda _: True,
) -> list[Decision]:  # fmt: skip
    """What to render and what to keep of `base`, an earlier video of this montage; one decision per segment.

    Segments are matched to the base's by recipe; a take that was chosen since (`choices`, oldest first) comes before
    the base's. A matched one is kept with its seed and settings, unless the request names its time, or what it
    continues from is not what it met. `after=hold` (invariant 10) lets a segment that is rendered before a kept one
    hold its own end at the old take, so that the kept one's tail stays; `after=follow` renders on instead. Several
    takes without a seed keep what is there and render alternatives beside it. Quality previz needs no takes: nothing is
    decided.
    """
    if request.quality == "previz":
        return []
    weights = catalogue.weights_hash(card.id) if weights is None else weights
    montage = at_native(montage, card, request.quality)
    chosen = chosen_segments(plan, request)
    anew = chosen if request.takes == 1 or request.seed is not None else set()
    named = request.settings != RenderSettings()
    known: dict[tuple[int, str], str] = {}
    shape = outline(plan, montage, media)

    def recipe_with(segment: Segment, settings: RenderSettings) -> str:
        key = segment.index, settings.model_dump_json()
        if key not in known:
            known[key] = recipe(plan, segment, montage, media, card, settings, weights, shape)
        return known[key]

    asked = {s.index for s in plan.segments if named and (not chosen or s.index in chosen)}
    old = base.segments if base is not None and base.quality == request.quality else []
    inherited = _distinct(s.settings for s in old)
    agree: list[list[bool]] = []
    for segment in plan.segments if old else []:
        options = [(s, recipe_with(segment, s)) for s in ([request.settings] if segment.index in asked else inherited)]
        agree.append([(s.settings, s.recipe) in options for s in old])
    kept = {index: old[number] for index, number in _align(agree).items()}
    for choice in choices:
        fitting = [s for s in plan.segments if s.index not in asked or choice.settings == request.settings]
        place = place_of(choice, fitting, recipe_with)
        if place is not None:
            kept[place.index] = choice
    ends = _ends(old, choices)
    endings = {end: name for name, end in ends.items() if has_take(name)}

    decisions: list[Decision] = []
    before: VideoSegment | None = None  # whose take the segment before keeps, None where one is rendered
    for segment in plan.segments:
        source = kept.get(segment.index)
        reason = _why_render(segment, anew, source, base)
        lost = source is not None and not reason and not has_take(source.fingerprint)
        if source is not None and not reason and segment.seam == "carried":
            held = None if lost or source.tail is None else endings.get(source.tail)
            if before is None and request.after == "hold" and held is not None:
                decisions[-1] = replace(decisions[-1], held_take=held)
            elif before is None or source.tail is None or ends.get(before.fingerprint) != source.tail:
                reason = "what it continues from is another take now"
        if source is not None and not reason and not lost:
            decision = Decision(
                segment, "reuse", "unchanged", source.seed, source.recipe, source.settings, source.fingerprint
            )
            before = source
        else:
            settings = request.settings if segment.index in asked else source.settings if source else RenderSettings()
            seed = segment.seed if source is None or segment.index in anew else source.seed
            if request.seed is not None and segment.index in chosen:
                seed = segment_seed(request.seed, str(segment.seed), 0)
            reason = reason or "its take was lost"
            decision = Decision(segment, "render", reason, seed, recipe_with(segment, settings), settings)
            before = source if lost else None  # a lost take comes back the same: what follows it is kept
        if request.takes > 1 and segment.index in chosen and not pinned_whole(plan, segment):
            others = tuple(segment_seed(decision.seed, "take", number) for number in range(2, request.takes + 1))
            decision = replace(decision, others=others)
        decisions.append(decision)
    return decisions


def pinned_whole(plan: Plan, segment: Segment) -> bool:
    """Whether every new slot of a segment is fixed by clips or stills, so that all takes of it would show the same."""
    pinned = {slot for a in plan.anchors if a.pinned for slot in range(a.slot, a.last_slot + 1)}
    return pinned.issuperset(range(segment.start, segment.stop))


def place_of(
    take: VideoSegment, segments: Iterable[Segment], recipe_with: Callable[[Segment, RenderSettings], str]
) -> Segment | None:
    """The segment that a take was or could have been rendered for: one with its recipe, the nearest in time."""
    fitting = [segment for segment in segments if recipe_with(segment, take.settings) == take.recipe]
    return min(fitting, key=lambda segment: abs(segment.start - take.start), default=None)


def _ends(old: Sequence[VideoSegment], chosen: Sequence[VideoSegment]) -> dict[str, str]:
    """sha256 of the last latents of every take where it is known: what a carried segment after it has met."""
    ends = {take.fingerprint: take.end for take in [*chosen, *old] if take.end is not None}
    met = {a.fingerprint: b.tail for a, b in pairwise(old) if b.seam == "carried" and b.tail is not None}
    return ends | met


def _why_render(segment: Segment, chosen: set[int], source: VideoSegment | None, base: Video | None) -> str:
    if segment.index in chosen:
        return "asked for"
    if source is None:
        return "no earlier take" if base is None else "its part of the timeline changed"
    return ""


def _distinct(settings: Iterable[RenderSettings]) -> list[RenderSettings]:
    found: list[RenderSettings] = []
    for item in settings:
        if item not in found:
            found.append(item)
    return found


def _align(agree: Sequence[Sequence[bool]]) -> dict[int, int]:
    """Longest common subsequence of new segments (rows) and old ones (columns) that agree: row -> column."""
    rows, columns = len(agree), len(agree[0]) if agree else 0
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for k in reversed(range(columns)):
            best[i][k] = best[i + 1][k + 1] + 1 if agree[i][k] else max(best[i + 1][k], best[i][k + 1])
    match, i, k = {}, 0, 0
    while i < rows and k < columns:
        if agree[i][k]:
            match[i] = k
            i, k = i + 1, k + 1
        elif best[i + 1][k] >= best[i][k + 1]:
            i += 1
        else:
            k += 1
    return match
