"""Procedural clips: transitions without a cut, expressive clips, subjects that obey physics, how motion is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamontage.generator.evaluation.rationality import motion_rationality
from dreamontage.generator.measuring.judge import cuts
from dreamontage.generator.measuring.pairs import PairMeter
from dreamontage.generator.models.vocabulary import understood
from dreamontage.generator.training.data import expression
from dreamontage.generator.training.data.actors import Pose
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.effects import EFFECTS, effect_clip
from dreamontage.generator.training.data.pictures import Picture
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.data.subjects import MOTIONS, clip, subject_clip
from dreamontage.generator.training.data.transitions import TRANSITIONS

Video = NDArray[np.uint8]
FRAMES, HEIGHT, WIDTH = 33, 96, 160


def only(channel: int, seed: int) -> Picture:
    """A painted picture whose other channels are black."""
    picture = paint(seed, 256)
    keep = np.eye(3, dtype=np.uint8)[channel]
    return replace(picture, levels=tuple(level * keep for level in picture.levels))


@pytest.fixture(scope="module")
def mixture() -> ClipMixture:
    return ClipMixture([replace(paint(seed, 256), kind="own") for seed in range(4)])


def steps_of(frames: Video) -> tuple[list[int], NDArray[np.float64]]:
    """Frames at which the product sees a cut, and every flow-compensated step."""
    meter = PairMeter()
    for frame in frames:
        meter.add(np.ascontiguousarray(frame))
    return [cut.frame for cut in cuts(meter.curves, 24)], np.array(meter.curves.step[1:])


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_leads_from_the_first_picture_to_the_second_without_a_cut(name: str) -> None:
    for seed in range(2):
        rng = np.random.default_rng([seed, 3])
        frames, beats = TRANSITIONS[name][0](rng, only(0, 12 + seed), only(2, 15 + seed), FRAMES, HEIGHT, WIDTH)
        assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
        first, last = (frames[index].reshape(-1, 3).mean(0) for index in (0, -1))
        assert first[2] < 0.03 * first[0] and last[0] < 0.03 * last[2]
        found, steps = steps_of(frames)
        assert not found
        assert steps.max() <= 12 * max(float(np.median(steps)), 2.0)
        for beat in beats:
            assert 0 <= beat.start_s < beat.stop_s <= (FRAMES - 1) / 24
            assert beat.camera or understood(beat.prompt)[0]


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_depends_on_its_seed_alone(name: str) -> None:
    pair = only(0, 12), only(2, 15)
    one, two, other = (
        TRANSITIONS[name][0](np.random.default_rng(seed), *pair, 9, 48, 64)[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize("category", expression.EXPRESSIONS)
def test_an_expressive_clip_flows_and_says_what_happens_when(
    category: expression.Expression, mixture: ClipMixture
) -> None:
    for seed in range(2):
        frames, note = expression.clip(seed, mixture, (96, 64), category)
        assert frames.shape == (note.frames, note.height, note.width, 3) == (note.frames, 64, 96, 3)
        assert note.category == category and 1 <= len(note.beats) <= 3
        assert all(a.stop_s <= b.start_s for a, b in pairwise(note.beats))
        assert all(beat.camera or understood(beat.prompt)[0] for beat in note.beats)
        end = (note.frames - 1) / note.fps
        assert all(0 <= second <= end for second in note.boundaries_s)
        assert {beat.start_s for beat in note.beats} <= set(note.boundaries_s)
        if seed == 0:
            assert np.array_equal(frames, expression.clip(seed, mixture, (96, 64), category)[0])
        assert not steps_of(frames)[0]


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_begins_with_nothing_and_changes_the_picture_without_a_jump(name: str) -> None:
    picture, other = paint(16, 256), paint(17, 256)
    frames, _ = effect_clip(np.random.default_rng(5), picture, other, FRAMES, 64, 96, name)
    found, steps = steps_of(frames)
    assert not found and steps.max() > 0.3


def test_a_bounce_is_a_fall_under_one_gravity_between_its_hits() -> None:
    poses, hits = MOTIONS["bounce"](np.random.default_rng(1), 65, 160, 96, 12.0)
    ys = np.array([pose.y for pose in poses])
    falls = np.diff(ys, 2)
    free = [f for f in range(len(falls)) if all(abs(f + 1 - hit) > 2 for hit in hits)]
    assert len(hits) >= 2 and len(free) > 20
    assert np.ptp(falls[free]) < 1e-6 < falls[free].min()
    tops = [ys[a:b].min() for a, b in pairwise(hits) if b - a > 4]
    assert all(lower > higher for higher, lower in pairwise(tops))  # y grows downwards
    assert ys.max() <= 96


def test_a_ball_rolls_without_slipping() -> None:
    poses, _ = MOTIONS["roll"](np.random.default_rng(2), 33, 160, 96, 12.0)
    xs, angles = np.array([pose.x for pose in poses]), np.array([pose.angle for pose in poses])
    assert np.allclose(np.diff(xs), 12.0 * np.diff(angles))


def test_the_truth_of_a_subject_is_where_it_is_seen(mixture: ClipMixture) -> None:
    for seed in range(6):
        frames, note, truth = clip(seed, mixture, (160, 96))
        masks = truth.masks
        assert masks.shape == frames.shape[:3] == (note.frames, 96, 160)
        outside = ~_rim(masks)
        assert np.array_equal(frames[outside], np.broadcast_to(truth.background, frames.shape)[outside])
        for index in (0, len(frames) // 2, len(frames) - 1):
            ys, xs = np.nonzero(masks[index])
            middle = np.array([xs.min() + xs.max(), ys.min() + ys.max()]) / 2
            assert np.abs(middle - truth.centres[index]).max() < 16


def _rim(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels beside a mask, which its soft border may touch."""
    rim = masks.copy()
    for _ in range(2):
        for axis in (1, 2):
            rim |= np.roll(rim, 1, axis) | np.roll(rim, -1, axis)
    return rim


