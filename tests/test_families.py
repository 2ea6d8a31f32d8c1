"""Every family gives what its own diffusers pipeline gives: same weights, seed, scheduler and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanVACEPipeline
from numpy.typing import NDArray
from torch import Tensor

from dreamontage.generator.conditioning.encoding import pixels_to_tensor
from dreamontage.generator.models.family import Pin, Sampling, Window, denoise
from dreamontage.generator.models.flow_run import Experts
from dreamontage.generator.models.vace import VaceFamily
from dreamontage.generator.models.wan_autoencoder import WanAutoencoder
from tiny_families import TEXT, save_tiny_vace
from tiny_model import CARD, clip, picture

PARITY = 1e-4
"""Largest difference of normalised latents, in float32."""
SIZE = (64, 64)
TOLD, UNTOLD = "told", "untold"


class Words:
    """Embeddings of two texts, as a text encoder would give them."""

    def __init__(self, tokens: int = 512) -> None:
        torch.manual_seed(9)
        self.known = {TOLD: torch.randn(1, tokens, TEXT), UNTOLD: torch.randn(1, tokens, TEXT)}

    def __call__(self, text: str) -> Tensor:
        return self.known[text]


WORDS = Words()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def loaded(pipeline: type[Any], folder: Path, *absent: str) -> Any:
    pipe = pipeline.from_pretrained(folder, **dict.fromkeys(("text_encoder", "tokenizer", *absent)))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pin(slot: int, frames: NDArray[np.uint8], strength: float = 1.0) -> Pin:
    return Pin(slot, pixels_to_tensor(frames), strength, len(frames) > 1)


def told(pins: list[Pin], slots: int, scale: int = 8, **more: Any) -> Window:
    return Window(slots, SIZE[1] // scale, SIZE[0] // scale, 24, pins, prompt=TOLD, negative=UNTOLD, **more)


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, VaceFamily]:
    folder = save_tiny_vace(tmp_path_factory.mktemp("vace"))
    pipe = loaded(WanVACEPipeline, folder, "transformer_2")
    vae = WanAutoencoder.from_pretrained(folder / "vae")
    return pipe, VaceFamily(CARD, vae, Experts(pipe.transformer), pipe.scheduler, WORDS)


STILLS: Mapping[str, dict[int, NDArray[np.uint8]]] = {
    "first": {0: picture(1, SIZE)[None]},
    "first and last": {0: picture(1, SIZE)[None], 4: picture(2, SIZE)[None]},
    "a clip in the middle": {0: picture(1, SIZE)[None], 2: clip(3, 5, SIZE)},
}


@pytest.mark.parametrize("pinned", STILLS.values(), ids=STILLS)
def test_vace_equals_its_diffusers_pipeline(
    vace: tuple[Any, VaceFamily], pinned: dict[int, NDArray[np.uint8]]
) -> None:
    pipe, family = vace
    video, mask = torch.full((1, 17, 3, *SIZE[::-1]), 0.5), torch.ones(1, 17, 3, *SIZE[::-1])
    for slot, frames in pinned.items():
        video[0, 4 * slot : 4 * slot + len(frames)] = torch.from_numpy(frames / 255).permute(0, 3, 1, 2)
        mask[0, 4 * slot : 4 * slot + len(frames)] = 0
    theirs = pipe(
        video=video, mask=mask, prompt_embeds=WORDS(TOLD), negative_prompt_embeds=WORDS(UNTOLD),
        height=SIZE[1], width=SIZE[0], num_frames=17, num_inference_steps=3, guidance_scale=4.0, generator=seeded(),
        output_type="latent",
    ).frames  # fmt: skip
    pins = [pin(slot, frames) for slot, frames in pinned.items()]
    ours = denoise(family.begin(told(pins, 5), Sampling(3, guidance=4.0, shift=3.0), seeded()))
    assert (ours.own - theirs[0]).abs().max() <= PARITY
