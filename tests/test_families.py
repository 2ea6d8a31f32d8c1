"""Every family gives what its own diffusers pipeline gives: same weights, seed, scheduler and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline, WanImageToVideoPipeline, WanVACEPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from numpy.typing import NDArray
from PIL import Image
from tiny_families import TEXT, in_slots, save_tiny_ltx, save_tiny_ti2v, save_tiny_vace
from tiny_model import CARD, clip, picture
from torch import Tensor

from dreamontage.generator.conditioning.encoding import pixels_to_tensor
from dreamontage.generator.models.family import Pin, Sampling, Tail, Window, denoise
from dreamontage.generator.models.ltx import LtxFamily
from dreamontage.generator.models.ti2v import Ti2vFamily, encode_pin
from dreamontage.generator.models.vace import VaceFamily

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


def told_by_words(family: Any) -> Any:
    """Embeddings that differ from text to text, where a tiny checkpoint has no encoder."""
    family.texts._known = {text: rows[0] for text, rows in WORDS.known.items()}
    return family


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
    return pipe, told_by_words(VaceFamily.load(folder, CARD, torch.device("cpu"), torch.float32))


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


def test_vace_keeps_carried_latents_and_a_held_end_verbatim_and_its_mask_says_what_to_make(
    vace: tuple[Any, VaceFamily],
) -> None:
    _, family = vace
    rest, held = torch.randn(2, 16, 2, 8, 8, generator=seeded()).unbind()
    tail = Tail(pixels_to_tensor(picture(5, SIZE)[None]), rest)
    window = told([pin(1, picture(2, SIZE)[None]), pin(5, clip(3, 9, SIZE))], 10, tail=tail, held=held)
    run = family.begin(window, Sampling(2), seeded())
    found = denoise(run).latents
    assert torch.equal(found[:, 1:3], rest) and torch.equal(found[:, -2:], held)
    assert torch.equal(found[:, 6:8], run.cond[:, 6:8])  # the inside of the clip
    make = run.control[0, 32:, :, 0, 0]
    assert make.shape == (64, 10) and make[0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    weak = family.begin(told([pin(2, clip(3, 9, SIZE), 0.5)], 5), Sampling(2), seeded())
    assert not weak.fixed.any() and 0.5 in weak.control[0, 32, :, 0, 0]


@pytest.fixture(scope="module")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Ti2vFamily]:
    folder = save_tiny_ti2v(tmp_path_factory.mktemp("ti2v"))
    pipe = loaded(WanImageToVideoPipeline, folder, "image_encoder", "image_processor", "transformer_2")
    return pipe, told_by_words(Ti2vFamily.load(folder, CARD, torch.device("cpu"), torch.float32))


def test_ti2v_equals_its_diffusers_pipeline(ti2v: tuple[Any, Ti2vFamily]) -> None:
    pipe, family = ti2v
    theirs = pipe(
        image=Image.fromarray(picture(1, SIZE)), prompt_embeds=WORDS(TOLD), negative_prompt_embeds=WORDS(UNTOLD),
        height=SIZE[1], width=SIZE[0], num_frames=17, num_inference_steps=3, guidance_scale=5.0, generator=seeded(),
        output_type="latent",
    ).frames  # fmt: skip
    window = told([pin(0, picture(1, SIZE)[None])], 5, 16)
    ours = denoise(family.begin(window, Sampling(3, guidance=5.0, shift=5.0), seeded()))
    assert (ours.latents - theirs[0]).abs().max() <= PARITY


def test_ti2v_keeps_what_is_known_at_any_slot_and_lets_weaker_slots_go(ti2v: tuple[Any, Ti2vFamily]) -> None:
    _, family = ti2v
    rest, held = torch.randn(2, 48, 2, 4, 4, generator=seeded()).unbind()
    tail = Tail(pixels_to_tensor(picture(5, SIZE)[None]), rest)
    pins = [pin(4, clip(3, 5, SIZE)), pin(7, picture(1, SIZE)[None], 0.5)]
    run = family.begin(told(pins, 11, 16, tail=tail, held=held), Sampling(4), seeded())
    found = denoise(run)
    assert torch.equal(found.latents[:, 1:3], rest) and torch.equal(found.latents[:, -2:], held)
    middle = encode_pin(family.vae, pins[0])
    assert middle.shape[1] == 2 and torch.equal(found.latents[:, 4:6], middle)
    assert (found.own - found.latents).abs().max() < 1e-4  # what is known is reached by the schedule, not only put in
    weak = encode_pin(family.vae, pins[1])[:, 0]
    assert not torch.allclose(found.latents[:, 7], weak, atol=0.01)
    stronger = family.begin(told([pin(7, picture(1, SIZE)[None], 1.0)], 11, 16), Sampling(4), seeded())
    assert torch.equal(denoise(stronger).latents[:, 7], weak)


def test_the_autoencoder_of_ti2v_decodes_slot_by_slot_what_it_decodes_whole(ti2v: tuple[Any, Ti2vFamily]) -> None:
    vae = ti2v[1].vae
    latents, state, slots = torch.randn(1, 48, 3, 4, 4, generator=seeded()), None, []
    with torch.no_grad():
        for slot in range(3):
            frames, state = vae.decode_slot(latents[:, :, slot : slot + 1], state)
            slots.append(frames)
        assert torch.equal(torch.cat(slots, dim=2), vae.decode(latents).sample)


@pytest.fixture(scope="module")
def ltx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LtxFamily]:
    folder = save_tiny_ltx(tmp_path_factory.mktemp("ltx"))
    pipe = loaded(LTXConditionPipeline, folder)
    return pipe, told_by_words(LtxFamily.load(folder, CARD, torch.device("cpu"), torch.float32))


LTX_PINS: Mapping[str, dict[int, tuple[NDArray[np.uint8], float]]] = {
    "first": {0: (picture(1, SIZE)[None], 1.0)},
    "first, middle and a weaker last": {
        0: (picture(1, SIZE)[None], 1.0), 3: (picture(2, SIZE)[None], 1.0), 6: (picture(3, SIZE)[None], 0.6)
    },
    "clips": {0: (clip(1, 9, SIZE), 0.8), 2: (clip(2, 25, SIZE), 1.0)},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers' own pipeline
@pytest.mark.parametrize("pinned", LTX_PINS.values(), ids=LTX_PINS)
def test_ltx_equals_its_diffusers_pipeline(
    ltx: tuple[Any, LtxFamily], pinned: dict[int, tuple[NDArray[np.uint8], float]]
) -> None:
    pipe, family = ltx
    conditions = [
        LTXVideoCondition(video=[Image.fromarray(f) for f in frames], frame_index=8 * slot, strength=strength)
        for slot, (frames, strength) in pinned.items()
    ]
    mask = torch.ones(1, 512)
    theirs = pipe(
        conditions=conditions, prompt_embeds=WORDS(TOLD), prompt_attention_mask=mask,
        negative_prompt_embeds=WORDS(UNTOLD), negative_prompt_attention_mask=mask, height=SIZE[1], width=SIZE[0],
        num_frames=49, frame_rate=24, num_inference_steps=4, guidance_scale=3.0, generator=seeded(),
        output_type="latent",
    ).frames  # fmt: skip
    pins = [pin(slot, frames, strength) for slot, (frames, strength) in pinned.items()]
    ours = denoise(family.begin(told(pins, 7, 32), Sampling(4, guidance=3.0), seeded()))
    assert (ours.own - theirs[0]).abs().max() <= PARITY


def test_ltx_keeps_carried_latents_and_a_held_end_verbatim(ltx: tuple[Any, LtxFamily]) -> None:
    _, family = ltx
    rest, held = torch.randn(2, 16, 2, 2, 2, generator=seeded()).unbind()
    tail = Tail(pixels_to_tensor(picture(5, SIZE)[None]), rest)
    window = told([pin(1, picture(2, SIZE)[None]), pin(4, clip(3, 25, SIZE))], 11, 32, tail=tail, held=held)
    run = family.begin(window, Sampling(3), seeded())
    assert run.latents.shape[1] == 4 * (2 + 11)  # the picture inside the tail is not written again
    found = denoise(run).latents
    assert torch.equal(found[:, 1:3], rest) and torch.equal(found[:, -2:], held)
    assert torch.equal(found[:, 6:8], run.canvas.clean[:, 6:8])  # of the clip, what follows its first two slots


def test_the_autoencoder_of_ltx_decodes_slots_as_it_decodes_whole_where_it_sees_enough(
    ltx: tuple[Any, LtxFamily],
) -> None:
    vae = ltx[1].vae
    latents = torch.randn(1, 16, 7, 2, 2, generator=seeded())
    with torch.no_grad():
        whole = vae.decode(*vae._noised(latents, 0)).sample.clamp(-1, 1)
    assert torch.equal(in_slots(vae, latents), whole)
