"""Checkpoints of the further model families in their real formats, small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)

TEXT = 24
"""Width of text embeddings; no encoder is saved, so that windows are rendered with an empty prompt or given one."""
WAN: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 16, "text_dim": TEXT, "freq_dim": 16, "ffn_dim": 48,
    "num_layers": 2,
}  # fmt: skip


def unipc(shift: float) -> UniPCMultistepScheduler:
    """The scheduler that Wan's checkpoints ship."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def save_tiny_vace(folder: Path) -> Path:
    """As Wan2.1-VACE: 16 latent channels in, 96 control channels (two videos of 16, a mask of 8x8)."""
    torch.manual_seed(1)
    transformer = WanVACETransformer3DModel(**WAN, vace_layers=[0], vace_in_channels=96)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
    parts = {"tokenizer": None, "text_encoder": None, "vae": vae, "transformer": transformer}
    WanVACEPipeline(**parts, scheduler=unipc(3.0)).save_pretrained(folder)
    return folder


def save_tiny_ti2v(folder: Path) -> Path:
    """As Wan2.2-TI2V-5B: an autoencoder of 48 channels that folds 2x2 pixels (16x in space), timesteps per token."""
    torch.manual_seed(2)
    transformer = WanTransformer3DModel(**WAN, in_channels=48, out_channels=48)
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=48, dim_mult=[1, 1, 2, 2], num_res_blocks=1, is_residual=True,
        patch_size=2, temperal_downsample=[False, True, True], in_channels=12, out_channels=12, scale_factor_spatial=16,
        latents_mean=torch.linspace(-0.3, 0.3, 48).tolist(), latents_std=torch.linspace(0.4, 0.8, 48).tolist(),
    )  # fmt: skip
    parts = {"tokenizer": None, "text_encoder": None, "vae": vae, "transformer": transformer}
    WanImageToVideoPipeline(**parts, scheduler=unipc(5.0), expand_timesteps=True).save_pretrained(folder)
    return folder


def save_tiny_ltx(folder: Path) -> Path:
    """As LTX-Video 0.9.5: 8x in time, 32x in space, causal encoder, a decoder that looks ahead and knows its noise."""
    torch.manual_seed(3)
    transformer = LTXVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=2, caption_channels=TEXT,
    )  # fmt: skip
    scaling = (True, True, True)
    vae = AutoencoderKLLTXVideo(
        latent_channels=16, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False), decoder_spatio_temporal_scaling=scaling,
        decoder_inject_noise=(False,) * 4, upsample_residual=(True,) * 3, upsample_factor=(2, 2, 2),
        timestep_conditioning=True, patch_size=4, patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    vae.latents_mean.copy_(torch.linspace(-0.3, 0.3, 16))
    vae.latents_std.copy_(torch.linspace(0.5, 0.9, 16))
    parts = {"tokenizer": None, "text_encoder": None, "vae": vae, "transformer": transformer}
    LTXConditionPipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler()).save_pretrained(folder)
    return folder


@torch.no_grad()
def in_slots(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Raw latents [1,C,n,h,w] decoded slot by slot by an autoencoder of LTX's that is shown all that is ahead."""
    frames, state = [], None
    vae.ahead = latents.shape[2] - 1
    for slot in range(latents.shape[2]):
        decoded, state = vae.decode_slot(latents[:, :, slot : slot + 1], state, latents[:, :, slot + 1 :])
        frames.append(decoded)
    del vae.ahead
    return torch.cat(frames, dim=2)
