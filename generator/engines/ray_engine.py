"""The engine that renders on a Ray cluster: one renderer per device, shared by all who render the same model there.

Orders become Ray tasks on renderers that are free; jobs and latents travel by the object store. When a renderer or its
node is lost, its order goes to another one. Nothing of a montage is kept there: takes, jobs and their state are the
studio's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import ray
import ray.exceptions
import torch

from dreamontage.generator.engines.engine import OnStep, Order, sent
from dreamontage.generator.engines.job import SegmentResult
from dreamontage.generator.engines.renderer import Renderer
from dreamontage.schemas.errors import Busy, Cancelled, DreamontageError, RenderFailed
from dreamontage.schemas.profile import PLAIN, Switches

NAMESPACE = "dreamontage"
POLL_S = 0.1
FIRST_S, OTHERS_S = 600.0, 60.0
"""So long a job waits for a first renderer, and then for more."""
TRIES = 3
"""Renderers that one order may cost before it is given up."""
LOST = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError)
_EMPTY = torch.empty(0)


@dataclass
class _Flight:
    """An order on a renderer. `told`: steps that were reported, over all its tries."""

    key: int
    order: Order
    tries: int = 0
    told: int = -1
    ticket: str = ""
    renderer: Any = None
    result: Any = None
    question: Any = None


class RayEngine:
    """Renders segments side by side on a cluster's renderers of one model under the same switches.

    `workers`: renderers at most; 0 takes one for every GPU of the cluster or, without any, for every `threads` CPUs.
    Only what Ray itself gives is used for reaching the cluster: RAY_ADDRESS or `address`; without one a cluster of this
    machine is started. Raises Busy where no renderer is to be had, RenderFailed where one cannot load the model.
    """

    def __init__(
        self,
        model: str,
        weights: str,
        switches: Switches = PLAIN,
        *,
        workers: int = 0,
        threads: int = 1,
        address: str | None = None,
    ) -> None:
        connect(address)
        self._orders: list[_Flight] = []
        self._flying: dict[Any, _Flight] = {}
        self._shots: dict[int, tuple[Any, Any]] = {}
        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = int(found.get("GPU", 0))
        room = gpus or int(found.get("CPU", 0)) // threads
        device = "cuda" if gpus else "cpu"
        needs = {"num_gpus": 1} if gpus else {"num_cpus": threads}
        options = {"lifetime": "detached", "get_if_exists": True, "scheduling_strategy": "SPREAD", **needs}
        run = sha256(switches.model_dump_json().encode()).hexdigest()[:12]
        names = _names(f"{model}-{weights[:12]}-{run}-{device}-{threads}", min(workers or room, room))
        actor, wanted = _remote(), (model, weights, device, threads, switches)
        started = [actor.options(name=name, **options).remote(*wanted) for name in names]
        types = _ready(started)
        self._all = list(types)
        self._free = list(types)
        self._require(types)
        if len(set(types.values())) > 1:
            raise RenderFailed(
                f"the renderers compute in different number types ({', '.join(sorted(set(types.values())))})",
                allowed="nodes of one kind, so that a take means the same on each",
            )
        self._number_type = next(iter(types.values()))

    @property
    def lanes(self) -> int:
        """Renderers there are."""
        return max(len(self._all), 1)

    @property
    def number_type(self) -> str:
        """What all renderers compute in."""
        return self._number_type

    def learn(self, texts: Sequence[str]) -> None:
        """Let every renderer encode the prompts; a lost one is noticed by its next order."""
        for renderer in self._all:
            renderer.learn.remote(list(texts))

    def submit(self, key: int, order: Order) -> None:
        """Put it behind the others."""
        self._orders.append(_Flight(key, sent(order)))

    def wait(self, on_step: OnStep) -> tuple[int, SegmentResult]:
        """The next finished order. Raises Busy when every renderer was lost, RenderFailed as `TRIES` says."""
        while True:
            while self._orders and self._free:
                self._launch(self._orders.pop(0), self._free.pop(0))
            self._require(self._all)
            finished, _ = ray.wait(list(self._flying), num_returns=1, timeout=POLL_S)
            for flight in self._flying.values():
                self._report(flight, on_step, flight.result in finished)
            if finished and (landed := self._land(self._flying.pop(finished[0]), on_step)):
                return landed

    def drop(self) -> None:
        """Stop what is running at its next step; forget the rest."""
        self._orders.clear()
        for flight in self._flying.values():
            flight.renderer.stop.remote(flight.ticket)
            self._free.append(flight.renderer)
        self._flying.clear()
        self._shots.clear()

    def _launch(self, flight: _Flight, renderer: Any) -> None:
        flight.renderer, flight.ticket = renderer, secrets.token_hex(8)
        shot = flight.order.shot
        if id(shot) not in self._shots:
            self._shots[id(shot)] = shot, ray.put(shot)
        order = replace(flight.order, shot=None)  # type: ignore[arg-type]  # the shot travels once, for all its orders
        job = renderer.prepare.remote(flight.ticket, self._shots[id(shot)][1], order)
        flight.result = renderer.run.remote(flight.ticket, job)
        flight.question = renderer.progress.remote(flight.ticket)
        self._flying[flight.result] = flight

    def _report(self, flight: _Flight, on_step: OnStep, finished: bool) -> None:
        """Tell of the steps since the last time. A lost renderer's answer is an error: its order's result tells."""
        answered, _ = ray.wait([flight.question], timeout=0)
        if not answered or finished:
            return
        try:
            known = ray.get(flight.question)
        except LOST:
            return
        flight.question = flight.renderer.progress.remote(flight.ticket)
        if known is not None:
            done, steps = known
            for step in range(flight.told + 1, done + 1):
                on_step(flight.key, step, steps, _EMPTY)
            flight.told = max(flight.told, done)

    def _land(self, flight: _Flight, on_step: OnStep) -> tuple[int, SegmentResult] | None:
        """An order's result; None where it has to be rendered again elsewhere."""
        try:
            result: SegmentResult | None = SegmentResult.from_bytes(ray.get(flight.result))
        except LOST as error:
            self._all.remove(flight.renderer)
            flight.tries += 1
            if flight.tries >= TRIES:
                raise RenderFailed(
                    f"a segment ended {TRIES} renderers, one after the other ({type(error).__name__})",
                    next_call="a smaller quality, or renderers with more memory",
                ) from error
            self._orders.insert(0, flight)
            return None
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, Cancelled):
                raise _cause(error) from error
            self._orders.insert(0, flight)  # this process was silent for long, so the renderer took it for dead
            result = None
        self._free.append(flight.renderer)
        if result is None:
            return None
        for step in range(flight.told + 1, result.steps + 1):
            on_step(flight.key, step, result.steps, _EMPTY)
        return flight.key, result

    def _require(self, some: Any) -> None:
        if not some:
            raise Busy(
                "the Ray cluster has no renderer left for this job",
                next_call="start a node (`ray start --address=...`); the job goes on by itself, with what is finished",
            )


