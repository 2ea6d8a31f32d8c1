"""Wan image-to-video on checkpoints in the real formats: equal to diffusers' own pipeline, and a whole shot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline
from diffusers.pipelines.wan import pipeline_wan_i2v
from PIL import Image
from safetensors.torch import load_file
from tiny_model import picture
from tiny_wan import save_clip_branch, save_original, save_tiny_wan

from dreamontage.generator.conditioning.encoding import pixels_to_tensor
from dreamontage.generator.models.family import Pin, Window, denoise
from dreamontage.generator.models.wan import WanFamily, load
from dreamontage.generator.pipeline import NANO
from dreamontage.generator.sampling import Sampling

CPU = torch.device("cpu")
SLOTS, SIDE = 5, 32
CARD = NANO.model_copy(update={"id": "wan", "family": "wan", "empty_condition": "grey", "condition": "padded"})
PROMPT, NEGATIVE = "From 0 to 1 s: pan left forest", "forest"


def stills() -> list[Any]:
    return [picture(seed)[:SIDE, :SIDE] for seed in (1, 2)]


def window(last: bool) -> Window:
    first, end = (pixels_to_tensor(frame[None]) for frame in stills())
    pins = [Pin(0, first), Pin(SLOTS - 1, end)] if last else [Pin(0, first)]
    return Window(SLOTS, SIDE // 8, SIDE // 8, 16, pins, prompt=PROMPT, negative=NEGATIVE)


def theirs(folder: Path, last: bool, guidance: float, shift: float) -> torch.Tensor:
    """What diffusers' pipeline makes of the same checkpoint."""
    pipe = WanImageToVideoPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=shift)
    pipe.set_progress_bar_config(disable=True)
    # It mends broken Unicode with ftfy, which is no dependency of diffusers; the prompts here have none.
    pytest.MonkeyPatch().setattr(pipeline_wan_i2v, "prompt_clean", str.strip)
    first, end = (Image.fromarray(frame) for frame in stills())
    latents = pipe(
        first, PROMPT, NEGATIVE, SIDE, SIDE, 4 * SLOTS - 3, num_inference_steps=4, guidance_scale=guidance,
        last_image=end if last else None, output_type="latent", generator=torch.Generator().manual_seed(7),
    ).frames  # fmt: skip
    found: torch.Tensor = latents[0]
    return found


def ours(family: WanFamily, last: bool, guidance: float, shift: float) -> torch.Tensor:
    sampling = Sampling(steps=4, guidance=guidance, shift=shift)
    return denoise(family.begin(window(last), sampling, torch.Generator().manual_seed(7))).latents


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("models") / "a14b", text=True, boundary=0.9, experts=2)


@pytest.mark.parametrize("last", [False, True], ids=["first frame", "first and last"])
def test_two_experts_give_what_diffusers_pipeline_gives(experts: Path, last: bool) -> None:
    family = load(experts, CARD, CPU, torch.float32)
    assert (theirs(experts, last, 3.5, 5.0) - ours(family, last, 3.5, 5.0)).abs().max() <= 1e-4


@pytest.mark.parametrize("last", [False, True], ids=["I2V", "FLF2V"])
def test_the_picture_branch_gives_what_diffusers_pipeline_gives(tmp_path: Path, last: bool) -> None:
    folder = save_clip_branch(tmp_path / "i2v", pictures=2 if last else 1)
    family = load(folder, CARD, CPU, torch.float32)
    assert (theirs(folder, last, 5.0, 3.0) - ours(family, last, 5.0, 3.0)).abs().max() <= 1e-4


def test_a_transformer_in_the_original_layout_is_the_same_transformer(tmp_path: Path) -> None:
    folder = save_clip_branch(tmp_path / "i2v")
    before = ours(load(folder, CARD, CPU, torch.float32), False, 1.0, 3.0)
    save_original(folder / "transformer")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert config["_class_name"] == "WanModel" and "blocks.0.self_attn.q.weight" in load_file(
        folder / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    after = ours(load(folder, CARD, CPU, torch.float32), False, 1.0, 3.0)
    assert (after - before).abs().max() <= 1e-5
