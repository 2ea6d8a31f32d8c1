"""The denoising loop of one segment's window: x_t = (1 − t)·x0 + t·ε, velocity target ε − x0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamontage.generator.conditioning import Assembled
from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.numbers import computing

StepCallback = Callable[[int, int, Tensor], None]
"""Called before the first and after every denoising step with (steps done, steps, latents [C,n,h,w])."""


@dataclass(frozen=True)
class Sampling:
    """How one window is denoised. `t0` below 1 starts from the guide; `guidance` 1 is off."""

    steps: int
    guidance: float = 1.0
    shift: float = 1.0
    t0: float = 1.0


class Sampled(NamedTuple):
    """A window's latents [C,n,h,w] with fixed slots verbatim, and `own`: what the model itself made of every slot."""

    latents: Tensor
    own: Tensor


def unshifted(time: float, shift: float) -> float:
    """Undo the flow's time shift t = s·u / (1 + (s − 1)·u)."""
    return time / (shift - (shift - 1) * time)


def step_times(steps: int, shift: float, start: float) -> list[float]:
    """Evenly spaced unshifted times, without the final 0, whose first is `start` after the shift."""
    first = unshifted(start, shift)
    return [first * (1 - step / steps) for step in range(steps)]


@torch.no_grad()
def sample(
    model: Any,
    window: Assembled,
    words: Sequence[TimedWord],
    negative: Sequence[TimedWord],
    sampling: Sampling,
    generator: torch.Generator,
    guide: Tensor | None = None,
    on_step: StepCallback | None = None,
) -> Sampled:
    """Denoise one window.

    `model` has transformer, prompt_tokens and scheduler; `generator` is a CPU generator, so that a seed means the same
    on every device; `guide` [C,n,h,w] is needed where t0 < 1. Conditions reach the model by its condition channels;
    at the end the fixed slots (carried tail, held end, inside of clips, frame 0) are written verbatim. A still at
    slot k >= 1 stays as generated: its slot shows four moving frames, the still is only the last of them.
    """
    cond, mask, fixed = window
    device = cond.device
    noise = torch.randn(cond.shape, generator=generator, dtype=torch.float32).to(device)
    start = noise
    if sampling.t0 < 1:
        assert guide is not None, "starting below t = 1 needs a guide"
        clean = torch.where(fixed.to(device)[None, :, None, None], cond, guide)
        start = (1 - sampling.t0) * clean + sampling.t0 * noise
    scheduler = type(model.scheduler).from_config(model.scheduler.config, shift=sampling.shift)
    scheduler.set_timesteps(sigmas=step_times(sampling.steps, sampling.shift, sampling.t0), device=device)
    with computing(device):
        prompts = model.prompt_tokens([words] if sampling.guidance == 1 else [words, negative])
        x = start[None]
        if on_step is not None:
            on_step(0, sampling.steps, start)
        for step, time in enumerate(scheduler.timesteps):
            inputs = torch.cat([x, mask[None], cond[None]], dim=1).expand(len(prompts), -1, -1, -1, -1)
            velocity = model.transformer(inputs, time.expand(len(prompts)), prompts, return_dict=False)[0].float()
            if sampling.guidance != 1:
                told, untold = velocity.chunk(2)
                velocity = untold + sampling.guidance * (told - untold)
            x = scheduler.step(velocity, time, x, return_dict=False)[0]
            if on_step is not None:
                on_step(step + 1, sampling.steps, x[0])
    own = x[0]
    return Sampled(torch.where(fixed.to(device)[None, :, None, None], cond, own), own)
