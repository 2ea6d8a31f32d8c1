"""DPO of an adapter on a Wan-layout base: the base itself generates the pairs and is the reference, once in memory."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_wan import save_tiny_wan

from dreamontage.generator.training.cut_discriminator import CutDiscriminator
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.dpo import DpoTraining
from dreamontage.generator.training.dpo_run import Pairing
from dreamontage.generator.training.groups import GroupPlan
from dreamontage.generator.training.lora import LoraOptions, lora_models
from dreamontage.generator.training.lora_dpo import LoraStart, train_lora_dpo
from dreamontage.generator.training.preferences import Gaps, Pair
from dreamontage.generator.training.wan import read_facts
from dreamontage.schemas.errors import InvalidInput

CPU = torch.device("cpu")
FAST = DpoTraining(minutes=None, steps=2, tokens=24, bf16=False, adam_lr=1e-2, warm_up=1e-3, beta=20.0, ema=0.9)
PLAN = Pairing(GroupPlan((("unrelated", 2),), seeds=2, size=(32, 32), slots=3), Gaps(0.0), Gaps(0.0), (20.0,))


@pytest.fixture(scope="module")
def mixture() -> ClipMixture:
    return ClipMixture([replace(paint(seed, 96), kind="own") for seed in range(3)])


def test_an_adapter_learns_a_preference_and_the_reference_stays(tmp_path: Path) -> None:
    facts = read_facts(save_tiny_wan(tmp_path))
    draws = torch.Generator().manual_seed(0)
    truth, empty = torch.randn(2, 16, 3, 4, 4, generator=draws), torch.full((16, 3, 4, 4), 0.3)
    pair = Pair("cut", truth[0], truth[1], torch.randn(2, 16, 1, 4, 4, generator=draws), (), (-1.0, -5.0), empty)
    start = LoraStart(lora_models(facts, LoraOptions(rank=4), [()], CPU, 0, False))
    trainer = start.trainer(replace(FAST, steps=16, adam_lr=2e-3), [pair])
    assert trainer.losses()[0].item() == pytest.approx(math.log(2), abs=1e-6)
    inputs = torch.randn(1, 36, 3, 4, 4, generator=draws), torch.tensor([500.0]), torch.zeros(1, 512, 24)
    with torch.no_grad():
        before = start.reference(CPU).transformer(*inputs)[0]
    for _ in range(16):
        last = trainer.train_step()
    assert last["accuracy"] == 1 and last["loss"] < 0.95 * math.log(2) and trainer.margins([pair])[0] > 0
    with torch.no_grad():
        assert torch.equal(start.reference(CPU).transformer(*inputs)[0], before)
        assert not torch.equal(trainer.transformer(*inputs)[0], before)
    again = start.trainer(FAST, [pair])
    assert again.losses()[0].item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_run_generates_judges_and_tunes_with_the_base_alone(mixture: ClipMixture, tmp_path: Path) -> None:
    base, out = save_tiny_wan(tmp_path / "base"), tmp_path / "run"
    judge = CutDiscriminator().eval()
    model = train_lora_dpo(FAST, LoraOptions(rank=2), base, None, PLAN, out, mixture, judge)
    weights = load_file(model / "pytorch_lora_weights.safetensors")
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    group = load_file(next((out / "groups").iterdir()))
    assert group["latents"].shape == (2, 16, 3, 4, 4) and group["empty"].any()
    sweep = json.loads((out / "sweep.json").read_text())
    assert [outcome["beta"] for outcome in sweep["outcomes"]] == [0.0, 20.0]


def test_a_base_of_two_experts_is_refused(mixture: ClipMixture, tmp_path: Path) -> None:
    base = save_tiny_wan(tmp_path, boundary=0.9)
    with pytest.raises(InvalidInput, match="two experts"):
        train_lora_dpo(FAST, LoraOptions(), base, None, PLAN, tmp_path / "run", mixture, CutDiscriminator())
