"""`dreamontage bench`: the estimate against counted networks, and measurements on the device at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from dreamontage.generator.bench import phases
from dreamontage.generator.bench.cli import app
from dreamontage.generator.bench.counting import LiveBytes
from dreamontage.generator.bench.estimating import Check, checks
from dreamontage.generator.bench.measuring import Measured, Phase, measure, tried
from dreamontage.generator.bench.networks import network_of, save_random
from dreamontage.generator.bench.windows import rows
from dreamontage.generator.footprint import footprint
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.loading import load_model
from dreamontage.schemas.profile import PLAIN, Switches

CPU = torch.device("cpu")
FAMILIES = ["wan21-fun-inp-1.3b", "wan22-i2v-a14b", "wan21-vace-1.3b", "wan22-ti2v-5b", "ltx-video-2b", "ltx-2-19b"]


@pytest.mark.parametrize("name", ["wan21-fun-inp-1.3b", "ltx-video-2b"])
def test_the_estimate_holds_against_the_real_classes_at_their_real_width(name: str) -> None:
    card = tried(catalogue.card(name), layers=4, small=False).model_copy(update={"window": 5})
    found = list(checks(card, [card.sizes["draft"]["16:9"]]))
    assert {check.kind for check in found} == {"parameters", "work", "memory"}
    assert [f"{check.what} {check.kind} {check.ratio:.2f}" for check in found if not check.holds] == []


def test_an_estimate_may_promise_too_much_memory_by_a_quarter_and_too_little_by_a_tenth() -> None:
    ratios = {0.85: False, 0.95: True, 1.2: True, 1.3: False}
    assert {said: Check("m", "pass", "memory", said, 1.0, "GB").holds for said in ratios} == ratios


def test_live_bytes_count_every_storage_once_until_its_last_tensor_is_gone() -> None:
    known = torch.zeros(1000)
    with LiveBytes([known]) as live:
        first = known + 1
        view = first.view(10, 100).t()
        del first
        assert (live.now, live.peak) == (4000, 4000)
        del view
        second = known[:500] * 2
        assert (live.now, live.peak, len(second)) == (2000, 4000, 500)


def test_attention_is_counted_as_a_fused_kernel_without_a_square_matrix() -> None:
    tokens = 4096
    with FakeTensorMode(), torch.no_grad():
        query = torch.zeros(1, 2, tokens, 64, dtype=torch.bfloat16)
        with LiveBytes([query]) as live:
            F.scaled_dot_product_attention(query, query, query)
    assert live.peak < 2 * tokens * tokens / 8


@pytest.mark.parametrize("name", FAMILIES)
def test_random_weights_in_the_models_own_format_are_loaded_and_denoised_as_the_product_does(
    name: str, tmp_path: Path
) -> None:
    card = tried(catalogue.card(name), None, small=True)
    model = load_model(save_random(card, tmp_path, thin=True), CPU)
    run = phases.begin(model, (4 * card.scale, 4 * card.scale), 5, 2)
    latents = phases.step(run, run.latents, run.times[0])
    made = run.finish(latents).latents
    assert made.shape == (network_of(card).out_channels, 5, 4, 4) and made.isfinite().all()


def test_switches_are_measured_against_the_same_window_run_plain(tmp_path: Path) -> None:
    card = tried(catalogue.card("wan21-fun-inp-1.3b"), None, small=True)
    folder = save_random(card, tmp_path, thin=True)
    tries = [PLAIN, Switches(offload="group"), Switches(storage="fp8")]
    plain, offloaded, coarse = (measure(folder, 16, (32, 32), 5, 2, switches, CPU) for switches in tries)
    assert torch.equal(plain.latents, offloaded.latents)
    assert 0 < (plain.latents - coarse.latents).abs().mean() < 0.1
    assert plain.step.seconds > 0 and plain.step.memory_gb is None


def test_the_share_of_a_known_gpus_peak_is_its_work_over_its_seconds() -> None:
    card = catalogue.card("wan21-fun-inp-1.3b")
    said = footprint(card, (848, 480), 21, PLAIN)
    seconds = said.step_tflop / (0.5 * 989)
    found = Measured(Phase(1, 8.0), Phase(seconds, 5.5), Phase(1, 21.0), torch.zeros(1))
    _, step, _ = rows(found, said, "NVIDIA H200")
    assert step[-1] == "50%" and step[2].endswith("(at 40%)") and step[3:5] == ("5.50", f"{said.step_gb - 1:.2f}")
    assert rows(found, said, "NVIDIA RTX A4000")[1][-1] == "not known"


def test_the_commands_say_what_a_cpu_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    small = ["wan21-fun-inp-1.3b", "--small", "--size", "32x32", "--slots", "5", "--steps", "1"]
    window = CliRunner().invoke(app, ["window", *small], catch_exceptions=False)
    assert window.exit_code == 0 and "share of its peak is not known" in window.stdout
    told = CliRunner().invoke(
        app,
        ["switches", *small, "--profile", "auto,storage=fp8", "--profile", "auto,quantise=int4"],
        catch_exceptions=False,
    )
    assert told.exit_code == 0 and "storage=fp8" in told.stdout and "Not here: quantise=int4" in told.stdout
