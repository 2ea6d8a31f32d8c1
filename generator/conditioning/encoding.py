"""Pixels to normalised latents: each condition is encoded by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamontage.generator.numbers import computing


def pixels_to_tensor(frames: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Frames uint8 [F,H,W,3] -> float [3,F,H,W] in -1..1."""
    return torch.from_numpy(np.array(frames)).to(device).permute(3, 0, 1, 2).float().div_(127.5).sub_(1)


def _statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (-1, *(1,) * 3)
    return like.new_tensor(vae.config.latents_mean).view(shape), like.new_tensor(vae.config.latents_std).view(shape)


def normalise(vae: Any, latents: Tensor) -> Tensor:
    """Raw latents [...,C,T,h,w] -> (z - mean) / std per channel."""
    mean, std = _statistics(vae, latents)
    return (latents - mean) / std


def denormalise(vae: Any, latents: Tensor) -> Tensor:
    """Undo `normalise`."""
    mean, std = _statistics(vae, latents)
    return latents * std + mean


@torch.no_grad()
def encode_video(vae: Any, video: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Encode float [3,1+4m,H,W] in -1..1 on its own: normalised float32 latents [C,1+m,h,w], the first in image mode.

    With a generator the slots after the first are sampled from the posterior, as clip conditions are in training;
    without one every slot is the posterior's mode.
    """
    with computing(video.device):
        posterior = vae.encode(video[None].to(vae.dtype)).latent_dist
    latents = posterior.mode()
    if generator is not None:
        latents = torch.cat([latents[:, :, :1], posterior.sample(generator=generator)[:, :, 1:]], dim=2)
    return normalise(vae, latents[0].float())
