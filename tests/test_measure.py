"""Every measure fires on its planted control and stays silent on smooth motion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamontage.generator.measuring import judge
from dreamontage.generator.measuring.anchors import AnchorMeter, offsets, psnr_db
from dreamontage.generator.measuring.notes import notes
from dreamontage.generator.measuring.pairs import Curves, PairMeter
from dreamontage.schemas.montage import Guide
from dreamontage.schemas.report import AnchorReport, CutReport, IntervalReport, SeamReport

FPS, WIDTH, HEIGHT = 24, 256, 144
Video = NDArray[np.uint8]


@cache
def canvas(seed: int = 0) -> Video:
    """A picture 900x500 with structure at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((500, 900, 3))
    for step in (4, 12, 40, 120):
        grain = rng.normal(size=(500 // step + 2, 900 // step + 2, 3)).astype(np.float32)
        total += cv2.resize(grain, (900, 500), interpolation=cv2.INTER_CUBIC) * step**0.5
    total -= total.min()
    return np.asarray(total / total.max() * 255, np.uint8)


def travel(speeds: Sequence[float], seed: int = 0, start: float = 20.0) -> Video:
    """A camera that pans over the canvas; speeds in pixels per frame."""
    frames, x = [], start
    for speed in [0.0, *speeds]:
        x += speed
        centre = (x + WIDTH / 2, 200.0)
        frames.append(cv2.getRectSubPix(canvas(seed), (WIDTH, HEIGHT), centre))
    return np.asarray(frames, np.uint8)


def eased(count: int, distance: float) -> list[float]:
    """Speeds of a move that starts and ends gently."""
    share = np.linspace(0, 1, count + 1)
    return [float(v) for v in np.diff(distance * share * share * (3 - 2 * share))]


def measure(video: Video) -> Curves:
    meter = PairMeter()
    for frame in video:
        meter.add(frame)
    return meter.curves


@pytest.mark.parametrize("speeds", [[2.0] * 60, eased(60, 300), eased(24, 400), [0.4] * 60])
def test_smooth_motion_has_no_cut_no_freeze_and_a_smooth_seam(speeds: list[float]) -> None:
    curves = measure(travel(speeds))
    assert judge.cuts(curves, FPS) == []
    assert judge.freezes(curves, FPS) == []
    (seam,) = judge.seam_fits(curves, [len(curves) // 2], FPS)
    assert seam.step_ratio < 2 and seam.jerk_ratio < 3


def test_a_planted_cut_is_found_at_its_frame() -> None:
    video = np.concatenate([travel([2.0] * 29), travel([2.0] * 29, seed=1)])
    (cut,) = judge.cuts(measure(video), FPS)
    assert cut.frame == 30 and cut.score >= judge.CUT_SCORE


def test_a_planted_flash_is_found() -> None:
    video = travel([2.0] * 59).copy()
    video[30] = np.minimum(video[30].astype(int) + 90, 255).astype(np.uint8)
    assert {cut.frame for cut in judge.cuts(measure(video), FPS)} == {30, 31}


def test_a_whip_is_no_cut() -> None:
    speeds = [*[1.0] * 24, *eased(12, 300), *[1.0] * 24]
    assert judge.cuts(measure(travel(speeds)), FPS) == []


def test_a_planted_freeze_is_found_and_a_short_rest_is_not() -> None:
    frozen = judge.freezes(measure(travel([*[2.0] * 20, *[0.0] * 12, *[2.0] * 20])), FPS)
    assert frozen == [judge.Freeze(20, 32)]
    curves = measure(travel([*[2.0] * 20, *[0.0] * 6, *[2.0] * 20]))
    assert judge.freezes(curves, FPS) == []
    allowed = range(15, 40)
    assert judge.freezes(measure(travel([*[2.0] * 20, *[0.0] * 12, *[2.0] * 20])), FPS, allowed) == []


def test_a_freeze_under_faint_noise_is_still_a_freeze() -> None:
    video = travel([0.0] * 24).astype(int)
    noisy = video + (np.random.default_rng(0).random(video.shape) < 0.05)
    assert len(judge.freezes(measure(np.clip(noisy, 0, 255).astype(np.uint8)), FPS)) == 1


def test_a_planted_step_at_a_seam_shows_in_the_step_ratio_there_only() -> None:
    video = travel([2.0] * 59).astype(int)
    video[30:] += 8
    there, elsewhere = judge.seam_fits(measure(np.clip(video, 0, 255).astype(np.uint8)), [30, 49], FPS)
    assert there.step_ratio > 3 and there.jerk_ratio > 3
    assert elsewhere.step_ratio < 2 and elsewhere.jerk_ratio < 3


def test_a_planted_jolt_at_a_seam_shows_in_the_jerk_ratio() -> None:
    speeds = [2.0] * 59
    speeds[29] = 8.0  # the pair of frames 29 and 30
    (seam,) = judge.seam_fits(measure(travel(speeds)), [30], FPS)
    assert seam.jerk_ratio > 3


def test_a_turn_of_the_previz_at_a_seam_is_not_the_seams_fault_but_a_jump_of_the_picture_is() -> None:
    turn = travel([*[2.0] * 30, *[-2.0] * 29])
    plan, jumped = measure(turn), turn.astype(int)
    jumped[31:] += 8
    faint = np.clip(turn.astype(int) + (np.arange(len(turn)) >= 31)[:, None, None, None], 0, 255).astype(np.uint8)
    assert judge.seam_fits(plan, [31], FPS)[0].jerk_ratio > 3
    assert judge.seam_faults(plan, plan, [31], FPS) == [0.0]
    assert judge.seam_faults(plan, None, [31], FPS)[0] > 3
    assert judge.seam_faults(measure(np.clip(jumped, 0, 255).astype(np.uint8)), plan, [31], FPS)[0] > 3
    assert judge.seam_faults(measure(faint), plan, [31], FPS)[0] < 2


def test_other_seams_do_not_raise_a_seams_own_measure() -> None:
    curves = measure(travel([2.0] * 59))
    for frame in (20, 40):
        curves.step[frame] = 50.0
    first, _ = judge.seam_fits(curves, [20, 40], FPS)
    assert first.step_ratio == pytest.approx(judge.seam_fits(curves, [20], FPS)[0].step_ratio, rel=0.2)


@pytest.mark.parametrize("speed", [1.0, 3.0])
def test_motion_is_the_speed_in_widths_per_second(speed: float) -> None:
    curves = measure(travel([speed] * 40))
    fit = judge.interval_fit(curves, 0, 40, 10.0, FPS)
    assert fit.motion == pytest.approx(speed / WIDTH * FPS, rel=0.12)
    assert fit.static_share == 0


def test_a_blurred_interval_is_soft_and_a_still_one_static() -> None:
    video = travel([2.0] * 20)
    sharp = float(np.mean(measure(video).gradient))
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in video])
    assert judge.interval_fit(measure(video), 0, 20, sharp, FPS).sharpness_vs_anchors == pytest.approx(1, abs=0.05)
    assert judge.interval_fit(measure(soft), 0, 20, sharp, FPS).sharpness_vs_anchors < 0.6
    assert judge.interval_fit(measure(travel([0.0] * 20)), 0, 20, sharp, FPS).static_share == 1


def test_a_single_frame_can_be_judged() -> None:
    curves = measure(travel([]))
    assert judge.cuts(curves, FPS) == [] and judge.freezes(curves, FPS) == []
    assert judge.interval_fit(curves, -1, 1, 10.0, FPS).motion == 0


def fit_of(video: Video, anchor: Video, frame: int, reference: Video | None = None) -> tuple[float, float | None, int]:
    meter = AnchorMeter([(anchor, frame)], len(video))
    for index, picture in enumerate(video):
        meter.add(picture, None if reference is None else reference[index])
    (fit,) = meter.fits()
    return fit.psnr_db, fit.reference_psnr_db, fit.best_offset_frames


def test_an_anchor_in_its_place_has_offset_0_and_its_true_psnr() -> None:
    video = travel([2.0] * 40)
    noisy = np.clip(video + np.random.default_rng(0).normal(0, 5, video.shape), 0, 255).astype(np.uint8)
    psnr, reference, offset = fit_of(noisy, video[20:21], 20, video)
    expected = psnr_db(float(np.mean((noisy[20].astype(float) - video[20]) ** 2)))
    assert psnr == pytest.approx(expected) and 30 < psnr < 36
    assert reference == 99.0 and offset == 0


@pytest.mark.parametrize("moved", [-7, 3, 12])
def test_a_planted_offset_is_found(moved: int) -> None:
    video = travel([2.0] * 60)
    assert fit_of(video, video[30 + moved : 31 + moved], 30)[2] == moved
    assert fit_of(video, video[30 + moved : 39 + moved], 30)[2] == moved, "clips are shifted as a whole"


def test_a_nearly_equal_neighbour_does_not_move_an_anchor() -> None:
    video = np.repeat(travel([]), 30, axis=0)
    anchor = np.clip(video[:1] + np.random.default_rng(0).normal(0, 6, video[:1].shape), 0, 255).astype(np.uint8)
    assert fit_of(video, anchor, 12)[2] == 0


def test_offsets_stop_half_way_to_neighbours_and_at_the_ends() -> None:
    assert offsets(40, 41, None, None, 100) == range(-12, 13)
    assert offsets(40, 41, 30, 56, 100) == range(-5, 9)
    assert offsets(0, 1, None, 8, 100) == range(0, 5)
    assert offsets(96, 97, 92, None, 97) == range(-2, 1)
    assert offsets(40, 53, 30, 56, 100) == range(-5, 3)


def test_notes_are_silent_on_a_good_shot_and_name_each_fault_with_a_way_out() -> None:
    def anchor(psnr: float, reference: float, offset: int = 0, strength: float = 1.0) -> AnchorReport:
        return AnchorReport(
            label="lake", kind="still", strength=strength, requested_s=1, snapped_s=1, frame=24, psnr_db=psnr,
            reference_psnr_db=reference, best_offset_frames=offset,
        )  # fmt: skip

    def interval(sharpness: float, motion: float = 0.1, guide: Guide = "follow") -> IntervalReport:
        return IntervalReport(
            start_s=0, end_s=3, guide=guide, t0=0.5, sharpness_vs_anchors=sharpness, motion=motion, static_share=0
        )

    good = [SeamReport(at_s=2, step_ratio=step, jerk_ratio=1, fault=10 - step) for step in (1, 9)]
    assert notes([anchor(31, 30), anchor(15, 30, 3, 0.5)], [interval(0.9)], good, [], [], FPS) == []
    found = notes(
        [anchor(27, 30), anchor(19, 19.5), anchor(30, 30, offset=-4)],
        [interval(0.4, motion=1.4)],
        [SeamReport(at_s=2, step_ratio=1, jerk_ratio=5, fault=5)],
        [CutReport(at_s=2.5, score=6, detector="content")],
        [judge.Freeze(24, 48)],
        FPS,
    )
    text = "\n".join(note.what for note in found)
    pieces = ["27.0 dB", "19.0 dB", "4 frames earlier", "soft", "whip", "seam at 2.00", "like a cut", "still from 1.00"]
    assert all(piece in text for piece in pieces)
    assert len(found) == 8 and all(note.suggestion for note in found)
    assert [note.at_s for note in found] == sorted(note.at_s for note in found)
    (guided,), (plain,), (previz,) = (
        notes([], [interval(0.4, guide=guide)], [], [], [], FPS, rendered)
        for guide, rendered in (("follow", True), ("off", True), ("follow", False))
    )
    assert "takes=3" in guided.suggestion and "guide=follow" in plain.suggestion
    assert previz.suggestion == "Add an anchor near 1.50 s."
