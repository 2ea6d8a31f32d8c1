"""Evaluation: the metrics rank their controls, and the sheet and table say what was measured."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamontage.generator.evaluation import clips
from dreamontage.generator.evaluation.baselines import cross_fade
from dreamontage.generator.evaluation.between import table, wins
from dreamontage.generator.evaluation.drawing import ROWS, comparison_sheet
from dreamontage.generator.evaluation.metrics import Fidelity, continuity, fidelity, psnr_db
from dreamontage.generator.evaluation.variants import VARIANTS, previz_of
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.schemas.errors import NotFound


@pytest.fixture(scope="module")
def clip() -> clips.HeldOut:
    return clips.similarity_clip(paint(12, 384), 0)


def test_a_held_out_clip_is_the_same_every_time_and_moves(clip: clips.HeldOut) -> None:
    assert np.array_equal(clip.frames, clips.similarity_clip(paint(12, 384), 0).frames)
    assert clip.frames.shape == (33, 144, 256, 3)
    assert sorted(clip.pinned) == [0, 16, 32] and len(clip.between) == 30
    assert np.abs(clip.frames[0].astype(int) - clip.frames[32]).mean() > 5


def test_fidelity_ranks_truth_previz_cross_fade_and_another_picture(clip: clips.HeldOut) -> None:
    distance, some = PerceptualDistance(), clip.between[::6]
    other = clips.similarity_clip(paint(5, 384), 1).frames
    variants = [clip.frames, previz_of(clip)[0], cross_fade(clip.pinned, 33), other]
    scores = [fidelity(frames[some], clip.frames[some], distance) for frames in variants]
    assert [s.lpips for s in scores] == sorted(s.lpips for s in scores)
    assert [s.psnr_db for s in scores] == sorted((s.psnr_db for s in scores), reverse=True)
    assert scores[0].lpips < 1e-4 and scores[0].psnr_db == pytest.approx(99)


def test_psnr_is_the_mean_over_frames() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    grey = black.copy()
    grey[1] = 255
    assert psnr_db(grey, black) == pytest.approx(99 / 2)


def test_continuity_ranks_a_smooth_shot_a_cut_and_a_frozen_one(clip: clips.HeldOut) -> None:
    smooth = continuity(clip.frames, clips.FPS)
    assert smooth.cuts == 0 and smooth.frozen_s < 0.1
    other = clips.similarity_clip(paint(3, 384), 4).frames
    cut = continuity(np.concatenate([clip.frames[:16], other[16:]]), clips.FPS)
    assert cut.cuts >= 1 and cut.step_ratio > 2 * smooth.step_ratio
    frozen = continuity(np.concatenate([clip.frames[:12], np.repeat(clip.frames[11:12], 12, axis=0)]), clips.FPS)
    assert frozen.frozen_s == pytest.approx(12 / clips.FPS)


def test_a_cross_fade_passes_through_its_pictures(clip: clips.HeldOut) -> None:
    faded = cross_fade(clip.pinned, 33)
    for frame, picture in clip.pinned.items():
        assert np.array_equal(faded[frame], picture)
    middle = (clip.frames[0].astype(float) + clip.frames[16]) / 2
    assert np.abs(faded[8] - middle).max() <= 0.5


def test_the_sheet_has_four_rows_at_the_same_times_for_each_clip(clip: clips.HeldOut, tmp_path: Path) -> None:
    scores = {name: Fidelity(20.0, 0.2) for name in VARIANTS}
    variants = dict.fromkeys(ROWS, clip.frames)
    sizes = []
    for count in (1, 2):
        comparison_sheet([(clip, variants, scores)] * count, scores, tmp_path / "sheet.jpg")
        with Image.open(tmp_path / "sheet.jpg") as sheet:
            sizes.append(sheet.size)
    assert sizes[0][0] == sizes[1][0] > 1500
    assert sizes[1][1] - sizes[0][1] > 4 * 108


def test_the_table_counts_the_clips_on_which_a_variant_wins(clip: clips.HeldOut) -> None:
    row = {name: Fidelity(20.0, 0.2) for name in VARIANTS}
    rows = [row | {"final": Fidelity(25.0, 0.1)}, row | {"final": Fidelity(19.0, 0.3)}, row]
    assert wins(rows, "final", "fade") == 1
    text = table([replace(clip, name=f"c{i}") for i in range(3)], rows, row, {})
    assert "| 1 of 3 |" in text and "c2" in text


@pytest.mark.skipif(importlib.util.find_spec("mvtbdata") is not None, reason="the photographs are installed")
def test_missing_test_photographs_are_named_with_the_way_to_get_them() -> None:
    with pytest.raises(NotFound, match="mvtb-data"):
        clips.test_clips()
