"""Devices that share a window: two processes give what one gives, stop together, and leave nothing behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_family_shots import OWN, card, media
from tiny_families import TEXT, save_tiny_ti2v, save_tiny_vace
from tiny_model import clip, picture
from tiny_wan import save_tiny_wan
from torch import Tensor

from dreamontage.generator.conditioning.encoding import pixels_to_tensor
from dreamontage.generator.engines.engine import InProcess
from dreamontage.generator.engines.job import SegmentJob
from dreamontage.generator.engines.parallel import ParallelEngine
from dreamontage.generator.engines.sharing import Place, check_parts, check_shared, share, use_loras
from dreamontage.generator.fingerprint import Decision, decide
from dreamontage.generator.graph import render_segments
from dreamontage.generator.memory import gpu_peak_bytes, rendered_elsewhere, reset_peak_memory
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.delivering import load_deliverer
from dreamontage.generator.models.family import Family, Pin, Sampling, Window, denoise
from dreamontage.generator.models.ti2v import Ti2vFamily
from dreamontage.generator.models.vace import VaceFamily
from dreamontage.generator.models.wan import WanFamily
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sar import Shot
from dreamontage.generator.takes import MemoryTakes
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Busy, Cancelled, InvalidInput
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Format, Montage
from dreamontage.schemas.profile import PLAIN, Switches
from dreamontage.server.device import take_device
from dreamontage.server.store import Studio
from dreamontage.server.worker import Worker, devices

PARITY = 1e-4
"""Largest difference of normalised latents between one process and two, in float32."""
CPU = torch.device("cpu")
FAMILIES: dict[str, tuple[Any, Any, int]] = {
    "wan": (WanFamily, save_tiny_wan, 8),
    "vace": (VaceFamily, save_tiny_vace, 8),
    "ti2v": (Ti2vFamily, save_tiny_ti2v, 16),
}
TOKENS = {"wan": [[40], [80]], "vace": [[40], [80]], "ti2v": [[10], [20]]}
"""Of a window, shared and alone."""


def made_with(family: Any, scale: int, *loras: str) -> Tensor:
    """A window's latents with a picture at its start and a clip inside."""
    pins = [Pin(0, pixels_to_tensor(picture(1, OWN)[None])), Pin(2, pixels_to_tensor(clip(3, 5, OWN)), clip=True)]
    window = Window(5, OWN[1] // scale, OWN[0] // scale, 24, pins)
    sampling = Sampling(3, guidance=3.0, shift=3.0, loras=loras)
    return denoise(family.begin(window, sampling, torch.Generator().manual_seed(4))).latents


def save_lora(folder: Path, channels: int) -> None:
    """The LoRA `last`, on the layer that puts a shared window's parts together."""
    (folder / "loras").mkdir()
    torch.manual_seed(8)
    pair = {"lora_A.weight": torch.randn(2, 32), "lora_B.weight": torch.randn(4 * channels, 2)}
    save_file({f"transformer.proj_out.{key}": value for key, value in pair.items()}, folder / "loras/last.safetensors")


def tokens_seen(network: Any) -> set[int]:
    """How many tokens a network's last block is given, from now on."""
    seen: set[int] = set()
    network.blocks[-1].register_forward_pre_hook(lambda _, given: seen.add(given[0].shape[1]))
    return seen


def load(model: str, device: torch.device, switches: Switches) -> Family:
    """Called in every process of the group: the model in float32. Before that every family that can be shared renders a
    window alone and shared, without and with a LoRA; a file tells how far the two are apart and how many tokens each
    was given."""
    folder, rank, found = catalogue.weights_folder(model), torch.distributed.get_rank(), {}
    for name, (kind, _, scale) in FAMILIES.items():
        where = folder.parent / f"for-{name}"
        alone, shared = (kind.load(where, card(name, 4, scale), device, torch.float32) for _ in range(2))
        share(shared, Place(rank, ("cpu", "cpu"), ""), switches)
        apart, seen = [], [tokens_seen(family.experts.high) for family in (shared, alone)]
        for family in (shared, alone):
            family.texts._known[""] = torch.randn(7, TEXT, generator=torch.Generator().manual_seed(6))
        for loras in ((), ("last",)):
            use_loras(shared, loras)
            apart.append(float((made_with(shared, scale, *loras) - made_with(alone, scale, *loras)).abs().max()))
        found[name] = max(apart), [*map(list, seen)]
    (folder.parent / f"found-{rank}.json").write_text(json.dumps(found))
    return WanFamily.load(folder, catalogue.read_card(folder), device, torch.float32, switches)


@dataclass
class Bench:
    """A shot of two segments on a tiny Wan, the family that renders it here, and the engine that shares it."""

    shot: Shot
    decisions: list[Decision]
    family: WanFamily
    engine: ParallelEngine
    folder: Path

    def takes(self, engine: Any, on_step: Any = None) -> list[Tensor]:
        kept = MemoryTakes()
        done = list(render_segments(engine.model, self.shot, self.decisions, kept, on_step, engine))
        return [found[0] for item in done if (found := kept.load(item.fingerprint))]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("models")
    for name, (_, save, scale) in FAMILIES.items():
        save_lora(save(folder / f"for-{name}"), 3 * scale if scale > 8 else 16)
    own = card("wan", 4, 8)
    (save_tiny_wan(folder / own.id, text=True) / catalogue.CARD).write_text(own.model_dump_json(exclude={"available"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMONTAGE_MODELS", str(folder))
        engine = ParallelEngine(load_deliverer(own.id), ("cpu", "cpu"), load=load)
        family = WanFamily.load(folder / own.id, own, CPU, torch.float32)
        yield Bench(*two_segments(own), family, engine, folder)


def two_segments(own: ModelCard) -> tuple[Shot, list[Decision]]:
    """A carried seam, so that the second segment's window begins with what the first ended with."""
    body = Montage(
        id="m_1", format=Format(width=256, height=144, fps=8), duration_s=5.0, model=own.id, seed=5,
        anchors=[Anchor(id="a", media_id="still", second=0)],
    )  # fmt: skip
    known = {"still": media("still", 1)}
    plan = plan_montage(body, known, own, "draft")
    assert [seam.kind for seam in plan.seams] == ["carried"]
    placed = [PrevizAnchor(picture(1, OWN)[None], 0, "still")]
    shot = Shot(plan, body, Previz(placed, previz_beats(body), plan.frames, OWN, 8), placed)
    return shot, decide(plan, body, known, own, RenderRequest(quality="draft"), None, weights="w")


def test_two_processes_that_share_windows_give_what_one_gives_and_a_cancel_stops_both_at_a_step(bench: Bench) -> None:
    told: list[tuple[int, int, int]] = []

    def on_step(decision: Decision, done: int, steps: int, latents: Tensor) -> None:
        told.append((decision.segment.index, done, steps))

    def stop(decision: Decision, done: int, steps: int, latents: Tensor) -> None:
        if done == 1:
            raise Cancelled("enough")

    alone, shared = bench.takes(InProcess(bench.family)), bench.takes(bench.engine, on_step)
    assert [take.shape for take in shared] == [take.shape for take in alone]
    apart = max(float((one - two).abs().max()) for one, two in zip(alone, shared, strict=True))
    assert apart <= PARITY
    assert told == [(segment, done, 2) for segment in range(2) for done in range(3)]
    group = bench.engine._running
    with pytest.raises(Cancelled, match="enough"):
        bench.takes(bench.engine, stop)
    assert bench.engine._orders == []
    again = bench.takes(bench.engine)
    assert bench.engine._running is group, "the group renders one job after the other"
    assert all(torch.equal(one, two) for one, two in zip(shared, again, strict=True))


def test_takes_of_several_devices_are_other_takes_than_those_of_one(bench: Bench) -> None:
    assert bench.engine.number_type == "torch.float32 ulysses2"
    assert InProcess(bench.family).number_type == "torch.float32"


def test_every_process_computes_half_of_the_tokens_on_each_family_that_can_be_shared(bench: Bench) -> None:
    assert bench.engine.number_type
    for rank in range(2):
        found = json.loads((bench.folder / f"found-{rank}.json").read_text())
        assert {name: tokens for name, (_, tokens) in found.items()} == TOKENS
        assert all(apart <= PARITY for apart, _ in found.values()), found


def test_a_process_that_is_killed_ends_the_group_with_an_error_to_try_again_on(bench: Bench) -> None:
    assert bench.engine.number_type
    group = bench.engine._running
    assert group is not None

    def kill(decision: Decision, done: int, steps: int, latents: Tensor) -> None:
        os.kill(group.processes[1].pid or 0, signal.SIGKILL)

    with pytest.raises(Busy, match=r"on cpu was ended by signal 9.* goes on by itself"):
        bench.takes(bench.engine, kill)
    assert not group.end.alive and not any(process.is_alive() for process in group.processes)
    assert multiprocessing.active_children() == []


def test_what_cannot_be_shared_is_refused_with_a_sentence_before_anything_starts(bench: Bench) -> None:
    for family in ("ltx", "ltx2", "nano"):
        with pytest.raises(InvalidInput, match=rf"window of tiny-{family} cannot be shared.*cuda:0,cuda:1"):
            check_shared(card(family, 8, 32), PLAIN)
    with pytest.raises(InvalidInput, match="cache=0"):
        ParallelEngine(bench.family, ("cpu", "cpu"), Switches(cache=0.05))


def test_a_window_that_comes_apart_unevenly_is_refused_where_equal_parts_are_needed(bench: Bench) -> None:
    window = Window(3, 6, 10, 24)
    job = SegmentJob.of("tiny-wan", window, Sampling(2), 1, 0)
    gpus, cpus = (Place(0, (device, device), "") for device in ("cuda", "cpu"))
    check_parts(bench.family, job, gpus, PLAIN)
    with pytest.raises(InvalidInput, match=r"share 45 tokens.*one CPU"):
        check_parts(bench.family, job, cpus, PLAIN)
    with pytest.raises(InvalidInput, match=r"share 45 tokens and 2 heads.*compile=off"):
        check_parts(bench.family, job, gpus, Switches(compile=True))
    check_parts(bench.family, job.model_copy(update={"slots": 4}), gpus, Switches(compile=True))


def test_a_worker_of_several_devices_holds_one_lock_and_keeps_its_group_until_it_unloads(
    bench: Bench, studio: Studio, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_MODELS", os.pathsep.join([str(bench.folder), str(tiny_models)]))
    monkeypatch.setenv("DREAMONTAGE_DEVICES", "cpu+cpu, cpu")
    both, one = devices()
    assert (both, one) == ("cpu+cpu", "cpu")
    lock = take_device(studio, both)
    assert lock is not None and take_device(studio, both) is None
    os.close(lock)
    worker = Worker(studio, device=both)
    engine = worker._sharing("tiny-wan", PLAIN)
    assert isinstance(engine, ParallelEngine) and engine.devices == ("cpu", "cpu")
    assert worker._sharing("tiny-wan", PLAIN) is engine
    assert worker._sharing("tiny-wan", Switches(tiling=True)) is not engine
    assert isinstance(worker._sharing("tiny", PLAIN), InProcess), "nano renders on the first of them"
    assert worker._engines == {}, "another model takes the place of the one before, and of its group"


def test_the_peak_of_a_gpu_that_another_process_renders_on_counts_for_the_job() -> None:
    reset_peak_memory()
    rendered_elsewhere(7)
    rendered_elsewhere(5)
    assert gpu_peak_bytes() == 7
    reset_peak_memory()
    assert gpu_peak_bytes() == 0
