"""`dreamontage drill`: kill and stall workers and servers under load, then count what was lost. Nothing may be."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage

from .checking import check
from .device import command_of
from .rehearsal import LEDGER, MODULE, SEGMENTS, pid_file
from .store import Studio, new_id
from .store.jobs import FINAL
from .store.workers import WorkerRow

DEPTH = 4
"""Jobs that one agent keeps waiting or running."""
_PAUSE_S = 0.05
_LIMIT_S = 120.0
_CALL_LIMIT_S = 30.0


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    value: int
    allowed: int | None = None
    """The most that is right; None where the number only tells."""

    @property
    def right(self) -> bool:
        """Whether the number is within what is allowed."""
        return self.allowed is None or self.value <= self.allowed


@dataclass
class Agent:
    """An actor that renders its own montage again and again: how often it asked, and the jobs it waits for."""

    name: str
    montage: Montage
    asked: int = 0
    waiting: list[str] = field(default_factory=list)


@dataclass
class Drill:
    """A drill on a fresh studio: agents render through servers of their own while processes die."""

    studio: Studio
    kills: int
    stops: int
    agents: list[Agent]
    chance: random.Random
    refused: int = 0
    killed_workers: int = 0
    killed_servers: int = 0
    stalled: int = 0
    stayed: int = 0
    over: bool = False

    async def run(self, progress: Progress) -> None:
        """Load, kills and stalls, until every job that was asked for has ended."""
        bar = progress.add_task("killing and stalling", total=self.kills + self.stops)
        async with anyio.create_task_group() as group:
            for agent in self.agents:
                group.start_soon(self._agent, agent)
            acts = ["stop"] * self.stops + ["kill"] * self.kills
            self.chance.shuffle(acts)
            for act in acts:
                await (self._stop_worker() if act == "stop" else self._kill())
                progress.advance(bar)
            self.over = True
            progress.update(bar, description="finishing the jobs")
        await self._dismiss()

    async def _agent(self, agent: Agent) -> None:
        """Keep DEPTH jobs in the queue; when the server dies, start another and repeat the call that had no answer."""
        command = ["-P", "-m", MODULE, "serve", str(self.studio.folder), agent.name]
        environment = {**os.environ, "DREAMONTAGE_ACTOR": agent.name, "DREAMONTAGE_LOG_LEVEL": "error"}
        server = StdioServerParameters(command=sys.executable, args=command, env=environment)
        with (self.studio.folder / f"{agent.name}.log").open("w") as log:
            while not self.over or agent.waiting:
                with suppress(Exception):  # the server was killed; whatever else broke shows in the findings
                    async with Client(stdio_client(server, log)) as client:
                        while not self.over or agent.waiting:
                            await self._next_call(client, agent)

    async def _next_call(self, client: Client, agent: Agent) -> None:
        if len(agent.waiting) < DEPTH and not self.over:
            key = f"{agent.name}-{agent.asked}"
            job = await self._call(
                client, "render_segments", montage_id=agent.montage.id, seed=agent.asked, idempotency_key=key
            )
            agent.asked += 1
            agent.waiting.append(job["job_id"])
        else:
            job = await self._call(client, "get_job", job_id=agent.waiting[0], wait_s=1)
            if job["state"] in FINAL:
                agent.waiting.pop(0)

    async def _call(self, client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
        with anyio.fail_after(_CALL_LIMIT_S):
            answer = await client.call_tool(tool, arguments)
        self.refused += bool(answer.is_error)
        return dict(answer.structured_content or {})

    async def _kill(self) -> None:
        """SIGKILL to a worker or a server, at a moment that nobody chose."""
        if self.chance.random() < 0.5:
            await self._until(lambda: (pid := self._server(self.chance.choice(self.agents).name)) and _kill(pid))
            self.killed_servers += 1
        else:
            # Three attempts without a new take end a job, so a worker gets to keep one between two kills.
            takes = self._takes()
            await self._until(lambda: self._takes() > takes)
            await anyio.sleep(self.chance.uniform(0, 0.3))
            await self._until(lambda: (worker := self._worker()) and _kill(worker.pid))
            self.killed_workers += 1

    async def _stop_worker(self) -> None:
        """SIGSTOP to a worker in mid-job; SIGCONT when another one has taken over, upon which it has to leave."""
        worker: WorkerRow | None = None
        while worker is None or not _send(worker.pid, signal.SIGSTOP):
            await self._until(lambda: (busy := self._worker()) and busy.doing.startswith("j_"))
            worker = self._worker()
        await self._until(lambda: self._gone(worker))
        _send(worker.pid, signal.SIGCONT)
        self.stalled += 1
        with anyio.move_on_after(_LIMIT_S):
            await self._until(lambda: not _alive(worker.pid))
            return
        self.stayed += 1

    async def _dismiss(self) -> None:
        """Let the last worker leave."""
        while (worker := self._worker()) is not None:
            _send(worker.pid, signal.SIGTERM)
            await anyio.sleep(_PAUSE_S)

    async def _until(self, condition: Any) -> None:
        with anyio.fail_after(_LIMIT_S):
            while not condition():
                await anyio.sleep(_PAUSE_S)

    def _worker(self) -> WorkerRow | None:
        rows = self.studio.workers(limit=5)
        return next((row for row in rows if not row.gone and _alive(row.pid)), None)

    def _gone(self, worker: WorkerRow) -> bool:
        return any(row.gone for row in self.studio.workers(limit=10) if row.id == worker.id) or not _alive(worker.pid)

    def _server(self, name: str) -> int | None:
        with suppress(FileNotFoundError, ValueError):
            pid = int(pid_file(self.studio.folder, name).read_text())
            return pid if _alive(pid) else None
        return None

    def _takes(self) -> int:
        return sum(path.suffix == ".json" for path in self.studio.takes.iterdir())


def findings(drill: Drill) -> Iterator[Finding]:
    """What the drill left behind, counted in the studio."""
    studio = drill.studio
    jobs = studio.jobs(limit=1_000_000)
    states = Counter(job.state for job in jobs)
    begun = (studio.takes / LEDGER).read_text().split()
    with studio.db.read() as connection:
        takes = connection.execute("SELECT count(*), count(DISTINCT fingerprint) FROM take").fetchone()
        videos = connection.execute("SELECT count(*) FROM video").fetchone()[0]
    asked = sum(agent.asked for agent in drill.agents)
    blows = drill.killed_workers + drill.stalled
    yield Finding("workers killed", drill.killed_workers)
    yield Finding("servers killed", drill.killed_servers)
    yield Finding("workers stopped past their heartbeat and continued", drill.stalled)
    yield Finding("stopped workers that did not leave when continued", drill.stayed, 0)
    yield Finding("jobs asked for", asked)
    yield Finding("jobs lost", asked - states["done"], 0)
    yield Finding("jobs made twice", len(jobs) - asked, 0)
    yield Finding("calls refused", drill.refused, 0)
    yield Finding("segments rendered", len(set(begun)))
    yield Finding("segments redone (at most one per worker killed or stopped)", len(begun) - len(set(begun)), blows)
    yield Finding("takes missing", states["done"] * SEGMENTS - takes[1], 0)
    yield Finding("takes recorded twice", takes[0] - takes[1], 0)
    yield Finding("videos without their job, or twice", videos - states["done"], 0)
    yield Finding("stale writes", _stale_writes(studio), 0)
    yield Finding("problems in the database, its references and files", len(list(check(studio))), 0)


def run(kills: int, stops: int, agents: int, seed: int, keep: Path | None = None) -> int:
    """Drill, print the table; 0 if every number is right, else 1. `keep`: a new folder for the studio, to look at."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="dreamontage-drill-") as temporary:
        folder = keep or Path(temporary) / "studio"
        with Studio(folder, folder / "out") as studio:
            actors = [Agent(f"agent-{n + 1}", _montage(studio, n)) for n in range(agents)]
            drill = Drill(studio, kills, stops, actors, random.Random(seed))
            began = time.monotonic()
            with Progress(console=Console(stderr=True), transient=True) as progress:
                anyio.run(drill.run, progress)
            found = list(findings(drill))
    table = Table("", "counted", "allowed")
    for line in found:
        style = None if line.right else "bold red"
        table.add_row(line.what, f"{line.value:,}", "" if line.allowed is None else f"{line.allowed:,}", style=style)
    console.print(table)
    right = all(line.right for line in found)
    verdict = "Nothing was lost." if right else "Something was lost or done twice."
    console.print(f"{verdict} {time.monotonic() - began:.0f} s, seed {seed}.", highlight=False)
    return 0 if right else 1


