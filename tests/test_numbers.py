"""The number type of the machine: one for transformer and autoencoder, and what it may cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreamontage.generator.conditioning.encoding import encode_video
from dreamontage.generator.decoding import StreamingDecoder, encode_slots
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.transformer import NanoTransformer, attend
from dreamontage.generator.numbers import computing, number_type

CPU = torch.device("cpu")


def small_autoencoder() -> NanoAutoencoder:
    torch.manual_seed(0)
    return NanoAutoencoder(widths=(8, 8, 8), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)).eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_bfloat16_only_where_the_processor_multiplies_in_it() -> None:
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    assert number_type(CPU) == (torch.bfloat16 if fast else torch.float32)
    assert number_type(torch.device("cuda")) == torch.bfloat16


def test_latents_and_pixels_stay_float32_whatever_is_computed_in() -> None:
    vae = small_autoencoder()
    latents = encode_video(vae, noise(3, 5, 32, 32).clamp(-1, 1))
    assert latents.dtype == torch.float32
    assert StreamingDecoder(vae).slot(latents[:, :1]).dtype == torch.float32


def test_chunks_of_any_length_encode_and_decode_to_the_same_bits() -> None:
    vae, video = small_autoencoder(), noise(13, 3, 32, 32).clamp(-1, 1)
    whole = encode_slots(vae, video, first=True)
    pieces = torch.cat([encode_slots(vae, video[:5], first=True), encode_slots(vae, video[5:], first=False)], dim=1)
    assert torch.equal(whole, pieces)
    assert torch.equal(whole, encode_video(vae, video.transpose(0, 1)))
    one, two = StreamingDecoder(vae), StreamingDecoder(vae)
    decoded = torch.cat(list(one.slots(whole)))
    assert torch.equal(decoded, torch.cat([*two.slots(whole[:, :1]), *two.slots(whole[:, 1:])]))


@pytest.mark.parametrize("tokens", [40, 700])
def test_attention_in_pieces_is_attention(tokens: int) -> None:
    query, key, value = (noise(2, n, 3, 16) for n in (tokens, 33, 33))
    fused = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    ).transpose(1, 2)
    assert torch.allclose(attend(query, key, value), fused, atol=1e-5)


def test_the_machines_number_type_changes_a_velocity_by_rounding_only() -> None:
    torch.manual_seed(0)
    model = NanoTransformer(num_attention_heads=2, attention_head_dim=24, text_dim=8, ffn_dim=64, num_layers=2).eval()
    inputs, words = noise(1, 36, 3, 8, 8), noise(1, 4, 8)
    with torch.no_grad():
        exact = model(inputs, torch.tensor([400.0]), words, return_dict=False)[0]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(inputs, torch.tensor([400.0]), words, return_dict=False)[0]
        with computing(CPU):
            again = [model(inputs, torch.tensor([400.0]), words, return_dict=False)[0] for _ in range(2)]
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()
    assert torch.equal(again[0], again[1])
