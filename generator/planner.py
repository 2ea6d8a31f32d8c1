"""The planner: anchors and beats → placed anchors, segments and seams. No torch.

Source: DreaMontage's segment-wise auto-regression (https://arxiv.org/abs/2512.21252, §SAR), made executable: an anchor
closes its segment, a clip that fits is never cut, and no window exceeds the model's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput, NotFound, SlotTaken
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Beat, Guide, Montage, Quality
from dreamontage.schemas.plan import PlacedAnchor, Plan, Seam, Segment

from .native import at_native, delivered_shape, native_shape, resampling, shown_frames
from .timeline import STRIDE, clip_frames, frame_count, slot_count, slot_start_s, snap_frame

_LOOSER: dict[Guide, int] = {"follow": 0, "loose": 1, "off": 2}


def plan_montage(montage: Montage, media: Mapping[str, Media], card: ModelCard, quality: Quality = "standard") -> Plan:
    """The plan of a montage for one model: grid, segments that cover [0, T) exactly, seams.

    Raises SlotTaken where two anchors share a slot, InvalidInput where an anchor lies beyond the end,
    NotFound where its media is unknown.
    """
    asked = montage.format.at(quality)
    form = native_shape(asked, card, quality)
    shown = delivered_shape(asked, form)
    montage = at_native(montage, card, quality)
    fps = montage.format.fps
    frames = frame_count(montage.duration_s, fps, card.stride)
    slots = slot_count(frames, card.stride)
    anchors, warnings = place_anchors(montage, media, card.stride)
    segments = _segments(montage, anchors, slots, card)
    seams = [Seam(slot=s.start, at_s=s.start_s, kind=s.seam) for s in segments[1:]]
    return Plan(
        montage_id=montage.id,
        revision=montage.revision,
        model=card.id,
        format=form,
        shown=None if (shown.width, shown.height, shown.fps) == (form.width, form.height, form.fps) else shown,
        requested_duration_s=montage.duration_s,
        duration_s=round(shown_frames(frames, fps, shown.fps) / shown.fps, 6),
        frames=frames,
        slots=slots,
        stride=card.stride,
        anchors=anchors,
        segments=segments,
        seams=seams,
        warnings=[*warnings, *resampling(asked, form, shown, card)],
    )


def place_anchors(
    montage: Montage, media: Mapping[str, Media], stride: int = STRIDE
) -> tuple[list[PlacedAnchor], list[str]]:
    """Every anchor on the grid, ordered by slot, and warnings about clips that had to be shortened."""
    fps = montage.format.fps
    last_frame = frame_count(montage.duration_s, fps, stride) - 1
    placed: list[PlacedAnchor] = []
    warnings: list[str] = []
    for anchor in montage.anchors:
        item = media.get(anchor.media_id)
        if item is None:
            raise NotFound(
                f"media {anchor.media_id!r} of anchor {anchor.id} is not in this studio",
                field="media_id",
                next_call="add_media(sources=[...]) takes a file in and returns its id",
            )
        if item.kind == "sound":
            raise InvalidInput(
                f"{item.id} of anchor {name_of(anchor)} is a sound, which cannot be pinned",
                field="anchors",
                allowed="pictures and clips",
                next_call=f"update_montage(montage_id=..., audio={item.id!r}) lays it under the video",
            )
        if anchor.second > montage.duration_s:
            raise InvalidInput(
                f"anchor {name_of(anchor)} at {anchor.second:g} s lies beyond the end at {montage.duration_s:g} s",
                field="second",
                allowed=f"0 to {montage.duration_s:g}",
                next_call="give a smaller second, or a longer duration_s",
            )
        frame = min(snap_frame(anchor.second, fps, stride), last_frame)
        count, warning = _clip_length(anchor, item, fps, last_frame + 1 - frame, stride)
        if warning:
            warnings.append(warning)
        placed.append(
            PlacedAnchor(
                anchor_id=anchor.id,
                media_id=item.id,
                label=anchor.label or item.name or anchor.id,
                kind="still" if count == 1 else "clip",
                strength=anchor.strength,
                requested_s=anchor.second,
                snapped_s=round(frame / fps, 6),
                frame=frame,
                slot=frame // stride,
                slots=slot_count(count, stride),
                stride=stride,
            )
        )
    placed.sort(key=lambda p: p.slot)
    _refuse_shared_slots(placed, fps, montage.duration_s, stride)
    return placed, warnings


def name_of(anchor: Anchor) -> str:
    """How messages call an anchor: its id, with the label where it has one."""
    return f"{anchor.id} ({_quoted(anchor.label)})" if anchor.label else anchor.id


def _quoted(words: str) -> str:
    """Somebody's words as data: in quotes, on one line."""
    return json.dumps(words, ensure_ascii=False)


def _clip_length(anchor: Anchor, item: Media, fps: int, room: int, stride: int) -> tuple[int, str]:
    if item.kind == "still":
        return 1, ""
    end = min(anchor.out_s if anchor.out_s is not None else item.duration_s, item.duration_s)
    if anchor.in_s >= item.duration_s:
        raise InvalidInput(
            f"anchor {name_of(anchor)} starts its trim at {anchor.in_s:g} s, after the clip's end",
            field="in_s",
            allowed=f"0 to {item.duration_s:g}",
        )
    available = max(1, math.floor((end - anchor.in_s) * fps + 0.5))
    count = clip_frames(available, room, stride)
    if count < clip_frames(available, available, stride):
        lost = (available - count) / fps
        return count, f"Clip {name_of(anchor)} is cut at the end of the timeline: {lost:.2f} s of it are left out."
    return count, ""


