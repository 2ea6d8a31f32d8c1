"""Wan2.2-TI2V-5B: what is known stands in its slots clean, at noise level zero, in the noise's place.

Its network has no condition channels; every token has a timestep of its own, 0 where the slot is known. So conditions
may stand at any slot, but only fill it whole: a picture, and a clip's first frame, is held for the frames of its slot.
Source: diffusers' `WanImageToVideoPipeline` with `expand_timesteps`, which knows the first slot only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from dreamontage.generator.conditioning.encoding import encode_video
from dreamontage.generator.models.family import Pin, Run, Window
from dreamontage.generator.models.flow_family import FlowFamily
from dreamontage.generator.models.flow_run import Experts, FlowRun
from dreamontage.generator.sampling import Sampling
from dreamontage.generator.timeline import STRIDE


class SlotsKnown(NamedTuple):
    """Normalised latents [C,n,h,w] and how strongly each slot [n] is known: 0 not at all, 1 verbatim."""

    latents: Tensor
    strengths: Tensor


def encode_pin(vae: Any, pin: Pin, stride: int = STRIDE) -> Tensor:
    """A pin as whole slots [C,1+m,h,w]. Away from slot 0 its first frame is held for a slot, and the slot of one frame
    that a causal encoder begins with is dropped: in mid-video it would show as a stutter."""
    if pin.slot == 0:
        return encode_video(vae, pin.pixels)
    held = pin.pixels[:, :1].expand(-1, stride, -1, -1)
    return encode_video(vae, torch.cat([held, pin.pixels], dim=1))[:, 1:]


def slots_known(vae: Any, window: Window, channels: int, device: torch.device) -> SlotsKnown:
    """A window's conditions slot by slot. The carried tail yields to the inside of a pinned clip only, all to the held
    end."""
    latents = torch.zeros(channels, window.slots, window.height, window.width, device=device)
    strengths = torch.zeros(window.slots, device=device)
    carried = 0
    if window.tail is not None:
        carried = 1 + window.tail.rest.shape[1]
        latents[:, :1] = encode_video(vae, window.tail.head)
        latents[:, 1:carried], strengths[:carried] = window.tail.rest, 1.0
    for pin in window.pins:
        over = pin.clip and pin.strength == 1
        for slot, latent in enumerate(encode_pin(vae, pin).unbind(1), pin.slot):
            if slot >= carried or (over and slot > pin.slot):
                latents[:, slot], strengths[slot] = latent, pin.strength
    if window.held is not None:
        held = window.held.shape[1]
        latents[:, -held:], strengths[-held:] = window.held, 1.0
    return SlotsKnown(latents, strengths)


class Ti2vRun(FlowRun):
    """A window on TI2V. A slot of strength s is known while the flow time is above 1 - s, then the network's own."""

    def __init__(
        self,
        experts: Experts,
        scheduler: Any,
        known: SlotsKnown,
        texts: Sequence[Tensor],
        sampling: Sampling,
        generator: torch.Generator,
        guide: Tensor | None = None,
    ) -> None:
        """As `FlowRun`, what is known with its strengths."""
        self.strengths = known.strengths[None, None, :, None, None]
        if guide is not None:
            guide = torch.where(self.strengths[0] > 0, known.latents, guide)
        fixed = known.strengths == 1
        super().__init__(experts, scheduler, known.latents, fixed, texts, sampling, generator, guide)

    def known(self, time: Tensor) -> Tensor:
        """Which slots [1,1,n,1,1] are known at a timestep in 0..1000."""
        return (self.strengths > 0) & (time / 1000 >= 1 - self.strengths)

    def predict(self, network: Any, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """The network's velocity, known slots shown clean and with timestep 0."""
        known = self.known(time)
        shown = torch.where(known, self.cond, latents)
        _, _, height, width = self.cond.shape
        _, rows, columns = network.config.patch_size
        tokens = (height // rows) * (width // columns)
        times = (time * ~known.flatten()).repeat_interleave(tokens)[None]
        found: Tensor = network(
            hidden_states=shown.to(network.dtype), timestep=times, encoder_hidden_states=text, return_dict=False
        )[0]
        return found

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """With guidance; where a slot is known, straight from its noise to it, so that it may be let go at any time."""
        return torch.where(self.known(time), self.noise - self.cond, super().velocity(latents, time))


class Ti2vFamily(FlowFamily):
    """A loaded Wan2.2-TI2V-5B."""

    network = WanTransformer3DModel

    @torch.no_grad()
    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """Encode a window's conditions and prompts and draw its noise."""
        known = slots_known(self.vae, window, self.experts.high.config.out_channels, self.device)
        texts = self.told(window, sampling)
        return Ti2vRun(self.experts, self.scheduler, known, texts, sampling, generator, window.guide)
