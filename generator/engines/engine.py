"""The protocol of engines, and the engine that renders in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dreamontage.generator.engines.job import SegmentJob, SegmentResult
from dreamontage.generator.fingerprint import Decision
from dreamontage.generator.models.family import Family, denoise
from dreamontage.generator.sampling import StepCallback
from dreamontage.generator.sar import Shot, measure_drift, window_of
from dreamontage.schemas.errors import RenderFailed

OnStep = Callable[[int, int, int, Tensor], None]
"""Called with an order's key, the steps done, the steps in all and the latents [C,n,h,w], which are empty where the
renderer is another process."""


@dataclass(frozen=True)
class Order:
    """A segment to render: `before` [C,r,h,w], the latents up to its carried seam, and `held` [C,O,h,w], its end."""

    shot: Shot
    decision: Decision
    before: Tensor | None = None
    held: Tensor | None = None


class Engine(Protocol):
    """Renders segments, `lanes` of them at a time. It keeps nothing that may not be lost."""

    @property
    def lanes(self) -> int:
        """How many orders are worth having in hand."""
        ...

    @property
    def number_type(self) -> str:
        """What its renderers compute in (`Family.computes`); part of every take's fingerprint."""
        ...

    def learn(self, texts: Sequence[str]) -> None:
        """Prompts that the coming orders will ask for."""
        ...

    def submit(self, key: int, order: Order) -> None:
        """Take an order."""
        ...

    def wait(self, on_step: OnStep) -> tuple[int, SegmentResult]:
        """The next order that is finished. `on_step` is called before the first and after every step of every order;
        what it raises leaves at once. Raises RenderFailed, Busy."""
        ...

    def drop(self) -> None:
        """Forget what was ordered and is not finished."""
        ...


class InProcess:
    """Renders one order after the other with a model that is loaded here."""

    lanes = 1

    def __init__(self, model: Family, threads: int = 0) -> None:
        """`threads`: of every order; 0 leaves them as they are."""
        self.model, self.threads = model, threads
        self.number_type = model.computes
        self._orders: list[tuple[int, Order]] = []

    def learn(self, texts: Sequence[str]) -> None:
        """Encode the prompts now, so that the text encoder can go."""
        self.model.learn(texts)

    def submit(self, key: int, order: Order) -> None:
        """Put it behind the others."""
        self._orders.append((key, order))

    def wait(self, on_step: OnStep) -> tuple[int, SegmentResult]:
        """Render the first order."""
        key, order = self._orders.pop(0)
        job = job_of(self.model, order, self.number_type, self.threads)
        return key, execute(self.model, job, lambda done, steps, latents: on_step(key, done, steps, latents))

    def drop(self) -> None:
        """Forget the orders."""
        self._orders.clear()


def job_of(model: Family, order: Order, dtype: str = "", threads: int = 0) -> SegmentJob:
    """An order as a job: the previz encoded, the tail's frame decoded, with this model."""
    segment = order.decision.segment
    window, sampling = window_of(model, order.shot, order.decision, order.before, order.held)
    known = segment.start - segment.window_start
    return SegmentJob.of(model.card.id, window, sampling, order.decision.seed, known, dtype, threads)


def execute(model: Family, job: SegmentJob, on_step: StepCallback | None = None, where: str = "") -> SegmentResult:
    """Render a job. Raises RenderFailed where it asks for another model or number type than there is."""
    has = model.card.id, model.computes
    if has != (job.model, job.number_type or has[1]):
        raise RenderFailed(
            f"the job asks for {job.model} in {job.number_type}, and the renderer has {' in '.join(has)}",
            allowed="renderers of one kind, with the same model",
        )
    if job.threads:
        torch.set_num_threads(job.threads)
    model.learn([job.prompt, job.negative])
    run = model.begin(job.window(model.device), job.sampling, torch.Generator().manual_seed(job.seed))
    made = denoise(run, on_step)
    drift = None
    if "tail.rest" in job.tensors and job.known > 1:
        measured = measure_drift(made.own[:, 1 : job.known], made.latents[:, 1 : job.known])
        drift = tuple(tuple(values.tolist()) for values in measured)
    latents = made.latents[:, job.known :].float().cpu()
    return SegmentResult(tensors={"latents": latents}, drift=drift, steps=len(run.times), where=where)


def sent(order: Order) -> Order:
    """An order as it travels: its tensors on the CPU."""
    before, held = (None if end is None else end.detach().cpu() for end in (order.before, order.held))
    return replace(order, before=before, held=held)
