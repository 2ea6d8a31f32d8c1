"""A Wan-layout checkpoint in the real format, small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

SIZES: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 36, "out_channels": 16, "text_dim": 24,
    "freq_dim": 16, "ffn_dim": 48, "num_layers": 2,
}  # fmt: skip


def save_tiny_wan(folder: Path, text: bool = False, boundary: float | None = None, **sizes: Any) -> Path:
    """Random weights of fixed seed as `WanImageToVideoPipeline.save_pretrained` writes them, the transformer in shards.

    `text` adds a UMT5 encoder and its tokenizer; `sizes` changes the transformer.
    """
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**SIZES | sizes)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    tokenizer = encoder = None
    if text:
        words = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in ("From", "to", "s:", "pan", "left", "0", "forest"))]
        tokenizer = T5Tokenizer(vocab=[(word, -float(i)) for i, word in enumerate(words)], extra_ids=0)
        shape = UMT5Config(
            vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=16, num_layers=1, num_heads=2, is_encoder_decoder=False
        )
        encoder = UMT5EncoderModel(shape)
    parts = {"tokenizer": tokenizer, "text_encoder": encoder, "vae": vae, "transformer": transformer}
    pipe = WanImageToVideoPipeline(**parts, scheduler=scheduler, boundary_ratio=boundary)
    pipe.save_pretrained(folder)
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="40KB")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    return folder
