"""Edits: pure, whole or not at all; a ripple keeps every later gap, on the grid."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dreamontage.generator.timeline import Grid
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput, NotFound
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Beat, Format, Montage
from dreamontage.server import edits
from dreamontage.server.arguments import AnchorChange, AnchorSpec

STILL = Media(id="img_1", sha256="1", kind="still", container="PNG", width=64, height=64, bytes=1)
CLIP = Media(
    id="clip_1", sha256="2", kind="clip", container="mov", width=64, height=64, duration_s=2, fps=24, frames=48, bytes=1
)  # fmt: skip
GRID = Grid(24)
LIBRARY = {STILL.id: STILL, CLIP.id: CLIP}


def new(second: float | None = None, media: Media = STILL, **more: object) -> tuple[AnchorSpec, Media]:
    return AnchorSpec.model_validate({"source": media.id, "second": second, **more}), media


def create(
    *anchors: tuple[AnchorSpec, Media], duration_s: float | None = None, beats: tuple[Beat, ...] = ()
) -> Montage:
    return edits.create(
        "m_1", anchors, beats, GRID, brief="", duration_s=duration_s, form=Format(), model="nano", seed=0
    )  # fmt: skip


def make_clip() -> Anchor:
    return Anchor(id="a1", media_id=CLIP.id, second=0.0)


def seconds(montage: Montage) -> list[float]:
    return [a.second for a in montage.anchors]


def ends(montage: Montage) -> list[tuple[float, float]]:
    return [(a.second, a.second + edits.length_s(a, LIBRARY[a.media_id], GRID)) for a in montage.anchors]


def gaps(montage: Montage) -> dict[tuple[str, str], float]:
    pairs = zip(pairwise(montage.anchors), pairwise(ends(montage)), strict=True)
    return {(a.id, b.id): round(right[0] - left[1], 6) for (a, b), (left, right) in pairs}


@st.composite
def montages(draw: st.DrawFn) -> Montage:
    specs, at = [], draw(st.floats(0, 2))
    for _ in range(draw(st.integers(1, 8))):
        media = draw(st.sampled_from([STILL, CLIP]))
        specs.append(new(round(at, 3), media))
        at += draw(st.floats(0.5, 5)) + (2 if media is CLIP else 0)
    return create(*specs, duration_s=round(at + 1, 3))


def test_anchors_without_times_follow_each_other_every_three_seconds() -> None:
    montage = create(new(), new(), new())
    assert seconds(montage) == [0, 3, 6]
    assert montage.duration_s == 6


def test_anchors_without_times_fill_the_duration_evenly() -> None:
    assert seconds(create(*[new()] * 5, duration_s=12)) == [0, 3, 6, 9, 12]


def test_anchors_without_times_fill_the_room_between_their_neighbours() -> None:
    montage = create(new(1.0), new(), new(), new(7.0), new(), duration_s=10)
    assert seconds(montage) == [1, 3, 5, 7, 10]


def test_a_clip_without_a_time_ends_with_the_shot() -> None:
    montage = create(new(), new(media=CLIP), duration_s=8)
    assert ends(montage)[-1][1] == pytest.approx(8)


def test_one_picture_alone_gets_a_shot_of_three_seconds() -> None:
    assert create(new()).duration_s == 3
    assert create(new(media=CLIP)).duration_s == pytest.approx(44 / 24 + 3)


def test_anchors_without_a_time_keep_two_slots_of_the_models_grid_apart() -> None:
    stills, form = [new()] * 6, Format()
    made = edits.create("m_1", stills, [], GRID, brief="", duration_s=2, form=form, model="nano", seed=0)
    assert len(made.anchors) == 6
    with pytest.raises(InvalidInput, match=r"at least 0\.67 s"):
        edits.create("m_1", stills, [], Grid(24, 8), brief="", duration_s=2, form=form, model="ltx", seed=0)
    assert edits.length_s(make_clip(), CLIP, Grid(24, 8)) == pytest.approx(40 / 24)
    assert edits.length_s(make_clip(), CLIP, GRID) == pytest.approx(44 / 24)


def test_too_many_anchors_for_the_duration_are_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidInput, match="longer duration_s"):
        create(*[new()] * 40, duration_s=2)


@given(montages(), st.data())
def test_a_ripple_keeps_every_later_gap_and_the_grid(montage: Montage, data: st.DataObject) -> None:
    after = data.draw(st.sampled_from(montage.anchors))
    gap = data.draw(st.floats(0.5, 5).map(lambda g: round(g, 2)))
    media = data.draw(st.sampled_from([STILL, CLIP]))
    grid = data.draw(st.sampled_from([GRID, Grid(16), Grid(24, 8)]))
    edited = edits.add_anchors(montage, [new(None, media, after=after.id, gap_s=gap)], LIBRARY, grid, ripple=True)
    before, now = gaps(montage), gaps(edited)
    position = montage.anchors.index(after)
    for pair in list(before)[:position] + list(before)[position + 1 :]:
        assert now[pair] == pytest.approx(before[pair], abs=1e-5)
    for anchor in montage.anchors[position + 1 :]:
        moved = next(a for a in edited.anchors if a.id == anchor.id)
        shift = moved.second - anchor.second
        whole = round(shift / grid.slot_s)
        assert whole > 0 and shift == pytest.approx(whole * grid.slot_s, abs=1e-5)
        assert grid.snapped(moved.second) - grid.snapped(anchor.second) == pytest.approx(shift, abs=1e-5)
    assert edited.duration_s >= montage.duration_s


@given(montages(), st.data())
def test_removing_what_a_ripple_inserted_gives_the_montage_back(montage: Montage, data: st.DataObject) -> None:
    after = data.draw(st.sampled_from(montage.anchors))
    spec = new(None, STILL, after=after.id, gap_s=data.draw(st.integers(1, 12)) / 6)
    edited = edits.add_anchors(montage, [spec], LIBRARY, GRID, ripple=True)
    inserted = next(a.id for a in edited.anchors if a.id not in {b.id for b in montage.anchors})
    restored = edits.remove_anchors(edited, [inserted], LIBRARY, GRID, ripple=True)
    assert seconds(restored) == pytest.approx(seconds(montage), abs=1e-5)
    assert restored.duration_s == pytest.approx(montage.duration_s, abs=1e-5)


@given(montages(), st.data())
def test_moving_with_a_ripple_carries_what_is_later_along(montage: Montage, data: st.DataObject) -> None:
    anchor = data.draw(st.sampled_from(montage.anchors))
    target = round(anchor.second + data.draw(st.floats(0, 5)), 2)
    change = AnchorChange(id=anchor.id, second=target)
    edited = edits.update_anchors(montage, [(change, None)], LIBRARY, GRID, ripple=True)
    later = [a.id for a in montage.anchors if a.second > anchor.second]
    assert [a.id for a in edited.anchors if a.id in later] == later
    for pair, gap in gaps(montage).items():
        if pair[0] in later:
            assert gaps(edited)[pair] == pytest.approx(gap, abs=1e-5)


def test_a_ripple_takes_beats_along_and_stretches_the_one_it_cuts_through() -> None:
    beats = (Beat(start_s=0, end_s=3), Beat(start_s=3, end_s=6))
    montage = create(new(), new(), new(), beats=beats)
    edited = edits.add_anchors(montage, [new(None, STILL, after="a1", gap_s=2)], LIBRARY, GRID, ripple=True)
    assert [(b.start_s, b.end_s) for b in edited.beats] == [(0, 5), (5, 8)]
    assert seconds(edited) == [0, 2, 5, 8]


def test_removing_with_a_ripple_takes_out_the_stretch_that_led_there_with_its_beat() -> None:
    beats = (Beat(start_s=0, end_s=3), Beat(start_s=3, end_s=6))
    edited = edits.remove_anchors(create(new(), new(), new(), beats=beats), ["a2"], LIBRARY, GRID, ripple=True)
    assert (seconds(edited), edited.duration_s) == ([0, 3], 3)
    assert [(b.id, b.start_s, b.end_s) for b in edited.beats] == [("b2", 0, 3)]


def test_two_anchors_swap_places_in_one_call() -> None:
    montage = create(new(), new(), new())
    changes = [(AnchorChange(id="a1", second=3), None), (AnchorChange(id="a2", second=0), None)]
    assert [a.id for a in edits.update_anchors(montage, changes, LIBRARY, GRID).anchors] == ["a2", "a1", "a3"]


def test_anchors_added_without_a_time_follow_the_last_and_lengthen_the_shot_where_they_must() -> None:
    montage = create(new(), new(), duration_s=6)
    assert edits.add_anchors(montage, [new()], LIBRARY, GRID).duration_s == 9
    roomy = edits.add_anchors(create(new(0.0), duration_s=6), [new(), new()], LIBRARY, GRID)
    assert (seconds(roomy), roomy.duration_s) == ([0, 3, 6], 6)


def test_a_fresh_anchor_never_takes_the_id_of_one_that_is_there() -> None:
    montage = edits.remove_anchors(create(new(), new(), new()), ["a2"], LIBRARY, GRID)
    assert [a.id for a in edits.add_anchors(montage, [new(2.0)], LIBRARY, GRID).anchors] == ["a1", "a4", "a3"]


def test_unknown_anchors_and_beats_are_named_with_those_there_are() -> None:
    montage = create(new(), new())
    with pytest.raises(NotFound, match="a1, a2"):
        edits.remove_anchors(montage, ["a9"], LIBRARY, GRID)
    with pytest.raises(NotFound, match="a1, a2"):
        edits.add_anchors(montage, [new(None, STILL, after="a9")], LIBRARY, GRID)
    with pytest.raises(NotFound, match="no beats yet"):
        edits.edit_beats(montage, [], ["b1"])


def test_beats_are_replaced_by_id_added_without_one_and_removed() -> None:
    montage = create(new(), new(), beats=(Beat(start_s=0, end_s=1, prompt="one"), Beat(start_s=1, end_s=2)))
    edited = edits.edit_beats(
        montage, [Beat(id="b1", start_s=0, end_s=2, prompt="two"), Beat(start_s=2, end_s=3)], ["b2"]
    )
    assert [(b.id, b.prompt, b.end_s) for b in edited.beats] == [("b1", "two", 2), ("b3", "", 3)]


def test_anchors_after_a_long_clip_lie_within_the_duration_that_is_worked_out() -> None:
    long = CLIP.model_copy(update={"duration_s": 40.0, "frames": 1000})
    montage = create(new(media=long), new(), new())
    assert seconds(montage)[-1] <= montage.duration_s


def test_the_fields_of_a_source_may_stand_beside_the_anchors_own() -> None:
    spec = AnchorSpec.model_validate({"path": "lake.jpg", "second": 3})
    assert spec == AnchorSpec.model_validate({"source": {"path": "lake.jpg"}, "second": 3})
    with pytest.raises(ValidationError, match="one of the forms"):
        AnchorSpec.model_validate({"path": "lake.jpg", "data": "x"})
