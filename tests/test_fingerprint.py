"""Recipes, fingerprints and decisions: what an edit re-renders, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamontage.generator.fingerprint import Decision, decide, fingerprint, recipe, widened_range
from dreamontage.generator.planner import plan_montage
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import After, RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Beat, Camera, Montage
from dreamontage.schemas.plan import Plan
from dreamontage.schemas.report import Report, Timing, Video, VideoSegment

CARD = ModelCard(
    id="tiny", title="", licence="", summary="", window=16, overlap=3, shortest=4,
    defaults=RenderSettings(steps=4, guidance=1.0, shift=1.0, t0=0.4, guide="follow"),
    settings=["steps", "t0", "guide"],
)  # fmt: skip
FPS = 24
SLOT = 4 / FPS


def media_of(count: int) -> dict[str, Media]:
    stills = [
        Media(id=f"img_{i}", sha256=f"{i:064x}", kind="still", container="PNG", width=64, height=64, bytes=1)
        for i in range(count)
    ]
    film = Media(
        id="clip_0", sha256="c" * 64, kind="clip", container="mov", width=64, height=64, duration_s=2.0, fps=24,
        frames=48, bytes=1,
    )  # fmt: skip
    return {item.id: item for item in [*stills, film]}


MEDIA = media_of(40)


def montage(seconds: Sequence[float], duration_s: float = 60.0, beats: Sequence[Beat] = (), seed: int = 7) -> Montage:
    anchors = [Anchor(id=f"a{i}", media_id=f"img_{i}", second=second) for i, second in enumerate(seconds)]
    return Montage(id="m_1", duration_s=duration_s, anchors=anchors, beats=list(beats), seed=seed)


def moved(body: Montage, anchor_id: str, second: float) -> Montage:
    anchors = [a.model_copy(update={"second": second}) if a.id == anchor_id else a for a in body.anchors]
    return body.model_copy(update={"anchors": sorted(anchors, key=lambda a: a.second), "revision": body.revision + 1})


def planned(body: Montage, media: Mapping[str, Media] = MEDIA) -> Plan:
    return plan_montage(body, media, CARD, "draft")


def decided(
    body: Montage, base: Video | None, request: RenderRequest | None = None, **kwargs: object
) -> list[Decision]:
    request = request or RenderRequest(quality="draft")
    return decide(planned(body), body, MEDIA, CARD, request, base, weights="w", **kwargs)  # type: ignore[arg-type]


def as_video(body: Montage, decisions: Sequence[Decision]) -> Video:
    """The video a render of these decisions would record, with made-up hashes for the latents that were met."""
    segments: list[VideoSegment] = []
    for d in decisions:
        tail = f"tail of {segments[-1].fingerprint}" if d.segment.seam == "carried" else None
        name = d.take or fingerprint(d.recipe, d.seed, "float32", tail, d.held_take)
        segments.append(
            VideoSegment(
                start=d.segment.start, stop=d.segment.stop, window_start=d.segment.window_start,
                seam=d.segment.seam, seed=d.seed, recipe=d.recipe, fingerprint=name, settings=d.settings,
                tail=tail, held=d.held_take,
            )
        )  # fmt: skip
    report = Report(
        requested_duration_s=1, duration_s=1, fps=24, frames=1, width=1, height=1, model="tiny", seed=1, segments=[],
        anchors=[], intervals=[], seams=[], cuts=[], notes=[],
        timing=Timing(encode_s=0, denoise_s=0, decode_s=0, total_s=0), peak_memory_bytes=0,
    )  # fmt: skip
    return Video(
        id="v_1", montage_id=body.id, revision=body.revision, quality="draft", path="", sheet="", report=report,
        segments=segments, bytes=0, sha256="",
    )  # fmt: skip


def rendered(decisions: Sequence[Decision]) -> list[int]:
    return [d.segment.index for d in decisions if d.action == "render"]


EVERY_3_S = montage([3.0 * i for i in range(20)])


def test_a_first_render_renders_everything_and_the_same_again_nothing() -> None:
    first = decided(EVERY_3_S, None)
    assert rendered(first) == list(range(len(first)))
    assert [d.seed for d in first] == [s.seed for s in planned(EVERY_3_S).segments]
    again = decided(EVERY_3_S, as_video(EVERY_3_S, first))
    assert rendered(again) == []
    assert all(d.take for d in again)


REACH = 10
"""Slots beyond the gaps beside a still in which the previz may still hand over another speed."""


def touched(slots: Sequence[int], number: int) -> tuple[int, int]:
    """The slots that still `number` has a say in: its gaps, and what is near their far ends in the gaps beyond."""
    low, high = slots[number - 1], slots[number + 1]
    before = max(low - REACH, slots[number - 2]) if number > 1 else low
    after = min(high + REACH, slots[number + 2]) if number + 2 < len(slots) else high
    return before, after


@pytest.mark.parametrize("number", [1, 7, 18])
@pytest.mark.parametrize("shift", [-1.0, -0.5, 0.25, 0.75, 1.25])
def test_moving_one_middle_still_re_renders_only_segments_near_its_old_or_new_gaps(number: int, shift: float) -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    after = moved(EVERY_3_S, f"a{number}", 3.0 * number + shift)
    plan = planned(after)
    low, high = touched([anchor.slot for anchor in plan.anchors], number)
    todo = rendered(decided(after, base))
    assert todo
    assert all(plan.segments[i].start <= high and plan.segments[i].stop - 1 > low for i in todo)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 350), min_size=5, max_size=14, unique=True), st.integers(1, 12), st.integers(-15, 15)
)
def test_segments_away_from_a_moved_still_keep_their_recipe(slots: list[int], pick: int, shift: int) -> None:
    slots = sorted(slots)
    number = 1 + pick % (len(slots) - 2)
    target = slots[number] + shift
    if not slots[number - 1] < target < slots[number + 1]:
        return
    before = montage([slot * SLOT for slot in slots])
    after = moved(before, f"a{number}", target * SLOT)
    old, new = planned(before), planned(after)
    places = {(s.start, s.stop, s.seam): s for s in old.segments}
    low, high = touched(slots, number)
    for segment in new.segments:
        twin = places.get((segment.start, segment.stop, segment.seam))
        if twin is not None and (segment.stop - 1 <= low or segment.window_start >= high):
            same = [recipe(p, s, m, MEDIA, CARD, RenderSettings(), "w") for p, s, m in
                    ((old, twin, before), (new, segment, after))]  # fmt: skip
            assert same[0] == same[1]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(5, 16), min_size=4, max_size=8))
def test_invariant_9_inserting_at_the_front_with_a_ripple_re_renders_the_front_only(
    shift_s: int, gaps: list[int]
) -> None:
    seconds, at = [], 0
    for gap in gaps:
        at += gap
        seconds.append(at * SLOT)
    duration = seconds[-1] + 2
    beats = [Beat(id="b1", start_s=seconds[1], end_s=seconds[2], prompt="slow pan left")]
    before = montage(seconds, duration, beats)
    base = as_video(before, decided(before, None))
    clip = Anchor(id="new", media_id="clip_0", second=0.0)
    rippled = before.model_copy(
        update={
            "anchors": [clip, *(a.model_copy(update={"second": a.second + shift_s + 2}) for a in before.anchors)],
            "beats": [
                b.model_copy(update={"start_s": b.start_s + shift_s + 2, "end_s": b.end_s + shift_s + 2})
                for b in before.beats
            ],
            "duration_s": duration + shift_s + 2,
        }
    )
    decisions = decided(rippled, base)
    plan = planned(rippled)
    todo = rendered(decisions)
    # Beyond the first old still, which the camera now passes, and the segment after it, everything is kept, wherever
    # the cuts agree.
    old_cuts = {s.start for s in planned(before).segments}
    first_old = min(plan.anchors[1].slot + REACH, plan.anchors[2].slot)
    offset = plan.anchors[1].slot - planned(before).anchors[0].slot
    agreeing = [s.index for s in plan.segments if s.start > first_old and s.start - offset in old_cuts]
    later_cuts = [s.index for s in plan.segments if agreeing and s.index >= agreeing[0]]
    assert agreeing == later_cuts
    if agreeing:
        assert all(index < agreeing[0] + 1 for index in todo)


def test_what_changes_a_recipe_and_what_does_not() -> None:
    body = montage([0, 3, 6, 9], 10.0, [Beat(start_s=0, end_s=2, prompt="slow", camera=Camera(move="pan"))])
    plan = planned(body)
    segment = plan.segments[0]

    def of(changed: Montage, given: RenderSettings = RenderSettings(), weights: str = "w") -> str:  # noqa: B008
        fresh = planned(changed)
        return recipe(fresh, fresh.segments[0], changed, MEDIA, CARD, given, weights)

    def with_first(**update: object) -> Montage:
        return body.model_copy(update={"anchors": [body.anchors[0].model_copy(update=update), *body.anchors[1:]]})

    same = of(body)
    assert recipe(plan, segment, body, MEDIA, CARD, RenderSettings(), "w") == same
    assert of(body.model_copy(update={"seed": 8, "revision": 9, "brief": "another"})) == same
    assert of(moved(body, "a3", 9.5)) == same
    assert of(body, RenderSettings(steps=4)) == same
    different = {
        of(body, RenderSettings(steps=5)),
        of(body, RenderSettings(guide="off")),
        of(body, weights="other"),
        of(moved(body, "a0", 0.5)),
        of(body.model_copy(update={"beats": []})),
        of(with_first(strength=0.5)),
        of(with_first(fit="contain")),
    }
    assert len(different) == 7
    assert same not in different


def test_a_recipe_names_the_previz_version_where_a_guide_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    guided, plain = (RenderSettings(guide=mode) for mode in ("follow", "off"))

    def recipes() -> tuple[str, str]:
        plan = planned(EVERY_3_S)
        first = (plan, plan.segments[0], EVERY_3_S, MEDIA, CARD)
        return recipe(*first, guided, "w"), recipe(*first, plain, "w")

    before = recipes()
    monkeypatch.setattr("dreamontage.generator.fingerprint.PREVIZ_VERSION", 10**6)
    after = recipes()
    assert before[0] != after[0] and before[1] == after[1]


def test_a_fingerprint_names_seed_number_type_tail_and_held_end() -> None:
    names = {
        fingerprint("r", 1, "float32", "t", None), fingerprint("q", 1, "float32", "t", None),
        fingerprint("r", 2, "float32", "t", None), fingerprint("r", 1, "bfloat16", "t", None),
        fingerprint("r", 1, "float32", "u", None), fingerprint("r", 1, "float32", "t", "h"),
    }  # fmt: skip
    assert len(names) == 6


def ranged(after: After = "hold", **fields: object) -> RenderRequest:
    return RenderRequest(quality="draft", after=after, **fields)  # type: ignore[arg-type]


def test_invariant_10_a_re_render_of_a_part_holds_what_follows() -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    decisions = decided(EVERY_3_S, base, ranged(from_s=10.0, to_s=10.2, seed=3))
    (index,) = rendered(decisions)
    assert decisions[index].held_take == base.segments[index].fingerprint
    assert decisions[index].seed != base.segments[index].seed
    assert all(not d.hold_end for d in decisions if d.action == "reuse")
    assert [d.take for d in decisions if d.action == "reuse"] == [
        s.fingerprint for i, s in enumerate(base.segments) if i != index
    ]


def test_invariant_10_an_edit_that_touches_the_held_slots_renders_the_next_segment_with_its_end_held() -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    anchors = [a.model_copy(update={"media_id": "img_39"}) if a.id == "a5" else a for a in EVERY_3_S.anchors]
    after = EVERY_3_S.model_copy(update={"anchors": anchors})
    plan, decisions = planned(after), decided(after, base)
    closing = next(s.index for s in plan.segments if s.closes == "a5")
    todo = rendered(decisions)
    assert closing in todo and closing + 1 in todo
    assert not decisions[closing].hold_end
    assert decisions[todo[-1]].held_take == base.segments[todo[-1]].fingerprint


def test_invariant_10_follow_renders_everything_downstream() -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    decisions = decided(EVERY_3_S, base, ranged(from_s=10.0, to_s=10.2, seed=3, after="follow"))
    todo = rendered(decisions)
    assert todo == list(range(todo[0], len(decisions)))
    assert not any(d.hold_end for d in decisions)
    assert [d.seed for d in decisions[todo[0] + 1 :]] == [s.seed for s in base.segments[todo[0] + 1 :]]


def test_a_range_is_widened_to_whole_segments_and_says_so() -> None:
    plan = planned(EVERY_3_S)
    request = ranged(from_s=10.0, to_s=10.2)
    (segment,) = [s for s in plan.segments if s.start_s <= 10.0 < s.end_s]
    assert widened_range(plan, request) == (segment.start_s, segment.end_s)
    assert widened_range(plan, ranged()) is None
    assert widened_range(plan, ranged(seed=4)) == (0.0, plan.segments[-1].end_s)


def test_a_re_rolled_segment_is_kept_by_the_next_render_with_its_seed_and_settings() -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    rerolled = decided(EVERY_3_S, base, ranged(from_s=10, to_s=11, seed=3, settings=RenderSettings(steps=9)))
    video = as_video(EVERY_3_S, rerolled)
    index = rendered(rerolled)[0]
    assert rendered(decided(EVERY_3_S, video)) == []
    after = moved(EVERY_3_S, "a18", 54.5)
    later = decided(after, video)
    assert index not in rendered(later)
    assert later[index].settings.steps == 9
    assert later[index].seed == rerolled[index].seed


def test_new_settings_re_render_everything_unless_a_range_is_named() -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    assert len(rendered(decided(EVERY_3_S, base, ranged(settings=RenderSettings(steps=8))))) == len(base.segments)
    few = decided(EVERY_3_S, base, ranged(from_s=10, to_s=11, settings=RenderSettings(steps=8)))
    assert [d.settings.steps for d in few if d.action == "render"] == [8] * len(rendered(few))
    assert 0 < len(rendered(few)) < 4


def test_another_quality_and_lost_takes_are_rendered_again() -> None:
    base = as_video(EVERY_3_S, decided(EVERY_3_S, None))
    other = base.model_copy(update={"quality": "standard"})
    assert len(rendered(decided(EVERY_3_S, other))) == len(base.segments)
    lost = base.segments[4].fingerprint
    decisions = decided(EVERY_3_S, base, has_take=lambda name: name != lost)
    assert 4 in rendered(decisions)
    assert decisions[4].held_take is None


def test_decisions_need_no_torch() -> None:
    code = "import sys, dreamontage.generator.fingerprint, dreamontage.generator.render; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
