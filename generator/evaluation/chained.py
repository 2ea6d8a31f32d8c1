"""For speed: diffusers' own Wan image-to-video pipeline chained first–last, with the same transformer weights."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from PIL import Image

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.renditions import FPS, chunks_of, pieces, render_takes, stage
from dreamontage.generator.numbers import number_type
from dreamontage.generator.timeline import frames_of_slots
from dreamontage.schemas.models import RenderSettings

SIZE = (512, 288)
"""Size of the timed shot."""
SECONDS = 10.0


@dataclass(frozen=True)
class Speed:
    """Wall and CPU seconds for a shot of `seconds` s, rendered by ours and by the chain of `segments` calls.

    Of the chain `run` calls were made and the mean call counts for all of them: they are equal in size.
    """

    seconds: float
    ours_wall_s: float
    ours_cpu_s: float
    chain_wall_s: float
    chain_cpu_s: float
    segments: int
    run: int

    @property
    def ratio(self) -> float:
        """How many times longer the chain takes, in wall time."""
        return self.chain_wall_s / self.ours_wall_s


def wan_pipeline(pipeline: Any) -> Any:
    """`WanImageToVideoPipeline` with the model's transformer as a plain Wan class and a small Wan autoencoder.

    The autoencoder (base_dim=16, num_res_blocks=1) is the smallest the class makes; its weights are random, which
    changes no time, and it computes in float32, as diffusers' own examples for Wan do. The transformer has the model's
    weights and number type, so that a step costs the same.
    """
    known = inspect.signature(WanTransformer3DModel.__init__).parameters
    config = {key: value for key, value in pipeline.transformer.config.items() if key in known}
    transformer = WanTransformer3DModel(**config)
    transformer.load_state_dict(pipeline.transformer.state_dict())
    vae = AutoencoderKLWan(base_dim=16, num_res_blocks=1)
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    torch.nn.Module.to(transformer, number_type(pipeline.device))
    parts: dict[str, Any] = {
        "vae": vae.eval(), "transformer": transformer.eval(), "scheduler": scheduler, "tokenizer": None,
        "text_encoder": None,
    }  # fmt: skip
    made: Any = WanImageToVideoPipeline(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def chain(pipeline: Any, pictures: Sequence[Frames], slots: int, steps: int) -> Frames:
    """First–last segments of `slots` slots from each picture [H,W,3] to the next, joined: uint8 [F,H,W,3]."""
    wan = wan_pipeline(pipeline)
    with torch.no_grad():
        prompt = pipeline.prompt_tokens([[]])
    height, width = pictures[0].shape[:2]
    shown: list[Frames] = []
    for first, last in pairwise(pictures):
        made = wan(
            image=Image.fromarray(first), last_image=Image.fromarray(last), prompt_embeds=prompt, height=height,
            width=width, num_frames=frames_of_slots(slots), num_inference_steps=steps, guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0), output_type="np",
        ).frames[0]  # fmt: skip
        frames = (np.asarray(made) * 255).round().astype(np.uint8)
        shown.append(frames[1 if shown else 0 :])
    return np.concatenate(shown)


def compare_speed(
    pipeline: Any, pictures: Sequence[Frames], seconds: float = SECONDS, run: int = 1,
    settings: RenderSettings | None = None,
) -> Speed:  # fmt: skip
    """Time our shot through `pictures` [H,W,3], evenly pinned over `seconds`, and `run` of the chain's segments.

    Both in this process, one after the other, with the same transformer, number type, threads and step count; ours
    includes planning, previz, encoding, decoding and carry-over, the chain its encoding and decoding.
    """
    settings = settings or RenderSettings()
    steps = settings.over(pipeline.card.defaults).steps or 1
    height, width = pictures[0].shape[:2]
    gaps = len(pictures) - 1
    slots = round(seconds * FPS / 4 / gaps)
    frames = frames_of_slots(slots * gaps + 1)
    pinned = [(picture[None], 4 * slots * number) for number, picture in enumerate(pictures)]
    began = _now()
    staged = stage(pipeline, pinned, frames, (width, height))
    takes = render_takes(pipeline, staged, settings)
    for _ in pieces(pipeline, staged, chunks_of(staged, takes)):
        pass
    ours = _since(began)
    began = _now()
    chain(pipeline, pictures[: run + 1], slots + 1, steps)
    chained = _since(began)
    whole = gaps / run
    return Speed(frames / FPS, *ours, chained[0] * whole, chained[1] * whole, gaps, run)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - began[0], time.process_time() - began[1]
