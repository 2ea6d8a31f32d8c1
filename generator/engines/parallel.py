"""The engine that shares every window between several devices of this machine, so that one montage is made faster.

Each device has a process with the whole model, and all of them render the same job: diffusers' context parallelism
(Ulysses, https://arxiv.org/abs/2309.14509) gives each a part of the window's tokens, and while they attend a part of
the heads. The process of the first device speaks for all. It asks after every step whether to go on and passes the
answer on, so that all of them stop at the same step. Nothing of a montage is kept there.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
import torch.distributed as dist
from diffusers.models._modeling_parallel import ContextParallelConfig, ContextParallelInput, ParallelConfig
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from dreamontage.generator.engines.engine import OnStep, Order, execute, job_of
from dreamontage.generator.engines.job import SegmentJob, SegmentResult
from dreamontage.generator.models.family import Family
from dreamontage.generator.models.loading import load_model
from dreamontage.schemas.errors import Busy, Cancelled, DreamontageError, InvalidInput
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches

Load = Callable[[str, torch.device, Switches], Family]

_TOKENS: Final = ContextParallelInput(split_dim=1, expected_dims=3)
PLANS: Final[dict[str, dict[str, Any]]] = {
    "wan": WanTransformer3DModel._cp_plan,
    "ti2v": WanTransformer3DModel._cp_plan,
    "vace": {
        **WanTransformer3DModel._cp_plan,
        "vace_blocks.0": {"hidden_states": _TOKENS, "control_hidden_states": _TOKENS},
    },
}
"""For every family whose windows can be shared, where its network's tokens are split and put together again."""
GOES_ON = "the job goes on by itself, with what is finished"
_EMPTY = torch.empty(0)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """One process of a group: its number, the devices of all, and the file by which they find each other."""

    rank: int
    devices: Sequence[str]
    meeting: str

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device(self.devices[self.rank])


class ParallelEngine:
    """Renders one order after the other, each on all devices at once.

    `model`: what jobs are made with here; its autoencoder is enough. The group starts when it is first needed, and
    again after a device was lost; it ends with this engine and with this process. `load` stands in for the generator's
    own. Raises InvalidInput for what cannot be shared; Busy where a device was lost, so that the job is tried again.
    """

    lanes = 1

    def __init__(
        self, model: Family, devices: Sequence[str], switches: Switches = PLAIN, load: Load = load_model
    ) -> None:
        check_shared(model.card, switches)
        self.model, self.devices, self.switches, self.load = model, tuple(devices), switches, load
        self._orders: list[tuple[int, Order]] = []
        self._running: Group | None = None

    @property
    def number_type(self) -> str:
        """What the devices compute in, and how many share a window: the sums of each are others than those of all."""
        return f"{self._group().computes} ulysses{len(self.devices)}"

    def learn(self, texts: Sequence[str]) -> None:
        """Let every device encode the prompts."""
        self._group().tell(("learn", list(texts)))

    def submit(self, key: int, order: Order) -> None:
        """Put it behind the others."""
        self._orders.append((key, order))

    def wait(self, on_step: OnStep) -> tuple[int, SegmentResult]:
        """Render the first order."""
        key, order = self._orders.pop(0)
        group = self._group()
        job = job_of(self.model, order, group.computes)
        return key, group.render(job.to_bytes(), lambda done, steps: on_step(key, done, steps, _EMPTY))

    def drop(self) -> None:
        """Forget the orders."""
        self._orders.clear()

    def _group(self) -> Group:
        if self._running is None or not self._running.end.alive:
            self._running = Group(self.model.card.id, self.devices, self.switches, self.load)
        return self._running


