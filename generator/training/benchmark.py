"""Speed of nano's autoencoder beside a small `AutoencoderKLWan`, in one run on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from dreamontage.generator.models.autoencoder import NanoAutoencoder


@dataclass(frozen=True)
class Speed:
    """Frames per second of encoding and of decoding, best of the repeats."""

    name: str
    dtype: str
    million_parameters: float
    encode_fps: float
    decode_fps: float


def _best_seconds(work: Callable[[Tensor], object], tensor: Tensor, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work(tensor)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


@torch.inference_mode()
def compare_speed(nano: NanoAutoencoder, frames: int = 17, height: int = 144, width: int = 256) -> list[Speed]:
    """Time encode and decode of one random clip: nano and AutoencoderKLWan(base_dim=16, 1 residual block).

    Both in float32 and bfloat16 with torch's current number of threads.
    """
    torch.manual_seed(0)
    wan: Any = AutoencoderKLWan(base_dim=16, z_dim=16, num_res_blocks=1)  # type: ignore[no-untyped-call]
    video = torch.rand(1, 3, frames, height, width) * 2 - 1
    result = []
    models: list[tuple[str, Any, int]] = [("NanoAutoencoder", nano, 3), ("AutoencoderKLWan(16, 1)", wan, 1)]
    for name, model, repeats in models:
        model.eval()
        for dtype in (torch.float32, torch.bfloat16):
            model.to(dtype)
            x = video.to(dtype)
            z = model.encode(x).latent_dist.mode()
            encode = _best_seconds(model.encode, x, repeats)
            decode = _best_seconds(model.decode, z, repeats)
            millions = sum(p.numel() for p in model.parameters()) / 1e6
            result.append(Speed(name, str(dtype).removeprefix("torch."), millions, frames / encode, frames / decode))
        model.to(torch.float32)
    return result
