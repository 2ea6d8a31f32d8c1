"""Eight agents compose one shot together, some over stdio, some over HTTP, all in one studio.

    .venv/bin/python examples/eight_agents.py --out eight-agents

They pin different anchors at the same time, want the same beat, fork, render, compare, merge, re-roll and choose. Every
call goes through a real MCP client to a real server process; what each asked and was told is kept as a transcript.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from dreamontage.server.demo import stop_worker
from dreamontage.server.store import Studio

MEDIA = Path(str(files("dreamontage.generator"))) / "media" / "demo"
SERVER = [sys.executable, "-P", "-m", "dreamontage.server.cli", "serve"]
LIMIT_S = 600

STDIO = ("ada", "dan", "eva")
HTTP = {
    "ben": ("edit",),
    "cleo": ("edit",),
    "finn": ("edit",),
    "gus": ("edit", "render"),
    "hana": ("read",),
}

Line = dict[str, Any]


class OffScript(Exception):
    """An answer that the story does not go on from."""


class Agent:
    """One agent: a name, a door, a client, and the transcript it shares with the others."""

    def __init__(self, name: str, door: str, client: Client, transcript: list[Line]) -> None:
        self.name, self.door, self.client, self.transcript = name, door, client, transcript

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured answer of a call that should succeed."""
        line, answer = await self._said(tool, arguments)
        if line["outcome"] != "answered":
            raise OffScript(f"{self.name}: {tool} was refused: {line['text']}")
        return answer

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The sentence with which a call is refused."""
        line, _ = await self._said(tool, arguments)
        if line["outcome"] != "refused":
            raise OffScript(f"{self.name}: {tool} should have been refused, but: {line['text']}")
        return str(line["text"])

    async def rendered(self, montage: str, **arguments: Any) -> dict[str, Any]:
        """Queue a render and wait for it."""
        job = (await self.call("render_segments", montage_id=montage, **arguments))["job_id"]
        with anyio.fail_after(LIMIT_S):
            while (answer := await self.call("get_job", job_id=job, wait_s=45))["state"] in ("queued", "running"):
                pass
        if answer["state"] != "done":
            raise OffScript(f"{job} did not finish: {answer}")
        return answer

    async def _said(self, tool: str, arguments: dict[str, Any]) -> tuple[Line, dict[str, Any]]:
        result = await self.client.call_tool(tool, arguments)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        outcome = "refused" if result.is_error else "answered"
        who = {"agent": self.name, "door": self.door}
        line: Line = {**who, "tool": tool, "arguments": arguments, "outcome": outcome, "text": text}
        self.transcript.append(line)
        shown = text.partition("\n")[0]
        print(f"{self.name:>5} {tool}: {'REFUSED: ' * result.is_error}{shown[:150]}{'…' * (len(shown) > 150)}")
        return line, dict(result.structured_content or {})


async def story(a: dict[str, Agent], model: str, quality: str) -> dict[str, Any]:
    """What the eight do, in order; returns what came of it."""
    ada, ben, cleo, dan, eva, finn, gus, hana = (a[name] for name in sorted(a))

    # Ada opens a montage with a first and a last picture.
    plan = await ada.call(
        "plan_montage", brief="From the ridge to the meadow", duration_s=5.5, fps=12, model=model,
        anchors=[
            {"source": "aitzgorri.jpg", "second": 0, "label": "Ridge"},
            {"source": "seeding.jpg", "second": 5.5, "label": "Meadow"},
        ],
    )  # fmt: skip
    montage, first = plan["montage_id"], plan["revision"]

    # Three edit what they saw as revision 1, at once. They touch different things, so all three count.
    key = secrets.token_hex(8)
    clip = {"source": "bunny.mp4", "second": 3.2, "in_s": 0.5, "out_s": 0.9, "label": "Bunny"}
    async with anyio.create_task_group() as together:
        peaks = {"source": "picosdeeuropa.jpg", "second": 1.6, "label": "Peaks"}
        together.start_soon(lambda: ben.call("add_anchors", montage_id=montage, anchors=[peaks], if_revision=first))
        together.start_soon(lambda: cleo.call("add_anchors", montage_id=montage, anchors=[clip], idempotency_key=key))
        pan = {"start_s": 0, "end_s": 1.6, "prompt": "slow pan right"}
        together.start_soon(lambda: dan.call("edit_beats", montage_id=montage, upsert=[pan], if_revision=first))
    # Cleo's host lost the answer and repeats the call: nothing is pinned twice.
    await cleo.call("add_anchors", montage_id=montage, anchors=[clip], idempotency_key=key)
    seen = (await hana.call("get_montage", montage_id=montage))["montage"]
    now = seen["revision"]

    # Two want the same beat. The second is told who was first, and writes another one instead.
    beat = {"id": seen["beats"][0]["id"], "start_s": 0, "end_s": 1.6}
    await dan.call("edit_beats", montage_id=montage, upsert=[{**beat, "prompt": "pan right"}], if_revision=now)
    await eva.refused("edit_beats", montage_id=montage, upsert=[{**beat, "prompt": "hold still"}], if_revision=now)
    await eva.call("get_changes", montage_id=montage, since_revision=now)
    push = {"start_s": 3.8, "end_s": 5.5, "prompt": "push in", "camera": {"move": "dolly", "direction": "in"}}
    await eva.call("edit_beats", montage_id=montage, upsert=[push])

    # Hana may look, not edit. Gus renders; Finn tries another ending in a fork, which renders only that.
    await hana.refused("update_montage", montage_id=montage, title="Mine")
    noon = await gus.rendered(montage, quality=quality, max_minutes=10)
    fork = (await finn.call("fork_montage", montage_id=montage, title="Evening instead"))["montage_id"]
    sunset = {"id": "a2", "source": "sunset.jpg", "label": "Evening"}
    await finn.call("update_anchors", montage_id=fork, anchors=[sunset])
    evening = await gus.rendered(fork, quality=quality)
    await hana.call("view_video", video_ids=[noon["video_id"], evening["video_id"]], at="anchors", frames=6)

    # Ben renamed the old ending meanwhile: the merge asks which counts. Ada takes the fork's, and its takes with it.
    await ben.call("update_anchors", montage_id=montage, anchors=[{"id": "a2", "label": "Meadow at noon"}])
    asked = await ada.call("merge_montage", montage_id=montage, source_id=fork)
    settle = {conflict["what"]: "take" for conflict in asked["conflicts"]}
    await ada.call("merge_montage", montage_id=montage, source_id=fork, settle=settle)
    await ada.call("choose_take", montage_id=montage, video_id=evening["video_id"])

    # Gus re-rolls the first stretch, Eva compares the two tries and chooses the new one; that render only decodes.
    rolled = await gus.rendered(montage, quality=quality, from_s=0.1, to_s=1, takes=2)
    other = rolled["alternatives"][0]
    await eva.call("view_video", video_ids=[rolled["video_id"], other["video_id"]], from_s=0, to_s=3.2, frames=6)
    await eva.call("choose_take", montage_id=montage, take_ids=[other["takes"][0]["take_id"]])
    final = await gus.rendered(montage, quality=quality)
    history = await hana.call("get_changes", montage_id=montage, since_revision=0)
    return {
        "montage_id": montage, "fork_id": fork, "noon": noon, "evening": evening, "rolled": rolled, "final": final,
        "history": history["changes"],
    }  # fmt: skip


@asynccontextmanager
async def agents(studio: Studio, address: str, transcript: list[Line]) -> AsyncIterator[dict[str, Agent]]:
    """The eight, connected: three with a server process each, five with a token each at one server."""
    async with AsyncExitStack() as open_:
        found = {}
        for name in STDIO:
            own = environment(studio) | {"DREAMONTAGE_ACTOR": name}
            server = StdioServerParameters(command=SERVER[0], args=SERVER[1:], env=own, cwd=studio.inbox)
            found[name] = Agent(name, "stdio", await open_.enter_async_context(Client(server)), transcript)
        for name, scopes in HTTP.items():
            headers = {"Authorization": f"Bearer {studio.add_token(name, scopes)}"}
            authorised = await open_.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            client = Client(streamable_http_client(f"{address}/mcp", http_client=authorised))
            found[name] = Agent(name, "http", await open_.enter_async_context(client), transcript)
        yield found


def environment(studio: Studio) -> dict[str, str]:
    """Of every server: the same studio, the same folder for finished videos, quiet logs."""
    own = {"DREAMONTAGE_HOME": str(studio.folder), "DREAMONTAGE_OUT": str(studio.out), "DREAMONTAGE_LOG_LEVEL": "error"}
    return os.environ | own


@contextmanager
def http_server(studio: Studio) -> Iterator[str]:
    """The address of `dreamontage serve --http` on a free port."""
    command, where = [*SERVER, "--http", "--port", "0"], studio.inbox
    with subprocess.Popen(command, env=environment(studio), cwd=where, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            yield server.stderr.readline().split()[-1].removesuffix("/mcp")
        finally:
            server.terminate()


async def play(studio: Studio, model: str = "auto", quality: str = "draft") -> tuple[dict[str, Any], list[Line]]:
    """The story in a studio: what came of it, and the transcript of every call."""
    transcript: list[Line] = []
    for source in MEDIA.iterdir():
        shutil.copy(source, studio.inbox)
    with http_server(studio) as address:
        async with agents(studio, address, transcript) as eight:
            outcome = await story(eight, model, quality)
    return outcome, transcript


def main() -> None:
    """Play the story and write transcript.json and the video's place."""
    parser = argparse.ArgumentParser(description="Eight agents compose one shot together.")
    parser.add_argument("--out", type=Path, default=Path("eight-agents"), help="folder for studio and transcript")
    out = parser.parse_args().out.absolute()
    began = time.monotonic()
    with Studio(out / "studio", out) as studio:
        try:
            outcome, transcript = anyio.run(play, studio)
        except* OffScript as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            sys.exit(str(error))
        finally:
            stop_worker(studio)
    (out / "transcript.json").write_text(json.dumps(transcript, indent=1, ensure_ascii=False))
    print(f"\n{len(transcript)} calls in {time.monotonic() - began:.0f} s. {outcome['final']['verdict']}")
    print(f"{outcome['final']['file']['path']}\n{out / 'transcript.json'}")


if __name__ == "__main__":
    main()
