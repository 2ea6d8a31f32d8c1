"""LoRA on a Wan-layout base in the real format: what a base must be, its conditions, training, and the way back."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from safetensors.torch import load_file
from tiny_model import picture
from tiny_wan import save_tiny_wan
from typer.testing import CliRunner

from dreamontage.generator.models.catalogue import folder_hash
from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.models.wan_text import TEXT_TOKENS, WanPrompts, phrases, spoken
from dreamontage.generator.pipeline import NANO, DreaMontagePipeline
from dreamontage.generator.training.adapt import AdaptTraining, late_times
from dreamontage.generator.training.cli import app
from dreamontage.generator.training.cut_discriminator import CutDiscriminator
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.lora import AdapterView, LoraAdaptTrainer, LoraOptions, adapter_weights, lora_models
from dreamontage.generator.training.lora_run import encode_wan_shots, load_wan_samples, lora_recipe, train_lora
from dreamontage.generator.training.samples import Sample, collate
from dreamontage.generator.training.shots import ShotAnchor, ShotBeat, draw_shot, save_shot
from dreamontage.generator.training.wan import load_transformer, load_vae, posterior, read_facts
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.montage import Camera

CPU = torch.device("cpu")
FAST = AdaptTraining(minutes=None, steps=30, tokens=40, bf16=False, adam_lr=2e-2, warm_up=1e-3, ema=0.9)
RANK = LoraOptions(rank=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("bases") / "wan")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    mixture = ClipMixture([replace(paint(seed, 192), kind="own") for seed in range(3)])
    folder = tmp_path_factory.mktemp("shots")
    for index in range(4):
        drawn = draw_shot(5, index, mixture, (32, 32), slots=5)
        anchors = (ShotAnchor(0, 1), ShotAnchor(2, 2) if index == 0 else ShotAnchor(3, 1))
        save_shot(replace(drawn, anchors=anchors, tail=0), folder / f"{index}.npz")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def latents(base: Path, shots: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return encode_wan_shots(shots, tmp_path_factory.mktemp("latents"), read_facts(base), CPU, lambda _: None)


@pytest.fixture(scope="module")
def samples(latents: list[Path]) -> list[Sample]:
    return load_wan_samples(latents)


def trainer_of(base: Path, samples: list[Sample], config: AdaptTraining = FAST) -> LoraAdaptTrainer:
    facts = read_facts(base)
    return LoraAdaptTrainer(lora_recipe(config, facts), samples, models=lora_models(facts, RANK, [], CPU, 0, False))


def base_weights(transformer: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(transformer.state_dict().items()):
        if "lora" not in name:
            digest.update(name.replace("base_layer.", "").encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_a_base_tells_its_own_numbers(base: Path, tmp_path: Path) -> None:
    facts = read_facts(base)
    assert (facts.shift, facts.boundary, facts.text_dim, facts.images) == (3.0, 0.0, 24, 0)
    assert "empty prompt" in " ".join(facts.remarks())
    experts = read_facts(save_tiny_wan(tmp_path, text=True, boundary=0.9))
    assert experts.boundary == 0.9 and "two experts" in " ".join(experts.remarks())


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "vae" / "config.json").unlink(), "vae/config.json is missing"),
        (lambda folder: rewrite(folder / "transformer", in_channels=16), "takes 16 channels"),
        (lambda folder: rewrite(folder / "transformer", _class_name="FluxTransformer2DModel"), "not a WanTransformer"),
        (lambda folder: rewrite(folder / "vae", z_dim=48, scale_factor_spatial=16), "autoencoder"),
    ],
)
def test_a_folder_that_is_no_base_is_refused_with_what_would_be_one(
    break_it: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = save_tiny_wan(tmp_path / "odd")
    break_it(folder)
    with pytest.raises(InvalidInput, match=said) as refused:
        read_facts(folder)
    assert refused.value.allowed and str(tmp_path) not in str(refused.value)


def rewrite(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_empty_slots_hold_grey_and_conditions_are_encoded_alone(base: Path, samples: list[Sample]) -> None:
    vae = load_vae(read_facts(base), CPU)
    clip, stills = samples[0], samples[1]
    slots, height, width = clip.shape
    grey, _ = posterior(vae, torch.zeros(3, 4 * slots - 3, 8 * height, 8 * width))
    plain = collate([clip], [False], torch.Generator().manual_seed(0))
    assert grey.abs().mean() > 0.05
    assert torch.allclose(plain.cond[0, :, [1, 4]], grey[:, [1, 4]], atol=2e-3)
    assert plain.mask[0, :, :, 0, 0].T.tolist() == [[1] * 4, [0] * 4, [0, 0, 0, 1], [1] * 4, [0] * 4]
    assert torch.allclose(plain.cond[0, :, 0], clip.heads[0, :, 0].float())
    assert torch.allclose(plain.cond[0, :, 2], clip.heads[1, :, 0].float())
    other = collate([clip], [False], torch.Generator().manual_seed(1))
    moved = (plain.cond - other.cond).abs().amax((0, 1, 3, 4)) > 0
    assert moved.tolist() == [False, False, False, True, False]  # the clip's second slot alone is re-sampled
    assert clip.spread.shape == clip.truth.shape
    expected = (plain.cond[0, :, 3] - clip.truth[:, 3].float()) / clip.spread[:, 3]
    assert 0.8 < expected.std() < 1.2
    guided = collate([stills], [True], torch.Generator().manual_seed(0))
    assert torch.equal(guided.cond[0, :, 1], stills.guide[:, 1].float())


def test_the_loss_falls_and_only_the_adapter_moves(base: Path, samples: list[Sample]) -> None:
    before_on_disk = folder_hash(base)
    trainer = trainer_of(base, samples[:1], replace(FAST, modes=(("off", 0.5), ("loose", 0.5))))
    before = base_weights(trainer.transformer)
    assert before == base_weights(load_transformer(read_facts(base), CPU, bf16=False))
    trained = [name for name, param in trainer.transformer.named_parameters() if param.requires_grad]
    assert len(trained) == 2 * 2 * 4 * 2 and all("lora" in name for name in trained)

    def loss() -> float:
        kept, values = trainer.step, []
        for trainer.step in range(4):  # the batches, noise and times of these steps
            with torch.no_grad():
                values.append(trainer.losses()[0].item())
        trainer.step = kept
        return sum(values)

    first = loss()
    for step in range(40):
        trainer.step = step % 4
        trainer.train_step()
    assert loss() < 0.9 * first
    assert base_weights(trainer.transformer) == before and folder_hash(base) == before_on_disk


def test_checkpointed_blocks_and_feed_forward_layers_train_alike(base: Path, samples: list[Sample]) -> None:
    facts, gradients = read_facts(base), []
    for checkpointing in (False, True):
        options = LoraOptions(rank=2, alpha=4, feed_forward=True, checkpointing=checkpointing)
        trainer = LoraAdaptTrainer(FAST, samples, models=lora_models(facts, options, [], CPU, 0, False))
        trainer.train_step()
        gradients.append([param.grad for param in trainer.fast_parameters()])
        assert any("ffn" in name for name in adapter_weights(trainer.transformer))
    for plain, again in zip(*gradients, strict=True):
        assert plain is not None and again is not None and torch.allclose(plain, again, atol=1e-6)


def test_a_resumed_run_is_the_same_bit_for_bit(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    whole = trainer_of(base, samples)
    for _ in range(2):
        whole.train_step()
    whole.save(tmp_path / "checkpoint.pt")
    rest = [whole.train_step()["loss"] for _ in range(2)]
    resumed = trainer_of(base, samples)
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.train_step()["loss"] for _ in range(2)] == rest
    for ours, theirs in zip(resumed.slow_parameters(), whole.slow_parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture(scope="module")
def adapter(base: Path, shots: list[Path], latents: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    (out / "latents").symlink_to(latents[0].parent)
    return train_lora(replace(FAST, steps=3), RANK, base, out, shots)


def test_a_run_leaves_an_adapter_a_curve_and_strips(base: Path, adapter: Path) -> None:
    assert {"checkpoint.pt", "curve.csv", "curve.png", "strips.jpg", "recipe.json"} <= {
        path.name for path in adapter.parent.iterdir()
    }
    weights = load_file(adapter / "pytorch_lora_weights.safetensors")
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    recipe = json.loads((adapter.parent / "recipe.json").read_text())
    assert recipe["shift"] == 3.0


def test_an_adapter_changes_the_shot_and_goes_without_a_trace(base: Path, adapter: Path) -> None:
    facts = read_facts(base)
    pipe = DreaMontagePipeline(
        vae=load_vae(facts, CPU),
        transformer=load_transformer(facts, CPU, bf16=False),
        prompt_tokens=WanPrompts.of(base, facts.text_dim, CPU),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=facts.shift),
    )
    pipe.card = NANO.model_copy(update={"empty_condition": "grey"})
    pipe.set_progress_bar_config(disable=True)

    def shot() -> torch.Tensor:
        pinned = [(picture(1), 0.0), (picture(2), 0.5)]
        form = {"width": 256, "height": 144, "fps": 8, "guide": "off", "output_type": "latent"}
        frames = pipe(pinned, generator=torch.Generator().manual_seed(0), num_inference_steps=2, **form).frames
        assert isinstance(frames, torch.Tensor)
        return frames

    plain, weights = shot(), base_weights(pipe.transformer)
    pipe.load_lora_weights(adapter)
    tuned = shot()
    assert (tuned - plain).abs().max() > 1e-3
    pipe.disable_lora()
    assert torch.equal(shot(), plain)
    pipe.unload_lora_weights()
    assert base_weights(pipe.transformer) == weights


def test_diffusers_own_pipeline_reads_the_adapter(base: Path, adapter: Path) -> None:
    pipe = WanImageToVideoPipeline.from_pretrained(base, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    words = torch.zeros(1, TEXT_TOKENS, 24)

    def video() -> torch.Tensor:
        seed = torch.Generator().manual_seed(0)
        call = {"prompt_embeds": words, "negative_prompt_embeds": words, "guidance_scale": 1.0, "generator": seed}
        size = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
        found: torch.Tensor = pipe(torch.zeros(1, 3, 32, 32), **call, **size).frames
        return found

    before = video()
    pipe.load_lora_weights(adapter)
    assert (video() - before).abs().max() > 1e-4


def test_an_adapter_is_where_the_next_stage_begins_if_it_fits(
    base: Path, samples: list[Sample], adapter: Path
) -> None:
    facts = read_facts(base)
    models = lora_models(facts, RANK, [], CPU, 1, False, adapter)
    stored = load_file(adapter / "pytorch_lora_weights.safetensors")
    for name, weight in adapter_weights(models.transformer).items():
        assert torch.equal(weight, stored[f"transformer.{name}"].float())
    with pytest.raises(InvalidInput, match="another rank"):
        lora_models(facts, LoraOptions(rank=2), [], CPU, 0, False, adapter)
    with pytest.raises(InvalidInput, match="no adapter"):
        lora_models(facts, RANK, [], CPU, 0, False, base)


def test_averages_and_references_are_views_on_one_base(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    trainer = trainer_of(base, samples)
    trainer.train_step()
    batch = collate(samples[:1], [False], torch.Generator().manual_seed(0))
    inputs = torch.cat([batch.truth, batch.mask, batch.cond], dim=1), torch.tensor([500.0]), torch.zeros(1, 512, 24)

    def velocity(network: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = network(*inputs, return_dict=False)[0]
            return found

    same = AdapterView(trainer.transformer, trainer.fast_parameters())
    assert torch.equal(velocity(same), velocity(trainer.transformer))
    reference = copy.deepcopy(trainer.slow_transformer)
    averaged, fast = velocity(reference), velocity(trainer.transformer)
    assert not torch.equal(averaged, fast)
    trainer.train_step()
    assert torch.equal(velocity(reference), averaged)
    assert not torch.equal(velocity(trainer.slow_transformer), averaged)
    assert not torch.equal(velocity(trainer.transformer), fast)
    assert sum(param.numel() for param in reference.parameters()) == sum(p.numel() for p in trainer.fast_parameters())
    trainer.publish(tmp_path)
    published = lora_models(read_facts(base), RANK, [], CPU, 1, False, tmp_path).transformer
    assert torch.allclose(velocity(published), velocity(trainer.slow_transformer), atol=1e-3)
    assert not torch.allclose(velocity(published), velocity(trainer.transformer), atol=1e-3)


def test_text_reaches_the_model_with_its_times(tmp_path: Path) -> None:
    beats = (ShotBeat(0, 2, "", Camera(move="pan", direction="left")), ShotBeat(2, 4, "a quiet forest"))
    said = phrases(beats)
    assert spoken(said, 24) == "From 0 to 0.3 s: pan left ease in out. From 0.3 to 0.7 s: a quiet forest."
    prompts = WanPrompts.of(save_tiny_wan(tmp_path, text=True), 24, CPU).train()
    windows = [said, (TimedWord("pan left", 0, 2),), ()]
    prompts.learn(windows)
    assert prompts.text_encoder is None
    first, second, none = prompts(windows)
    assert first.shape == (TEXT_TOKENS, 24) and not first[-1].any()
    assert not torch.equal(first, second) and not torch.equal(second, none) and none[0].any()
    assert torch.equal(prompts([said])[0], first)


@pytest.mark.parametrize("pairs", [None, 514])
def test_a_base_that_attends_to_pictures_is_trained_with_zero_pictures(
    pairs: int | None, samples: list[Sample], tmp_path: Path
) -> None:
    folder = save_tiny_wan(tmp_path, image_dim=20, added_kv_proj_dim=32, pos_embed_seq_len=pairs)
    assert read_facts(folder).images == (1 if pairs is None else 2)
    trainer = trainer_of(folder, samples)
    assert trainer.train_step()["loss"] > 0
    assert any("add_k_proj" in name for name in adapter_weights(trainer.transformer))


def test_the_first_of_two_experts_is_trained_on_its_own_times(tmp_path: Path) -> None:
    recipe = lora_recipe(FAST, read_facts(save_tiny_wan(tmp_path, boundary=0.9)))
    assert recipe.above == 0.9 and "follow" not in dict(recipe.modes)
    times = late_times(200, torch.Generator().manual_seed(0), recipe.shift, recipe.above)
    assert times.min() >= 0.9 and times.max() <= 1


def test_wans_autoencoder_decodes_slot_by_slot_what_it_decodes_at_once(base: Path) -> None:
    vae = load_vae(read_facts(base), CPU)
    latents = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, state, pieces = vae.decode(latents).sample, None, []
        for slot in range(3):
            frames, state = vae.decode_slot(latents[:, :, slot : slot + 1], state)
            pieces.append(frames)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(vae.decode(latents).sample, whole)
    assert torch.equal(torch.cat(pieces, dim=2), whole)


@pytest.mark.parametrize("command", [["adapt"], ["sft"], ["dpo", "--discriminator", "."]])
def test_every_stage_refuses_a_base_that_is_none_before_it_draws_anything(command: list[str], tmp_path: Path) -> None:
    if command[0] == "dpo":
        CutDiscriminator().save_pretrained(tmp_path / "judge")
        command = ["dpo", "--discriminator", str(tmp_path / "judge")]
    call = [*command, "--out", str(tmp_path / "run"), "--base", str(tmp_path)]
    with pytest.raises(InvalidInput, match=r"transformer/config.json is missing"):
        CliRunner().invoke(app, call, catch_exceptions=False)
    assert not (tmp_path / "run" / "shots").exists() and not (tmp_path / "run" / "groups").exists()
