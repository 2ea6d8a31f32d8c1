"""Wan image-to-video on checkpoints in the real formats: equal to diffusers' own pipeline, and a whole shot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from desk import Desk
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline
from diffusers.pipelines.wan import pipeline_wan_i2v
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_model import picture
from tiny_wan import save_clip_branch, save_original, save_tiny_wan

from dreamontage.generator.conditioning.encoding import encode_video, pixels_to_tensor
from dreamontage.generator.decoding import StreamingEncoder
from dreamontage.generator.fingerprint import decide
from dreamontage.generator.models.family import Pin, Window, denoise
from dreamontage.generator.models.loading import load_model
from dreamontage.generator.models.wan import WanFamily
from dreamontage.generator.pipeline import NANO
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.sampling import Sampling
from dreamontage.generator.video import read_back
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Beat, Camera, Format, Montage

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
    family = WanFamily.load(experts, CARD, CPU, torch.float32)
    assert (theirs(experts, last, 3.5, 5.0) - ours(family, last, 3.5, 5.0)).abs().max() <= 1e-4


@pytest.mark.parametrize("last", [False, True], ids=["I2V", "FLF2V"])
def test_the_picture_branch_gives_what_diffusers_pipeline_gives(tmp_path: Path, last: bool) -> None:
    folder = save_clip_branch(tmp_path / "i2v", pictures=2 if last else 1)
    family = WanFamily.load(folder, CARD, CPU, torch.float32)
    assert (theirs(folder, last, 5.0, 3.0) - ours(family, last, 5.0, 3.0)).abs().max() <= 1e-4


def test_a_transformer_in_the_original_layout_is_the_same_transformer(tmp_path: Path) -> None:
    folder = save_clip_branch(tmp_path / "i2v")
    before = ours(WanFamily.load(folder, CARD, CPU, torch.float32), False, 1.0, 3.0)
    save_original(folder / "transformer")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert config["_class_name"] == "WanModel" and "blocks.0.self_attn.q.weight" in load_file(
        folder / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    after = ours(WanFamily.load(folder, CARD, CPU, torch.float32), False, 1.0, 3.0)
    assert (after - before).abs().max() <= 1e-5


def test_the_autoencoder_encodes_in_pieces_what_it_encodes_whole(experts: Path) -> None:
    vae = WanFamily.load(experts, CARD, CPU, torch.float32).vae
    video = torch.rand(17, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    stream = StreamingEncoder(vae)
    pieces = [stream.next(video[start:stop]) for start, stop in ((0, 5), (5, 13), (13, 17))]
    assert torch.equal(torch.cat(pieces, dim=1), encode_video(vae, video.transpose(0, 1)))


def test_a_lora_goes_on_the_first_expert_by_name_and_weight(experts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a14b"
    shutil.copytree(experts, folder)
    family = WanFamily.load(folder, CARD, CPU, torch.float32)
    plain = ours(family, True, 1.0, 5.0)
    state = {
        f"transformer.blocks.0.attn1.to_q.lora_{side}.weight": torch.full(shape, 0.3)
        for side, shape in (("A", (4, 32)), ("B", (32, 4)))
    }
    (folder / "loras").mkdir()
    save_file(state, folder / "loras" / "arbitrary-frames.safetensors")

    def with_lora(*loras: str) -> torch.Tensor:
        sampling = Sampling(steps=4, shift=5.0, loras=loras)
        return denoise(family.begin(window(True), sampling, torch.Generator().manual_seed(7))).latents

    half, whole = with_lora("arbitrary-frames:0.5"), with_lora("arbitrary-frames")
    assert 1e-3 < (half - plain).abs().max() < (whole - plain).abs().max()
    assert not any("lora" in name for name, _ in family.experts.low.named_parameters())
    assert torch.equal(with_lora(), plain)
    with pytest.raises(InvalidInput, match="not installed"):
        with_lora("others")


def test_a_montage_is_rendered_and_delivered_in_its_own_format(
    experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 16 fps and its own size, a montage of 24 fps: planned and rendered as the model, shown as asked."""
    card = CARD.model_copy(
        update={
            "id": "a14b", "condition": "apart", "fps": 16, "sizes": {"draft": {"16:9": (128, 64)}}, "window": 5,
            "overlap": 2, "shortest": 2, "settings": ["steps", "guidance", "shift", "guide", "t0", "loras"],
            "defaults": RenderSettings(steps=2, guidance=2.0, shift=5.0, guide="off"),
        }
    )  # fmt: skip
    shutil.copytree(experts, tmp_path / "models" / "a14b")
    (tmp_path / "models" / "a14b" / "card.json").write_text(card.model_dump_json(exclude={"available"}))
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path / "models"))
    desk = Desk(tmp_path, tmp_path / "models" / "a14b")
    anchors = [Anchor(id=f"a{i}", media_id=desk.still(i + 1), second=s) for i, s in enumerate((0.0, 1.0))]
    shape = Format(width=512, height=288, fps=24)
    beats = [Beat(start_s=0, end_s=2, prompt="forest", camera=Camera(move="pan", direction="left"))]
    montage = Montage(
        id="m_1", brief="pan left", format=shape, duration_s=1.25, model="a14b", seed=3, anchors=anchors, beats=beats
    )
    video = desk.render(montage, load=load_model)
    read = read_back(Path(video.path))
    assert (read.width, read.height, read.fps) == (256, 144, 24.0)
    plan = plan_montage(montage, desk.media, card, "draft")
    assert (plan.format.width, plan.format.fps, plan.frames) == (128, 16, 21) and len(plan.segments) > 1
    assert read.frames == 31 and abs(plan.duration_s - 31 / 24) < 1e-3
    assert "128x64, 16 fps" in plan.warnings[-1] and "256x144, 24 fps" in plan.warnings[-1]
    told = video.report
    assert (told.width, told.height, told.fps, told.frames) == (256, 144, 24, 31)
    assert [anchor.frame for anchor in told.anchors] == [0, 24]
    request = RenderRequest(quality="draft")
    kept = decide(plan, montage, desk.media, card, request, video)
    assert [decision.take for decision in kept] == [segment.fingerprint for segment in video.segments]
    other = montage.model_copy(update={"brief": "pan right"})
    assert {decision.action for decision in decide(plan, other, desk.media, card, request, video)} == {"render"}


def test_the_guide_is_where_denoising_starts_and_leaves_the_condition_alone(experts: Path) -> None:
    family = WanFamily.load(experts, CARD.model_copy(update={"condition": "apart"}), CPU, torch.float32)
    guide = torch.randn(16, SLOTS, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(3))

    def begun(guide: torch.Tensor | None, t0: float) -> Any:
        sampling = Sampling(steps=4, shift=3.0, t0=t0)
        return family.begin(replace(window(True), guide=guide), sampling, torch.Generator().manual_seed(7))

    run, plain, loose = begun(guide, 0.6), begun(None, 1.0), begun(guide, 1.0)
    assert [round(float(time)) for time in run.times] == [600, 500, 375, 214]
    assert torch.allclose(run.latents[0, :, 1:], 0.4 * guide[:, 1:] + 0.6 * plain.latents[0, :, 1:], atol=1e-6)
    assert torch.equal(run.cond, plain.cond) and not torch.equal(loose.cond, plain.cond)
    assert torch.equal(loose.mask, plain.mask) and denoise(run).latents.isfinite().all()
