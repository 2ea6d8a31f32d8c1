"""Wan2.1-VACE: any frames of a video are known, all others are to be made.

The network reads, beside the noise, two encoded videos and a mask (96 channels): what is known, with grey elsewhere,
what is to be repainted (nothing: grey throughout), and per 8x8 pixels whether a slot is to be *made*: 1 means make,
the opposite of Wan image-to-video. The known video is encoded whole, grey included, as the weights were trained.
Source: https://arxiv.org/abs/2503.07598; the order of channels is diffusers' `WanVACEPipeline`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel
from torch import Tensor

from dreamontage.generator.conditioning.encoding import encode_video
from dreamontage.generator.models.family import Run, Window
from dreamontage.generator.models.flow_family import FlowFamily
from dreamontage.generator.models.flow_run import FlowRun
from dreamontage.generator.sampling import Sampling
from dreamontage.generator.timeline import STRIDE

MASK_CHANNELS = 64
"""One for each of a latent's 8x8 pixels."""


class Known(NamedTuple):
    """What a window knows: latents [C,n,h,w] (grey where nothing), weights of its frames [4n-3], whole slots [n], and
    those of them [n] that came as latents: the carried tail and the held end."""

    latents: Tensor
    weights: Tensor
    fixed: Tensor
    kept: Tensor


def slots_of_weights(weights: Tensor, slots: int) -> Tensor:
    """How well each slot [n] counts as known, from its frames [4n-3].

    The weights were trained with one frame of a slot standing for it, found by nearest neighbour over the whole window:
    that of slot 0 is frame 1. So a single picture is told by the known video more than by the mask.
    """
    return F.interpolate(weights[None, None], size=slots, mode="nearest-exact")[0, 0]


def known_of(vae: Any, window: Window, grey: Tensor) -> Known:
    """Write a window's conditions to a grey video, encode it, and put carried latents in whole.

    A picture below strength 1 fades towards grey and counts as less known.
    """
    frames = STRIDE * (window.slots - 1) + 1
    scale = vae.config.scale_factor_spatial
    video = torch.zeros(3, frames, scale * window.height, scale * window.width, device=grey.device)
    weights = torch.zeros(frames, device=grey.device)
    fixed, kept = torch.zeros(2, window.slots, dtype=torch.bool)
    carried = 0 if window.tail is None else 1 + window.tail.rest.shape[1]
    if window.tail is not None:
        video[:, :1], fixed[:carried] = window.tail.head, True
    own: set[int] = set()
    for pin in window.pins:
        if pin.slot < carried and not (pin.clip and pin.strength == 1):
            continue  # the tail passes through it already
        first = STRIDE * pin.slot
        span = slice(first, first + pin.pixels.shape[1])
        video[:, span], weights[span] = pin.strength * pin.pixels, pin.strength
        whole = range(pin.slot + (pin.slot > 0), pin.slot + 1 + (pin.pixels.shape[1] - 1) // STRIDE)
        if pin.strength == 1:
            fixed[whole.start : whole.stop] = True
            own |= set(whole)
    latents = encode_video(vae, video) if window.pins or carried else grey.clone()
    if window.tail is not None:
        for slot in set(range(1, carried)) - own:
            latents[:, slot] = window.tail.rest[:, slot - 1]
    if window.held is not None:
        held = window.held.shape[1]
        latents[:, -held:], fixed[-held:], kept[-held:] = window.held, True, True
    kept[:carried] = True
    return Known(latents, weights, fixed, kept)


class VaceRun(FlowRun):
    """A window on VACE."""

    control: Tensor
    """Control channels [1,96,n,h,w]."""

    def predict(self, network: Any, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """The network's velocity under its control branch."""
        found: Tensor = network(
            hidden_states=latents.to(network.dtype), timestep=time.expand(len(latents)), encoder_hidden_states=text,
            control_hidden_states=self.control.to(network.dtype), return_dict=False,
        )[0]  # fmt: skip
        return found


class VaceFamily(FlowFamily):
    """A loaded Wan2.1-VACE."""

    network = WanVACETransformer3DModel

    @torch.no_grad()
    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """Encode a window's conditions and prompts and draw its noise."""
        scale = self.vae.config.scale_factor_spatial
        size = STRIDE * (window.slots - 1) + 1, scale * window.height, scale * window.width
        grey = encode_video(self.vae, torch.zeros(3, *size, device=self.device))
        known = known_of(self.vae, window, grey)
        texts = self.told(window, sampling)
        run = VaceRun(
            self.experts, self.scheduler, known.latents, known.fixed, texts, sampling, generator, window.guide
        )
        make = torch.where(known.kept.to(self.device), 0.0, 1 - slots_of_weights(known.weights, window.slots))
        mask = make[None, :, None, None].expand(MASK_CHANNELS, -1, window.height, window.width)
        run.control = torch.cat([known.latents, grey, mask])[None]
        return run
