"""LTX-2 gives what its own diffusers pipeline gives, and what that pipeline does not do: clips at any slot."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTX2ConditionPipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from tiny_families import in_slots
from tiny_ltx2 import save_tiny_ltx2
from tiny_model import CARD, clip, picture

from dreamontage.generator.conditioning.encoding import normalise, pixels_to_tensor
from dreamontage.generator.models.family import Pin, Sampling, Tail, Window, denoise
from dreamontage.generator.models.ltx2 import Beside, Canvas, Ltx2Family, Ltx2Run
from dreamontage.schemas.profile import Switches

PARITY = 1e-4
"""Largest difference of normalised latents, in float32."""
SIZE = (64, 64)
TOLD, UNTOLD = "from 0 to 3 s: pan left", "forest"
SLOTS, FPS = 7, 24
Loaded = tuple[Any, Ltx2Family]
Pinned = Mapping[float, tuple[NDArray[np.uint8], float]]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def ltx2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = save_tiny_ltx2(tmp_path_factory.mktemp("ltx2"), newer=request.param == "2.3")
    pipe = LTX2ConditionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for audible in ("audio_vae", "vocoder"):
        shutil.rmtree(folder / audible)
    return pipe, Ltx2Family.load(folder, CARD, torch.device("cpu"), torch.float32)


def theirs(loaded: Loaded, pinned: Pinned, **more: Any) -> torch.Tensor:
    """What the pipeline makes of conditions at its own indices, normalised."""
    pipe, family = loaded
    conditions = [
        LTX2VideoCondition([Image.fromarray(frame) for frame in frames], index, strength, crf=0)
        for index, (frames, strength) in pinned.items()
    ]
    settings = {"num_inference_steps": 4, "guidance_scale": 4.0, "audio_guidance_scale": 4.0} | more
    made = pipe(
        conditions=conditions, prompt=TOLD, negative_prompt=UNTOLD, height=SIZE[1], width=SIZE[0],
        num_frames=8 * (SLOTS - 1) + 1, frame_rate=FPS, stg_scale=0.0, audio_stg_scale=0.0, modality_scale=1.0,
        audio_modality_scale=1.0, guidance_rescale=0.0, audio_guidance_rescale=0.0,
        spatio_temporal_guidance_blocks=None, use_cross_timestep=family.network.config["cross_attn_mod"],
        generator=seeded(), output_type="latent", **settings,
    ).frames  # fmt: skip
    return normalise(family.vae, made[0])


def window(pins: list[Pin], slots: int = SLOTS, **more: Any) -> Window:
    return Window(slots, SIZE[1] // 32, SIZE[0] // 32, FPS, pins, prompt=TOLD, negative=UNTOLD, **more)


def pin(slot: int, frames: NDArray[np.uint8], strength: float = 1.0) -> Pin:
    return Pin(slot, pixels_to_tensor(frames), strength, len(frames) > 1)


PINS: Mapping[str, dict[int, tuple[NDArray[np.uint8], float]]] = {
    "first": {0: (picture(1, SIZE)[None], 1.0)},
    "first, a weaker middle and last": {
        0: (picture(1, SIZE)[None], 1.0), 3: (picture(2, SIZE)[None], 0.6), 6: (picture(3, SIZE)[None], 1.0)
    },
    "a clip at the start": {0: (clip(1, 17, SIZE), 0.8), 6: (picture(2, SIZE)[None], 1.0)},
}  # fmt: skip


@pytest.mark.parametrize("pinned", PINS.values(), ids=PINS)
def test_ltx2_equals_its_diffusers_pipeline(ltx2: Loaded, pinned: dict[int, tuple[NDArray[np.uint8], float]]) -> None:
    """A slot's last frame, where anchors are, is 7 frames after its first, where the pipeline's indices are."""
    expected = theirs(ltx2, {slot + 7 / 8 if slot else 0: at for slot, at in pinned.items()})
    pins = [pin(slot, frames, strength) for slot, (frames, strength) in pinned.items()]
    found = denoise(ltx2[1].begin(window(pins), Sampling(4, guidance=4.0), seeded())).own
    assert (found - expected).abs().max() <= PARITY


def test_eight_steps_without_guidance_are_those_of_the_authors_distillation(
    ltx2: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, family = ltx2
    as_they_are = {"use_dynamic_shifting": False, "shift_terminal": None}
    monkeypatch.setattr(pipe, "scheduler", type(pipe.scheduler).from_config(pipe.scheduler.config, **as_they_are))
    few = {"num_inference_steps": 8, "sigmas": DISTILLED_SIGMA_VALUES, "guidance_scale": 1.0}
    expected = theirs(ltx2, {0: (picture(1, SIZE)[None], 1.0)}, **few, audio_guidance_scale=1.0)
    begun = window([pin(0, picture(1, SIZE)[None])])
    found = denoise(family.begin(begun, Sampling(8, guidance=1.0), seeded())).own
    assert (found - expected).abs().max() <= PARITY


def test_a_picture_on_a_slots_first_frame_is_the_pipelines_whole_index(ltx2: Loaded) -> None:
    family, frames = ltx2[1], picture(2, SIZE)[None]
    known = normalise(family.vae, family.vae.encode(pixels_to_tensor(frames)[None]).latent_dist.mode()[0]).detach()
    canvas = Canvas(torch.zeros(16, SLOTS, 2, 2), torch.zeros(SLOTS), [Beside(known, 8 * 4 - 7, 1.0)])
    texts = [family.texts(TOLD), family.texts(UNTOLD)]
    run = Ltx2Run(family.network, family.scheduler, canvas, texts, Sampling(4, guidance=4.0), seeded(), FPS)
    assert (denoise(run).own - theirs(ltx2, {4: (frames, 1.0)})).abs().max() <= PARITY


def test_a_clip_in_the_middle_is_encoded_after_a_frame_whose_latent_is_no_slot_of_the_video(ltx2: Loaded) -> None:
    family, frames = ltx2[1], clip(3, 17, SIZE)
    run: Any = family.begin(window([pin(2, frames)]), Sampling(2), seeded())
    whole = normalise(family.vae, family.vae.encode(pixels_to_tensor(frames)[None]).latent_dist.mode()[0])
    assert run.canvas.strengths.tolist() == [0, 0, 0, 1, 1, 0, 0]
    found = denoise(run)
    assert torch.equal(found.latents[:, 3:5], whole[:, 1:])
    first, frame, strength = run.canvas.pictures[0]
    assert torch.equal(first, whole[:, :1]) and (frame, strength) == (16, 1.0)
    assert run.places[0, 0, -4:].unique().tolist() == pytest.approx([16 / FPS, 17 / FPS])
    alone = family.vae.encode(pixels_to_tensor(frames[1:10])[None]).latent_dist.mode()[0]  # what the pipeline would do
    assert not torch.allclose(normalise(family.vae, alone)[:, 0], whole[:, 1], atol=0.05)


def test_ltx2_keeps_carried_latents_and_a_held_end_verbatim(ltx2: Loaded) -> None:
    family = ltx2[1]
    rest, held = torch.randn(2, 16, 2, 2, 2, generator=seeded()).unbind()
    tail = Tail(pixels_to_tensor(picture(5, SIZE)[None]), rest)
    pins = [pin(1, clip(2, 25, SIZE)), pin(6, picture(3, SIZE)[None], 0.5)]
    run: Any = family.begin(window(pins, 11, tail=tail, held=held), Sampling(3), seeded())
    assert run.latents.shape[1] == 4 * (11 + 1)  # the clip began inside the tail
    found = denoise(run)
    assert torch.equal(found.latents[:, 9:], held)
    assert torch.equal(found.latents[:, 1], rest[:, 0]) and torch.equal(found.latents[:, 3], run.canvas.clean[:, 3])
    assert (found.own - found.latents).abs().max() < 1e-4  # what is known is reached by the schedule, not only put in


def test_the_guide_starts_a_window_at_t0(ltx2: Loaded) -> None:
    guide = torch.randn(16, SLOTS, 2, 2, generator=seeded())
    begun = window([pin(0, picture(1, SIZE)[None])], guide=guide)
    run: Any = ltx2[1].begin(begun, Sampling(8, t0=0.6), seeded())
    noise = torch.randn(run.latents.shape, generator=seeded())
    assert torch.allclose(run.latents[:, 4:], torch.lerp(run.latents.new_tensor(0) + guide[:, 1:].flatten(1).T[None],
                                                         noise[:, 4:], 0.6))  # fmt: skip
    assert run.times[0] == pytest.approx(600) and len(run.times) < 8 and bool((run.times.diff() < 0).all())
    assert denoise(run).latents.isfinite().all()


def test_gemma_reads_a_text_once_and_is_let_go(ltx2: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    family = ltx2[1]
    family.learn([TOLD, UNTOLD])
    monkeypatch.setattr(family.texts, "folder", Path("nowhere"))
    told, untold = family.texts(TOLD), family.texts(f"  {UNTOLD} ")
    assert told.video.shape[:2] == (1, 1024) and not torch.equal(told.audio, untold.audio)


def test_a_lora_goes_on_the_transformer_and_on_the_connectors(ltx2: Loaded) -> None:
    pipe, family = ltx2
    if hasattr(pipe.connectors, "text_proj_in"):  # names as the authors publish them
        sizes = {"diffusion_model.patchify_proj": (16, 32), "text_embedding_projection.aggregate_embed": (48, 16)}
    else:
        sizes = {"transformer.proj_in": (16, 32), "connectors.video_text_proj_in": (48, 32)}
    torch.manual_seed(6)
    weights = {}
    for name, (inside, outside) in sizes.items():
        weights |= {f"{name}.lora_A.weight": torch.randn(2, inside), f"{name}.lora_B.weight": torch.randn(outside, 2)}
    folder = family.texts.folder / "loras"
    folder.mkdir()
    save_file(weights, folder / "style.safetensors")
    first: Pinned = {0: (picture(1, SIZE)[None], 1.0)}
    plain = theirs(ltx2, first)
    pipe.load_lora_weights(folder / "style.safetensors", adapter_name="style")
    expected = theirs(ltx2, first)
    pipe.unload_lora_weights()
    begun, settings = window([pin(0, picture(1, SIZE)[None])]), Sampling(4, guidance=4.0, loras=("style",))
    found = denoise(family.begin(begun, settings, seeded())).own
    assert (found - expected).abs().max() <= PARITY < 0.01 < (expected - plain).abs().max()
    without = denoise(family.begin(begun, Sampling(4, guidance=4.0), seeded())).own
    assert (without - plain).abs().max() <= PARITY


def test_switches_change_neither_its_latents_where_they_are_exact_nor_its_shape_where_not(ltx2: Loaded) -> None:
    folder, device = ltx2[1].texts.folder, torch.device("cpu")
    begun, settings = window([pin(0, picture(1, SIZE)[None])]), Sampling(2, guidance=4.0)
    plain = denoise(ltx2[1].begin(begun, settings, seeded())).own
    offloaded = Ltx2Family.load(folder, CARD, device, torch.float32, Switches(offload="group"))
    assert torch.equal(denoise(offloaded.begin(begun, settings, seeded())).own, plain)
    small = Ltx2Family.load(folder, CARD, device, torch.float32, Switches(storage="fp8"))
    near = denoise(small.begin(begun, settings, seeded())).own
    assert not torch.equal(near, plain) and (near - plain).abs().mean() < 0.1 and "fp8" in small.computes


def test_its_autoencoder_decodes_slots_as_it_decodes_whole_where_it_sees_enough(ltx2: Loaded) -> None:
    vae, latents = ltx2[1].vae, torch.randn(1, 16, 7, 2, 2, generator=seeded())
    with torch.no_grad():
        whole = vae.decode(latents).sample.clamp(-1, 1)
    assert torch.equal(in_slots(vae, latents), whole)
