"""The engine that shares every window between several devices of this machine, so that one montage is made faster.

Each device has a process with the whole model (sharing.py), and all of them render the same job: diffusers' context
parallelism (Ulysses, https://arxiv.org/abs/2309.14509) gives each a part of the window's tokens, and while they attend
a part of the heads. The process of the first device speaks for all. It asks after every step whether to go on and
passes the answer on, so that all of them stop at the same step. Nothing of a montage is kept there.
"""

from __future__ import annotations

import multiprocessing
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dreamontage.generator.engines.engine import OnStep, Order, job_of
from dreamontage.generator.engines.job import SegmentResult
from dreamontage.generator.engines.sharing import GOES_ON, Load, Place, check_shared, serve
from dreamontage.generator.memory import rendered_elsewhere
from dreamontage.generator.models.family import Family
from dreamontage.generator.models.loading import load_model
from dreamontage.schemas.errors import Busy
from dreamontage.schemas.profile import PLAIN, Switches

_EMPTY = torch.empty(0)


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
        job = job_of(self.model, order, group.computes).to_bytes()
        torch.cuda.empty_cache()  # the process that renders on this device needs it now
        return key, group.render(job, lambda done, steps: on_step(key, done, steps, _EMPTY))

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
        answers = self._answers(told)
        rendered_elsewhere(max(peak for _, peak in answers))
        return SegmentResult.from_bytes(answers[0][0])

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


def _end(processes: Sequence[BaseProcess], pipes: Sequence[Connection], folder: TemporaryDirectory[str]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    for pipe in pipes:
        pipe.close()
    folder.cleanup()
