"""The real networks of a model at their real size, from its card, with random weights: nothing is fetched.

Built under `FakeTensorMode` they take no memory and compute nothing, yet every operation has its shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch._subclasses.fake_tensor import unset_fake_temporarily

from dreamontage.generator.footprint import tokens
from dreamontage.generator.models.catalogue import CARD, INDEX
from dreamontage.generator.models.ltx_autoencoder import Ltx2Autoencoder, LtxAutoencoder
from dreamontage.generator.models.wan_autoencoder import WanAutoencoder
from dreamontage.schemas.models import ModelCard, Network

_LTX: Final[dict[str, Any]] = {
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (False,) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
    "encoder_causal": True,
    "decoder_causal": False,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
_WAN22: Final[dict[str, Any]] = {
    "z_dim": 48, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
    "scale_factor_spatial": 16, "temperal_downsample": [False, True, True],
    "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip
_FULL: Final[dict[str, dict[str, Any]]] = {
    "wan-2.1": {"base_dim": 96},
    "wan-2.2": {"base_dim": 160, "decoder_base_dim": 256},
    "ltx-0.9.5": {
        "latent_channels": 128, "block_out_channels": (128, 256, 512, 1024, 2048), "layers_per_block": (4, 6, 6, 2, 2),
        "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 5, 5, 5),
    },
    "ltx-2": {"latent_channels": 128},
}  # fmt: skip
_THIN: Final[dict[str, dict[str, Any]]] = {
    "wan-2.1": {"base_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 1, 2, 2]},
    "wan-2.2": {"base_dim": 4, "decoder_base_dim": 4, "num_res_blocks": 1, "dim_mult": [1, 1, 2, 2]},
    "ltx-0.9.5": {
        "latent_channels": 128, "block_out_channels": (8, 8, 8, 8, 8), "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_block_out_channels": (8, 16, 32), "decoder_layers_per_block": (1, 1, 1, 1),
    },
    "ltx-2": {
        "latent_channels": 128, "block_out_channels": (8, 8, 8, 8), "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_block_out_channels": (8, 16, 32), "decoder_layers_per_block": (1, 1, 1, 1),
    },
}  # fmt: skip


def network_of(card: ModelCard) -> Network:
    """The geometry of a model that has one."""
    assert card.network is not None, f"{card.id} runs on a CPU"
    return card.network


def transformer_of(card: ModelCard, dtype: torch.dtype = torch.bfloat16) -> Any:
    """One transformer, what diffusers keeps in float32 when it loads weights kept so here, too."""
    network = network_of(card)
    shape: dict[str, Any] = {
        "num_attention_heads": network.heads, "attention_head_dim": network.width // network.heads,
        "in_channels": network.channels, "out_channels": network.out_channels, "num_layers": network.layers,
    }  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        built: Any
        if card.family == "ltx":
            text = {"cross_attention_dim": network.width, "caption_channels": network.text_width}
            built = LTXVideoTransformer3DModel(**shape, **text)
        elif card.family == "ltx2":
            shape |= {"cross_attention_dim": network.width, "caption_channels": network.text_width}
            sound = {"audio_num_attention_heads": network.heads, "audio_cross_attention_dim": network.sound_width}
            each = network.sound_width // network.heads
            built = LTX2VideoTransformer3DModel(**shape, **sound, audio_attention_head_dim=each, rope_type="split")
        else:
            shape |= {"text_dim": network.text_width, "ffn_dim": network.ffn}
            if card.family == "vace":
                every = network.layers // network.control_layers
                layers = [every * index for index in range(network.control_layers)]
                built = WanVACETransformer3DModel(**shape, vace_layers=layers, vace_in_channels=96)
            else:
                shape["image_dim"] = network.picture_width or None
                shape["added_kv_proj_dim"] = network.width if network.picture_width else None
                built = WanTransformer3DModel(**shape)
    finally:
        torch.set_default_dtype(before)
    for name, parameter in list(built.named_parameters()):
        if set(name.split(".")) & set(built._keep_in_fp32_modules or ()):
            owner, _, leaf = name.rpartition(".")
            setattr(built.get_submodule(owner), leaf, torch.nn.Parameter(parameter.float()))
    return built.requires_grad_(False).eval()


def autoencoder_of(card: ModelCard, thin: bool = False) -> Any:
    """The autoencoder in float32, `thin` with a few channels."""
    kind = network_of(card).autoencoder
    shape = (_THIN if thin else _FULL)[kind]
    if kind.startswith("ltx"):
        lengths = {"decoder_causal": False, "spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
        built: Any = Ltx2Autoencoder(**lengths, **shape) if kind == "ltx-2" else LtxAutoencoder(**_LTX, **shape)
    else:
        built = WanAutoencoder(**(_WAN22 if kind == "wan-2.2" else {}), **shape)
    return built.requires_grad_(False).eval()


def text_encoder_of(card: ModelCard) -> Any:
    """What reads prompts, in bfloat16: UMT5-XXL, T5-XXL, or Gemma 3 12B with LTX-2's connectors."""
    import transformers

    if card.family == "ltx2":
        words = {
            "vocab_size": 262208, "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256,
        }  # fmt: skip
        pictures = {
            "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
            "image_size": 896, "patch_size": 14,
        }  # fmt: skip
        config = transformers.Gemma3Config(text_config=words, vision_config=pictures)
        with unset_fake_temporarily(), torch.device("meta"):  # its first weights are drawn until they suit
            gemma = transformers.Gemma3ForConditionalGeneration(config)
        return torch.nn.ModuleList([gemma, connectors_of(card)]).requires_grad_(False).eval()
    if card.family == "ltx":
        parts: Any = (transformers.T5EncoderModel, transformers.T5Config, 32128)
    else:
        parts = (transformers.UMT5EncoderModel, transformers.UMT5Config, 256384)
    kind, config, words = parts
    shape = config(
        vocab_size=words, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, is_encoder_decoder=False,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return kind(shape).requires_grad_(False).eval()


def connectors_of(card: ModelCard) -> Any:
    """What stands between LTX-2's text encoder and its transformer."""
    width = network_of(card).text_width
    heads = max(1, width // 128)
    shape = {
        f"{part}_connector_{name}": value
        for part in ("video", "audio")
        for name, value in (("num_attention_heads", heads), ("attention_head_dim", width // heads))
    }
    return LTX2TextConnectors(caption_channels=width, rope_type="split", **shape)


def told(card: ModelCard, size: tuple[int, int], slots: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """What a transformer is called with for a window: noise in the shapes that the family's adapter gives."""
    network = network_of(card)
    rows, columns = size[1] // card.scale, size[0] // card.scale
    text = torch.randn(1, network.text_tokens, network.text_width, dtype=dtype)
    common: dict[str, Any] = {"encoder_hidden_states": text, "return_dict": False}
    if card.family == "ltx":
        count = tokens(card, network, size, slots)
        return common | {
            "hidden_states": torch.randn(1, count, network.channels, dtype=dtype), "timestep": torch.ones(1, count),
            "encoder_attention_mask": None, "video_coords": torch.ones(1, 3, count),
        }  # fmt: skip
    if card.family == "ltx2":
        count, length = (
            tokens(card, network, size, slots),
            round((card.stride * (slots - 1) + 1) / (card.fps or 24) * 25),
        )
        return common | {
            "hidden_states": torch.randn(1, count, network.channels, dtype=dtype), "timestep": torch.ones(1, count),
            "audio_hidden_states": torch.randn(1, length, 128, dtype=dtype), "audio_timestep": torch.ones(1),
            "audio_encoder_hidden_states": text, "sigma": torch.ones(1),
            "encoder_attention_mask": torch.ones(1, network.text_tokens, dtype=torch.int64),
            "audio_encoder_attention_mask": torch.ones(1, network.text_tokens, dtype=torch.int64),
            "video_coords": torch.ones(1, 3, count, 2), "audio_coords": torch.ones(1, 1, length, 2),
        }  # fmt: skip
    latents = torch.randn(1, network.channels, slots, rows, columns, dtype=dtype)
    times = torch.ones(1, slots * (rows // 2) * (columns // 2)) if card.family == "ti2v" else torch.ones(1)
    common |= {"hidden_states": latents, "timestep": times}
    if card.family == "vace":
        return common | {"control_hidden_states": torch.randn(1, 96, slots, rows, columns, dtype=dtype)}
    if network.picture_width:
        return common | {"encoder_hidden_states_image": torch.randn(1, 257, network.picture_width, dtype=dtype)}
    return common


def save_random(card: ModelCard, folder: Path, device: torch.device | str = "cpu", thin: bool = False) -> Path:
    """A folder with random weights in the model's own format, which `load_model` reads on any device. It has no text
    encoder, so that every prompt is zeros; `thin`: an autoencoder of a few channels."""
    torch.manual_seed(0)
    with torch.device(device):
        for part in ("transformer", "transformer_2")[: network_of(card).experts]:
            transformer_of(card).save_pretrained(folder / part)
        autoencoder_of(card, thin).save_pretrained(folder / "vae")
        if card.family == "ltx2":
            connectors_of(card).save_pretrained(folder / "connectors")
    shift = card.defaults.shift or 1.0
    scheduler: Any = FlowMatchEulerDiscreteScheduler() if card.family.startswith("ltx") else UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    boundary = {"boundary_ratio": 0.9} if network_of(card).experts == 2 else {}
    (folder / INDEX).write_text(json.dumps({"_class_name": "DiffusionPipeline"} | boundary))
    (folder / CARD).write_text(card.model_dump_json(exclude={"network"}))
    return folder
