"""DreaMontagePipeline as diffusers users expect it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import CARD, clip, picture, save_tiny, tiny_pipeline

from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.video import read_back
from dreamontage.schemas.errors import InvalidInput, SlotTaken

SIZE = {"width": 256, "height": 144, "fps": 8, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def pipe() -> DreaMontagePipeline:
    return tiny_pipeline()


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_five_lines_make_a_shot_of_pil_frames(pipe: DreaMontagePipeline, tmp_path: Path) -> None:
    image = Image.fromarray(picture(1, (320, 180)))
    out = pipe(anchors=[(image, 0), (picture(2), 2.0)], duration=3, generator=seeded(), **SIZE)
    assert len(out.frames[0]) == out.plan.frames == 25
    assert out.frames[0][0].size == (256, 144)
    out.save(tmp_path / "shot.mp4")
    assert read_back(tmp_path / "shot.mp4") == (25, 256, 144, 8)


def test_pictures_clips_dicts_and_beats_are_taken(pipe: DreaMontagePipeline) -> None:
    out = pipe(
        anchors=[
            {"media": picture(1), "second": 0, "strength": 0.5, "fit": "contain"},
            (clip(2, 9), 2.0),
            ([Image.fromarray(frame) for frame in clip(3, 5)], 4.0),
        ],
        beats=[(0, 2, "slow pan left"), {"start_s": 2, "end_s": 4, "camera": {"move": "zoom", "direction": "in"}}],
        output_type="np",
        generator=seeded(),
        **SIZE,
    )
    assert out.frames.shape == (1, 37, 144, 256, 3)
    assert out.frames.dtype == np.float32
    assert 0 <= out.frames.min() <= out.frames.max() <= 1
    landed = [(a.kind, a.frame, a.frames) for a in out.plan.anchors]
    assert landed == [("still", 0, 1), ("clip", 16, 9), ("clip", 32, 5)]


def test_the_same_generator_gives_the_same_latents(pipe: DreaMontagePipeline) -> None:
    def run(seed: int) -> torch.Tensor:
        return pipe(anchors=[(picture(1), 0)], duration=2, generator=seeded(seed), output_type="latent", **SIZE).frames

    first = run(1)
    assert first.shape == (1, 16, 5, 18, 32)
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))


def test_the_step_callback_sees_every_step_and_its_exception_ends_the_call(pipe: DreaMontagePipeline) -> None:
    seen: list[tuple[int, int]] = []

    def on_step(_: object, step: int, segment: int, given: dict[str, torch.Tensor]) -> None:
        seen.append((step, segment))
        assert given["latents"].shape[0] == 16
        if step == 3:
            raise StopAsyncIteration

    call = {**SIZE, "num_inference_steps": 2, "generator": seeded(), "output_type": "latent"}
    with pytest.raises(StopAsyncIteration):
        pipe(anchors=[(picture(1), 0)], duration=9, callback_on_step_end=on_step, **call)
    assert seen == [(0, 0), (1, 0), (2, 1), (3, 1)]


def test_guide_off_and_guidance_change_the_shot_and_no_anchor_at_all_works(pipe: DreaMontagePipeline) -> None:
    def run(**settings: object) -> torch.Tensor:
        call = {**SIZE, "generator": seeded(), "output_type": "latent", **settings}
        return pipe(beats=[(0, 2, "slow pan left")], duration=2, **call).frames

    shots = [run(), run(guide="off"), run(guide="loose"), run(guidance_scale=4.0)]
    assert all(not torch.equal(a, b) for i, a in enumerate(shots) for b in shots[:i])


def test_bad_input_teaches(pipe: DreaMontagePipeline) -> None:
    with pytest.raises(SlotTaken):
        pipe(anchors=[(picture(1), 0), (picture(2), 0.1)], duration=2, **SIZE)
    with pytest.raises(InvalidInput, match="beyond the end"):
        pipe(anchors=[(picture(1), 5)], duration=2, **SIZE)


def test_a_saved_pipeline_loads_in_a_fresh_process_that_imports_only_the_generator(
    pipe: DreaMontagePipeline, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path)
    expected = tiny_pipeline()(
        anchors=[(picture(1), 0)], duration=1, generator=seeded(), output_type="latent", **SIZE
    ).frames
    np.save(tmp_path / "picture.npy", picture(1))
    code = f"""
import diffusers.utils.import_utils as installed
installed._accelerate_available = False
import numpy as np, torch
from dreamontage.generator import DreaMontagePipeline
pipe = DreaMontagePipeline.from_pretrained({str(folder)!r})
latents = pipe(anchors=[(np.load({str(tmp_path / "picture.npy")!r}), 0)], duration=1, width=256, height=144, fps=8,
               num_inference_steps=1, generator=torch.Generator().manual_seed(1), output_type="latent").frames
np.save({str(tmp_path / "latents.npy")!r}, latents.numpy())
print(pipe.card.id, pipe.card.window)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [CARD.id, str(CARD.window)]
    assert "not expected" not in done.stderr
    assert np.allclose(np.load(tmp_path / "latents.npy"), expected.numpy(), atol=1e-5)


def test_models_are_found_by_id_in_extra_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamontage.generator.models import catalogue
    from dreamontage.schemas.errors import NotFound

    folder = save_tiny(tmp_path)
    with pytest.raises(NotFound, match="tiny"):
        catalogue.card("tiny")
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path))
    assert catalogue.card("tiny").available
    assert catalogue.weights_folder("tiny") == folder
    assert DreaMontagePipeline.from_pretrained("tiny").card.id == "tiny"
    before = catalogue.weights_hash("tiny")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert catalogue.weights_hash("tiny") != before


def test_a_listed_model_folder_counts_before_later_ones_and_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamontage.generator.models import catalogue

    shipped = catalogue.weights_folder("nano")
    for root in ("first", "second"):
        (tmp_path / root / "nano").mkdir(parents=True)
        (tmp_path / root / "nano" / catalogue.CARD).write_bytes((shipped / catalogue.CARD).read_bytes())
    monkeypatch.setenv("DREAMONTAGE_MODELS", f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    assert catalogue.weights_folder("nano") == tmp_path / "first" / "nano"


def test_importing_the_generator_and_the_catalogue_needs_no_torch() -> None:
    code = "import sys, dreamontage.generator, dreamontage.generator.models.catalogue; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_weights_kept_in_half_precision_compute_in_float32(tmp_path: Path) -> None:
    small = tiny_pipeline()
    for component in (small.vae, small.transformer, small.prompt_tokens):
        component.half()
    small.save_pretrained(tmp_path)
    loaded = DreaMontagePipeline.from_pretrained(tmp_path)
    for component in (loaded.vae, loaded.transformer, loaded.prompt_tokens):
        assert {parameter.dtype for parameter in component.parameters()} == {torch.float32}
    assert len(loaded(anchors=[(picture(1), 0)], duration=1, generator=seeded(), **SIZE).frames[0]) == 9


def test_latents_are_not_saved_as_a_video(pipe: DreaMontagePipeline, tmp_path: Path) -> None:
    out = pipe(anchors=[(picture(1), 0)], duration=1, generator=seeded(), output_type="latent", **SIZE)
    with pytest.raises(InvalidInput, match="pil or np"):
        out.save(tmp_path / "shot.mp4")
    assert not list(tmp_path.iterdir())
