"""Engines: a segment's job travels whole, the graph says what waits for what, and every engine gives the same bytes."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import torch
from desk import Desk, three_stills
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CARD, clip, tiny_pipeline, tiny_shot
from torch import Tensor

from dreamontage.generator.engines.engine import InProcess, OnStep, Order, execute, job_of
from dreamontage.generator.engines.job import SegmentJob, SegmentResult
from dreamontage.generator.engines.renderer import FORGOTTEN_S, Renderer
from dreamontage.generator.fingerprint import Decision, decide
from dreamontage.generator.graph import needs, render_segments
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.delivering import load_deliverer
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.sar import WARM_UP, Rendered, Shot, last_frame
from dreamontage.generator.takes import MemoryTakes
from dreamontage.schemas.errors import Busy, Cancelled, RenderFailed
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Beat, Montage
from dreamontage.server import worker
from dreamontage.server.arguments import AnchorSpec
from dreamontage.server.context import App
from dreamontage.server.store import Studio
from dreamontage.server.tools.planning import compose

REACH = CARD.overlap + WARM_UP


@pytest.fixture(scope="module")
def pipe() -> DreaMontagePipeline:
    return tiny_pipeline()


def three_clips(steps: int = 1, others: tuple[int, ...] = ()) -> tuple[Shot, list[Decision]]:
    """A shot with carried and pinned seams."""
    beats = [Beat(start_s=2, end_s=9, prompt="slow pan left over the forest")]
    shot, media = tiny_shot([(clip(i, 17), 6 * i + 1.0) for i in range(3)], 20.0, beats)
    assert {"pinned", "carried"} <= {segment.seam for segment in shot.plan.segments}
    request = RenderRequest(quality="draft", settings=RenderSettings(steps=steps))
    decisions = decide(shot.plan, shot.montage, media, CARD, request, None, weights="w")
    return shot, [replace(decision, others=others) for decision in decisions]


def rendered(
    pipe: DreaMontagePipeline, shot: Shot, decisions: list[Decision], **more: Any
) -> tuple[list[Rendered], dict[str, tuple[Tensor, dict[str, Any]]]]:
    takes = MemoryTakes()
    found = list(render_segments(pipe, shot, decisions, takes, **more))
    return found, {item.fingerprint: found for item in found if (found := takes.load(item.fingerprint))}


def assert_same(
    one: tuple[list[Rendered], dict[str, tuple[Tensor, dict[str, Any]]]],
    two: tuple[list[Rendered], dict[str, tuple[Tensor, dict[str, Any]]]],
) -> None:
    assert one[0] == two[0]
    assert one[1].keys() == two[1].keys()
    for name, (latents, info) in one[1].items():
        assert torch.equal(latents, two[1][name][0])
        assert info == two[1][name][1]


class Backwards(InProcess):
    """Takes three orders at a time, makes bytes of them and renders the last one first."""

    lanes = 3

    def __init__(self, model: DreaMontagePipeline) -> None:
        super().__init__(model)
        self.most = 0

    def wait(self, on_step: OnStep) -> tuple[int, SegmentResult]:
        self.most = max(self.most, len(self._orders))
        key, order = self._orders.pop()
        job = SegmentJob.from_bytes(job_of(self.model, order, self.number_type).to_bytes())
        return key, SegmentResult.from_bytes(execute(self.model, job).to_bytes())


def test_a_graph_that_is_walked_in_another_order_over_bytes_gives_the_same_takes(pipe: DreaMontagePipeline) -> None:
    shot, decisions = three_clips(others=(7,))
    engine = Backwards(pipe)
    assert_same(rendered(pipe, shot, decisions), rendered(pipe, shot, decisions, engine=engine))
    assert engine.most == 3, "pinned seams let segments run side by side"


def test_a_job_says_everything_that_its_window_is_made_of(pipe: DreaMontagePipeline) -> None:
    shot, decisions = three_clips()
    before = torch.randn(16, REACH, 18, 32, generator=torch.Generator().manual_seed(3))
    carried = next(d for d in decisions if d.segment.seam == "carried")
    order = Order(shot, carried, before, before[:, -CARD.overlap :])
    job = job_of(pipe, order, threads=1)
    again = SegmentJob.from_bytes(job.to_bytes())
    assert again.model_dump() == job.model_dump()
    one, two = job.window(pipe.device), again.window(pipe.device)
    assert one.tail is not None and two.tail is not None
    assert torch.equal(one.tail.head, last_frame(pipe.vae, before[:, : REACH - CARD.overlap + 1]))
    assert torch.equal(one.tail.head, two.tail.head) and torch.equal(one.tail.rest, two.tail.rest)
    assert one.words == two.words != ()
    assert [torch.equal(a.pixels, b.pixels) for a, b in zip(one.pins, two.pins, strict=True)]


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_the_pixels_of_a_pin_survive_the_journey(seed: int) -> None:
    from dreamontage.generator.conditioning.encoding import pixels_to_tensor
    from dreamontage.generator.engines.job import _frames

    frames = np.random.default_rng(seed).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    assert (_frames(pixels_to_tensor(frames)).numpy() == frames).all()


def test_a_job_of_another_version_or_for_another_model_is_refused(pipe: DreaMontagePipeline) -> None:
    shot, decisions = three_clips()
    job = job_of(pipe, Order(shot, decisions[0]))
    later = job.to_bytes().replace(b'\\"version\\":1', b'\\"version\\":2')
    with pytest.raises(RenderFailed, match=r"version 2 met .* version 1.*every node"):
        SegmentJob.from_bytes(later)
    with pytest.raises(RenderFailed, match="asks for other"):
        execute(pipe, job.model_copy(update={"model": "other"}))
    with pytest.raises(RenderFailed, match="renderers of one kind"):
        execute(pipe, job.model_copy(update={"number_type": "torch.float64"}))


def test_a_carried_seam_waits_for_all_that_its_tail_is_made_of_and_a_pinned_one_for_nothing() -> None:
    shot, _ = three_clips()
    segments = shot.plan.segments
    for segment, after in zip(segments, needs(segments, REACH), strict=True):
        if segment.seam != "carried":
            assert after == frozenset()
            continue
        covered = {slot for index in after for slot in range(segments[index].start, segments[index].stop)}
        assert covered >= set(range(max(segment.start - REACH, 0), segment.start))
        assert all(segments[index].stop > segment.start - REACH for index in after)


def test_what_on_step_raises_ends_the_loop_and_what_was_ordered_is_dropped(pipe: DreaMontagePipeline) -> None:
    shot, decisions = three_clips()
    engine = InProcess(pipe)

    def stop(*_: object) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        list(render_segments(pipe, shot, decisions, MemoryTakes(), stop, engine))
    assert engine._orders == []


def test_the_shot_of_the_speed_up_command_has_pinned_seams_only() -> None:
    pytest.importorskip("ray")
    from dreamontage.generator.engines.speedup import pinned_shot

    shot, decisions = pinned_shot(catalogue.card("nano"), 5, "draft")
    assert [segment.seam for segment in shot.plan.segments] == ["start", *["pinned"] * 4]
    assert {segment.stop - segment.start for segment in shot.plan.segments} == {13}
    assert [decision.action for decision in decisions] == ["render"] * 5


def short_shot(desk: Desk) -> Montage:
    return three_stills(desk, (0.0, 2.0)).model_copy(update={"duration_s": 3.0})


@pytest.fixture
def renderer(tiny_model: str) -> Renderer:
    """One that leaves the test's process alone when it is idle."""
    return Renderer(tiny_model, catalogue.weights_hash(tiny_model), "cpu", 1, idle_s=math.inf)