def warped(frames: Video) -> Video:
    return frames[np.round((len(frames) - 1) * np.linspace(0, 1, len(frames)) ** 1.6).astype(int)]


def cross_fade(frames: Video) -> Video:
    share = np.linspace(0, 1, len(frames))[:, None, None, None]
    return np.asarray(frames[0] + share * (frames[-1].astype(float) - frames[0]), np.uint8)


def frozen(frames: Video) -> Video:
    return np.concatenate([np.repeat(frames[:1], len(frames) - 1, axis=0), frames[-1:]])


def shuffled(frames: Video) -> Video:
    inner = np.random.default_rng(0).permutation(np.arange(1, len(frames) - 1))
    return frames[[0, *inner, len(frames) - 1]]


def test_rational_motion_ranks_truth_warped_time_cross_fade_frozen_and_shuffled(mixture: ClipMixture) -> None:
    versions: tuple[Callable[[Video], Video], ...] = (warped, cross_fade, frozen, shuffled)
    seen = set()
    for seed in (0, 2, 3, 5, 9):
        frames, _, truth = subject_clip(np.random.default_rng(seed), mixture, 0, 25, HEIGHT, WIDTH)
        scores = [motion_rationality(frames, truth), *(motion_rationality(make(frames), truth) for make in versions)]
        assert scores[0] > 0.99 and scores == sorted(scores, reverse=True), (truth.dynamics, scores)
        empty = np.broadcast_to(truth.background, frames.shape)
        assert motion_rationality(empty, truth) < 0.01
        seen.add(truth.dynamics)
    assert len(seen) >= 3


def test_a_clip_of_another_shape_is_not_scored(mixture: ClipMixture) -> None:
    frames, _, truth = subject_clip(np.random.default_rng(0), mixture, 0, 9, 48, 64)
    with pytest.raises(ValueError, match="shape"):
        motion_rationality(frames[:-1], truth)


def test_poses_are_inside_the_view() -> None:
    for name, motion in MOTIONS.items():
        for seed in range(5):
            poses: list[Pose] = motion(np.random.default_rng(seed), 33, 160, 96, 14.0)[0]
            assert len(poses) == 33 and all(0 <= pose.x < 160 and -14 <= pose.y < 96 for pose in poses), name
