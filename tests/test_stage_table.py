"""The table of stages: what it measures, how it compares, and that equal models show no effect."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dreamontage.generator.evaluation.stage_table import MEASURES, Row, compare, held_out, markdown, run_stage_table
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.training.cut_discriminator import CutDiscriminator
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.trainer import Models

PICTURES = [replace(paint(seed, 160), kind="own") for seed in range(2)]


def row(**values: float) -> Row:
    """A shot's values; those not given cannot be known."""
    return {one.name: values.get(one.name) for one in MEASURES}


def test_a_comparison_knows_which_way_is_better_and_when_nothing_is_shown() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 40)
    before = [row(severity=4 + 0.1 * n, motion=1.0, lpips=0.3 + 0.01 * n) for n in noise]
    after = [row(severity=2.0, motion=2.0, lpips=0.3 + 0.01 * n) for n in noise[::-1]]
    found = {one.measure: one for one in compare("b", "a", after, before)}
    assert set(found) == {"severity", "motion", "lpips"}
    assert found["severity"].verdict == "better" and found["motion"].verdict == "more"
    assert found["severity"].preference is not None and found["severity"].preference.mean == 1.0
    assert found["motion"].preference is None
    assert found["lpips"].verdict == "no effect shown"
    assert {one.measure: one.verdict for one in compare("a", "b", before, after)}["severity"] == "worse"


def test_only_shots_that_both_models_were_measured_on_are_compared() -> None:
    found = compare("b", "a", [row(cut=0.0), row(cut=1.0), row()], [row(cut=1.0), row(), row(cut=1.0)])
    (only,) = found
    assert (only.difference.pairs, only.difference.mean) == (1, -1.0)


def test_scenes_of_the_table_show_only_the_given_pictures() -> None:
    scenes = held_out(PICTURES[:1], {"unrelated": 2, "subject": 1}, (64, 32), 4)
    assert [scene.kind for scene in scenes] == ["unrelated", "unrelated", "subject"]
    assert all(scene.first.shape == (32, 64, 3) for scene in scenes)
    assert scenes[2].subject is not None and scenes[0].truth is None


def test_equal_models_show_no_effect_and_the_table_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Models(
        NanoTransformer(
            num_layers=2, num_attention_heads=1, attention_head_dim=24, ffn_dim=32, text_dim=8, freq_dim=16,
            from_condition=True,
        ),
        PromptTokens(8, capacity=8),
    )  # fmt: skip
    vae = NanoAutoencoder((4, 4, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1)).eval().requires_grad_(False)
    scenes = held_out(PICTURES, {"unrelated": 1, "subject": 1}, (64, 32), 4)
    text = run_stage_table({"one": model, "two": model}, vae, scenes, tmp_path, CutDiscriminator())
    numbers = json.loads((tmp_path / "table.json").read_text())
    assert numbers["rows"]["one"] == numbers["rows"]["two"]
    assert {one["verdict"] for one in numbers["compared"]} == {"no effect shown"}
    unrelated, subject = numbers["rows"]["one"]
    assert unrelated["rationality"] is None and unrelated["lpips"] is None
    assert 0 <= subject["rationality"] <= 1 and 1 <= subject["severity"] <= 5 and subject["lpips"] > 0
    assert text == (tmp_path / "table.md").read_text() == markdown_of(numbers)
    assert text.count("| two vs one |") == len(MEASURES) and (tmp_path / "sheet.jpg").is_file()


def markdown_of(numbers: dict[str, dict[str, list[Row]]]) -> str:
    """The table written again from its rows."""
    rows = numbers["rows"]
    return markdown(rows, compare("two", "one", rows["two"], rows["one"]))

