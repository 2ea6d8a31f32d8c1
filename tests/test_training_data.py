"""Training windows: what is said of them, where their anchors are, and the clips that they are cut from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamontage.generator.conditioning import StillCondition
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.vocabulary import understood
from dreamontage.generator.timeline import STRIDE, frames_of_slots
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.notes import ClipBeat, ClipNote
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.data.store import ClipStore
from dreamontage.generator.training.samples import conditions_of, encode_shot, load_sample
from dreamontage.generator.training.shots import draw_noted, draw_shot, draw_shots, save_shot, shot_of_clip, told
from dreamontage.schemas.montage import Camera

FRAMES = 97
NOTE = ClipNote(
    source="test", licence="own work", seed=0, category="base", frames=FRAMES, width=96, height=64,
    beats=(
        ClipBeat(start_s=0, stop_s=2, prompt="fast car", camera=Camera(move="pan", direction="left", amount=0.5)),
        ClipBeat(start_s=2, stop_s=4, prompt="night"),
    ),
    boundaries_s=(2.0,),
)  # fmt: skip


@pytest.fixture(scope="module")
def mixture() -> ClipMixture:
    return ClipMixture([replace(paint(seed, 192), kind="own") for seed in range(3)])


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """Frame f is grey level f."""
    return np.broadcast_to(np.arange(FRAMES, dtype=np.uint8)[:, None, None, None], (FRAMES, 64, 96, 3)).copy()


def test_a_window_of_a_noted_clip_is_a_run_of_its_frames_at_another_size(clip: np.ndarray) -> None:
    for seed in range(8):
        shot = shot_of_clip(clip, NOTE, np.random.default_rng(seed), (64, 64))
        levels = shot.truth[:, 10, 10, 0].astype(int)
        assert shot.truth.shape[1:] == (64, 64, 3) and len(shot.truth) == frames_of_slots(shot.slots)
        assert (np.diff(levels) == 1).all()


def test_words_and_image_conditions_of_a_window_are_where_the_clip_has_them(clip: np.ndarray) -> None:
    at_boundary = inside = spoken = 0
    for seed in range(30):
        shot = shot_of_clip(clip, NOTE, np.random.default_rng(seed), (64, 64), slots=9)
        first = int(shot.truth[0, 0, 0, 0])
        boundary = (48 - first) / STRIDE  # in slots of the window
        for beat in shot.beats:
            assert 0 <= beat.start < beat.stop <= shot.slots - 1
            assert (beat.stop if "car" in beat.prompt else beat.start) == pytest.approx(
                np.clip(boundary, 0, shot.slots - 1), abs=1e-6
            )
            spoken += 1
        if 3 < boundary < shot.slots - 2:
            inside += 1
            at_boundary += any(abs(anchor.slot - boundary) <= 0.5 for anchor in shot.anchors)
    assert spoken > 15 and inside > 6 and at_boundary > 0.5 * inside


def test_a_clip_shorter_than_the_window_makes_a_shorter_window(clip: np.ndarray) -> None:
    note = NOTE.model_copy(update={"frames": 17})
    assert shot_of_clip(clip[:17], note, np.random.default_rng(0), (64, 64), slots=9).slots == 5


def test_beats_are_typed_spoken_in_words_only_or_silent() -> None:
    seen = Counter[str]()
    for seed in range(60):
        said = told(np.random.default_rng(seed), NOTE.beats)
        if not said:
            seen["silent"] += 1
        elif said[0].camera:
            seen["typed"] += 1
        elif "pan left" in said[0].prompt:
            seen["spoken"] += 1
        else:
            assert said[0].prompt == "fast car"
            seen["words"] += 1
    assert len(seen) == 4


def test_every_kind_of_clip_is_drawn_and_says_only_known_words(mixture: ClipMixture) -> None:
    kinds = set()
    for seed in range(32):
        frames, kind, beats = draw_noted(np.random.default_rng(seed), mixture, 0, 29, 64, 48)
        kinds.add(kind)
        assert frames.shape == (29, 48, 64, 3) and 1 <= len(beats) <= 3
        for beat in beats:
            assert 0 <= beat.start_s < beat.stop_s <= 28 / 24
            assert beat.camera or understood(beat.prompt)[0]
    assert kinds == {"camera", "world", "layers", "transition", "subject"}


def test_a_part_of_the_shots_are_windows_of_a_store(mixture: ClipMixture, clip: np.ndarray, tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    store.write(clip, NOTE, 0)
    stored = (store, store.rows())
    shots = [draw_shot(0, index, mixture, (64, 64), slots=5, stored=stored) for index in range(12)]
    from_store = [shot for shot in shots if shot.kind == "test"]
    assert 1 <= len(from_store) <= 8
    drawn = draw_shots(tmp_path / "shots", mixture, 2, 0, store=store)
    assert [path.name for path in drawn] == ["000000.npz", "000001.npz"]


def test_between_strangers_the_previz_is_the_goal_and_anchors_lie_on_it(mixture: ClipMixture) -> None:
    shots = [draw_shot(3, index, mixture, (64, 64), strangers=1.0) for index in range(12)]
    assert {shot.kind for shot in shots} == {"strangers"}
    for shot in shots:
        assert np.array_equal(shot.truth, shot.previz)
        assert all(anchor.slot + anchor.slots <= shot.slots for anchor in shot.anchors)
    assert any((shot.confidence < 128).any() for shot in shots)
    assert any(anchor.slots > 1 for shot in shots for anchor in shot.anchors)
    assert draw_shot(3, 0, mixture, (64, 64)).kind != "strangers"


def test_naive_conditions_are_slices_of_the_windows_own_latents(
    mixture: ClipMixture, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    vae = NanoAutoencoder((8, 8, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1)).eval()
    differ = 0
    for index in range(4):
        shot = draw_shot(1, index, mixture, (64, 64), slots=6)
        save_shot(shot, tmp_path / "shot.npz")
        encode_shot(tmp_path / "shot.npz", tmp_path / "sample.safetensors", vae)
        sample = load_sample(tmp_path / "sample.safetensors")
        naive, ours = (conditions_of(sample, False, naive=flag) for flag in (True, False))
        assert len(naive) == len(ours)
        for condition in naive:
            latents = getattr(condition, "latent", getattr(condition, "latents", None))
            if latents is not None:
                slot = condition.slot  # type: ignore[attr-defined]
                assert torch.equal(latents, sample.truth.float()[:, slot : slot + latents.shape[1]])
        for condition in ours:
            if isinstance(condition, StillCondition) and condition.slot:
                own = sample.truth.float()[:, condition.slot : condition.slot + 1]
                differ += not torch.equal(condition.latent, own)
    assert differ
