"""LTX-Video 0.9.5 and later: what is known stands in its slots clean, or beside the video as tokens of its own.

The start of a window, carried latents and the inside of clips are written in place; a picture, or a clip's first two
slots, away from the start are extra tokens at their frame's position, dropped at the end, so that the frames around
them stay free to move. Every token has a timestep of its own: strength s lets it be no noisier than 1 - s.
Source: diffusers' `LTXConditionPipeline`, whose `frame_index` counts frames, not latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import LTXVideoLoraLoaderMixin
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dreamontage.generator.conditioning.encoding import normalise
from dreamontage.generator.models.adapters import Adapters
from dreamontage.generator.models.family import Run, Window
from dreamontage.generator.models.ltx_autoencoder import LtxAutoencoder
from dreamontage.generator.models.switching import coder_under, rests_on, run_under, straight_to
from dreamontage.generator.models.wan_text import WanTexts
from dreamontage.generator.numbers import computes, number_type
from dreamontage.generator.sampling import PASSES, Sampled, Sampling
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches

IN_PLACE = 2
"""Slots of a clip away from the start that are extra tokens; those after them are written in place."""
KNOWN_NOISE = 0.15
"""Noise on tokens of strength 1, times the flow time squared: keeps a video from freezing at what it knows."""


def tokens(latents: Tensor) -> Tensor:
    """Latents [C,n,h,w] as tokens [1,n·h·w,C]."""
    return latents.flatten(1).transpose(0, 1)[None]


@dataclass
class Canvas:
    """A window under construction: latents [C,n,h,w] and strengths [n] in place, extra tokens with their frames."""

    latents: Tensor
    clean: Tensor
    strengths: Tensor
    extra: list[tuple[Tensor, int, float]]

    def write(self, slot: int, known: Tensor, strength: float = 1.0) -> None:
        """Known latents [C,m,h,w] in place from a slot on."""
        span = slice(slot, slot + known.shape[1])
        self.clean[:, span], self.strengths[span] = known, strength
        self.latents[:, span] = torch.lerp(self.latents[:, span], known, strength)


class LtxRun:
    """A window on LTX. Its latents are tokens [1,extra+n·h·w,C]."""

    def __init__(
        self, family: LtxFamily, canvas: Canvas, texts: Sequence[Tensor], sampling: Sampling,
        generator: torch.Generator, fps: int,
    ) -> None:  # fmt: skip
        """`texts`: the prompt's embeddings [1,tokens,width], then, where guidance is on, the negative prompt's."""
        self.network, self.texts, self.generator = family.network, texts, generator
        self.network._reset_stateful_cache()
        self.guidance, self.canvas = sampling.guidance, canvas
        _, slots, height, width = canvas.latents.shape
        extra = [known for known, _, _ in canvas.extra]
        self.latents: Tensor = torch.cat([*map(tokens, extra), tokens(canvas.latents)], dim=1)
        self.start = self.latents.clone()
        strengths = [known.new_full((known[0].numel(),), strength) for known, _, strength in canvas.extra]
        self.strengths = torch.cat([*strengths, canvas.strengths.repeat_interleave(height * width)])[None]
        places = [self._places(known.shape[1], height, width, frame) for known, frame, _ in canvas.extra]
        self.places = torch.cat([*places, self._places(slots, height, width, 0)], dim=1)[None].float()
        self.places[:, 0] /= fps
        self.places = self.places.to(self.latents.device)
        self.extra = self.latents.shape[1] - slots * height * width
        self.scheduler = type(family.scheduler).from_config(family.scheduler.config)
        schedule = linear_quadratic_schedule(sampling.steps)  # type: ignore[no-untyped-call]
        self.scheduler.set_timesteps(
            sigmas=schedule.tolist(), timesteps=(schedule * 1000).tolist(), device=self.latents.device
        )
        self.times: Tensor = self.scheduler.timesteps[self.scheduler.timesteps <= 1000 * sampling.t0 + 1e-3]

    @staticmethod
    def _places(slots: int, height: int, width: int, frame: int) -> Tensor:
        """Frame, row and column [3,n·h·w] in pixels of every token of a piece that begins at a frame."""
        grid = torch.meshgrid(torch.arange(slots), torch.arange(height), torch.arange(width), indexing="ij")
        scales = torch.tensor([LtxFamily.stride, LtxFamily.scale, LtxFamily.scale])
        found = torch.stack(grid).flatten(1) * scales[:, None]
        found[0] = (found[0] + 1 - LtxFamily.stride).clamp(min=0) + frame
        return found

    def _token_times(self, time: Tensor) -> Tensor:
        """The timestep [1,tokens] of every token."""
        return torch.min(time.expand(self.strengths.shape).float(), (1 - self.strengths) * 1000)

    def velocity(self, latents: Tensor, time: Tensor) -> Tensor:
        """The flow's velocity at every token, with guidance."""
        if self.canvas.extra or bool((self.canvas.strengths > 0).any()):
            noise = torch.randn(latents.shape, generator=self.generator).to(latents)
            known = self.start + KNOWN_NOISE * noise * (time / 1000) ** 2
            latents = torch.where(self.strengths[..., None] > 1 - 1e-6, known, latents)
        self.shown = latents
        times = self._token_times(time)
        told, *untold = (
            self._predicted(latents, times, text, name) for text, name in zip(self.texts, PASSES, strict=False)
        )
        found: Tensor = untold[0] + self.guidance * (told - untold[0]) if untold else told
        return found

    def _predicted(self, latents: Tensor, times: Tensor, text: Tensor, name: str) -> Tensor:
        with self.network.cache_context(name):
            found: Tensor = self.network(
                hidden_states=latents.to(self.network.dtype), encoder_hidden_states=text.to(self.network.dtype),
                timestep=times, encoder_attention_mask=None, video_coords=self.places, return_dict=False,
            )[0].float()  # fmt: skip
        return found

    def advance(self, velocity: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        """One step: every token from its own time; one whose turn has not come yet stays."""
        stepped: Tensor = self.scheduler.step(
            -velocity, time, self.shown, per_token_timesteps=self._token_times(time), return_dict=False
        )[0]
        return torch.where((time / 1000 - 1e-6 < 1 - self.strengths)[..., None], stepped, self.shown)

    def finish(self, latents: Tensor) -> Sampled:
        """The window's latents with what is known whole verbatim, and what the model made of every slot."""
        clean = self.canvas.clean
        own = latents[0, self.extra :].transpose(0, 1).reshape(clean.shape)
        return Sampled(torch.where(self.canvas.strengths[None, :, None, None] == 1, clean, own), own)


class LtxTexts(WanTexts):
    """Texts -> T5's embeddings [1,tokens,width], without padding: a token that is masked counts for nothing."""

    encoder, longest = "T5EncoderModel", 256

    def __call__(self, text: str) -> Tensor:
        """The embeddings of a text, read now where it is new; one of zeros where there is no text encoder."""
        self.learn([text])
        rows = self._known[" ".join(text.split())]
        return (rows if len(rows) else rows.new_zeros(1, self.width))[None]


class LtxFamily:
    """A loaded LTX-Video."""

    stride, scale = 8, 32

    def __init__(
        self, card: ModelCard, vae: Any, network: Any, scheduler: Any, texts: Any, adapters: Adapters,
        computes: str,
    ) -> None:  # fmt: skip
        self.card, self.vae, self.network, self.scheduler = card, vae, network, scheduler
        self.texts, self.adapters, self.computes = texts, adapters, computes

    @classmethod
    def load(
        cls, folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype | None = None,
        switches: Switches = PLAIN,
    ) -> LtxFamily:  # fmt: skip
        """From a folder as diffusers' pipeline saves it; the autoencoder stays in float32."""
        dtype = dtype or number_type(device)
        network = cls._read(LTXVideoTransformer3DModel, folder, device, dtype, switches)
        return cls(
            card,
            coder_under(LtxAutoencoder.from_pretrained(folder / "vae"), device, switches),
            network,
            FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
            LtxTexts(folder, network.config["caption_channels"], device, dtype, switches.offload == "group"),
            Adapters(folder / "loras", [network], LTXVideoLoraLoaderMixin),
            computes(dtype, switches),
        )

    @staticmethod
    def _read(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype, switches: Switches) -> Any:
        """The transformer, of this class, at work on a device."""
        at = straight_to(rests_on(device, switches))
        return run_under(kind.from_pretrained(folder / "transformer", torch_dtype=dtype, **at), device, switches)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        found: torch.device = self.vae.device
        return found

    def learn(self, texts: Sequence[str]) -> None:
        """Encode these prompts, then let the text encoder go."""
        self.texts.learn(texts)

    @torch.no_grad()
    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """Encode a window's conditions and prompts and draw its noise."""
        shape = self.network.config.in_channels, window.slots, window.height, window.width
        noise = torch.randn(shape, generator=generator).to(self.device)
        if sampling.t0 < 1:
            assert window.guide is not None, "starting below t = 1 needs a guide"
            noise = torch.lerp(window.guide, noise, sampling.t0)
        canvas = Canvas(noise, torch.zeros_like(noise), noise.new_zeros(window.slots), [])
        carried = 0
        if window.tail is not None:
            canvas.write(0, self._encoded(window.tail.head, generator))
            canvas.write(1, window.tail.rest)
            carried = 1 + window.tail.rest.shape[1]
        for pin in window.pins:
            known = self._encoded(pin.pixels, generator)
            if pin.slot == 0 and not carried:
                canvas.write(0, known, pin.strength)
            elif pin.slot >= carried:
                canvas.write(pin.slot + IN_PLACE, known[:, IN_PLACE:], pin.strength)
                beside = known[:, :IN_PLACE]
                noised = torch.lerp(torch.randn(beside.shape, generator=generator).to(beside), beside, pin.strength)
                canvas.extra.append((noised, self.stride * pin.slot, pin.strength))
            elif pin.clip and pin.strength == 1:  # it began in the tail, which passes through its first frame
                canvas.write(pin.slot + 1, known[:, 1:])
        if window.held is not None:
            canvas.write(window.slots - window.held.shape[1], window.held)
        told = (window.prompt, window.negative)[: 1 + (sampling.guidance > 1)]
        self.adapters.use(sampling.loras)
        return LtxRun(self, canvas, [self.texts(text) for text in told], sampling, generator, window.fps)

    def _encoded(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Pixels [3,1+8m,H,W] as normalised latents [C,1+m,h,w], drawn from the posterior as in training."""
        found = self.vae.encode(pixels[None]).latent_dist.sample(generator=generator)
        return normalise(self.vae, found[0])