class Group:
    """The processes of one model, one for each device. `end` frees the devices, at the latest with this object."""

    def __init__(self, model: str, devices: Sequence[str], switches: Switches, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        folder = TemporaryDirectory(prefix="dreamontage-")
        pipes = [context.Pipe() for _ in devices]
        self.devices, self.pipes = devices, [ours for ours, _ in pipes]
        self.processes: list[BaseProcess] = []
        self.end = weakref.finalize(self, _end, self.processes, self.pipes, folder)
        for rank, (_, theirs) in enumerate(pipes):
            place = Place(rank, devices, f"{folder.name}/meeting")
            process = context.Process(target=serve, args=(theirs, place, model, switches, load), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
        self.computes: str = self._answers(None)[0]

    def tell(self, message: tuple[str, Any]) -> None:
        """Ask all for something. Raises Busy."""
        try:
            for pipe in self.pipes:
                pipe.send(message)
        except ConnectionError:
            raise self._lost() from None

    def render(self, job: bytes, told: Callable[[int, int], None]) -> SegmentResult:
        """Render a SegmentJob on all devices. `told` is called with the steps done and in all; what it raises is raised
        when all have stopped. Raises Busy."""
        self.tell(("render", job))
        return SegmentResult.from_bytes(self._answers(told)[0])

    def _answers(self, told: Callable[[int, int], None] | None) -> list[Any]:
        """What every process answers, in order."""
        answers: dict[int, Any] = {}
        stopped: BaseException | None = None
        try:
            while len(answers) < len(self.pipes):
                for rank in self._ready():
                    kind, value = self.pipes[rank].recv()
                    if kind == "failed":
                        raise self._lost(value) if isinstance(value, Busy) else value
                    if kind != "step":
                        answers[rank] = value
                        continue
                    try:
                        assert told is not None
                        told(*value)
                    except BaseException as error:
                        stopped = error
                    self.pipes[rank].send(stopped is None)
        except (EOFError, ConnectionError):
            raise self._lost() from None
        except BaseException:
            self.end()
            raise
        if stopped is not None:
            raise stopped
        return [answers[rank] for rank in range(len(self.pipes))]

    def _ready(self) -> list[int]:
        ready = wait(self.pipes)
        return [rank for rank, pipe in enumerate(self.pipes) if pipe in ready]

    def _lost(self, said: Busy | None = None) -> Busy:
        """End the group; which of its processes was killed, else what one said, else that one ended."""
        ended = wait([process.sentinel for process in self.processes], 1.0)
        for process in self.processes:
            if process.sentinel in ended:
                process.join(1.0)  # it closes its files before it is gone
        killed = [
            f"the process that renders on {device} was ended by signal {-process.exitcode}"
            for device, process in zip(self.devices, self.processes, strict=True)
            if process.exitcode is not None and process.exitcode < 0
        ]
        self.end()
        if said is not None and not killed:
            return said
        return Busy(
            killed[0] if killed else "a process that renders on one of several devices ended",
            next_call=GOES_ON,
        )


def check_shared(card: ModelCard, switches: Switches) -> None:
    """Refuse a model or a switch whose windows cannot be shared between devices. Raises InvalidInput."""
    if card.family not in PLANS:
        raise InvalidInput(
            f"a window of {card.id} cannot be shared between devices; those of the families {', '.join(PLANS)} can",
            field="DREAMONTAGE_DEVICES",
            allowed="cuda:0,cuda:1 and so on, with commas, which gives every device jobs of its own",
        )
    if switches.cache:
        raise InvalidInput(
            "every device would decide for itself which steps the first-block cache skips, and wait for the others",
            field="profile",
            allowed="cache=0 where devices share a window",
        )


def serve(pipe: Connection, place: Place, model: str, switches: Switches, load: Load) -> None:
    """A process of a group: load the model, then do what is asked until the group or its parent ends."""
    from diffusers.utils import logging as diffusers_logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, args=(place,), daemon=True).start()
    diffusers_logging.set_verbosity_error()
    try:
        meet(place)
        family = load(model, place.device, switches)
        share(family, place)
        pipe.send(("ready", family.computes))
        while True:
            asked, value = pipe.recv()
            if asked == "learn":
                family.learn(value)
            else:
                pipe.send(("done", _rendered(family, value, pipe, place.rank)))
    except (EOFError, ConnectionError):
        return
    except DreamontageError as error:
        pipe.send(("failed", error))
    except Exception as error:
        log.exception("rendering on %s failed", place.device)
        said = (
            f"{place.device} broke while it shared a window ({type(error).__name__}); details are in the worker's log"
        )
        pipe.send(("failed", Busy(said, next_call=GOES_ON)))


def meet(place: Place) -> None:
    """Join the other processes: NCCL between GPUs; gloo between CPUs, and for what is small, over this machine alone.

    gloo cannot put parts of different lengths together, so CPUs can share only windows whose tokens they divide.
    """
    on_gpu = place.device.type == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(cores // len(place.devices), 1))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if on_gpu:
        torch.cuda.set_device(place.device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        init_method=f"file://{place.meeting}",
        rank=place.rank,
        world_size=len(place.devices),
    )


def share(family: Any, place: Place) -> None:
    """Split the windows of a loaded family between the processes that have met. Raises InvalidInput."""
    count = len(place.devices)
    mesh = init_device_mesh(place.device.type, (1, count), mesh_dim_names=("ring", "ulysses"))
    ulysses = ContextParallelConfig(ulysses_degree=count, ulysses_anything=True)
    config = ParallelConfig(context_parallel_config=ulysses)
    config.setup(place.rank, count, place.device, mesh=mesh)
    for network in filter(None, (family.experts.high, family.experts.low)):
        # diffusers would take the GPU of the process's number, whichever the device is, and knows no group of CPUs.
        network._resolve_parallel_config = lambda _: config
        try:
            network.enable_parallelism(config=config, cp_plan=PLANS[family.card.family])
        except ValueError as error:
            raise InvalidInput(f"{error}", field="profile", allowed="attention=native everywhere") from error


def _rendered(family: Family, job: bytes, pipe: Connection, rank: int) -> bytes:
    """The SegmentResult of a job, from the first process alone; empty where it was stopped, as all are."""

    def on_step(done: int, steps: int, latents: Tensor) -> None:
        going = torch.ones(1)
        if rank == 0:
            pipe.send(("step", (done, steps)))
            going[0] = pipe.recv()
        dist.broadcast(going, 0)
        if not going:
            raise Cancelled("the order was dropped")

    try:
        result = execute(family, SegmentJob.from_bytes(job), on_step, f"{os.uname().nodename}:{os.getpid()}")
    except Cancelled:
        return b""
    return b"" if rank else result.to_bytes()


def _leave_with_parent(place: Place) -> None:
    """Free the device when the parent was killed, also while others are waited for, and tidy up in its stead."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(Path(place.meeting).parent, ignore_errors=True)
    os._exit(1)


def _end(processes: Sequence[BaseProcess], pipes: Sequence[Connection], folder: TemporaryDirectory[str]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for pipe in pipes:
        pipe.close()
    folder.cleanup()
