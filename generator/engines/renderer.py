"""The renderer of a Ray cluster: an actor that holds one model on one device and renders jobs for whoever asks.

It keeps nothing that may not be lost: jobs come whole, results go back whole, and it leaves when nobody asks any more.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from dreamontage.schemas.errors import Cancelled, RenderFailed
from dreamontage.schemas.profile import PLAIN, Switches

if TYPE_CHECKING:
    from dreamontage.generator.engines.engine import Order
    from dreamontage.generator.models.family import Family
    from dreamontage.generator.sar import Shot

IDLE_S = 600.0
"""A renderer without work leaves, and its device's memory with it."""
FORGOTTEN_S = 60.0
"""So long nobody asks how far an order is: who ordered it is gone."""


class Renderer:
    """Renders with a model of this node's catalogue.

    Work is done one order at a time; `progress`, `stop` and `make_room` answer meanwhile. A ticket names an order.
    """

    model: Family
    number_type = ""

    def __init__(
        self, model: str, weights: str, device: str, threads: int, switches: Switches = PLAIN, idle_s: float = IDLE_S
    ) -> None:
        self.wanted, self.switches = (model, weights, device), switches
        self.threads = threads
        self.where = f"{os.uname().nodename}:{os.getpid()}"
        self.steps: dict[str, tuple[int, int]] = {}
        self.asked: dict[str, float] = {}
        self.stopped: set[str] = set()
        self.idle_since = time.monotonic()
        self.loading = False
        threading.Thread(target=self._leave_when_idle, args=(idle_s,), daemon=True).start()

    def ready(self) -> str:
        """Load the model, once; answers what it computes in. Raises RenderFailed where the weights are
        others than those of the studio."""
        if not self.number_type:
            self.loading = True
            try:
                self._load()
            finally:
                self.loading = False
        self.idle_since = time.monotonic()
        return self.number_type

    def learn(self, texts: list[str]) -> None:
        """Encode prompts that coming jobs will ask for."""
        self.model.learn(texts)

    def prepare(self, ticket: str, shot: Shot, order: Order) -> bytes:
        """An order of a shot as a SegmentJob; it stays in the object store."""
        import torch

        from dreamontage.generator.engines.engine import job_of

        torch.set_num_threads(self.threads)
        self.asked[ticket] = time.monotonic()
        try:
            return job_of(self.model, replace(order, shot=shot), self.number_type, self.threads).to_bytes()
        except BaseException:
            self.asked.pop(ticket)
            raise

    def run(self, ticket: str, job: bytes) -> bytes:
        """Render a SegmentJob to a SegmentResult. Raises Cancelled when it was stopped or nobody asks for it."""
        from dreamontage.generator.engines.engine import execute
        from dreamontage.generator.engines.job import SegmentJob

        def on_step(done: int, steps: int, latents: Tensor) -> None:
            self.steps[ticket] = done, steps
            self._wanted(ticket)

        try:
            return execute(self.model, SegmentJob.from_bytes(job), on_step, self.where).to_bytes()
        finally:
            self.steps.pop(ticket, None)
            self.asked.pop(ticket, None)
            self.stopped.discard(ticket)
            self.idle_since = time.monotonic()

    def progress(self, ticket: str) -> tuple[int, int] | None:
        """Steps done and in all; None where the order is not running."""
        self.idle_since = time.monotonic()
        if ticket in self.asked:
            self.asked[ticket] = self.idle_since
        return self.steps.get(ticket)

    def stop(self, ticket: str) -> None:
        """End an order at its next step."""
        self.stopped.add(ticket)

    def make_room(self) -> None:
        """Leave the device to another model, unless there is work."""
        if not self.asked and not self.loading:
            os._exit(0)

    def _load(self) -> None:
        import torch

        from dreamontage.generator.models import catalogue
        from dreamontage.generator.models.loading import load_model

        model, weights, device = self.wanted
        if (found := catalogue.weights_hash(model)) != weights:
            raise RenderFailed(
                f"the weights of {model} on {os.uname().nodename} are others than the studio's"
                f" ({found[:12]} and {weights[:12]})",
                next_call="put the same model folder on every node of the cluster",
            )
        torch.set_num_threads(self.threads)
        self.model = load_model(model, device, self.switches)
        self.number_type = self.model.computes

    def _wanted(self, ticket: str) -> None:
        if ticket in self.stopped or time.monotonic() - self.asked[ticket] > FORGOTTEN_S:
            raise Cancelled("the order was dropped")

    def _leave_when_idle(self, idle_s: float) -> None:
        while self.loading or self.steps or time.monotonic() - self.idle_since < idle_s:
            time.sleep(5.0)
        os._exit(0)
