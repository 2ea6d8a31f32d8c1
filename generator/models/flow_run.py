"""What the families on Wan's networks share: noise, schedule, guidance, experts, loading. How a network is called and
what it is told of a window is the family's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamontage.generator.sampling import PASSES, Sampling, ScheduledRun, step_times


@dataclass(frozen=True)
class Experts:
    """The networks of one model: the second, where there is one, takes over below flow time `boundary`."""

    high: Any
    low: Any = None
    boundary: float = 0.0

    def at(self, time: Tensor) -> Any:
        """The network for a timestep in 0..1000."""
        return self.high if self.low is None or time >= self.boundary * 1000 else self.low

    def forget(self) -> None:
        """Let go of what a cache keeps of the window before."""
        for network in filter(None, (self.high, self.low)):
            network._reset_stateful_cache()


class FlowRun(ScheduledRun, ABC):
    """A window while it is denoised; a subclass says how its network is called.

    The schedule is the checkpoint's own, with the shift of `sampling`.
    """

    def __init__(
        self,
        experts: Experts,
        scheduler: Any,
        cond: Tensor,
        fixed: Tensor,
        texts: Sequence[Tensor],
        sampling: Sampling,
        generator: torch.Generator,
        guide: Tensor | None = None,
    ) -> None:
        """`texts`: the prompt's embeddings [1,tokens,width], then, where guidance is on, the negative prompt's."""
        super().__init__(cond, fixed, sampling, generator, guide)
        self.experts = experts
        experts.forget()
        self.texts = [text.to(cond.device, experts.high.dtype) for text in texts]
        shift = "flow_shift" if "flow_shift" in scheduler.config else "shift"
        self.scheduler = type(scheduler).from_config(scheduler.config, **{shift: sampling.shift})
        if sampling.t0 < 1:
            times = np.array(step_times(sampling.steps, sampling.shift, sampling.t0))
            self.scheduler.set_timesteps(sigmas=times, device=cond.device)
        else:
            self.scheduler.set_timesteps(sampling.steps, device=cond.device)
        self.times = self.scheduler.timesteps

    @abstractmethod
    def predict(self, network: Any, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """What the network says of latents [1,C,n,h,w] at a timestep and a text."""

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """The flow's velocity ε − x0, [1,C,n,h,w] in float32, with guidance."""
        network = self.experts.at(time)
        told = self._pass(0, network, latents, time)
        if self.guidance <= 1:
            return told
        untold = self._pass(1, network, latents, time)
        return untold + self.guidance * (told - untold)

    def _pass(self, number: int, network: Any, latents: Tensor, time: Tensor) -> Tensor:
        with network.cache_context(PASSES[number]):
            return self.predict(network, latents, time, self.texts[number]).float()
