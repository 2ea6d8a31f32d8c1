"""A model of real components, small enough for tests, and montages to render with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sar import Shot
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Beat, Format, Montage

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
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))


def clip(seed: int, frames: int, size: tuple[int, int] = (256, 144)) -> NDArray[np.uint8]:
    """A picture that slides sideways, uint8 [F,H,W,3]."""
    wide = picture(seed, (size[0] + 4 * frames, size[1]))
    return np.stack([wide[:, 4 * i : 4 * i + size[0]] for i in range(frames)])


def tiny_shot(
    pinned: Sequence[tuple[NDArray[np.uint8], float]], duration_s: float, beats: Sequence[Beat] = ()
) -> tuple[Shot, dict[str, Media]]:
    """Frames [n,H,W,3] pinned at seconds as a planned shot at 256x144 and 8 fps (two slots a second), and its media."""
    media, anchors = {}, []
    for number, (frames, second) in enumerate(pinned):
        film = len(frames) > 1
        item = Media(
            id=f"m{number}", sha256=f"{number:064x}", kind="clip" if film else "still", container="raw", width=256,
            height=144, duration_s=len(frames) / 8 if film else 0, fps=8, frames=len(frames), bytes=1,
        )  # fmt: skip
        media[item.id] = item
        anchors.append(Anchor(id=f"a{number}", media_id=item.id, second=second))
    body = Montage(
        id="m_1", format=Format(width=256, height=144, fps=8), duration_s=duration_s, model="tiny", seed=5,
        anchors=anchors, beats=list(beats),
    )  # fmt: skip
    plan = plan_montage(body, media, CARD, "draft")
    placed = [PrevizAnchor(pinned[int(a.anchor_id[1:])][0][: a.frames], a.frame, a.media_id) for a in plan.anchors]
    return Shot(plan, body, Previz(placed, previz_beats(body), plan.frames, (256, 144), 8), placed), media
