"""The grid: round trips and coverage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dreamontage.generator import timeline

FPS = st.integers(8, 60)
SECONDS = st.floats(0.2, 600, allow_nan=False)


@given(SECONDS, FPS)
def test_delivered_duration_covers_the_request_by_less_than_one_slot(duration: float, fps: int) -> None:
    frames = timeline.frame_count(duration, fps)
    assert (frames - 1) % 4 == 0
    assert duration * fps - 1e-4 <= frames - 1 < duration * fps + 4


@given(st.integers(1, 20_000))
def test_every_frame_lies_in_exactly_one_slot(slots: int) -> None:
    slots = min(slots, 300)
    frames = [frame for slot in range(slots) for frame in timeline.frames_of_slot(slot)]
    assert frames == list(range(timeline.frames_of_slots(slots)))
    assert all(frame in timeline.frames_of_slot(timeline.slot_of_frame(frame)) for frame in frames)
    assert timeline.slot_count(len(frames)) == slots


@given(SECONDS, FPS)
def test_an_anchor_snaps_to_a_multiple_of_four_at_most_two_frames_away(second: float, fps: int) -> None:
    frame = timeline.snap_frame(second, fps)
    assert frame % 4 == 0
    assert abs(frame - second * fps) <= 2 + 1e-3


@given(st.integers(0, 150), FPS)
def test_a_snapped_time_snaps_to_itself(slot: int, fps: int) -> None:
    assert timeline.snap_frame(4 * slot / fps, fps) == 4 * slot


@given(st.integers(0, 5_000), st.integers(1, 5_000))
def test_a_clip_keeps_one_plus_four_m_frames_within_its_room(available: int, room: int) -> None:
    count = timeline.clip_frames(available, room)
    assert count % 4 == 1
    assert 1 <= count <= max(1, min(available, room))
    assert count + 4 > min(available, room)
