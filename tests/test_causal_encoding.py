"""Encoders of LTX and LTX-2 in pieces: what they give of the whole, with the memory of a slot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTX2Video, AutoencoderKLLTXVideo
from tiny_model import picture

from dreamontage.generator.conditioning.encoding import encode_video
from dreamontage.generator.decoding import StreamingEncoder, to_tensor
from dreamontage.generator.models.ltx_autoencoder import Ltx2Autoencoder, LtxAutoencoder, SlotAutoencoder
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sar import GUIDE_CHUNK, guide_latents

SMALL: dict[str, Any] = {
    "latent_channels": 16, "block_out_channels": (8, 8, 16, 16), "decoder_block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 1, 1, 1, 1), "decoder_layers_per_block": (1, 1, 1, 1), "decoder_causal": False,
    "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
}  # fmt: skip
DOWN = "spatial", "temporal", "spatiotemporal", "spatiotemporal"


def build(kind: str, folder: Path) -> SlotAutoencoder:
    torch.manual_seed(5)
    if kind == "LTX-2":
        AutoencoderKLLTX2Video(**SMALL, downsample_type=DOWN).save_pretrained(folder)
        return Ltx2Autoencoder.from_pretrained(folder)
    own: dict[str, Any] = {"spatio_temporal_scaling": (True, True, True, False)}
    if kind == "LTX 0.9.5":
        own = {"down_block_types": ("LTXVideo095DownBlock3D",) * 4, "downsample_type": DOWN,
               "block_out_channels": (8, 8, 8, 16, 16), "spatio_temporal_scaling": (True,) * 4}  # fmt: skip
    AutoencoderKLLTXVideo(**SMALL | own).save_pretrained(folder)
    return LtxAutoencoder.from_pretrained(folder)


@pytest.fixture(params=["LTX 0.9.0", "LTX 0.9.5", "LTX-2"])
def vae(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return build(request.param, tmp_path)


def test_slots_one_by_one_are_the_latents_of_the_whole(vae: Any) -> None:
    video = torch.rand(41, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = encode_video(vae, video.transpose(0, 1))
    stream = StreamingEncoder(vae)
    pieces = torch.cat([stream.next(video[start:stop]) for start, stop in ((0, 9), (9, 33), (33, 41))], dim=1)
    assert (pieces - whole).abs().max() <= 1e-4
    anew = torch.cat([StreamingEncoder(vae).next(piece) for piece in (video[:9], video[8:41])], dim=1)
    assert (anew[:, 3:] - whole[:, 2:]).abs().max() > 1e-2, "what has no memory gives something else"
    assert torch.equal(encode_video(vae, video.transpose(0, 1)), whole), "the encoder itself is as it was"


def test_what_is_kept_between_slots_does_not_grow_with_the_video(vae: Any) -> None:
    frames = torch.zeros(1, 3, 8, 64, 64)
    _, state = vae.encode_slot(frames[:, :, :1], None)
    sizes = [sum(value.numel() for value in state.values())]
    for _ in range(3):
        _, state = vae.encode_slot(frames, state)
        sizes.append(sum(value.numel() for value in state.values()))
    assert len(set(sizes)) == 1


def test_the_guide_of_a_window_is_its_previz_encoded_whole(vae: Any) -> None:
    anchors = [PrevizAnchor(picture(n, (64, 64))[None], 48 * n, str(n)) for n in (0, 1, 2)]
    previz = Previz(anchors, [], 97, (64, 64), 24)
    frames = range(16, 97)
    assert len(frames) > 8 * GUIDE_CHUNK + 1
    guide = guide_latents(vae, previz, frames, 8)
    whole = encode_video(vae, to_tensor(np.asarray(previz.window(16, 97)[0])).transpose(0, 1))
    assert guide.shape[1] == 11 and (guide - whole).abs().max() <= 1e-4
