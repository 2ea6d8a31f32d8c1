"""The denoising loop of one segment's window: x_t = (1 − t)·x0 + t·ε, velocity target ε − x0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dreamontage.generator.conditioning import Assembled
from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.numbers import computing

StepCallback = Callable[[int, int, Tensor], None]
"""Called before the first and after every denoising step with (steps done, steps, latents [C,n,h,w])."""


PASSES = "cond", "uncond"
"""The passes of guidance, as diffusers' caches tell them apart."""


@dataclass(frozen=True)
class Sampling:
    """How one window is denoised. `t0` below 1 starts from the guide; `guidance` 1 is off; `loras` as in settings."""

    steps: int
    guidance: float = 1.0
    shift: float = 1.0
    t0: float = 1.0
    loras: tuple[str, ...] = ()


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


class Run(Protocol):
    """One window while it is denoised. What `latents` holds is the model's own: packed tokens and extra ones too."""

    latents: Tensor
    times: Tensor
    """The timesteps of a scheduler that is this run's own."""

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """The flow's velocity ε − x0 at a timestep, guidance included."""
        ...

    def advance(self, velocity: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        """One scheduler step."""
        ...

    def finish(self, latents: Tensor) -> Sampled:
        """The window's latents [C,n,h,w] with fixed slots verbatim, and what the model made of every slot."""
        ...


@torch.no_grad()
def denoise(run: Run, on_step: StepCallback | None = None) -> Sampled:
    """Denoise one window, step by step; an exception from `on_step` ends it between two steps."""
    x, steps = run.latents, len(run.times)
    if on_step is not None:
        on_step(0, steps, run.finish(x).own)
    for step, time in enumerate(run.times):
        x = run.advance(run.velocity(x, time), time, x)
        if on_step is not None:
            on_step(step + 1, steps, run.finish(x).own)
    return run.finish(x)


class ScheduledRun:
    """A window that a scheduler denoises; a subclass sets `scheduler` and `times` and adds `velocity`.

    `cond` [C,n,h,w] holds what is known in normalised latents, `fixed` [n] the slots of it that stay verbatim. With
    `sampling.t0` below 1 it starts from `guide` [C,n,h,w] and what is fixed. `generator` is a CPU generator, so that a
    seed means the same on every device.
    """

    scheduler: Any
    times: Tensor

    def __init__(
        self, cond: Tensor, fixed: Tensor, sampling: Sampling, generator: torch.Generator, guide: Tensor | None
    ) -> None:
        self.cond, self.guidance = cond, sampling.guidance
        self.fixed = fixed.to(cond.device)[None, :, None, None]
        self.noise = torch.randn(cond.shape, generator=generator, dtype=torch.float32).to(cond.device)
        start = self.noise
        if sampling.t0 < 1:
            assert guide is not None, "starting below t = 1 needs a guide"
            start = (1 - sampling.t0) * torch.where(self.fixed, cond, guide) + sampling.t0 * self.noise
        self.latents: Tensor = start[None]

    def advance(self, velocity: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        """One step of the scheduler."""
        stepped: Tensor = self.scheduler.step(velocity, time, latents, return_dict=False)[0]
        return stepped

    def finish(self, latents: Tensor) -> Sampled:
        """The window's latents with fixed slots verbatim, and what the model made of every slot."""
        return Sampled(torch.where(self.fixed, self.cond, latents[0]), latents[0])


class NanoRun(ScheduledRun):
    """A window on nano: conditions reach the model by its condition channels, words as timed tokens.

    At the end the fixed slots (carried tail, held end, inside of clips, frame 0) are written verbatim. A still at slot
    k >= 1 stays as generated: its slot shows four moving frames, the still is only the last of them.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Any,
        window: Assembled,
        words: Sequence[TimedWord],
        negative: Sequence[TimedWord],
        sampling: Sampling,
        generator: torch.Generator,
        guide: Tensor | None = None,
    ) -> None:
        """`model` has transformer, prompt_tokens and scheduler."""
        super().__init__(window.cond, window.fixed, sampling, generator, guide)
        self.model, self.mask = model, window.mask
        device = self.cond.device
        self.scheduler = type(model.scheduler).from_config(model.scheduler.config, shift=sampling.shift)
        self.scheduler.set_timesteps(sigmas=step_times(sampling.steps, sampling.shift, sampling.t0), device=device)
        self.times = self.scheduler.timesteps
        with computing(device):
            self.prompts = model.prompt_tokens([words] if sampling.guidance == 1 else [words, negative])

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """The velocity [1,C,n,h,w] with guidance."""
        count = len(self.prompts)
        with computing(latents.device):
            inputs = torch.cat([latents, self.mask[None], self.cond[None]], dim=1).expand(count, -1, -1, -1, -1)
            found = self.model.transformer(inputs, time.expand(count), self.prompts, return_dict=False)[0]
        velocity: Tensor = found.float()
        if self.guidance == 1:
            return velocity
        told, untold = velocity.chunk(2)
        return untold + self.guidance * (told - untold)


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
    """Denoise one window on nano or a model that is called as it is; see `NanoRun`."""
    return denoise(NanoRun(model, window, words, negative, sampling, generator, guide), on_step)
