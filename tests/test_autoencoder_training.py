"""Training of the autoencoder: losses, optimiser, data that depend on the step alone, resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.training.autoencoder import (
    AutoencoderTrainer,
    AutoencoderTraining,
    moved_alike,
    train_autoencoder,
)
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.camera import (
    MOVES,
    camera_clip,
    layered_clip,
    similarity,
    world_canvas,
    world_clip,
)
from dreamontage.generator.training.data.pictures import (
    LOMIRI_TRAINING,
    find_pictures,
    load_picture,
    load_pictures,
    write_manifest,
)
from dreamontage.generator.training.data.procedural import PAINTERS, paint
from dreamontage.generator.training.muon import orthogonalised
from dreamontage.generator.training.perceptual import PerceptualDistance

RECIPE = AutoencoderTraining(
    minutes=None,
    steps=6,
    widths=(8, 12, 16),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    decoder_memory=(1, 1, 1),
    batch_slots=4,
    frames=(5,),
    crops=((64, 64),),
)


def trainer() -> AutoencoderTrainer:
    return AutoencoderTrainer(RECIPE, [])


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    straight = trainer()
    for _ in range(6):
        straight.train_step()
    first = trainer()
    for _ in range(3):
        first.train_step()
    first.save(tmp_path / "checkpoint.pt")
    second = trainer()
    second.load(tmp_path / "checkpoint.pt")
    for _ in range(3):
        second.train_step()
    for weights in ("fast_parameters", "slow_parameters"):
        for a, b in zip(getattr(straight, weights)(), getattr(second, weights)(), strict=True):
            assert torch.equal(a, b)


def test_training_leaves_a_model_a_curve_and_its_score(tmp_path: Path) -> None:
    model = train_autoencoder(RECIPE, tmp_path, [], [paint(3)])
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {"checkpoint.pt", "curve.csv", "curve.png", "held_out.csv", "strips.jpg", "recipe.json"}
    losses = [float(line.split(",")[4]) for line in (tmp_path / "curve.csv").read_text().splitlines()[1:]]
    assert len(losses) == 6 and losses[-1] < losses[0]
    loaded = NanoAutoencoder.from_pretrained(model, torch_dtype=torch.float32)
    assert min(loaded.config.latents_std) > 0 and len(loaded.config.latents_mean) == 16


def test_muon_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(24, 90)))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_latents_and_pixels_are_moved_by_the_same_similarity() -> None:
    torch.manual_seed(1)
    coarse = torch.nn.functional.interpolate(torch.rand(2, 1, 4, 6), (16, 24), mode="bicubic")
    fine = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    z, video = moved_alike(coarse[None], fine[:, :, None])
    shrunk = torch.nn.functional.avg_pool2d(video[:, :, 0], 8)
    assert float((shrunk - z[0]).abs().mean()) < 0.25 * float((fine[:, :, ::8, ::8] - z[0]).abs().mean())


def test_perceptual_distance_is_zero_for_equal_pictures_and_grows_with_damage() -> None:
    distance = PerceptualDistance()
    picture = torch.from_numpy(paint(5, 96).levels[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    damaged = [float(distance(picture, (picture + s * noise).clamp(-1, 1))) for s in (0, 0.1, 0.4)]
    other = float(distance(picture, -picture.flip(-1)))
    assert damaged[0] < 1e-6 < damaged[1] < damaged[2] and other > 0.2
    assert float(distance(picture, -picture)) == pytest.approx(float(distance(-picture, picture)), rel=1e-5)


def test_batches_depend_on_seed_and_step_alone() -> None:
    mixture = ClipMixture([], seed=4)
    again = ClipMixture([], seed=4)
    first = mixture.batch(7, 5, 32, 48, 2)
    mixture.batch(8, 5, 32, 48, 2)
    assert first.shape == (2, 3, 5, 32, 48) and first.abs().max() <= 1
    assert torch.equal(first, again.batch(7, 5, 32, 48, 2)) and torch.equal(first, mixture.batch(7, 5, 32, 48, 2))
    assert not torch.equal(first, mixture.batch(8, 5, 32, 48, 2))


@pytest.mark.parametrize("move", MOVES)
def test_a_shot_s_views_describe_what_its_frames_show(move: str) -> None:
    picture = paint(11, 256)
    clip, shot = camera_clip(np.random.default_rng(4), picture, 33, 64, 96, move)
    assert clip.shape == (33, 64, 96, 3) and shot.views.shape == (33, 3, 3) and shot.move == move
    between = np.linalg.inv(shot.views[0]) @ shot.views[16]
    warped = cv2.warpPerspective(clip[0], between, (96, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    seen = cv2.warpPerspective(np.ones((64, 96), np.uint8), between, (96, 64), flags=cv2.WARP_INVERSE_MAP) > 0
    if move == "hold":
        assert np.array_equal(clip[0], clip[16])
    else:
        still = np.abs(clip[0].astype(float) - clip[16])[seen].mean()
        assert np.abs(warped.astype(float) - clip[16])[seen].mean() < 0.6 * still


def test_a_pan_to_the_right_moves_the_content_left() -> None:
    clip, shot = next(
        (clip, shot)
        for clip, shot in (camera_clip(np.random.default_rng(s), paint(2, 256), 9, 64, 96, "pan") for s in range(20))
        if shot.direction == "right"
    )
    assert shot.views[8][:2, 2] @ shot.views[0][:2, 0] > shot.views[0][:2, 2] @ shot.views[0][:2, 0]
    assert not np.array_equal(clip[0], clip[8])


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
def test_a_world_holds_both_pictures_with_the_second_in_the_named_direction(direction: str) -> None:
    first, second = np.full((40, 60, 3), 200, np.uint8), np.full((40, 60, 3), 20, np.uint8)
    canvas = world_canvas(first, second, direction, 0.5)
    near = {"right": canvas[:, 0], "left": canvas[:, -1], "down": canvas[0], "up": canvas[-1]}[direction]
    far = {"right": canvas[:, -1], "left": canvas[:, 0], "down": canvas[-1], "up": canvas[0]}[direction]
    assert (near == 200).all() and (far == 20).all()
    clip, shot = world_clip(np.random.default_rng(0), paint(1, 256), paint(2, 256), 9, 40, 60, direction)
    assert clip.shape == (9, 40, 60, 3) and shot.direction == direction and shot.amount > 0.25


def test_layers_move_before_a_moving_ground() -> None:
    rng = np.random.default_rng(5)
    clip, shot = layered_clip(rng, paint(8, 256), [paint(9, 256)], 9, 64, 96)
    assert clip.shape == (9, 64, 96, 3) and shot.kind == "layers"


def test_every_painter_fills_the_picture_with_something() -> None:
    for painter in set(PAINTERS):
        image = painter(np.random.default_rng(1), 96, 128)
        assert image.shape == (96, 128, 3) and np.isfinite(image).all() and float(image.std()) > 0.01


def test_a_view_looks_at_its_centre() -> None:
    view = similarity(64, 96, np.array([100.0, 80.0]), 2.0, 0.3)
    assert np.allclose((view @ [47.5, 31.5, 1])[:2], [100, 80])


def test_flat_pictures_and_the_demo_s_photographs_are_left_out_and_sources_are_written_down(tmp_path: Path) -> None:
    pixels = paint(6, 128).levels[0]
    names = [*list(LOMIRI_TRAINING)[:2], "sunset_by_Aitzol_Berasategi.jpg", "Bridge_by_Sander_Klootwijk.jpg"]
    for name in names:
        cv2.imwrite(str(tmp_path / name), pixels)
    cv2.imwrite(str(tmp_path / list(LOMIRI_TRAINING)[2]), np.full_like(pixels, 90))
    sources = [source for source in find_pictures([tmp_path]) if source.path.parent == tmp_path]
    assert {source.path.name for source in sources} == set(list(LOMIRI_TRAINING)[:3])
    assert len(load_pictures(sources)) == 2
    loaded = load_picture(sources[0])
    assert loaded is not None and loaded.levels[1].shape[0] == loaded.size[0] // 2
    write_manifest(sources, tmp_path / "pictures.json")
    rows = json.loads((tmp_path / "pictures.json").read_text())["pictures"]
    assert all(len(row["sha256"]) == 64 and "CC-BY" in row["licence"] for row in rows)


def test_the_command_line_of_training_is_listed_without_torch() -> None:
    load = "import sys; from dreamontage.generator.training.cli import app"
    code = f"{load}; assert 'torch' not in sys.modules; print(app.info.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "train"
