"""DreaMontagePipeline: the diffusers-style front door.

    from dreamontage.generator import DreaMontagePipeline
    from PIL import Image

    pipe = DreaMontagePipeline.from_pretrained("nano")
    frames = pipe(anchors=[(Image.open("a.jpg"), 0), (Image.open("b.jpg"), 3)], duration=4).frames[0]
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils.import_utils import is_accelerate_available
from diffusers.utils.outputs import BaseOutput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# Imported so that diffusers finds the component classes that a model_index.json names.
import dreamontage.generator.models.autoencoder
import dreamontage.generator.models.prompt_tokens
import dreamontage.generator.models.transformer  # noqa: F401
from dreamontage.generator.decoding import ShotDecoder
from dreamontage.generator.fingerprint import Decision, decide, resolve_settings
from dreamontage.generator.frames import fitted
from dreamontage.generator.graph import render_segments
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.family import Run, Window
from dreamontage.generator.models.slot_conditions import assembled, grey
from dreamontage.generator.models.vocabulary import timed_words
from dreamontage.generator.numbers import computes, number_type
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sampling import NanoRun, Sampling
from dreamontage.generator.sar import Shot, assemble_latents
from dreamontage.generator.takes import MemoryTakes
from dreamontage.generator.timeline import frames_of_span
from dreamontage.generator.video import VideoWriter
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import SIZES, Beat, Format, Guide, Montage, Quality
from dreamontage.schemas.plan import Plan

Picture = Image.Image | NDArray[np.uint8]
Pinned = tuple[Picture | Sequence[Picture], float] | dict[str, Any]
Timed = Beat | tuple[float, float, str] | dict[str, Any]

NANO = ModelCard(
    id="nano", title="Nano", licence="Apache-2.0", summary="A model without a card of its own.",
    window=16, overlap=3, shortest=4,
    defaults=RenderSettings(steps=4, guidance=1.0, shift=1.0, t0=0.4, guide="follow"),
    settings=["steps", "guidance", "shift", "t0", "guide", "negative_prompt"],
)  # fmt: skip


@dataclass
class DreaMontageOutput(BaseOutput):
    """`frames`: one shot as a list of PIL images, float [1,F,H,W,3] in 0..1, or normalised latents [1,16,T,h,w]."""

    frames: list[list[Image.Image]] | NDArray[np.float32] | Tensor
    plan: Plan

    def save(self, path: str | Path) -> None:
        """Write the shot as an H.264 mp4. Raises InvalidInput where the frames are latents."""
        if isinstance(self.frames, Tensor):
            raise InvalidInput("latents are no pictures", field="output_type", allowed="pil or np")
        shape = self.plan.format
        with VideoWriter(Path(path), (shape.width, shape.height), shape.fps) as writer:
            for frame in self.frames[0]:
                pixels = np.asarray(frame)
                writer.write((pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8))[None])


class DreaMontagePipeline(DiffusionPipeline, WanLoraLoaderMixin):
    """One continuous shot through pictures and clips pinned in time.

    Components: an autoencoder with `AutoencoderKLWan`'s interface and `decode_slot`, a Wan-layout transformer, timed
    prompt tokens and a flow-matching scheduler. `card` holds the model's own numbers (window, overlap, defaults).
    `load_lora_weights` and its kin work as on diffusers' Wan pipelines (needs peft).
    """

    model_cpu_offload_seq = "prompt_tokens->transformer->vae"  # type: ignore[assignment]

    def __init__(
        self,
        vae: ModelMixin,
        transformer: ModelMixin,
        prompt_tokens: ModelMixin,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        modules = {"vae": vae, "transformer": transformer, "prompt_tokens": prompt_tokens, "scheduler": scheduler}
        self.register_modules(**modules)  # type: ignore[no-untyped-call]
        for module in (vae, transformer, prompt_tokens):
            module.eval()
        self.card = NANO

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[Any], **kwargs: Any
    ) -> DreaMontagePipeline:
        """Load a model of the catalogue by its id ("nano"), or any pipeline folder or hub repository.

        Weights that lie on disk in half precision compute in float32 unless `dtype` says otherwise.
        """
        name = str(pretrained_model_name_or_path)
        folder = catalogue.weights_folder(name) if name in catalogue.cards() else Path(name)
        dtype = kwargs.setdefault("dtype", kwargs.pop("torch_dtype", torch.float32))
        kwargs.setdefault("low_cpu_mem_usage", is_accelerate_available())  # type: ignore[no-untyped-call]
        pipe: DreaMontagePipeline = super().from_pretrained(str(folder) if folder.exists() else name, **kwargs)
        for component in pipe.components.values():  # diffusers casts nothing where it loads without accelerate
            if isinstance(component, torch.nn.Module) and isinstance(dtype, torch.dtype):
                torch.nn.Module.to(component, dtype)
        if (folder / catalogue.CARD).exists():
            pipe.card = catalogue.read_card(folder)
        return pipe

    def save_pretrained(self, save_directory: str | os.PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Save all components, and the card beside them."""
        super().save_pretrained(save_directory, *args, **kwargs)
        card = self.card.model_dump_json(indent=2, exclude={"available"}, exclude_defaults=True)
        (Path(save_directory) / catalogue.CARD).write_text(card + "\n", encoding="utf-8")

    @property
    def computes(self) -> str:
        """The number type that its networks compute in."""
        return computes(number_type(self.device))

    def learn(self, texts: Sequence[str]) -> None:
        """Nothing to prepare: timed words are looked up."""

    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """One window of the segment loop (models/family.py)."""
        empty = grey(self.vae, window, self.device) if self.card.empty_condition == "grey" else None
        conditions = assembled(self.vae, window, generator, self.device, empty)
        negative = timed_words(window.negative, None, 0, window.slots)
        return NanoRun(self, conditions, window.words, negative, sampling, generator, window.guide)

    @torch.no_grad()
    def __call__(
        self,
        anchors: Sequence[Pinned] = (),
        beats: Sequence[Timed] = (),
        duration: float | None = None,
        width: int = 512,
        height: int = 288,
        fps: int = 24,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        guide: Guide | None = None,
        t0: float | None = None,
        generator: torch.Generator | None = None,
        carry_over: bool = True,
        output_type: Literal["pil", "np", "latent"] = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Tensor]], Any] | None = None,
    ) -> DreaMontageOutput | tuple[Any, ...]:
        """Make a shot.

        anchors: (picture or clip, second) pairs, or dicts {"media": ..., "second": ..., "strength": ..., "fit": ...,
        "focus": ...}; a picture is a PIL image or uint8 [H,W,3], a clip a list of pictures or uint8 [F,H,W,3] at `fps`.
        beats: (start second, end second, prompt) triples, `Beat`s or their dicts. duration: seconds; None ends the shot
        with its last anchor. width, height: one of the known sizes (512x288, 256x144, and so on).
        num_inference_steps, guidance_scale, guide, t0: None takes the model's defaults. carry_over: whether the
        previz's own detail comes through where the model agrees with it. callback_on_step_end(pipe, step, segment,
        {"latents": [16,n,h,w]}) is called after every denoising step, with steps counted over all segments; an
        exception from it ends the call.

        Returns a DreaMontageOutput. Raises DreamontageError subclasses for input that cannot be used.
        """
        form = Format(width=width, height=height, fps=fps)
        pinned = [_pinned(anchor, (width, height)) for anchor in anchors]
        seed = int(torch.randint(2**62, (), generator=generator).item())
        montage, media = _montage(pinned, beats, duration, form, seed, self.card.id)
        quality: Quality = "draft" if (width, height) == SIZES[form.aspect, "draft"] else "standard"
        plan = plan_montage(montage, media, self.card, quality)
        pixels = {f"a{number}": frames for number, (frames, _, _) in enumerate(pinned)}
        placed = [PrevizAnchor(pixels[a.anchor_id][: a.frames], a.frame, a.media_id) for a in plan.anchors]
        previz = Previz(placed, previz_beats(montage), plan.frames, (width, height), fps)
        settings = RenderSettings(
            steps=num_inference_steps, guidance=guidance_scale, negative_prompt=negative_prompt, guide=guide, t0=t0
        )
        self.card.check(settings.model_dump(exclude_none=True))
        request = RenderRequest(quality=quality, settings=settings)
        decisions = decide(plan, montage, media, self.card, request, None, weights="")

        finished = 0

        def on_step(decision: Decision, done: int, steps: int, latents: Tensor) -> None:
            nonlocal finished
            if callback_on_step_end is not None and done:
                callback_on_step_end(self, finished, decision.segment.index, {"latents": latents})
                finished += 1

        takes = MemoryTakes()
        shot = Shot(plan, montage, previz, placed)
        names = [rendered.fingerprint for rendered in render_segments(self, shot, decisions, takes, on_step)]
        chunks = assemble_latents(plan, names, takes)
        frames: Any
        if output_type == "latent":
            frames = torch.cat(list(chunks), dim=1)[None]
        else:
            decoder = ShotDecoder(self.vae, carry_over)
            pieces = []
            for decision, latents in zip(decisions, chunks, strict=True):
                segment = decision.segment
                span = frames_of_span(segment.start, segment.stop)
                planned, confidence = previz.window(span.start, span.stop)
                t0 = resolve_settings(self.card, decision.settings, segment)[0].t0
                led = t0 is not None and t0 < 1
                pieces.append(decoder.next(latents, planned, confidence if led else np.zeros_like(confidence)).pixels)
            shown = np.concatenate(pieces)
            frames = [[Image.fromarray(frame) for frame in shown]] if output_type == "pil" else shown[None] / 255.0
            if output_type == "np":
                frames = frames.astype(np.float32)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return DreaMontageOutput(frames=frames, plan=plan) if return_dict else (frames, plan)


