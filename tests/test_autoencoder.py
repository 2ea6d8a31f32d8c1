"""The autoencoder: geometry, streaming, independence of slots, and what training leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamontage.generator.models.autoencoder import NanoAutoencoder, fold_frames, unfold_frames

SMALL = {"widths": (8, 12, 16), "encoder_blocks": (1, 1, 1), "decoder_blocks": (2, 2, 2), "decoder_memory": (1, 2, 2)}


@pytest.fixture(scope="module")
def model() -> NanoAutoencoder:
    """A small network with weights that make every path matter (fresh residual branches are zero)."""
    torch.manual_seed(0)
    network = NanoAutoencoder(**SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(0, 0.12)
    return network


def clip(frames: int, height: int = 32, width: int = 48, seed: int = 1) -> Tensor:
    """Random video [1,3,F,H,W] in -1..1."""
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def latents(slots: int, batch: int = 1) -> Tensor:
    """Random raw latents [B,16,T,4,6]."""
    return torch.randn(batch, 16, slots, 4, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("frames", "slots"), [(1, 1), (5, 2), (9, 3), (33, 9)])
def test_geometry_is_that_of_the_wan_autoencoder(model: NanoAutoencoder, frames: int, slots: int) -> None:
    posterior = model.encode(clip(frames)).latent_dist
    assert posterior.mode().shape == (1, 16, slots, 4, 6)
    assert model.decode(posterior.mode()).sample.shape == (1, 3, frames, 32, 48)
    assert (model.config.scale_factor_temporal, model.config.scale_factor_spatial, model.config.z_dim) == (4, 8, 16)


def test_a_clip_that_is_not_one_plus_four_m_frames_is_refused(model: NanoAutoencoder) -> None:
    with pytest.raises(ValueError, match="1\\+4m"):
        model.encode(clip(8))


def test_streamed_decode_equals_batch_decode_bit_for_bit(model: NanoAutoencoder) -> None:
    z = latents(6)
    whole = model.decode(z).sample
    state = None
    pieces = []
    for index in range(6):
        frames, state = model.decode_slot(z[:, :, index : index + 1], state)
        pieces.append(frames)
    assert [piece.shape[2] for piece in pieces] == [1, 4, 4, 4, 4, 4]
    assert torch.equal(torch.cat(pieces, dim=2), whole)


def test_a_decoder_state_kept_in_a_file_goes_on_bit_for_bit(model: NanoAutoencoder, tmp_path: Path) -> None:
    z = latents(5)
    whole = model.decode(z).sample
    state = None
    for index in range(3):
        _, state = model.decode_slot(z[:, :, index : index + 1], state)
    assert state is not None
    save_file({str(i): tensor for i, tensor in enumerate(state)}, tmp_path / "state.safetensors")
    kept = load_file(tmp_path / "state.safetensors")
    state = [kept[str(i)] for i in range(len(kept))]
    rest = []
    for index in range(3, 5):
        frames, state = model.decode_slot(z[:, :, index : index + 1], state)
        rest.append(frames)
    assert torch.equal(torch.cat(rest, dim=2), whole[:, :, 9:])


def test_the_decoder_remembers_exactly_what_came_before(model: NanoAutoencoder) -> None:
    z = latents(4)
    changed = z.clone()
    changed[:, :, 1] += 1
    a, b = model.decode(z).sample, model.decode(changed).sample
    assert torch.equal(a[:, :, :1], b[:, :, :1])
    assert not torch.equal(a[:, :, 5:9], b[:, :, 5:9])


def test_the_training_path_decodes_what_the_stream_decodes(model: NanoAutoencoder) -> None:
    video = torch.cat([clip(9), clip(9, seed=4)])
    z = model.encode_folded(video)
    assert torch.allclose(z.permute(1, 2, 0, 3, 4), model.encode(video).latent_dist.mode(), atol=1e-5)
    streamed = model.decode(z.permute(1, 2, 0, 3, 4)).sample
    assert torch.allclose(model.decode_folded(z).clamp(-1, 1), streamed, atol=1e-5)


def test_slot_0_is_image_mode(model: NanoAutoencoder) -> None:
    video = clip(9)
    still = model.encode(video[:, :, :1]).latent_dist.mode()
    assert torch.equal(model.encode(video).latent_dist.mode()[:, :, :1], still)
    frozen = fold_frames(video[:, :, :1])[0].unflatten(1, (4, 3))
    assert all(torch.equal(frozen[:, i], video[:, :, 0]) for i in range(4))


def test_a_slice_of_a_clips_latents_is_its_stand_alone_encode_but_for_the_first_slot(model: NanoAutoencoder) -> None:
    video = clip(21)
    whole = model.encode(video).latent_dist.mode()
    alone = model.encode(video[:, :, 8:]).latent_dist.mode()
    assert torch.equal(whole[:, :, 3:], alone[:, :, 1:])
    assert not torch.equal(whole[:, :, 2], alone[:, :, 0])


def test_folding_frames_into_slots_round_trips() -> None:
    video = clip(13)
    assert torch.equal(unfold_frames(fold_frames(video)), video)


def test_the_posterior_has_a_fixed_sigma(model: NanoAutoencoder) -> None:
    posterior = model.encode(clip(33)).latent_dist
    first = posterior.sample(torch.Generator().manual_seed(3))
    second = posterior.sample(torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    assert float((first - posterior.mode()).std()) == pytest.approx(model.config.sigma, rel=0.1)


def test_save_and_load_give_the_same_model(model: NanoAutoencoder, tmp_path: Path) -> None:
    model.register_to_config(latents_mean=[0.5] * 16, latents_std=[2.0] * 16)
    model.save_pretrained(tmp_path)
    loaded = NanoAutoencoder.from_pretrained(tmp_path).eval()
    video = clip(9)
    assert torch.equal(loaded.encode(video).latent_dist.mode(), model.encode(video).latent_dist.mode())
    assert torch.equal(loaded.decode(latents(3)).sample, model.decode(latents(3)).sample)
    assert list(loaded.config.latents_mean) == [0.5] * 16 and list(loaded.config.widths) == [8, 12, 16]


def test_memory_is_flat_the_state_holds_one_slot_and_nothing_else(model: NanoAutoencoder) -> None:
    sizes = []
    state = None
    for index in range(24):
        _, state = model.decode_slot(latents(1) + index, state)
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in state))
        assert all(tensor.is_contiguous() for tensor in state)
    assert len(set(sizes)) == 1
    assert sizes[0] == sum(tensor.numel() * tensor.element_size() for tensor in state or [])