def _stale_writes(studio: Studio) -> int:
    """Job events whose attempt is not the newest claimed one when they were written."""
    newest: Counter[str] = Counter()
    stale = 0
    for event in studio.events(limit=10_000_000):
        if event.op == "job.claimed":
            stale += event.args["attempt"] != newest[event.args["job_id"]] + 1
            newest[event.args["job_id"]] = event.args["attempt"]
        elif event.op.startswith("job."):
            stale += event.args["attempt"] != newest[event.args["job_id"]]
    return stale


def small_picture(studio: Studio, number: int) -> Media:
    """A picture of one colour, as media of a studio."""
    from PIL import Image

    path = studio.inbox / f"{number}.png"
    Image.new("RGB", (64, 36), (40 * number % 256, 90, 120)).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    media = Media(
        id=f"img_{sha256[:16]}", sha256=sha256, kind="still", container="PNG", width=64, height=36,
        bytes=path.stat().st_size,
    )  # fmt: skip
    return studio.add_media(media, path)


def _montage(studio: Studio, number: int) -> Montage:
    anchors = [Anchor(id="a1", media_id=small_picture(studio, number).id, second=0)]
    return studio.create_montage(Montage(id=new_id("m"), duration_s=SEGMENTS, anchors=anchors))


def _kill(pid: int) -> bool:
    return _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process of the drill; False if it has ended."""
    if not _alive(pid):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _alive(pid: int) -> bool:
    """Whether this number is a living process of the drill, and not another's that got the same number since."""
    return MODULE in command_of(pid)
