"""Edits of a montage as pure functions: a new montage, or an error and nothing changed.

Seconds are as asked for; the planner snaps them. A ripple shifts by whole slots of the grid that the montage's model
plans in, so that what is later keeps its place on every window's grid and its takes can be reused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dreamontage.generator.timeline import Grid, clip_frames
from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput, NotFound
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Beat, BeatSpec, Format, Montage

from .arguments import AnchorChange, AnchorSpec

_EPSILON = 1e-6

NewAnchor = tuple[AnchorSpec, Media]
Library = Mapping[str, Media]


def length_s(anchor: Anchor, media: Media, grid: Grid) -> float:
    """Seconds from the first to the last frame of an anchor on the grid: 0 for a still, whole slots for a clip."""
    if media.kind == "still":
        return 0.0
    end = min(media.duration_s, anchor.out_s if anchor.out_s is not None else media.duration_s)
    frames = max(1, math.floor((end - anchor.in_s) * grid.fps + 0.5))
    return (clip_frames(frames, frames, grid.stride) - 1) / grid.fps


def place(
    times: Sequence[float | None], lengths: Sequence[float], duration_s: float | None, grid: Grid, *, grow: bool = False
) -> tuple[list[float], float]:
    """Seconds for every anchor, those without one placed evenly between their neighbours; and the duration.

    Without a duration every anchor follows the one before after 3 s. `grow` lengthens a given duration where what
    follows the last timed anchor does not fit. Raises InvalidInput where a stretch has no room.
    """
    placed = list(times)
    slot = grid.slot_s
    if placed and placed[0] is None:
        placed[0] = 0.0
    if placed and placed[-1] is None:
        last = max(i for i, t in enumerate(placed) if t is not None)
        end, tail = _known(placed[last]) + lengths[last], len(placed) - 1 - last
        taken = end + sum(lengths[last + 1 :])
        fits = duration_s is not None and duration_s - taken >= 2 * slot * tail
        if duration_s is not None and (fits or not grow):
            final = (grid.frames(duration_s) - 1) / grid.fps - lengths[-1]
            placed[-1] = min(duration_s, max(final, 0.0))
        else:
            for index in range(last + 1, len(placed)):
                placed[index] = grid.whole_slots(end + limits.AUTO_GAP_S)
                end = _known(placed[index]) + lengths[index]
            duration_s = max(duration_s or 0.0, end)
    index = 1
    while index < len(placed):
        stop = next(i for i in range(index, len(placed)) if placed[i] is not None)
        start, end, count = _known(placed[index - 1]) + lengths[index - 1], _known(placed[stop]), stop - index
        gap = (end - start - sum(lengths[index:stop])) / (count + 1)
        if count and gap < 2 * slot - _EPSILON:
            raise InvalidInput(
                f"{count} anchor{'s' * (count > 1)} without a time need more room than the {max(0, end - start):.2f} s "
                f"between {start:.2f} and {end:.2f}",
                field="anchors",
                allowed=f"gaps of at least {2 * slot:.2f} s",
                next_call="give a longer duration_s, fewer anchors, or explicit seconds",
            )
        for i in range(index, stop):
            placed[i] = round(start + gap, 3)
            start = _known(placed[i]) + lengths[i]
        index = stop + 1
    seconds = [round(_known(t), 6) for t in placed]
    if duration_s is None:
        ends = [grid.snapped(t) + length for t, length in zip(seconds, lengths, strict=True)]
        duration_s = max([*ends, *seconds], default=0.0) + (limits.AUTO_GAP_S if len(ends) < 2 else 0.0)
    return seconds, round(duration_s, 6)


def create(
    montage_id: str,
    new: Sequence[NewAnchor],
    beats: Sequence[BeatSpec],
    grid: Grid,
    *,
    brief: str,
    duration_s: float | None,
    form: Format,
    model: str,
    seed: int,
) -> Montage:
    """A first revision. Anchors without a time are placed evenly; without a duration the last anchor ends the shot."""
    _count(len(new))
    first = Montage(
        id=montage_id, brief=brief, format=form, model=model, seed=seed,
        duration_s=limits.MIN_DURATION_S if duration_s is None else duration_s,
    )  # fmt: skip
    times: list[float | None] = []
    lengths: list[float] = []
    for number, (spec, media) in enumerate(new, 1):
        second = spec.second
        if spec.after is not None:
            known = {f"a{i}": i - 1 for i in range(1, number)}
            if spec.after not in known:
                raise InvalidInput(
                    f"there is no anchor {spec.after[:40]!r} before the new a{number}",
                    field="after",
                    allowed=", ".join(known) or "nothing, as it is the first: give a second, or leave both out",
                )
            before = known[spec.after]
            if times[before] is None:
                raise InvalidInput(
                    f"anchor {spec.after} has no second itself", field="after", allowed="an anchor that has a second"
                )
            second = _known(times[before]) + lengths[before] + (spec.gap_s or limits.AUTO_GAP_S)
        times.append(second)
        lengths.append(length_s(spec.anchor("new", media.id, 0.0), media, grid))
    asked = duration_s
    if asked is None and beats:
        seconds, auto = place(times, lengths, None, grid)
        asked = max(auto, max(b.end_s for b in beats))
    seconds, total = place(times, lengths, asked, grid)
    anchors = [
        spec.anchor(f"a{number}", media.id, second)
        for number, ((spec, media), second) in enumerate(zip(new, seconds, strict=True), 1)
    ]
    whole = _with(first, anchors=anchors, duration_s=max(total, limits.MIN_DURATION_S))
    return edit_beats(whole, beats, [])


def add_anchors(
    montage: Montage,
    new: Sequence[NewAnchor],
    library: Library,
    grid: Grid,
    *,
    ripple: bool = False,
    duration_s: float | None = None,
) -> Montage:
    """New anchors by `second`, `after` + `gap_s`, or evenly after the last one; a ripple makes room for each.

    A ripple shifts what is later by the new anchor's length plus its gap (default 3 s).
    """
    _count(len(montage.anchors) + len(new))
    if duration_s is not None:
        montage = _with(montage, duration_s=duration_s)
    known = dict(library) | {media.id: media for _, media in new}
    number = max((int(a.id[1:]) for a in montage.anchors if a.id[1:].isdigit()), default=0)
    loose: list[tuple[Anchor, Media]] = []
    for spec, media in new:
        number += 1
        anchor = spec.anchor(f"a{number}", media.id, 0.0)
        if spec.second is None and spec.after is None:
            loose.append((anchor, media))
            continue
        room = length_s(anchor, media, grid) + (spec.gap_s or limits.AUTO_GAP_S)
        if spec.after is not None:
            before = _anchor(montage, spec.after)
            end = before.second + length_s(before, known[before.media_id], grid)
            anchor = _moved(anchor, end + (spec.gap_s or limits.AUTO_GAP_S))
            montage = _retime(montage, end + 2 * _EPSILON, grid.whole_slots(room), {before.id}) if ripple else montage
        elif spec.second is not None:
            anchor = _moved(anchor, spec.second)
            montage = _retime(montage, anchor.second, grid.whole_slots(room)) if ripple else montage
        montage = _with(montage, anchors=[*montage.anchors, anchor])
        if ripple:
            end = grid.snapped(anchor.second) + length_s(anchor, media, grid)
            montage = _with(montage, duration_s=max(montage.duration_s, end))
    if loose:
        times = [a.second for a in montage.anchors] + [None] * len(loose)
        lengths = [length_s(a, known[a.media_id], grid) for a in montage.anchors]
        lengths += [length_s(a, media, grid) for a, media in loose]
        seconds, total = place(times, lengths, montage.duration_s, grid, grow=True)
        added = [_moved(a, t) for (a, _), t in zip(loose, seconds[-len(loose) :], strict=True)]
        montage = _with(montage, anchors=[*montage.anchors, *added], duration_s=total)
    return montage


def update_anchors(
    montage: Montage,
    changes: Sequence[tuple[AnchorChange, Media | None]],
    library: Library,
    grid: Grid,
    *,
    ripple: bool = False,
    duration_s: float | None = None,
) -> Montage:
    """Anchors moved, swapped, trimmed or given other media; what is left out stays.

    A ripple shifts what is later by as much as the anchor's end moved. Positions are checked after all changes, so two
    anchors can swap places in one call.
    """
    if duration_s is not None:
        montage = _with(montage, duration_s=duration_s)
    known = dict(library) | {media.id: media for _, media in changes if media}
    ids = [change.id for change, _ in changes]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise InvalidInput(f"anchor {twice[0]} is listed twice", field="anchors", allowed="one change per anchor")
    shifts: list[tuple[float, float]] = []
    old = montage
    for change, media in changes:
        before = _anchor(old, change.id)
        fields: dict[str, Any] = {"media_id": media.id if media else before.media_id} | change.look()
        if change.second is not None:
            fields["second"] = change.second
        if change.after is not None:
            if change.after == change.id:
                raise InvalidInput(f"anchor {change.id} cannot follow itself", field="after")
            other = _anchor(montage, change.after)
            end = other.second + length_s(other, known[other.media_id], grid)
            fields["second"] = round(end + (change.gap_s or limits.AUTO_GAP_S), 6)
        now = Anchor(**before.model_dump() | fields)
        montage = _with(montage, anchors=[now if a.id == now.id else a for a in montage.anchors])
        old_end = before.second + length_s(before, known[before.media_id], grid)
        shifts.append((old_end, now.second + length_s(now, known[now.media_id], grid) - old_end))
    if ripple:
        for old_end, by in sorted(shifts, reverse=True):
            montage = _retime(montage, old_end + 2 * _EPSILON, grid.whole_slots(by), set(ids))
    return montage


def remove_anchors(
    montage: Montage, ids: Sequence[str], library: Library, grid: Grid, *, ripple: bool = False
) -> Montage:
    """The montage without these anchors. A ripple also takes out the stretch that led to each."""
    for anchor_id in ids:
        gone = _anchor(montage, anchor_id)
        at = montage.anchors.index(gone)
        left, right = montage.anchors[:at], montage.anchors[at + 1 :]
        montage = _with(montage, anchors=left + right)
        if ripple and (left or right):
            start, end = gone.second, right[0].second if right else gone.second
            if left:
                start = left[-1].second + length_s(left[-1], library[left[-1].media_id], grid)
                end = gone.second + length_s(gone, library[gone.media_id], grid)
            by = math.floor((end - start) * grid.fps / grid.stride + 1e-3) * grid.stride / grid.fps
            montage = _retime(montage, end, -by, {a.id for a in left})
    return montage


def edit_beats(montage: Montage, upsert: Sequence[BeatSpec], remove: Sequence[str]) -> Montage:
    """Beats replaced by id, added where the id is empty, removed. Raises NotFound and InvalidInput."""
    beats = {beat.id: beat for beat in montage.beats}
    number = max((int(i[1:]) for i in beats if i[1:].isdigit()), default=0)
    for beat_id in remove:
        _named(beats, beat_id, "beat")
        del beats[beat_id]
    for asked in upsert:
        if asked.id:
            _named(beats, asked.id, "beat")
        else:
            number += 1
        beat = Beat.model_validate(asked.model_dump() | {"id": asked.id or f"b{number}"})
        if beat.start_s >= montage.duration_s:
            raise InvalidInput(
                f"beat at {beat.start_s:g} s starts beyond the end at {montage.duration_s:g} s",
                field="start_s",
                allowed=f"0 to {montage.duration_s:g}",
            )
        beats[beat.id] = beat
    if len(beats) > limits.MAX_BEATS:
        raise InvalidInput(f"{len(beats)} beats are too many", field="beats", allowed=f"at most {limits.MAX_BEATS}")
    return _with(montage, beats=list(beats.values()))


def _retime(montage: Montage, from_s: float, by_s: float, fixed: Collection[str] = ()) -> Montage:
    """Shift anchors and beats at or after `from_s`; a beat across it stretches, one that vanishes is dropped."""

    def moved(t: float, later: bool) -> float:
        return round(t + by_s if later else min(t, from_s + by_s) if by_s < 0 else t, 6)

    beats = []
    for beat in montage.beats:
        start = moved(beat.start_s, beat.start_s >= from_s - _EPSILON)
        end = moved(beat.end_s, beat.end_s > from_s + _EPSILON)
        if end - start > _EPSILON:
            beats.append(beat.model_copy(update={"start_s": max(0.0, start), "end_s": end}))
    anchors = [
        _moved(a, a.second + by_s) if a.second >= from_s - _EPSILON and a.id not in fixed else a
        for a in montage.anchors
    ]
    return _with(montage, anchors=anchors, beats=beats, duration_s=round(montage.duration_s + by_s, 6))


def _moved(anchor: Anchor, second: float) -> Anchor:
    return Anchor(**anchor.model_dump() | {"second": round(max(0.0, second), 6)})


def _with(montage: Montage, **changes: Any) -> Montage:
    """A validated copy, anchors and beats in order of time."""
    fields = {name: getattr(montage, name) for name in type(montage).model_fields} | changes
    fields["anchors"] = sorted(fields["anchors"], key=lambda a: a.second)
    fields["beats"] = sorted(fields["beats"], key=lambda b: b.start_s)
    return Montage(**fields)


def _known(time: float | None) -> float:
    assert time is not None
    return time


def _count(anchors: int) -> None:
    if anchors > limits.MAX_ANCHORS:
        raise InvalidInput(
            f"{anchors} anchors are too many",
            field="anchors",
            allowed=f"at most {limits.MAX_ANCHORS}",
            next_call="split the shot into two montages",
        )


def _anchor(montage: Montage, anchor_id: str) -> Anchor:
    found: Anchor = _named({a.id: a for a in montage.anchors}, anchor_id)
    return found


def _named(known: Mapping[str, Any], name: str, kind: str = "anchor") -> Any:
    if name not in known:
        raise NotFound(
            f"this montage has no {kind} {name[:40]!r}",
            allowed=", ".join(list(known)[:20]) or f"none, it has no {kind}s yet",
            next_call=f"get_montage(montage_id=...) lists the {kind}s",
        )
    return known[name]


Change = Callable[[Montage], Montage]