def test_a_renderer_refuses_other_weights_than_the_studio_has(renderer: Renderer) -> None:
    renderer.wanted = ("tiny", "0" * 64, "cpu")
    with pytest.raises(RenderFailed, match=r"weights of tiny on .* are others"):
        renderer.ready()


def test_a_renderer_ends_what_was_dropped_and_what_nobody_asks_for_any_more(renderer: Renderer) -> None:
    threads = torch.get_num_threads()
    renderer.ready()
    shot, decisions = three_clips(steps=3)
    order = Order(shot, decisions[0])
    job = renderer.prepare("kept", shot, order)
    renderer.stop("other")
    assert SegmentResult.from_bytes(renderer.run("kept", job)).steps == 3
    renderer.prepare("dropped", shot, order)
    renderer.stop("dropped")
    with pytest.raises(Cancelled):
        renderer.run("dropped", job)
    renderer.prepare("forgotten", shot, order)
    renderer.asked["forgotten"] -= FORGOTTEN_S + 1
    with pytest.raises(Cancelled):
        renderer.run("forgotten", job)
    assert renderer.progress("forgotten") is None
    assert renderer.asked == {} and renderer.steps == {}
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cluster(tiny_models: Path) -> Iterator[Any]:
    """A Ray cluster of two node processes on this machine, each with room for one renderer."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    tests, path = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DREAMONTAGE_MODELS", str(tiny_models))
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, [path, tests])))
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process, and those that it starts, render with one thread; workers that were started are ended."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
    for process in worker._started:
        process.terminate()
        process.wait()
    worker._started.clear()


@pytest.mark.filterwarnings("default")  # Ray's own, of its sockets and of what it will drop one day
def test_a_worker_process_on_a_cluster_renders_nano_to_the_bytes_of_a_worker_on_the_cpu(
    cluster: Any, one_core: None, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("DREAMONTAGE_DEVICES", "ray-1")
    anchors, found = [AnchorSpec(source=str(path)) for path in pictures[:2]], []
    with Studio(tmp_path / "there", tmp_path / "out") as there, Studio(tmp_path / "here", tmp_path / "out") as here:
        for studio in (there, here):
            made, _ = compose(
                App(studio, (pictures[0].parent,)), anchors, [], brief="A walk", duration_s=1, fps=12, model="nano"
            )
            studio.enqueue(studio.create_montage(made), RenderRequest(quality="draft"), None)
        assert worker.ensure_worker(there)
        worker.Worker(here, device="cpu", idle_exit_s=0).run()
        for studio in (here, there):
            done = anyio.run(partial(studio.wait, studio.jobs()[0].id, 240.0))
            assert done.state == "done" and done.video_id, done.error
            takes = {take.name: sha256(take.read_bytes()).hexdigest() for take in studio.takes.glob("*.safetensors")}
            found.append((studio.video(done.video_id).sha256, takes))
    assert found[0] == found[1] and found[0][1]


@pytest.mark.filterwarnings("default")  # Ray's own, of its sockets and of what it will drop one day
def test_a_node_that_is_killed_in_mid_render_changes_no_byte(cluster: Any, tiny_model: str, desk: Desk) -> None:
    from dreamontage.generator.engines.ray_engine import RayEngine

    engine = RayEngine(tiny_model, catalogue.weights_hash(tiny_model), address=cluster.address)
    assert engine.lanes == 2
    pipe = DreaMontagePipeline.from_pretrained(tiny_model)
    shot, decisions = three_clips(steps=10)
    _, lost = cluster.list_all_nodes()
    steps: dict[int, list[int]] = {}

    def on_step(decision: Decision, done: int, total: int, latents: Tensor) -> None:
        steps.setdefault(decision.segment.index, []).append(done)
        if lost in cluster.list_all_nodes() and len(steps) == 2 and 0 < done < total:
            cluster.remove_node(lost, allow_graceful=False)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    there = rendered(pipe, shot, decisions, engine=engine, on_step=on_step)
    assert lost not in cluster.list_all_nodes()
    assert engine.lanes == 1, "one renderer was lost with its node"
    assert all(told == list(range(11)) for told in steps.values())
    assert_same(rendered(pipe, shot, decisions), there)
    weights = catalogue.weights_hash(tiny_model)
    deliverer = load_deliverer(tiny_model)
    body = short_shot(desk)
    there_too = desk.render(body, load=lambda _: deliverer, engine=lambda name: RayEngine(name, weights))
    shutil.rmtree(desk.folder / "takes")
    assert desk.render(body).sha256 == there_too.sha256
    torch.set_num_threads(threads)
    engine._all.clear()
    with pytest.raises(Busy, match="ray start"):
        rendered(pipe, *three_clips(steps=1), engine=engine)


def test_what_was_rendered_elsewhere_is_delivered_with_the_autoencoder_alone(tiny_model: str, desk: Desk) -> None:
    body = short_shot(desk)
    whole = desk.render(body)
    pipe = desk.load(tiny_model)
    shutil.rmtree(desk.folder / "takes")
    deliverer = load_deliverer(tiny_model)
    with pytest.raises(RenderFailed, match="only the autoencoder"):
        desk.render(body, load=lambda _: deliverer)
    assert desk.render(body, load=lambda _: deliverer, engine=lambda _: InProcess(pipe)).sha256 == whole.sha256
