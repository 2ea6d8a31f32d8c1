"""Distillation: it walks what the sampler walks, judges what is delivered, improves it, and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dreamontage.generator.conditioning import assemble
from dreamontage.generator.decoding import ShotDecoder
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.numbers import computing
from dreamontage.generator.sampling import Sampling, sample
from dreamontage.generator.training.adapt import AdaptTraining, begin_models
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.distil import (
    LEAD_IN,
    DistilTrainer,
    DistilTraining,
    Judged,
    Pixels,
    delivered,
    doubt_of,
    draw_judged,
    train_distil,
    walk,
)
from dreamontage.generator.training.samples import Sample, collate, conditions_of, encode_shot, load_sample
from dreamontage.generator.training.shots import draw_shots, load_shot

SIZES = AdaptTraining(
    num_layers=1, num_attention_heads=1, attention_head_dim=24, ffn_dim=48, text_dim=16, bf16=False
)
TINY = DistilTraining(minutes=None, steps=4, windows=1, judged_slots=1, judged_lpips=2, bf16=False, muon_lr=2e-3)


@pytest.fixture(scope="module")
def vae() -> NanoAutoencoder:
    torch.manual_seed(0)
    return NanoAutoencoder((8, 8, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    mixture = ClipMixture([replace(paint(seed, 192), kind="own") for seed in range(3)])
    return draw_shots(tmp_path_factory.mktemp("shots"), mixture, 6, 0)


@pytest.fixture(scope="module")
def samples(vae: NanoAutoencoder, shots: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("latents")
    for shot in shots:
        encode_shot(shot, folder / shot.stem, vae)
    return [load_sample(folder / shot.stem) for shot in shots]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_walk_is_the_samplers_own(samples: list[Sample], steps: int) -> None:
    one, models = samples[0], begin_models(SIZES)
    torch.nn.init.normal_(models.transformer.proj_out.weight, std=0.1)
    window = assemble(conditions_of(one, True), *one.shape)
    noise = torch.Generator().manual_seed(5)
    scheduler = FlowMatchEulerDiscreteScheduler()
    model = SimpleNamespace(transformer=models.transformer, prompt_tokens=models.prompt_tokens, scheduler=scheduler)
    expected = sample(model, window, one.words, (), Sampling(steps, t0=0.2), noise, one.guide.float()).latents
    batch = replace(collate([one], [True], torch.Generator()), cond=window.cond[None])  # clips not re-sampled
    drawn = torch.randn(window.cond.shape, generator=torch.Generator().manual_seed(5))[None]
    with torch.no_grad(), computing(torch.device("cpu")):
        walked = walk(models.transformer, models.prompt_tokens([one.words]), batch, steps, 0.2, drawn)
    assert (walked[0] - expected).abs().mean() < 0.001 * expected.abs().mean()


def test_the_judged_frames_are_those_that_delivery_shows(
    vae: NanoAutoencoder, samples: list[Sample], shots: list[Path]
) -> None:
    one, shot = samples[0], load_shot(shots[0])
    at = Judged(0, 2)  # from slot 0 on, the lead-in is all the past there is
    latents = one.guide.float() + 0.05 * torch.randn(one.guide.shape, generator=torch.Generator().manual_seed(1))
    pixels = Pixels.load(shots[0], at.frames, torch.device("cpu"))
    shown, own = delivered(vae, latents, one.guide.float(), pixels, at)
    sure = shot.confidence.astype(np.float32) / 255
    whole = ShotDecoder(vae).next(latents, shot.previz, sure).pixels[at.frames]
    assert shown.shape == own.shape == (8, 3, *shot.truth.shape[1:3])
    ours = ((shown.permute(0, 2, 3, 1) + 1) * 127.5).numpy()
    assert np.abs(ours - whole).mean() < 1.5


def test_judged_places_stay_inside_the_window() -> None:
    rng = np.random.default_rng(0)
    for slots in range(2, 17):
        for count in (1, 2, 3):
            at = draw_judged(rng, rng.random(slots), count)
            assert at.slot >= 0 and at.slot + LEAD_IN + at.count <= slots
            assert at.frames.stop <= 1 + 4 * (slots - 1)


def test_places_that_the_previz_is_unsure_of_are_judged_more_often(shots: list[Path]) -> None:
    rng = np.random.default_rng(0)
    doubt = np.zeros(12)
    doubt[7] = 0.5
    drawn = [draw_judged(rng, doubt, 2) for _ in range(200)]
    seen = [at.slot + LEAD_IN <= 7 < at.slot + LEAD_IN + at.count for at in drawn]
    assert 0.5 < np.mean(seen) < 1, "mostly there, but not only"
    shot = load_shot(shots[0])
    assert len(doubt_of(shots[0])) == (len(shot.truth) - 1) // 4 + 1


def test_training_improves_what_is_delivered(vae: NanoAutoencoder, samples: list[Sample], shots: list[Path]) -> None:
    trainer = DistilTrainer(replace(TINY, steps=60, walk_steps=(1,)), samples, shots, vae, begin_models(SIZES))
    first = trainer.train_step()["loss"]
    for _ in range(25):
        trainer.step = 0  # the same windows, noise and frames again
        last = trainer.train_step()["loss"]
    assert last < first


def test_a_resumed_distillation_is_the_same_bit_for_bit(
    vae: NanoAutoencoder, samples: list[Sample], shots: list[Path], tmp_path: Path
) -> None:
    whole = DistilTrainer(TINY, samples, shots, vae, begin_models(SIZES))
    whole.train_step()
    whole.save(tmp_path / "checkpoint.pt")
    rest = [whole.train_step()["loss"] for _ in range(2)]
    resumed = DistilTrainer(TINY, samples, shots, vae, begin_models(SIZES))
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.train_step()["loss"] for _ in range(2)] == rest


def test_a_run_leaves_its_model_and_curve(vae: NanoAutoencoder, shots: list[Path], tmp_path: Path) -> None:
    model = train_distil(replace(TINY, steps=1), tmp_path, begin_models(SIZES), vae, shots)
    assert (model / "transformer" / "config.json").is_file() and (tmp_path / "curve.csv").is_file()
