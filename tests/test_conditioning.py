"""Conditioning: what each kind writes, who wins where two meet, and the mask law of the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamontage.generator.conditioning import (
    ClipCondition,
    GuideCondition,
    HeldEndCondition,
    StillCondition,
    TailCondition,
    assemble,
)
from dreamontage.generator.conditioning.encoding import (
    denormalise,
    encode_video,
    normalise,
    pixels_to_tensor,
)
from dreamontage.generator.decoding import to_pixels
from dreamontage.generator.models.autoencoder import NanoAutoencoder

H, W = 2, 3


def latents(slots: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(16, slots, H, W, generator=torch.Generator().manual_seed(seed))


def flags(mask: torch.Tensor) -> list[str]:
    """The mask of each slot as four digits, where it is the same all over the picture."""
    assert torch.equal(mask, mask[:, :, :1, :1].expand_as(mask))
    return ["".join(str(round(float(bit))) for bit in mask[:, slot, 0, 0]) for slot in range(mask.shape[1])]


def test_the_mask_law_of_stills_clips_tails_held_ends_and_guides() -> None:
    window = assemble(
        [
            GuideCondition(latents(14)),
            TailCondition(latents(1, 1), latents(2, 2)),
            StillCondition(4, latents(1, 3)),
            ClipCondition(6, latents(3, 4)),
            HeldEndCondition(latents(3, 5)),
        ],
        14, H, W,
    )  # fmt: skip
    assert flags(window.mask) == ["1111"] * 3 + ["0000", "0001", "0000", "0001", "1111", "1111", "0000", "0000"] + [
        "1111"
    ] * 3
    assert window.fixed.tolist() == [bits == "1111" for bits in flags(window.mask)]


def test_frame_zero_is_given_whole() -> None:
    for condition in (StillCondition(0, latents(1)), ClipCondition(0, latents(3))):
        window = assemble([condition], 4, H, W)
        assert flags(window.mask)[0] == "1111"
        assert window.fixed[0]


def test_empty_slots_hold_zeros_or_what_the_card_calls_empty() -> None:
    assert not assemble([], 4, H, W).cond.any()
    grey = latents(4)
    assert torch.equal(assemble([StillCondition(2, latents(1, 1))], 4, H, W, empty=grey).cond[:, 3], grey[:, 3])


def test_a_guide_fills_only_what_nothing_else_describes_whole() -> None:
    guide, first, still = latents(5), latents(1, 1), latents(1, 1)
    window = assemble([StillCondition(0, first), StillCondition(2, still), GuideCondition(guide)], 5, H, W)
    assert torch.equal(window.cond[:, 1:], guide[:, 1:])
    assert torch.equal(window.cond[:, 0], first[:, 0])


def test_a_still_in_a_guided_slot_is_marked_and_keeps_the_guide_that_passes_through_it() -> None:
    guide = latents(5)
    window = assemble([StillCondition(2, latents(1, 1)), GuideCondition(guide)], 5, H, W)
    assert torch.equal(window.cond[:, 2], guide[:, 2])
    assert window.mask[:, 2, 0, 0].tolist() == [0, 0, 0, 1]
    assert not window.fixed[2]


def test_a_weak_anchor_in_a_guided_window_is_marked_with_its_strength_and_adds_no_noise() -> None:
    guide = latents(6)
    weak = [StillCondition(0, latents(1, 1), 0.5), ClipCondition(2, latents(3, 2), 0.5)]
    window = assemble([*weak, GuideCondition(guide)], 6, H, W)
    assert torch.equal(window.cond, guide)
    assert window.mask[:, [0, 2, 3], 0, 0].T.tolist() == [[0.5] * 4, [0, 0, 0, 0.5], [0.5] * 4]
    assert not window.fixed.any()


def test_a_user_still_in_the_tail_is_not_written_again_but_a_clip_overrides() -> None:
    tail, clip = TailCondition(latents(1, 1), latents(2, 2)), latents(4, 4)
    window = assemble([StillCondition(1, latents(1, 3)), tail], 8, H, W)
    assert torch.equal(window.cond[:, 1], tail.rest[:, 0])
    window = assemble([ClipCondition(1, clip), tail], 8, H, W)
    assert torch.equal(window.cond[:, 1], tail.rest[:, 0])
    assert torch.equal(window.cond[:, 2:5], clip[:, 1:])
    weak = assemble([ClipCondition(1, clip, strength=0.5), tail], 8, H, W, generator=torch.Generator())
    assert torch.equal(weak.cond[:, 2], tail.rest[:, 1])


def test_strength_mixes_noise_into_the_condition_and_scales_the_mask() -> None:
    still = latents(1)
    mixed = [
        assemble([StillCondition(2, still, 0.25)], 4, H, W, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    noise = torch.randn(16, H, W, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(mixed[0].cond[:, 2], 0.25 * still[:, 0] + 0.75 * noise)
    assert torch.equal(mixed[0].cond, mixed[1].cond)
    assert not torch.equal(mixed[0].cond, mixed[2].cond)
    assert mixed[0].mask[:, 2, 0, 0].tolist() == [0, 0, 0, 0.25]
    assert not mixed[0].fixed.any()


def test_pixels_survive_the_way_to_tensors_and_back() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 3), dtype=np.uint8)
    assert np.array_equal(to_pixels(pixels_to_tensor(frames).transpose(0, 1)), frames)


@pytest.fixture(scope="module")
def vae() -> NanoAutoencoder:
    torch.manual_seed(0)
    return NanoAutoencoder(
        widths=(8, 8, 8), latents_mean=[0.1] * 16, latents_std=[0.5 + i / 16 for i in range(16)]
    ).eval()


def test_each_condition_is_encoded_by_itself_with_its_first_frame_in_image_mode(vae: NanoAutoencoder) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    video = pixels_to_tensor(frames)
    clip = encode_video(vae, video)
    assert clip.shape == (16, 3, 2, 2)
    assert torch.allclose(clip[:, :1], encode_video(vae, video[:, :1]), atol=1e-5)
    assert torch.allclose(denormalise(vae, normalise(vae, clip)), clip, atol=1e-5)


def test_training_samples_a_clips_later_slots_from_the_posterior_but_not_its_first(vae: NanoAutoencoder) -> None:
    video = pixels_to_tensor(np.random.default_rng(2).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8))
    mode, sampled = encode_video(vae, video), encode_video(vae, video, torch.Generator().manual_seed(3))
    assert torch.equal(mode[:, :1], sampled[:, :1])
    spread = ((sampled - mode)[:, 1:] * torch.tensor(vae.config.latents_std).view(-1, 1, 1, 1)).std()
    assert spread == pytest.approx(vae.config.sigma, rel=0.2)
