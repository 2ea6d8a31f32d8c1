"""One held-out clip, rendered every way that is compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from dreamontage.generator.decoding import ShotDecoder, StreamingDecoder, encode_slots, to_pixels, to_tensor
from dreamontage.generator.evaluation.baselines import cross_fade
from dreamontage.generator.evaluation.clips import FPS, HeldOut
from dreamontage.generator.evaluation.metrics import Fidelity, Frames, fidelity
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.training.perceptual import PerceptualDistance

VARIANTS = {
    "fade": "cross-fade in pixels",
    "previz": "previz alone",
    "final": "final (guide=follow, detail carry-over)",
    "final_m0": "final, m = 0 (the model's own pixels)",
    "previz_decoded": "previz through the autoencoder, D(E(P))",
    "off": "guide=off (plain mode)",
    "ceiling": "autoencoder ceiling, D(E(truth))",
}


def latents_of(pipeline: Any, clip: HeldOut, seed: int, **settings: Any) -> torch.Tensor:
    """The pipeline's latents [16,n,h,w] for a clip's pinned frames; `settings` as in the pipeline's call."""
    height, width = clip.frames.shape[1:3]
    result: torch.Tensor = pipeline(
        anchors=[(picture, frame / FPS) for frame, picture in clip.pinned.items()],
        duration=(len(clip.frames) - 1) / FPS, width=width, height=height, fps=FPS,
        generator=torch.Generator().manual_seed(seed), output_type="latent", **settings,
    ).frames[0]  # fmt: skip
    return result


def previz_of(clip: HeldOut) -> tuple[Frames, np.ndarray]:
    """The previz of the pinned frames and its confidence."""
    anchors = [PrevizAnchor(picture[None], frame, str(frame)) for frame, picture in clip.pinned.items()]
    size = (clip.frames.shape[2], clip.frames.shape[1])
    return Previz(anchors, [], len(clip.frames), size, FPS).window(0, len(clip.frames))


def decoded(vae: Any, latents: torch.Tensor) -> Frames:
    """D(z) as pixels."""
    return to_pixels(torch.cat(list(StreamingDecoder(vae).slots(latents))))


def render_variants(pipeline: Any, clip: HeldOut, seed: int = 0, **settings: Any) -> dict[str, Frames]:
    """Every variant [33,H,W,3] of one clip, by name."""
    guide, sure = previz_of(clip)
    painted = latents_of(pipeline, clip, seed, **settings)
    plain = latents_of(pipeline, clip, seed, guide="off", num_inference_steps=10)
    return {
        "fade": cross_fade(clip.pinned, len(clip.frames)),
        "previz": guide,
        "final": ShotDecoder(pipeline.vae).next(painted, guide, sure).pixels,
        "final_m0": decoded(pipeline.vae, painted),
        "previz_decoded": decoded(pipeline.vae, encode_slots(pipeline.vae, to_tensor(guide), True)),
        "off": decoded(pipeline.vae, plain),
        "ceiling": decoded(pipeline.vae, encode_slots(pipeline.vae, to_tensor(clip.frames), True)),
    }


def score(variants: dict[str, Frames], clip: HeldOut, distance: PerceptualDistance) -> dict[str, Fidelity]:
    """Fidelity of the frames that were not given."""
    inner = clip.between
    return {name: fidelity(frames[inner], clip.frames[inner], distance) for name, frames in variants.items()}


def mean_fidelity(scores: Iterable[Fidelity]) -> Fidelity:
    """Plain means."""
    every = list(scores)
    return Fidelity(float(np.mean([s.psnr_db for s in every])), float(np.mean([s.lpips for s in every])))