def _pinned(anchor: Pinned, size: tuple[int, int]) -> tuple[NDArray[np.uint8], float, dict[str, Any]]:
    """Frames uint8 [n,H,W,3] at `size`, the second, and the anchor's other fields."""
    fields: dict[str, Any] = dict(anchor) if isinstance(anchor, dict) else {"media": anchor[0], "second": anchor[1]}
    media, second = fields.pop("media"), float(fields.pop("second"))
    pictures = [media] if isinstance(media, Image.Image) or getattr(media, "ndim", 0) == 3 else list(media)
    fit, focus = fields.get("fit", "cover"), fields.get("focus", (0.5, 0.5))
    opened = [p if isinstance(p, Image.Image) else Image.fromarray(np.asarray(p, np.uint8)) for p in pictures]
    frames = [np.asarray(fitted(picture.convert("RGB"), size, fit, focus)) for picture in opened]
    return np.stack(frames), second, fields


def _montage(
    pinned: Sequence[tuple[NDArray[np.uint8], float, dict[str, Any]]],
    beats: Sequence[Timed],
    duration: float | None,
    form: Format,
    seed: int,
    model: str,
) -> tuple[Montage, dict[str, Media]]:
    """The call as a montage, with its pictures as media."""
    anchors, media = [], {}
    end = 0.0
    for number, (frames, second, fields) in enumerate(pinned):
        digest = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
        kind: Literal["still", "clip"] = "clip" if len(frames) > 1 else "still"
        item = Media(
            id=f"{'clip' if kind == 'clip' else 'img'}_{digest[:16]}", sha256=digest, kind=kind, container="raw",
            width=form.width, height=form.height, duration_s=len(frames) / form.fps if kind == "clip" else 0.0,
            fps=form.fps, frames=len(frames), bytes=frames.nbytes,
        )  # fmt: skip
        media[item.id] = item
        anchors.append(Anchor(id=f"a{number}", media_id=item.id, second=second, **fields))
        end = max(end, second + (len(frames) - 1) / form.fps)
    timed = [
        beat if isinstance(beat, Beat)
        else Beat(**beat) if isinstance(beat, dict)
        else Beat(start_s=beat[0], end_s=beat[1], prompt=beat[2])
        for beat in beats
    ]  # fmt: skip
    body = Montage(
        id="m_call", format=form, duration_s=end if duration is None else duration, model=model, seed=seed,
        anchors=sorted(anchors, key=lambda anchor: anchor.second), beats=timed,
    )  # fmt: skip
    return body, media
