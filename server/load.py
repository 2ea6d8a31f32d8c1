"""`dreamontage load`: many agents on one studio through two HTTP servers, measured against the SDK's own echo tool."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from rich.console import Console
from rich.table import Table

from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.montage import Montage

from .drill import small_picture
from .store import Studio, new_id

SERVERS = 2
_READY_S = 60.0
_PICTURES = 4


@dataclass
class Kind:
    """Calls of one kind: seconds each took, and how many were refused."""

    name: str
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    locked: int = 0
    refusal: str = ""

    def at(self, percent: int) -> float:
        """The percentile in milliseconds."""
        ranked = quantiles(self.seconds, n=100, method="inclusive") if len(self.seconds) > 1 else self.seconds * 99
        return 1000 * ranked[percent - 1] if ranked else 0.0


@dataclass
class Load:
    """Agents that read and edit one montage, each at its own pace, and what they saw."""

    studio: Studio
    agents: int
    calls: int
    pause_s: float
    chance: random.Random
    reads: Kind = field(default_factory=lambda: Kind("reads"))
    edits: Kind = field(default_factory=lambda: Kind("edits"))
    echoes: Kind = field(default_factory=lambda: Kind("the SDK's echo"))
    lost: int = 0

    async def run(self) -> None:
        """First the echo, then the studio's servers, at the same pace and with as many agents."""
        async with _server([__name__.rpartition(".")[0] + ".echo"]) as url:
            await self._together([(url, "unused")] * self.agents, self._echo)
        montage = _montage(self.studio, self.agents)
        tokens = [self.studio.add_token(f"agent-{number + 1}") for number in range(self.agents)]
        serve = ["dreamontage.server.cli", "serve", "--http", "--studio", str(self.studio.folder), "--port"]
        async with _server(serve) as one, _server(serve) as two:
            doors = [(one if number % SERVERS else two, token) for number, token in enumerate(tokens)]
            await self._together(doors, lambda number, client: self._work(number, client, montage.id))
        self.lost = self._lost(montage)

    async def _together(self, doors: list[tuple[str, str]], work: Callable[[int, Client], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as group:
            for number, (url, token) in enumerate(doors):
                group.start_soon(_with_client, url, token, number, work)

    async def _echo(self, number: int, client: Client) -> None:
        await _call(client, Kind("warm"), "echo", text="hello")
        for _ in range(self.calls):
            await self._pause()
            await _call(client, self.echoes, "echo", text="hello")

    async def _work(self, number: int, client: Client, montage: str) -> None:
        """Half reads, half edits: every agent names an anchor of its own, all in one montage."""
        mine = f"a{number + 1}"

        async def name(kind: Kind, label: str) -> dict[str, Any]:
            changes = [{"id": mine, "label": label}]
            return await _call(client, kind, "update_anchors", montage_id=montage, anchors=changes)

        await _call(client, Kind("warm"), "get_montage", montage_id=montage)
        known = (await name(Kind("warm"), "0")).get("revision", 1)
        for turn in range(1, self.calls + 1):
            await self._pause()
            if turn % 2:
                reads: list[tuple[str, dict[str, Any]]] = [
                    ("get_montage", {"montage_id": montage}),
                    ("get_changes", {"montage_id": montage, "since_revision": known}),
                    ("list_montages", {}),
                    ("get_job", {}),
                ]
                tool, arguments = self.chance.choice(reads)
                await _call(client, self.reads, tool, **arguments)
            else:
                known = (await name(self.edits, str(turn))).get("revision", known)
        await name(Kind("last"), "last")

    def _lost(self, montage: Montage) -> int:
        """Acknowledged edits that are not in the montage, or that left no revision and event of their own."""
        body = self.studio.get_montage(montage.id)
        edits = len(self.edits.seconds) - self.edits.refused + 2 * self.agents
        events = sum(event.revision is not None for event in self.studio.events(montage.id, limit=1_000_000)) - 1
        stale = sum(anchor.label != "last" for anchor in body.anchors)
        return stale + abs(edits - (body.revision - 1)) + abs(edits - events)

    async def _pause(self) -> None:
        await anyio.sleep(self.chance.uniform(0, 2 * self.pause_s))


def run(agents: int, calls: int, pause_s: float, most_ms: float, seed: int) -> int:
    """Load a studio of its own, print the table; 0 if nothing was lost or locked and p99 is within `most_ms`."""
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="dreamontage-load-") as temporary,
        Studio(Path(temporary) / "studio", Path(temporary) / "out") as studio,
        console.status(f"{agents} agents, {SERVERS} servers"),
    ):
        load = Load(studio, agents, calls, pause_s, random.Random(seed))
        anyio.run(load.run)
    table = Table("", "calls", "p50 ms", "p99 ms", "p50 ÷ echo", "p99 ÷ echo", "refused", "lock errors")
    for kind in (load.echoes, load.reads, load.edits):
        ratios = [f"{kind.at(p) / load.echoes.at(p):.1f}" for p in (50, 99)]
        timings = [f"{kind.at(p):.1f}" for p in (50, 99)]
        table.add_row(kind.name, f"{len(kind.seconds):,}", *timings, *ratios, str(kind.refused), str(kind.locked))
    console.print(table)
    kinds = (load.reads, load.edits)
    for kind in kinds:
        if kind.refusal:
            console.print(f"The first of the {kind.name} that was refused: {kind.refusal}", highlight=False)
    slow = max(kind.at(99) for kind in kinds)
    broken = sum(kind.refused + kind.locked for kind in kinds) + load.lost
    console.print(f"{load.lost} updates lost; p99 {slow:.0f} ms, allowed {most_ms:.0f} ms.", highlight=False)
    return int(bool(broken) or slow > most_ms)


async def _call(client: Client, kind: Kind, tool: str, **arguments: Any) -> dict[str, Any]:
    began = time.perf_counter()
    answer = await client.call_tool(tool, arguments)
    kind.seconds.append(time.perf_counter() - began)
    if answer.is_error:
        said = " ".join(getattr(block, "text", "") for block in answer.content)
        kind.refused += 1
        kind.refusal = kind.refusal or said
        kind.locked += "busy" in said or "locked" in said
        return {}
    return dict(answer.structured_content or {})


async def _with_client(url: str, token: str, number: int, work: Callable[[int, Client], Awaitable[None]]) -> None:
    bearer = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=bearer, timeout=_READY_S) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        await work(number, client)


@asynccontextmanager
async def _server(command: list[str]) -> AsyncIterator[str]:
    """The address of a server process, `python -m COMMAND PORT`, while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [sys.executable, "-P", "-m", *command, str(port)]
    process = subprocess.Popen(started, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with anyio.fail_after(_READY_S):
            while not await _listens(port):
                await anyio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def _listens(port: int) -> bool:
    try:
        stream = await anyio.connect_tcp("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


def _montage(studio: Studio, anchors: int) -> Montage:
    """A montage with one anchor per agent, three seconds apart."""
    media = [small_picture(studio, number) for number in range(_PICTURES)]
    pinned = [
        Anchor(id=f"a{number + 1}", media_id=media[number % _PICTURES].id, second=3.0 * number)
        for number in range(anchors)
    ]
    return studio.create_montage(Montage(id=new_id("m"), duration_s=3.0 * anchors, anchors=pinned))
