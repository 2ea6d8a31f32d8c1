"""Adaptive tuning: shots, the conditions they train under, the way that is trained on, and runs that resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamontage.generator.conditioning import GuideCondition, assemble
from dreamontage.generator.conditioning.encoding import encode_video, pixels_to_tensor
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.pipeline import NANO
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sar import Shot, conditions_of
from dreamontage.generator.timeline import STRIDE, frames_of_slots
from dreamontage.generator.training import samples as training
from dreamontage.generator.training.adapt import AdaptTrainer, AdaptTraining, flow_loss, set_out
from dreamontage.generator.training.adapt_run import train_adapt
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.shots import (
    FPS,
    ShotAnchor,
    TrainingShot,
    draw_anchors,
    draw_shot,
    load_shot,
    save_shot,
)
from dreamontage.generator.windows import window_frames
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Format, Montage

TINY = AdaptTraining(
    minutes=None, steps=6, num_layers=1, num_attention_heads=1, attention_head_dim=24, ffn_dim=48, text_dim=16,
    tokens=400, bf16=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def vae() -> NanoAutoencoder:
    torch.manual_seed(0)
    return NanoAutoencoder((8, 8, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1)).eval()


@pytest.fixture(scope="module")
def mixture() -> ClipMixture:
    return ClipMixture([replace(paint(seed, 192), kind="own") for seed in range(3)])


@pytest.fixture(scope="module")
def samples(
    vae: NanoAutoencoder, mixture: ClipMixture, tmp_path_factory: pytest.TempPathFactory
) -> list[training.Sample]:
    folder = tmp_path_factory.mktemp("latents")
    kept = []
    for index in range(4):
        save_shot(draw_shot(5, index, mixture, (64, 64), slots=5), folder / "shot.npz")
        training.encode_shot(folder / "shot.npz", folder / f"{index}.safetensors", vae)
        kept.append(training.load_sample(folder / f"{index}.safetensors"))
    return kept


def test_a_shot_depends_on_its_number_alone_and_survives_the_disk(mixture: ClipMixture, tmp_path: Path) -> None:
    first, second = (draw_shot(1, 7, mixture, (64, 64)) for _ in range(2))
    assert np.array_equal(first.truth, second.truth) and np.array_equal(first.previz, second.previz)
    save_shot(first, tmp_path / "shot.npz")
    back = load_shot(tmp_path / "shot.npz")
    assert np.array_equal(back.previz, first.previz)
    assert (back.anchors, back.beats, back.tail) == (first.anchors, first.beats, first.tail)


def test_the_previz_of_a_shot_passes_through_its_anchors(mixture: ClipMixture) -> None:
    for index in range(8):
        shot = draw_shot(2, index, mixture, (64, 64))
        assert shot.truth.shape == shot.previz.shape
        for anchor in shot.anchors:
            span = slice(STRIDE * anchor.slot, STRIDE * anchor.slot + frames_of_slots(anchor.slots))
            assert np.array_equal(shot.previz[span], shot.truth[span])


def test_drawn_anchors_never_share_a_slot() -> None:
    for seed in range(300):
        anchors = draw_anchors(np.random.default_rng(seed), 9)
        covered = [slot for a in anchors for slot in range(a.slot, a.slot + a.slots)]
        assert covered and len(covered) == len(set(covered)) and max(covered) < 9


def test_conditions_in_training_equal_those_at_inference_for_the_same_anchors(
    vae: NanoAutoencoder, mixture: ClipMixture, tmp_path: Path
) -> None:
    size = (256, 144)
    clip = draw_shot(3, 0, mixture, size, slots=8).truth[: frames_of_slots(8)]
    anchors = (ShotAnchor(0, 1), ShotAnchor(3, 2), ShotAnchor(7, 1))
    pinned = [
        PrevizAnchor(clip[STRIDE * a.slot : STRIDE * a.slot + frames_of_slots(a.slots)], STRIDE * a.slot, f"m{i}")
        for i, a in enumerate(anchors)
    ]
    previz = Previz(pinned, [], len(clip), size, FPS)
    guide, _ = previz.window(0, len(clip))
    sure = np.full(clip.shape[:3], 255, np.uint8)
    save_shot(TrainingShot(clip, guide, sure, anchors, 0, "camera"), tmp_path / "shot.npz")
    training.encode_shot(tmp_path / "shot.npz", tmp_path / "sample.safetensors", vae)
    sample = training.load_sample(tmp_path / "sample.safetensors")

    media = {
        f"m{i}": Media(
            id=f"m{i}", sha256=str(i), kind="clip" if a.slots > 1 else "still", container="raw", width=256, height=144,
            duration_s=frames_of_slots(a.slots) / FPS if a.slots > 1 else 0, fps=FPS, bytes=1,
            frames=frames_of_slots(a.slots),
        )
        for i, a in enumerate(anchors)
    }  # fmt: skip
    montage = Montage(
        id="m", duration_s=(len(clip) - 1) / FPS, format=Format.of("16:9", "draft", FPS),
        anchors=[Anchor(id=f"a{i}", media_id=f"m{i}", second=STRIDE * a.slot / FPS) for i, a in enumerate(anchors)],
    )  # fmt: skip
    plan = plan_montage(montage, media, NANO, "draft")
    (segment,) = plan.segments
    known = conditions_of(vae, Shot(plan, montage, previz, pinned), segment, torch.device("cpu"))
    span = window_frames(segment)
    hint = GuideCondition(encode_video(vae, pixels_to_tensor(previz.window(span.start, span.stop)[0])))
    for guided in (False, True):
        ours = assemble(training.conditions_of(sample, guided), *sample.shape)
        theirs = assemble([*known, hint] if guided else known, *sample.shape)
        assert torch.equal(ours.mask, theirs.mask) and torch.equal(ours.fixed, theirs.fixed)
        assert (ours.cond - theirs.cond).abs().max() < 4e-3  # samples are kept in half precision


def test_a_follow_window_starts_where_inference_starts_and_ends_at_the_truth(samples: list[training.Sample]) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = training.collate([samples[0]] * 6, [True] * 6, generator)
    way = set_out(batch, ["follow"] * 6, TINY, torch.Generator().manual_seed(1))
    time = way.time.view(-1, 1, 1, 1, 1)
    assert torch.allclose(way.noisy - time * way.velocity, batch.truth, atol=1e-4)
    at_start = set_out(batch, ["follow"] * 6, replace(TINY, t0=(0.5, 0.5)), torch.Generator().manual_seed(1))
    first = at_start.time == 0.5
    assert first.any()
    noise = torch.randn(batch.truth.shape, generator=torch.Generator().manual_seed(1))
    clean = torch.where(batch.fixed[:, None, :, None, None], batch.cond, batch.guide)
    assert torch.allclose(at_start.noisy[first], (0.5 * clean + 0.5 * noise)[first], atol=1e-5)


def test_the_true_velocity_has_no_loss(samples: list[training.Sample]) -> None:
    batch = training.collate(samples[:1], [True], torch.Generator().manual_seed(0))
    way = set_out(batch, ["follow"], TINY, torch.Generator().manual_seed(0))
    exact, _ = flow_loss(way.velocity, way, batch, TINY)
    wrong, _ = flow_loss(way.velocity + 1, way, batch, TINY)
    assert exact < 1e-6 < wrong


@pytest.mark.parametrize(("mode", "share"), [("off", 0.8), ("follow", 0.95)])
def test_the_loss_falls_on_one_repeated_batch(samples: list[training.Sample], mode: str, share: float) -> None:
    fast = replace(TINY, steps=60, warm_up=1e-3, muon_lr=5e-3, adam_lr=5e-3, softness=0.01, modes=((mode, 1.0),))
    trainer = AdaptTrainer(fast, samples[:1])

    def loss() -> float:
        trainer.step, kept = 0, trainer.step  # the batch, its noise and times of step 0
        with torch.no_grad():
            value = trainer.losses()[0].item()
        trainer.step = kept
        return value

    before = loss()
    for _ in range(40):
        trainer.step = 0
        trainer.train_step()
    assert loss() < share * before


def test_a_resumed_run_is_the_same_bit_for_bit(samples: list[training.Sample], tmp_path: Path) -> None:
    whole = AdaptTrainer(TINY, samples)
    for _ in range(2):
        whole.train_step()
    whole.save(tmp_path / "checkpoint.pt")
    rest = [whole.train_step()["loss"] for _ in range(3)]
    resumed = AdaptTrainer(TINY, samples)
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.train_step()["loss"] for _ in range(3)] == rest
    for ours, theirs in zip(resumed.slow_parameters(), whole.slow_parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_window_is_also_judged_by_eye_where_the_autoencoder_is_given(
    vae: NanoAutoencoder, samples: list[training.Sample]
) -> None:
    config = replace(TINY, seen_from=0.0, modes=(("follow", 1.0),))
    blind, seeing = AdaptTrainer(config, samples), AdaptTrainer(config, samples, vae)
    (flow, without), (both, parts) = blind.losses(), seeing.losses()
    assert np.isnan(without["seen"]) and parts["loss"] == pytest.approx(without["loss"])
    assert both.item() == pytest.approx(flow.item() + config.seen_weight * parts["seen"], rel=1e-4)
    both.backward()
    assert seeing.transformer.proj_out.weight.grad is not None


def test_a_run_leaves_weights_curve_and_strips_and_goes_on_from_its_checkpoint(
    vae: NanoAutoencoder, mixture: ClipMixture, tmp_path: Path
) -> None:
    config = replace(TINY, steps=2)
    model = train_adapt(config, tmp_path, mixture, vae, shots=6, large=0)
    assert (model / "transformer" / "diffusion_pytorch_model.safetensors").is_file()
    assert (model / "prompt_tokens" / "config.json").is_file()
    assert (tmp_path / "strips.jpg").is_file() and (tmp_path / "curve.png").is_file()
    train_adapt(replace(config, steps=4), tmp_path, mixture, vae, shots=6, large=0, resume=True)
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3", "4"]
