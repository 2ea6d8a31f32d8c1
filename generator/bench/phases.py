"""The parts of a render that take most memory, as the product runs them, on noise instead of pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamontage.generator.decoding import StreamingDecoder, StreamingEncoder
from dreamontage.generator.delivery import CHUNK_SLOTS
from dreamontage.generator.footprint import BESIDE
from dreamontage.generator.models.family import Pin, Window
from dreamontage.generator.sampling import Run, Sampling
from dreamontage.schemas.models import ModelCard


def window_of(card: ModelCard, size: tuple[int, int], slots: int, device: torch.device) -> Window:
    """A window of noise pictures: one at its start and as many further ones as the estimate counts."""
    generator = torch.Generator().manual_seed(1)
    shape = 3, 1, size[1], size[0]
    places = sorted({0, *(1 + (slots - 2) * k // BESIDE for k in range(1, BESIDE + 1))})
    pins = [Pin(place, torch.rand(shape, generator=generator).to(device) * 2 - 1) for place in places]
    return Window(slots, size[1] // card.scale, size[0] // card.scale, card.fps or 24, pins)


def begin(model: Any, size: tuple[int, int], slots: int, steps: int) -> Run:
    """Encode a window's conditions and draw its noise, with the card's own settings and so many steps."""
    own = model.card.defaults
    sampling = Sampling(steps, own.guidance or 1.0, own.shift or 1.0)
    window = window_of(model.card, size, slots, model.device)
    run: Run = model.begin(window, sampling, torch.Generator().manual_seed(0))
    return run


@torch.no_grad()
def step(run: Run, latents: Tensor, time: Tensor) -> Tensor:
    """One denoising step, guidance included."""
    return run.advance(run.velocity(latents, time), time, latents)


@torch.no_grad()
def deliver(coder: Any, card: ModelCard, channels: int, size: tuple[int, int]) -> None:
    """Two chunks of delivery: the previz's slots are encoded, then they and the shot's are decoded in step."""
    shape = channels, CHUNK_SLOTS, size[1] // card.scale, size[0] // card.scale
    painted, guide, encoder = StreamingDecoder(coder), StreamingDecoder(coder), StreamingEncoder(coder)
    latents = torch.zeros(shape, device=coder.device)
    for chunk in range(2):
        frames = card.stride * CHUNK_SLOTS - (card.stride - 1) * (chunk == 0)
        known = encoder.next(torch.zeros(frames, 3, size[1], size[0], device=coder.device))
        kept = list(zip(painted.slots(latents, latents), guide.slots(known), strict=True))
        del kept, known
