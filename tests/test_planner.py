"""The planner: every anchor lands once, segments cover the shot, no avoidable cut through a clip."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamontage.generator import planner
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput, NotFound, SlotTaken
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Beat, Format, Montage

CARD = ModelCard(
    id="tiny",
    title="Tiny",
    licence="Apache-2.0",
    summary="",
    window=16,
    overlap=3,
    shortest=4,
    defaults=RenderSettings(steps=2, guide="follow"),
    settings=["steps", "guide"],
)
STILL = Media(id="img_1", sha256="1", kind="still", container="PNG", width=64, height=64, bytes=1)
CLIP = Media(
    id="clip_1",
    sha256="2",
    kind="clip",
    container="mov",
    width=64,
    height=64,
    duration_s=5,
    fps=24,
    frames=120,
    bytes=1,
)
MEDIA = {STILL.id: STILL, CLIP.id: CLIP}


def montage(*anchors: Anchor, duration_s: float = 10.0, beats: list[Beat] | None = None) -> Montage:
    return Montage(id="m_1", duration_s=duration_s, anchors=list(anchors), beats=beats or [], seed=7)


def still(name: str, second: float) -> Anchor:
    return Anchor(id=name, media_id="img_1", second=second)


@st.composite
def timelines(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    slots = draw(st.integers(1, 400))
    anchors: list[tuple[int, int]] = []
    at = 0
    while at < slots:
        at += draw(st.integers(0, 30))
        last = at + draw(st.sampled_from([0, 0, 0, 1, 2, 5, 8, 12, 20]))
        if last >= slots:
            break
        anchors.append((at, last))
        at = last + 1
    return slots, anchors


@settings(max_examples=500)
@given(timelines())
def test_invariant_8_the_plan_covers_every_slot_exactly_once(timeline: tuple[int, list[tuple[int, int]]]) -> None:
    slots, anchors = timeline
    segments = planner.cut(slots, anchors, 16, 3, 4)
    covered = [slot for start, stop in segments for slot in range(start, stop)]
    assert covered == list(range(slots))


@settings(max_examples=500)
@given(timelines())
def test_no_window_is_longer_than_the_model_allows(timeline: tuple[int, list[tuple[int, int]]]) -> None:
    slots, anchors = timeline
    for start, stop in planner.cut(slots, anchors, 16, 3, 4):
        assert stop - start + (3 if start else 0) <= 16


@settings(max_examples=500)
@given(timelines())
def test_a_clip_that_fits_between_two_cuts_is_never_cut(timeline: tuple[int, list[tuple[int, int]]]) -> None:
    slots, anchors = timeline
    borders = {start for start, _ in planner.cut(slots, anchors, 16, 3, 4)}
    for first, last in anchors:
        if 1 < last - first + 1 <= 16 - 3 - 4:
            assert borders.isdisjoint(range(first + 2, last + 1))


def test_every_anchor_lands_once_and_its_requested_and_snapped_times_are_both_told() -> None:
    plan = planner.plan_montage(montage(still("a", 0), still("b", 3.05), still("c", 10)), MEDIA, CARD)
    assert [p.anchor_id for p in plan.anchors] == ["a", "b", "c"]
    assert [p.frame for p in plan.anchors] == [0, 72, 240]
    assert plan.anchors[1].requested_s == 3.05
    assert plan.anchors[1].snapped_s == 3.0


def test_requested_and_delivered_duration_are_both_told() -> None:
    plan = planner.plan_montage(montage(still("a", 0), duration_s=10.1), MEDIA, CARD)
    assert plan.requested_duration_s == 10.1
    assert plan.duration_s == pytest.approx(plan.frames / 24)


def test_two_anchors_in_one_slot_are_refused_with_both_names_and_times_that_work() -> None:
    with pytest.raises(SlotTaken) as refused:
        planner.plan_montage(montage(still("a", 3), still("b", 3.02)), MEDIA, CARD)
    text = str(refused.value)
    assert "a (" in text and "b (" in text
    for second in (2.833, 3.167):
        assert f"{second:g}" in text
        planner.plan_montage(montage(still("a", 3), still("b", second)), MEDIA, CARD)


@pytest.mark.parametrize("duration_s", [5.0, 5.03, 5.1, 0.9, 1 / 3])
def test_the_seconds_named_for_a_taken_slot_work_when_given_back(duration_s: float) -> None:
    with pytest.raises(SlotTaken) as refused:
        pair = still("a", duration_s), still("b", duration_s)
        planner.plan_montage(montage(*pair, duration_s=duration_s), MEDIA, CARD)
    named = (refused.value.allowed or "").partition(" work are ")[2].split(" or ")
    assert named[0]
    for second in named:
        assert len(second.partition(".")[2]) <= 3
        planner.plan_montage(
            montage(still("a", duration_s), still("b", float(second)), duration_s=duration_s), MEDIA, CARD
        )


def test_an_anchor_beyond_the_end_is_refused_with_the_allowed_range() -> None:
    with pytest.raises(InvalidInput, match="0 to 10"):
        planner.plan_montage(montage(still("a", 11)), MEDIA, CARD)


def test_an_anchor_of_unknown_media_says_how_to_take_media_in() -> None:
    with pytest.raises(NotFound, match="add_media"):
        planner.plan_montage(montage(Anchor(id="a", media_id="img_9", second=0)), MEDIA, CARD)


def test_a_clip_is_cut_at_the_end_of_the_timeline_with_a_warning() -> None:
    plan = planner.plan_montage(montage(Anchor(id="c", media_id="clip_1", second=8)), MEDIA, CARD)
    assert plan.anchors[0].frames == 49
    assert "cut at the end" in plan.warnings[0]


def test_a_clip_that_fits_but_for_the_grid_is_not_called_cut() -> None:
    clip = Anchor(id="c", media_id="clip_1", second=5, out_s=5)  # 120 frames, of which the grid takes 117
    assert planner.plan_montage(montage(clip, duration_s=9.8), MEDIA, CARD).warnings == []


def test_a_trimmed_clip_covers_one_plus_four_m_frames() -> None:
    plan = planner.plan_montage(montage(Anchor(id="c", media_id="clip_1", second=2, in_s=1, out_s=2.5)), MEDIA, CARD)
    assert plan.anchors[0].frames == 33
    assert plan.anchors[0].slots == 9


def test_a_seam_inside_a_long_clip_is_pinned_and_the_others_are_carried() -> None:
    plan = planner.plan_montage(montage(Anchor(id="c", media_id="clip_1", second=0), still("b", 10)), MEDIA, CARD)
    kinds = {seam.slot: seam.kind for seam in plan.seams}
    assert any(kind == "pinned" for kind in kinds.values())
    for segment in plan.segments[1:]:
        inside = segment.start - 1 <= plan.anchors[0].last_slot
        assert (segment.seam == "pinned") == inside


def test_seeds_follow_the_closing_anchor_and_not_the_position() -> None:
    near = planner.plan_montage(montage(still("a", 0), still("b", 2), still("c", 4), duration_s=4), MEDIA, CARD)
    far = planner.plan_montage(montage(still("a", 6), still("b", 8), still("c", 10)), MEDIA, CARD)
    assert {s.seed for s in near.segments if s.closes == "c"} & {s.seed for s in far.segments if s.closes == "c"}


def test_one_beat_that_says_off_decides_for_its_segment() -> None:
    beats = [
        Beat(id="1", start_s=0, end_s=1, prompt="", guide="off"),
        Beat(id="2", start_s=1, end_s=10, prompt="", guide="loose"),
    ]
    plan = planner.plan_montage(montage(still("a", 0), still("b", 10), beats=beats), MEDIA, CARD)
    assert plan.segments[0].guide == "off"
    assert plan.segments[-1].guide == "loose"


def test_formats_keep_their_aspect_between_qualities() -> None:
    for aspect in ("16:9", "9:16", "1:1"):
        standard = Format.of(aspect)
        assert standard.at("draft").aspect == aspect
        assert standard.at("draft").at("standard") == standard
        assert standard.width % 16 == standard.height % 16 == 0


def test_a_model_that_paints_larger_than_the_montage_is_delivered_in_its_own_size() -> None:
    sizes = {"standard": {"16:9": (848, 480), "9:16": (480, 848)}, "draft": {"16:9": (128, 64)}}
    card = ModelCard.model_validate(CARD.model_dump() | {"sizes": sizes, "fps": 16})
    shot = montage(still("a", 0), still("b", 8))
    plan = planner.plan_montage(shot, MEDIA, card)
    assert plan.shown is not None and plan.format.model_dump() == {"width": 848, "height": 480, "fps": 16}
    assert plan.shown.model_dump() == {"width": 848, "height": 480, "fps": 24}
    assert plan.warnings[-2] == "The video is 848x480, the size of its model."
    assert plan.warnings[-1] == "Tiny renders at 16 fps; the video is resampled to 24 fps."
    small = planner.plan_montage(shot, MEDIA, card, "draft")
    assert small.shown is not None and (small.shown.width, small.shown.height) == (256, 144)
    square = planner.plan_montage(shot.model_copy(update={"format": Format.of("1:1")}), MEDIA, card)
    assert square.shown is not None and (square.shown.width, square.format.width) == (384, 384)
    plain = planner.plan_montage(shot, MEDIA, CARD)
    assert plain.shown is None and (plain.format.width, plain.warnings) == (512, [])