def _refuse_shared_slots(placed: Sequence[PlacedAnchor], fps: int, duration_s: float, stride: int) -> None:
    taken = {slot for p in placed for slot in range(p.slot, p.last_slot + 1)}
    for left, right in pairwise(placed):
        if right.slot > left.last_slot:
            continue
        slots = slot_count(frame_count(duration_s, fps, stride), stride)
        last_start = min(slots - right.slots, snap_frame(duration_s, fps, stride) // stride)
        free = [s for s in range(last_start + 1) if taken.isdisjoint(range(s, s + right.slots))]
        before = [s for s in free if s < right.slot][-1:]
        after = [s for s in free if s > right.slot][:1]
        seconds = " or ".join(f"{min(round(stride * s / fps, 3), duration_s):g}" for s in before + after)
        raise SlotTaken(
            f"anchors {left.anchor_id} ({_quoted(left.label)}) and {right.anchor_id} ({_quoted(right.label)}) "
            f"share the frames at {right.snapped_s:g} s",
            field="second",
            allowed=f"for {right.anchor_id} the nearest seconds that work are {seconds}"
            if seconds
            else "a longer duration_s",
            next_call="give one of them another second, or ripple=true to shift what is later",
        )


def _segments(montage: Montage, anchors: Sequence[PlacedAnchor], slots: int, card: ModelCard) -> list[Segment]:
    borders = cut(slots, [(a.slot, a.last_slot) for a in anchors], card.window, card.overlap, card.shortest)
    closers = {a.last_slot + 1: a.anchor_id for a in anchors} | {
        a.slot + 1: a.anchor_id for a in anchors if a.kind == "clip"
    }
    fps, stride = montage.format.fps, card.stride
    segments: list[Segment] = []
    closer, ordinal = "", 0
    for index, (start, stop) in enumerate(borders):
        low = max(0, start - card.overlap)
        pinned = any(a.kind == "clip" and a.pinned and a.slot <= low and start - 1 <= a.last_slot for a in anchors)
        closed = closers.get(stop)
        closer, ordinal = (closed, 0) if closed else (closer, ordinal + 1)
        segments.append(
            Segment(
                index=index,
                start=start,
                stop=stop,
                window_start=low,
                stride=stride,
                start_s=round(slot_start_s(start, fps, stride), 6),
                end_s=round(slot_start_s(stop, fps, stride), 6),
                seam="start" if index == 0 else "pinned" if pinned else "carried",
                closes=closed,
                ordinal=ordinal,
                seed=segment_seed(montage.seed, closer, ordinal),
                guide=resolve_guide(
                    montage.beats,
                    slot_start_s(low, fps, stride),
                    slot_start_s(stop, fps, stride),
                    card.defaults.guide,
                ),
            )
        )
    return segments


def cut(
    slots: int, anchors: Sequence[tuple[int, int]], window: int, overlap: int, shortest: int
) -> list[tuple[int, int]]:
    """Segments [a, b) that cover [0, slots): each closes at an anchor where it can.

    `anchors` are (first, last) slots, first == last for stills. No window exceeds `window` slots, `overlap` included;
    no clip that fits into a window is cut; segments have at least `shortest` slots where the anchors allow it.
    """
    ends = {first + 1 for first, _ in anchors} | {last + 1 for _, last in anchors}
    clips = [(c, e) for c, e in anchors if e > c and e - c + 1 <= window - overlap - shortest]
    segments: list[tuple[int, int]] = []
    a = 0
    while a < slots:
        cap = window - (overlap if a else 0)
        if slots - a <= cap:
            b = slots
        else:
            free = [b for b in range(a + shortest, a + cap + 1) if not any(c + 1 < b <= e for c, e in clips)]
            good = [b for b in free if slots - b >= shortest] or free
            b = max([b for b in good if b in ends] or _roomy(good, ends, shortest) or good)
        segments.append((a, b))
        a = b
    return segments


def _roomy(splits: Sequence[int], ends: Collection[int], shortest: int) -> list[int]:
    """Forced splits that leave the next anchor's segment room, so that cuts fall in step again at every anchor."""
    return [b for b in splits if not any(b < end < b + shortest for end in ends)]


def segment_seed(montage_seed: int, closing_anchor: str, ordinal: int) -> int:
    """Seed of a segment (63 bits): stays the same however far the segment moves along the timeline."""
    digest = hashlib.sha256(f"{montage_seed}/{closing_anchor}/{ordinal}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def resolve_guide(beats: Sequence[Beat], start_s: float, end_s: float, default: Guide | None) -> Guide:
    """Guide mode of an interval: off if any beat in it says off, else the loosest; the default where none speaks."""
    spoken = [b.guide for b in beats if b.guide and b.start_s < end_s and b.end_s > start_s]
    return max(spoken, key=_LOOSER.__getitem__) if spoken else default or "follow"
