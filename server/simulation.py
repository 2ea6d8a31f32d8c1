"""`dreamontage simulate`: a stated fleet on the studio's real queue, with nothing rendered, and what its users see.

The queue is the code that serves real studios: every simulated render is enqueued, claimed and ended in a database,
and who is served next is decided there. Only the clock is simulated: a render takes as long as the fleet says.
"""

from __future__ import annotations

import heapq
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, quantiles

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dreamontage.schemas import limits
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage

from .quotas import FILE_NAME, Quotas
from .store import Studio, new_id

AGENTS_PER_STUDIO = 500
"""Where no number of studios is given."""
HOUR_S = 3600.0
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Fleet:
    """Agents, studios and devices, and what a render is.

    `renders`: of one montage, drafts and repairs included. `segments`: rendered in one render on average, at least one.
    `heavy`: share of the agents that ask for `burst` renders at a time, as often as others ask for one.
    """

    agents: int
    studios: int
    devices: int
    montages_per_hour: float
    renders: float
    segments: float
    segment_s: float
    delivery_s: float
    device_hour: float
    hours: float
    heavy: float = 0.0
    burst: int = 10

    @property
    def agents_each(self) -> int:
        """Agents of one studio."""
        return math.ceil(self.agents / self.studios)

    @property
    def load(self) -> float:
        """Work that arrives, in shares of what the devices can do; queues grow without end above 1."""
        per_ask = 1 + self.heavy * (self.burst - 1)
        asked = self.agents_each * self.montages_per_hour * self.renders * per_ask
        return asked * (self.segments * self.segment_s + self.delivery_s) / (HOUR_S * self.devices)


@dataclass
class Seen:
    """What happened in the simulated studios."""

    waits: list[float] = field(default_factory=list)
    heavy_waits: list[float] = field(default_factory=list)
    busy_s: float = 0.0
    asked: int = 0
    waiting: int = 0
    claim_s: list[float] = field(default_factory=list)


def simulate(fleet: Fleet, studio: Studio, seed: int, seen: Seen) -> None:
    """Run one studio of a fleet from an empty queue for the fleet's hours; adds to `seen`."""
    chance = random.Random(seed)
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=5))
    workers = [(new_id("w"), f"device-{number}") for number in range(fleet.devices)]
    for worker_id, device in workers:
        studio.begin_work(worker_id, device, 0)
    heavy = round(fleet.agents_each * fleet.heavy)
    rate = fleet.agents_each * fleet.montages_per_hour * fleet.renders / HOUR_S
    free, came = list(workers), dict[str, tuple[float, bool]]()
    ends: list[tuple[float, tuple[str, str], str, int]] = []
    end_s, arrival = fleet.hours * HOUR_S, chance.expovariate(rate)
    while min(arrival, ends[0][0] if ends else math.inf) < end_s:
        if not ends or arrival <= ends[0][0]:
            now, agent = arrival, chance.randrange(fleet.agents_each)
            arrival += chance.expovariate(rate)
            for _ in range(fleet.burst if agent < heavy else 1):
                seen.asked += 1
                job = studio.enqueue(montage, RenderRequest(seed=seen.asked), None, f"agent-{agent}")
                came[job.id] = now, agent < heavy
        else:
            now, worker, job_id, attempt = heapq.heappop(ends)
            studio.fail(job_id, attempt, "simulated")
            free.append(worker)
        while free and came:
            began = time.perf_counter()
            claimed = studio.claim(*free[0])
            seen.claim_s.append(time.perf_counter() - began)
            assert claimed is not None, "the queue lost a job"
            asked, from_heavy = came.pop(claimed.id)
            (seen.heavy_waits if from_heavy else seen.waits).append(now - asked)
            took = _segments(chance, fleet.segments) * fleet.segment_s + fleet.delivery_s
            seen.busy_s += min(took, end_s - now)
            heapq.heappush(ends, (now + took, free.pop(0), claimed.id, claimed.attempt))
    seen.waiting += len(came)


@contextmanager
def studio_in_memory() -> Iterator[Studio]:
    """An empty studio that vanishes again, on a disk that is none where there is such; queues may grow in it."""
    memory = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="dreamontage-simulate-", dir=memory) as folder:
        (Path(folder) / FILE_NAME).write_text(_no_quota(), encoding="utf-8")
        with Studio(Path(folder)) as studio:
            studio.stale_after_s = math.inf
            yield studio


def run(fleet: Fleet, sample: int, seed: int) -> int:
    """Simulate `sample` studios of a fleet and print what they tell of all; returns the exit status.

    Studios share nothing, so a few of them stand for the rest.
    """
    sample, seen, began = min(sample, fleet.studios), Seen(), time.perf_counter()
    with Progress(transient=True) as bar:
        for number in bar.track(range(sample), description="Studios"):
            with studio_in_memory() as studio:
                simulate(fleet, studio, seed + number, seen)
    Console().print(_table(fleet, sample, seen))
    Console().print(
        f"{len(seen.claim_s):,} claims of the real queue in {time.perf_counter() - began:.0f} s, "
        f"{1000 * _at(seen.claim_s, 50):.1f} ms each (p99 {1000 * _at(seen.claim_s, 99):.1f} ms)."
    )
    if fleet.load >= 1:
        Console().print(
            f"More arrives than {fleet.devices} devices a studio can do ({fleet.load:.0%}): queues grow without end. "
            f"At least {math.floor(fleet.load * fleet.devices) + 1} are needed."
        )
    return 0


def _table(fleet: Fleet, sample: int, seen: Seen) -> Table:
    scale = fleet.studios / sample
    served = len(seen.waits) + len(seen.heavy_waits)
    cost = fleet.studios * fleet.devices * fleet.device_hour
    montages = served * scale / fleet.hours / fleet.renders
    table = Table("", "", title=f"{fleet.agents:,} agents, {fleet.studios:,} studios, {fleet.devices} devices each")
    table.add_row("simulated", f"{sample:,} of {fleet.studios:,} studios, {fleet.hours:g} h")
    table.add_row("renders an hour", f"{served * scale / fleet.hours:,.0f}")
    table.add_row("wait in the queue", _waits(seen.waits))
    if seen.heavy_waits:
        table.add_row(f"wait of agents that ask for {fleet.burst} at once", _waits(seen.heavy_waits))
    table.add_row("still waiting at the end", f"{seen.waiting * scale:,.0f} of {seen.asked * scale:,.0f}")
    busy = seen.busy_s / (sample * fleet.devices * fleet.hours * HOUR_S)
    table.add_row("devices at work", f"{busy:.0%} (asked for: {fleet.load:.0%})")
    each = f"{cost / montages:,.3f} a montage" if montages else "no montage was finished"
    table.add_row("cost", f"{cost:,.2f} an hour, {each}")
    return table


def _segments(chance: random.Random, mean: float) -> int:
    """Segments of one render: one, and more with a geometric chance, so that the mean is right."""
    more, count = 1 - 1 / mean, 1
    while chance.random() < more:
        count += 1
    return count


def _waits(waits: Sequence[float]) -> str:
    if not waits:
        return "none was served"
    shown = ", ".join(f"p{percent} {_at(waits, percent):,.0f} s" for percent in (50, 90, 99))
    return f"{shown}, mean {fmean(waits):,.0f} s"


def _at(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else sum(values)


def _no_quota() -> str:
    """Quotas that bound nothing: how long queues grow is what is asked."""
    most = limits.MAX_DISK_BYTES * 1000
    return Quotas(jobs_per_actor=most, jobs=most, keep_free_bytes=0).model_dump_json()