def connect(address: str | None = None, cpus: int | None = None) -> None:
    """Join a cluster, or start one with so many CPUs here, once a process. Ray's own reports to its makers are off
    unless the user turned them on."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(address=address, num_cpus=cpus, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)


def _names(kind: str, count: int) -> list[str]:
    """Names of `count` renderers of one kind: those that live, then the lowest that are free, so that all who ask at
    the same time mean the same ones. Idle renderers of other kinds are asked to make room where some are missing."""
    alive = ray.util.list_named_actors()
    mine = sorted(name for name in alive if name.startswith(f"{kind}-"))[:count]
    if len(mine) < count:
        for name in set(alive) - set(mine):
            with contextlib.suppress(ValueError):  # it has left by itself
                ray.get_actor(name).make_room.remote()
    fresh = (name for name in map(f"{kind}-{{}}".format, range(count + len(mine))) if name not in mine)
    return [*mine, *itertools.islice(fresh, count - len(mine))]


def _ready(renderers: Sequence[Any]) -> dict[Any, str]:
    """The number types of the renderers that have their model loaded; those that cannot be had are left out."""
    asked = {renderer.ready.remote(): renderer for renderer in renderers}
    answered, _ = ray.wait(list(asked), num_returns=1, timeout=FIRST_S) if asked else ([], [])
    if answered:
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=OTHERS_S)
    types = {}
    for answer in answered:
        try:
            types[asked[answer]] = str(ray.get(answer))
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except LOST:
            continue
    return types


def _remote() -> Any:
    """The renderer as an actor; what is asked of it is answered while it works."""
    for name in ("progress", "stop", "make_room"):
        setattr(Renderer, name, ray.method(concurrency_group="talk")(getattr(Renderer, name)))
    return ray.remote(concurrency_groups={"talk": 1})(Renderer)  # type: ignore[call-overload]


def _cause(error: Any) -> Exception:
    """What was raised on the renderer, where it is a sentence for people; else Ray's own account of it."""
    cause = error.cause
    return cause if isinstance(cause, DreamontageError) else error
