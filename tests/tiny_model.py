"""A model of real components, small enough for tests, and montages to render with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.schemas.models import ModelCard, RenderSettings

CARD = ModelCard(
    id="tiny",
    title="Tiny",
    licence="Apache-2.0",
    summary="Random weights, for tests.",
    window=9,
    overlap=3,
    shortest=4,
    defaults=RenderSettings(steps=2, guidance=1.0, shift=1.0, t0=0.4, guide="follow"),
    settings=["steps", "guidance", "shift", "t0", "guide", "negative_prompt"],
)


def tiny_pipeline(seed: int = 0) -> DreaMontagePipeline:
    """Random weights of fixed seed: two layers, an autoencoder of a few channels."""
    torch.manual_seed(seed)
    pipe = DreaMontagePipeline(
        vae=NanoAutoencoder(widths=(4, 8, 8), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 2, 2)),
        transformer=NanoTransformer(
            num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=2, text_dim=8, freq_dim=16
        ),
        prompt_tokens=PromptTokens(text_dim=8, capacity=8),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    for block in pipe.vae.modules():  # blocks are born as the identity; give them something to remember
        if hasattr(block, "outer"):
            torch.nn.init.normal_(block.outer.weight, std=0.1)
    pipe.card = CARD
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_tiny(root: Path) -> Path:
    """The tiny model as a folder `root/tiny`, as DREAMONTAGE_MODELS expects it."""
    tiny_pipeline().save_pretrained(root / "tiny")
    return root / "tiny"


def picture(seed: int, size: tuple[int, int] = (256, 144)) -> NDArray[np.uint8]:
    """A smooth random picture uint8 [H,W,3]."""
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))


def clip(seed: int, frames: int, size: tuple[int, int] = (256, 144)) -> NDArray[np.uint8]:
    """A picture that slides sideways, uint8 [F,H,W,3]."""
    wide = picture(seed, (size[0] + 4 * frames, size[1]))
    return np.stack([wide[:, 4 * i : 4 * i + size[0]] for i in range(frames)])
