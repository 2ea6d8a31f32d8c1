"""LTX-2 (also 2.3): what is known stands in its slots clean, or beside the video as tokens of its own.

The start of a window, carried latents, held ends and clips are written in place. A picture away from the start is an
extra token per patch at its own frame, dropped at the end. A clip away from the start follows a frame: it is encoded
after its first frame, whose latent, the only one that stands for a single frame, is not part of the video's slots but
a picture beside them; the latents that follow are those of full slots, as a decoder expects them there. Every token
has a timestep of its own: strength s lets it be no noisier than 1 - s.

The network makes picture and sound together, so sound is denoised with every window, from the window's own noise, and
then dropped: nothing here is heard, and no part that makes sound audible is loaded. Guidance is by the negative prompt
alone, as strong for the sound. What diffusers' pipeline adds to that by default is left off: spatio-temporal guidance
and modality isolation, a further pass each in every step, rescaling, and the compression of pictures before they are
encoded, which makes them less like what was given.
Source: diffusers' `LTX2ConditionPipeline`. Its index k stands for frame 8k - 7, the first of a slot; pictures here are
on a slot's last frame, 8k.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from diffusers.loaders.lora_pipeline import LTX2LoraLoaderMixin
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import calculate_shift
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dreamontage.generator.conditioning.encoding import normalise
from dreamontage.generator.models.adapters import Adapters
from dreamontage.generator.models.family import Run, Window
from dreamontage.generator.models.ltx import LtxFamily, tokens
from dreamontage.generator.models.ltx2_text import Ltx2Text, Ltx2Texts
from dreamontage.generator.models.ltx_autoencoder import Ltx2Autoencoder
from dreamontage.generator.models.switching import coder_under
from dreamontage.generator.numbers import computes, number_type
from dreamontage.generator.sampling import Sampled, Sampling
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches


class Beside(NamedTuple):
    """A picture as latents [C,1,h,w], the frame of the window that it is, and its strength."""

    latents: Tensor
    frame: int
    strength: float


@dataclass
class Canvas:
    """What is known of a window: latents [C,n,h,w] in place with strengths [n], 0 for unknown ones, and pictures."""

    clean: Tensor
    strengths: Tensor
    pictures: list[Beside] = field(default_factory=list)

    def write(self, slot: int, known: Tensor, strength: float = 1.0) -> None:
        """Known latents [C,m,h,w] in place from a slot on."""
        span = slice(slot, slot + known.shape[1])
        self.clean[:, span], self.strengths[span] = known, strength


class Ltx2Run:
    """A window on LTX-2. Its latents are tokens [1,n·h·w+pictures·h·w,C]; `sound` [1,length,channels] goes along."""

    def __init__(
        self, network: Any, scheduler: Any, canvas: Canvas, texts: Sequence[Ltx2Text], sampling: Sampling,
        generator: torch.Generator, fps: int, guide: Tensor | None = None,
    ) -> None:  # fmt: skip
        """`texts`: the prompt, then, where guidance is on, the negative prompt; `guide` [C,n,h,w] as in a `Window`."""
        self.network, self.canvas, self.texts, self.guidance = network, canvas, texts, sampling.guidance
        _, slots, height, width = canvas.clean.shape
        device, area = canvas.clean.device, height * width
        pictures = [tokens(picture.latents) for picture in canvas.pictures]
        self.clean = torch.cat([tokens(canvas.clean), *pictures], dim=1)
        beside = [canvas.strengths.new_full((area,), picture.strength) for picture in canvas.pictures]
        self.strengths = torch.cat([canvas.strengths.repeat_interleave(area), *beside])[None]

        places = network.rope.prepare_video_coords(1, slots, height, width, device, fps=fps)
        at = torch.tensor([picture.frame / fps for picture in canvas.pictures], device=device)
        later = places[:, :, None, :area].repeat(1, 1, len(at), 1, 1)  # slot 0 stands for one frame, as a picture does
        later[:, 0] += at[:, None, None]
        self.places = torch.cat([places, later.flatten(2, 3)], dim=2)
        seconds = (LtxFamily.stride * (slots - 1) + 1) / fps
        length = round(seconds * network.audio_rope.audio_latents_per_second)
        self.sound_places = network.audio_rope.prepare_audio_coords(1, length, device)

        plain = {"use_dynamic_shifting": False, "shift": 1.0, "shift_terminal": None}
        self.scheduler = type(scheduler).from_config(scheduler.config, **plain)
        self.scheduler.set_timesteps(sigmas=self._times(scheduler, sampling), device=device)
        self.sound_scheduler = copy.deepcopy(self.scheduler)
        self.times: Tensor = self.scheduler.timesteps
        start = self.clean
        if sampling.t0 < 1:
            assert guide is not None, "starting below t = 1 needs a guide"
            unknown = torch.cat([tokens(guide), *pictures], dim=1)
            start = torch.where(self.strengths[..., None] > 0, start, unknown)
        share = sampling.t0 * (1 - self.strengths[..., None])
        self.latents: Tensor = torch.lerp(start, torch.randn(start.shape, generator=generator).to(device), share)
        sound = 1, length, int(network.config["audio_in_channels"])
        self.sound = sampling.t0 * torch.randn(sound, generator=generator).to(device)

    def _times(self, scheduler: Any, sampling: Sampling) -> list[float]:
        """Flow times of the steps: the checkpoint's own for so many tokens, its authors' few-step LoRA's where that is
        asked for; below t0 what is left of them, from t0 on."""
        config = scheduler.config
        if sampling.guidance <= 1 and sampling.steps == len(DISTILLED_SIGMA_VALUES):
            times = DISTILLED_SIGMA_VALUES
        else:
            shift = calculate_shift(
                self.clean.shape[1], config["base_image_seq_len"], config["max_image_seq_len"], config["base_shift"],
                config["max_shift"],
            )  # fmt: skip
            own = type(scheduler).from_config(config)
            own.set_timesteps(sigmas=np.linspace(1.0, 1 / sampling.steps, sampling.steps), mu=shift)
            times = own.sigmas[:-1].tolist()
        return times if sampling.t0 == 1 else [sampling.t0, *(time for time in times if time < sampling.t0)]

    def _predict(self, latents: Tensor, time: Tensor, text: Ltx2Text) -> list[Tensor]:
        """What the network says of picture and sound at a timestep and a text."""
        number = self.network.dtype
        found = self.network(
            hidden_states=latents.to(number), audio_hidden_states=self.sound.to(number),
            encoder_hidden_states=text.video.to(number), audio_encoder_hidden_states=text.audio.to(number),
            timestep=time * (1 - self.strengths), audio_timestep=time[None], sigma=time[None],
            encoder_attention_mask=text.mask, audio_encoder_attention_mask=text.mask, video_coords=self.places,
            audio_coords=self.sound_places, use_cross_timestep=self.network.config["cross_attn_mod"],
            return_dict=False,
        )  # fmt: skip
        return [part.float() for part in found]

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """The flow's velocity at every token, with guidance; known tokens are drawn to what is known."""
        picture, self.sounding = self._predict(latents, time, self.texts[0])
        if self.guidance > 1:
            untold, silent = self._predict(latents, time, self.texts[1])
            picture = untold + self.guidance * (picture - untold)
            self.sounding = silent + self.guidance * (self.sounding - silent)
        return torch.lerp(picture, (latents - self.clean) / (time / 1000), self.strengths[..., None])

    def advance(self, velocity: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        """One step of picture and sound."""
        self.sound = self.sound_scheduler.step(self.sounding, time, self.sound, return_dict=False)[0]
        stepped: Tensor = self.scheduler.step(velocity, time, latents, return_dict=False)[0]
        return stepped

    def finish(self, latents: Tensor) -> Sampled:
        """The window's latents with what is known whole verbatim, and what the model made of every slot."""
        clean = self.canvas.clean
        own = latents[0, : clean[0].numel()].transpose(0, 1).reshape(clean.shape)
        return Sampled(torch.where(self.canvas.strengths[None, :, None, None] == 1, clean, own), own)


class Ltx2Adapters(Adapters):
    """LoRAs of LTX-2: they go on the transformer and, where they say so, on what reads the prompt."""

    parts = ("transformer", "connectors")


class Ltx2Family(LtxFamily):
    """A loaded LTX-2."""

    @classmethod
    def load(
        cls, folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype | None = None,
        switches: Switches = PLAIN,
    ) -> Self:  # fmt: skip
        """From a folder as diffusers' pipelines save it; the autoencoder stays in float32."""
        dtype = dtype or number_type(device)
        network = cls._read(LTX2VideoTransformer3DModel, folder, device, dtype, switches)
        connectors: Any = LTX2TextConnectors.from_pretrained(folder / "connectors", torch_dtype=dtype)
        connectors.requires_grad_(False).eval()
        return cls(
            card,
            coder_under(Ltx2Autoencoder.from_pretrained(folder / "vae"), device, switches),
            network,
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            Ltx2Texts(folder, connectors, device, dtype, switches.offload == "group"),
            Ltx2Adapters(folder / "loras", [network, connectors], LTX2LoraLoaderMixin),
            computes(dtype, switches),
        )

    @torch.no_grad()
    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """Encode a window's conditions and prompts and draw its noise."""
        shape = self.network.config["in_channels"], window.slots, window.height, window.width
        canvas = Canvas(torch.zeros(shape, device=self.device), torch.zeros(window.slots, device=self.device))
        carried = 0
        if window.tail is not None:
            canvas.write(0, self._mode(window.tail.head))
            canvas.write(1, window.tail.rest)
            carried = 1 + window.tail.rest.shape[1]
        for pin in window.pins:
            known = self._mode(pin.pixels)
            if pin.slot == 0 and not carried:
                canvas.write(0, known, pin.strength)
            elif pin.slot >= carried:
                canvas.pictures.append(Beside(known[:, :1], self.stride * pin.slot, pin.strength))
                canvas.write(pin.slot + 1, known[:, 1:], pin.strength)
            elif pin.clip and pin.strength == 1:  # it began in the tail, which passes through its first frame
                canvas.write(pin.slot + 1, known[:, 1:])
        if window.held is not None:
            canvas.write(window.slots - window.held.shape[1], window.held)
        self.adapters.use(sampling.loras)
        told = [self.texts(text) for text in (window.prompt, window.negative)[: 1 + (sampling.guidance > 1)]]
        return Ltx2Run(self.network, self.scheduler, canvas, told, sampling, generator, window.fps, window.guide)

    def _mode(self, pixels: Tensor) -> Tensor:
        """Pixels [3,1+8m,H,W] as normalised latents [C,1+m,h,w]."""
        return normalise(self.vae, self.vae.encode(pixels[None]).latent_dist.mode()[0])
