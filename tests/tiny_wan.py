"""A Wan-layout checkpoint in the real format, small enough for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

SIZES: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 36, "out_channels": 16, "text_dim": 24,
    "freq_dim": 16, "ffn_dim": 48, "num_layers": 2,
}  # fmt: skip


def save_tiny_wan(
    folder: Path, text: bool = False, boundary: float | None = None, experts: int = 1, **sizes: Any
) -> Path:
    """Random weights of fixed seed as `WanImageToVideoPipeline.save_pretrained` writes them, the transformer in shards.

    `text` adds a UMT5 encoder and its tokenizer, `experts` 2 a second transformer; `sizes` changes the transformer.
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
    if experts == 2:
        parts["transformer_2"] = WanTransformer3DModel(**SIZES | sizes)
    pipe = WanImageToVideoPipeline(**parts, scheduler=scheduler, boundary_ratio=boundary)
    pipe.save_pretrained(folder)
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="40KB")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    return folder


def save_clip_branch(folder: Path, pictures: int = 1) -> Path:
    """As Wan2.1-I2V-14B: a CLIP vision encoder, and a transformer that attends to one picture (FLF2V: to two)."""
    tokens = None if pictures == 1 else 2 * 257
    save_tiny_wan(folder, text=True, image_dim=20, added_kv_proj_dim=32, pos_embed_seq_len=tokens)
    torch.manual_seed(1)
    shape = CLIPVisionConfig(
        hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=2
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe = WanImageToVideoPipeline.from_pretrained(
        folder, image_encoder=CLIPVisionModel(shape), image_processor=processor, dtype=torch.float32
    )
    shutil.rmtree(folder / "transformer")
    pipe.save_pretrained(folder)
    return folder


def save_original(folder: Path) -> None:
    """Rewrite a transformer's folder in Wan's original layout: its key names, its configuration, one file."""
    model = WanTransformer3DModel.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    for file in folder.iterdir():
        file.unlink()
    names = {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
        "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
        "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
        "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
        "attn1": "self_attn", "attn2": "cross_attn", ".to_out.0.": ".o.", ".to_q.": ".q.", ".to_k.": ".k.",
        ".to_v.": ".v.", ".add_k_proj.": ".k_img.", ".add_v_proj.": ".v_img.", ".norm_added_k.": ".norm_k_img.",
        "proj_out": "head.head", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
    }  # fmt: skip
    state = {}
    for key, value in model.state_dict().items():
        new = "head.modulation" if key == "scale_shift_table" else key.replace("scale_shift_table", "modulation")
        for name, original in names.items():
            new = new.replace(name, original)
        if new.startswith("blocks."):
            swapped = {".norm2.": ".norm3.", ".norm3.": ".norm2."}
            new = next((new.replace(a, b) for a, b in swapped.items() if a in new), new)
        state[new] = value.contiguous()
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    sizes = {
        "dim": 32, "num_heads": 2, "in_dim": config["in_channels"], "out_dim": config["out_channels"],
        "ffn_dim": config["ffn_dim"], "freq_dim": config["freq_dim"], "num_layers": config["num_layers"], "eps": 1e-6,
    }  # fmt: skip
    original = {"_class_name": "WanModel", "model_type": "i2v", "text_len": 512} | sizes
    (folder / "config.json").write_text(json.dumps(original))
