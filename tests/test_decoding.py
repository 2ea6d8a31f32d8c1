"""One decode stream with flat memory, resumable at every seam, and detail carried over from the previz."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamontage.generator.decoding import (
    AGREE_BELOW,
    DISAGREE_ABOVE,
    SOFT,
    UNSURE,
    ShotDecoder,
    StreamingDecoder,
    agreement,
    carry_over,
    encode_slots,
    to_pixels,
    to_tensor,
)
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.numbers import computing

HEIGHT, WIDTH = 48, 64
MEAN, STD = [0.1 * (index % 3) for index in range(16)], [0.5 + 0.05 * index for index in range(16)]


@cache
def tiny() -> NanoAutoencoder:
    torch.manual_seed(0)
    vae: NanoAutoencoder = NanoAutoencoder(
        widths=(8, 12, 16),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(2, 2, 2),
        decoder_memory=(1, 1, 1),
        latents_mean=MEAN,
        latents_std=STD,
    ).eval()
    for name, parameter in vae.named_parameters():
        if name.endswith("outer.weight"):  # these begin as zero, which would hide the decoder's memory
            torch.nn.init.normal_(parameter, std=0.2)
    return vae


def latents(slots: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(16, slots, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(seed))


def shot(frames: int, seed: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (frames, HEIGHT, WIDTH, 3)).astype(np.uint8)


def decode(pieces: list[torch.Tensor], decoder: StreamingDecoder) -> torch.Tensor:
    return torch.cat([frames for piece in pieces for frames in decoder.slots(piece)])


@pytest.mark.parametrize("sizes", [[1] * 9, [2, 4, 3], [5, 4], [8, 1]])
def test_invariant_6_chunked_decode_equals_unchunked_bit_for_bit(sizes: list[int]) -> None:
    z = latents(9)
    whole = decode([z], StreamingDecoder(tiny()))
    assert whole.shape == (33, 3, HEIGHT, WIDTH)
    assert torch.equal(whole, decode(list(torch.split(z, sizes, dim=1)), StreamingDecoder(tiny())))


def test_the_stream_is_the_autoencoders_decode_of_denormalised_latents() -> None:
    z = latents(5)
    raw = z[None] * torch.tensor(STD).view(1, -1, 1, 1, 1) + torch.tensor(MEAN).view(1, -1, 1, 1, 1)
    with torch.no_grad(), computing(raw.device):
        expected = tiny().decode(raw, return_dict=False)[0][0].transpose(0, 1).float()
    assert torch.equal(decode([z], StreamingDecoder(tiny())), expected)


def test_invariant_6_a_changed_take_decodes_from_the_state_kept_at_its_seam() -> None:
    before, after = latents(4), latents(5, seed=9)
    first = StreamingDecoder(tiny())
    decode([before], first)
    kept = first.state
    whole = decode([before, after], StreamingDecoder(tiny()))
    assert torch.equal(decode([after], StreamingDecoder(tiny(), kept)), whole[13:])
    assert torch.equal(decode([after], StreamingDecoder(tiny(), kept)), whole[13:]), "a kept state is never changed"
    assert not torch.equal(decode([after], StreamingDecoder(tiny()))[1:], whole[14:]), "the decoder does remember"


def test_a_video_encoded_in_pieces_has_the_latents_of_the_whole() -> None:
    video = to_tensor(shot(21))
    whole = encode_slots(tiny(), video, first=True)
    assert whole.shape == (16, 6, HEIGHT // 8, WIDTH // 8)
    pieces = [encode_slots(tiny(), video[:5], first=True), encode_slots(tiny(), video[5:13], first=False)]
    assert torch.equal(torch.cat([*pieces, encode_slots(tiny(), video[13:], first=False)], dim=1), whole)


@pytest.mark.parametrize("sizes", [[1] * 6, [4, 2], [1, 5]])
def test_invariant_6_a_delivered_shot_does_not_depend_on_its_chunks(sizes: list[int]) -> None:
    previz, z = shot(21), latents(6)
    confidence = np.random.default_rng(3).random((21, HEIGHT, WIDTH), np.float32)
    whole = ShotDecoder(tiny()).next(z, previz, confidence)
    decoder, slot, frame, pieces = ShotDecoder(tiny()), 0, 0, []
    for count in sizes:
        stop = 4 * (slot + count) - 3
        piece = decoder.next(z[:, slot : slot + count], previz[frame:stop], confidence[frame:stop])
        pieces.append(piece)
        slot, frame = slot + count, stop
    assert np.array_equal(np.concatenate([piece.pixels for piece in pieces]), whole.pixels)
    assert np.array_equal(np.concatenate([piece.guide for piece in pieces]), whole.guide)


def test_where_the_transformer_agrees_the_previz_comes_through_exactly() -> None:
    previz = shot(13)
    z = encode_slots(tiny(), to_tensor(previz), first=True)
    ones = np.ones(previz.shape[:3], np.float32)
    assert np.array_equal(ShotDecoder(tiny()).next(z, previz, ones).pixels, previz)
    without = ShotDecoder(tiny(), carried=False).next(z, previz, ones)
    assert np.array_equal(without.pixels, without.guide), "m = 0 delivers the decoded latents"
    assert not np.array_equal(without.pixels, previz)


def test_where_the_transformer_paints_something_else_its_own_pixels_stand_unless_the_previz_is_sure() -> None:
    painted, previz = torch.rand(2, 3, HEIGHT, WIDTH) * 0.4 - 0.2, torch.rand(2, 3, HEIGHT, WIDTH)
    for confidence, stands in ((0.0, painted), (UNSURE - SOFT, painted), (UNSURE + SOFT, previz), (1.0, previz)):
        everywhere = torch.full((2, HEIGHT, WIDTH), confidence)
        assert torch.equal(carry_over(painted, painted + 0.5, previz, everywhere), stands)


def test_a_small_change_reaches_the_output_only_where_the_previz_is_unsure() -> None:
    previz = torch.rand(1, 3, HEIGHT, WIDTH) * 0.4 - 0.2
    guide = previz + 0.01  # what the autoencoder makes of it
    sure = torch.ones(1, HEIGHT, WIDTH)
    sure[:, :, WIDTH // 2 :] = 0.2
    changed = carry_over(guide + 0.03, guide, previz, sure)
    assert torch.equal(changed[..., : WIDTH // 2], previz[..., : WIDTH // 2])
    assert torch.allclose(changed[..., WIDTH // 2 :], previz[..., WIDTH // 2 :] + 0.03)


def test_agreement_is_one_where_equal_falls_with_the_difference_and_is_smooth_in_space() -> None:
    base = torch.zeros(1, 3, HEIGHT, WIDTH)
    levels = torch.linspace(0, 0.4, 30)
    fall = torch.stack([agreement(base, base + level).mean() for level in levels])
    assert fall[0] == 1 and torch.equal(agreement(base, base), torch.ones(1, 1, HEIGHT, WIDTH))
    assert (fall.diff() <= 1e-6).all()
    assert (fall[levels <= AGREE_BELOW] == 1).all() and (fall[levels >= DISAGREE_ABOVE + 1e-3] == 0).all()
    wide = torch.zeros(1, 3, 32, 512)
    edge = wide.clone()
    edge[..., 256:] = 0.5
    steps = agreement(wide, edge)[0, 0, 16].diff().abs()
    assert steps.max() < 0.4 and (steps > 0).sum() >= 4


def test_pixels_survive_the_way_through_tensors() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(to_pixels(to_tensor(pixels)), pixels)
