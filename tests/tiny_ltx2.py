"""A checkpoint of LTX-2 in its real format, small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, GemmaTokenizer

WIDTH, LAYERS = 16, 2
"""Of the text encoder."""
WORDS = "from", "to", "s:", "pan", "left", "forest", "0"
NEWER: dict[str, Any] = {
    "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False,
}  # fmt: skip
NEWER_CONNECTORS: dict[str, Any] = {
    "video_gated_attn": True, "audio_gated_attn": True, "per_modality_projections": True, "video_hidden_dim": 32,
    "audio_hidden_dim": 16, "video_connector_attention_head_dim": 16, "audio_connector_attention_head_dim": 8,
    "proj_bias": True,
}  # fmt: skip


def gemma() -> tuple[GemmaTokenizer, Gemma3ForConditionalGeneration]:
    """A tokenizer that knows letters and a few words, and a Gemma 3 of two layers."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted({*"".join(WORDS), "▁"})
    merges, known = [], [*special, *letters]
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in known:
                merges.append((word[: end - 1], word[end - 1]))
                known.append(word[:end])
    tokenizer = GemmaTokenizer(vocab={token: index for index, token in enumerate(known)}, merges=merges)
    config = Gemma3Config(
        text_config={
            "vocab_size": len(known), "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": LAYERS,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "image_size": 8, "patch_size": 4,
        },
        mm_tokens_per_image=4,
    )  # fmt: skip
    return tokenizer, Gemma3ForConditionalGeneration(config)


def save_tiny_ltx2(folder: Path, newer: bool = False) -> Path:
    """As LTX-2 (`newer`: as LTX-2.3): picture and sound in one network, Gemma's layers through two connectors."""
    torch.manual_seed(4)
    tokenizer, encoder = gemma()
    transformer = LTX2VideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        audio_in_channels=8, audio_out_channels=8, audio_num_attention_heads=2, audio_attention_head_dim=8,
        audio_cross_attention_dim=16, num_layers=2, caption_channels=WIDTH, rope_type="split",
        **(NEWER if newer else {}),
    )  # fmt: skip
    connectors: dict[str, Any] = {
        "caption_channels": WIDTH, "text_proj_in_factor": LAYERS + 1, "video_connector_num_attention_heads": 2,
        "video_connector_attention_head_dim": 8, "video_connector_num_layers": 1,
        "audio_connector_num_attention_heads": 2, "audio_connector_attention_head_dim": 8,
        "audio_connector_num_layers": 1, "rope_type": "split",
    }  # fmt: skip
    vae = AutoencoderKLLTX2Video(
        latent_channels=16, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1), decoder_causal=False,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    vae.latents_mean.copy_(torch.linspace(-0.3, 0.3, 16))
    vae.latents_std.copy_(torch.linspace(0.5, 0.9, 16))
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=1024, base_shift=0.95, max_image_seq_len=4096, max_shift=2.05, shift_terminal=0.1,
        use_dynamic_shifting=True,
    )  # fmt: skip
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=8, ch_mult=(1,), num_res_blocks=1, resolution=16, latent_channels=2, mel_bins=16
    )
    vocoder = LTX2Vocoder(
        in_channels=32, hidden_channels=4, upsample_kernel_sizes=[4], upsample_factors=[2], resnet_kernel_sizes=[3],
        resnet_dilations=[[1]],
    )  # fmt: skip
    LTX2ConditionPipeline(
        scheduler=scheduler, vae=vae, audio_vae=audio_vae, text_encoder=encoder, tokenizer=tokenizer,
        connectors=LTX2TextConnectors(**connectors | (NEWER_CONNECTORS if newer else {})), transformer=transformer,
        vocoder=vocoder,
    ).save_pretrained(folder)  # fmt: skip
    return folder
