"""Wan networks from disk: diffusers' layout, and the original one that Fun-InP's transformer comes in."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import safe_open

from dreamontage.generator.models.rope import ExplicitRope
from dreamontage.generator.models.switching import straight_to
from dreamontage.generator.models.transformer import IN_CHANNELS, LATENT_CHANNELS
from dreamontage.schemas.errors import InvalidInput

ORIGINAL = "WanModel"
"""`_class_name` in the configuration of a transformer in Wan's original layout."""


def load_transformer(folder: Path, dtype: torch.dtype, device: torch.device) -> WanTransformer3DModel:
    """The image-to-video transformer in a folder, of either layout, with explicit positions, on a device. Raises
    InvalidInput where it has no 36 channels."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["_class_name"] == ORIGINAL:
        model = _from_original(folder, config, dtype, device)
    else:
        model = WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype, **straight_to(device))
    channels = model.config["in_channels"], model.config["out_channels"]
    if channels != (IN_CHANNELS, LATENT_CHANNELS):
        raise InvalidInput(
            f"the transformer of {folder.parent.name} takes {channels[0]} channels and gives {channels[1]}",
            field="model",
            allowed=f"{IN_CHANNELS} in and {LATENT_CHANNELS} out: Wan image-to-video and Fun-InP",
        )
    rope: Any = ExplicitRope(model.config["attention_head_dim"], model.config["patch_size"])
    model.rope = rope
    return model


def _from_original(
    folder: Path, config: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> WanTransformer3DModel:
    """With an explicit configuration: diffusers takes every checkpoint of width 1536 for text-to-video."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise InvalidInput(f"{folder.name}/ of {folder.parent.name} holds {len(files)} weight files", allowed="one")
    with TemporaryDirectory() as beside:
        (Path(beside) / "config.json").write_text(json.dumps(config_of(config, files[0])))
        model: WanTransformer3DModel = WanTransformer3DModel.from_single_file(
            str(files[0]), config=beside, torch_dtype=dtype, **straight_to(device)
        )
    return model


def config_of(original: dict[str, Any], weights: Path) -> dict[str, Any]:
    """diffusers' configuration of a transformer in the original layout; what it leaves out is read off the weights."""
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
        pictures = "img_emb.proj.1.weight"
        image_dim = file.get_slice(pictures).get_shape()[1] if pictures in names else None
        text_dim = file.get_slice("text_embedding.0.weight").get_shape()[1]
    return {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": original["num_heads"],
        "attention_head_dim": original["dim"] // original["num_heads"],
        "in_channels": original["in_dim"],
        "out_channels": original["out_dim"],
        "ffn_dim": original["ffn_dim"],
        "freq_dim": original["freq_dim"],
        "num_layers": original["num_layers"],
        "eps": original.get("eps", 1e-6),
        "text_dim": text_dim,
        "image_dim": image_dim,
        "added_kv_proj_dim": None if image_dim is None else original["dim"],
    }
