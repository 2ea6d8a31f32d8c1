"""`dreamontage demo`: a real MCP client makes a shot from the package's own media, edits it and renders it again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent
from rich.console import Console
from rich.markup import escape

from dreamontage.schemas.errors import DreamontageError, RenderFailed

from .rendering import FILES, deliver
from .store import Studio

AGAIN = ("edited.mp4", "edited-sheet.jpg", "edited-report.json")
_LIMIT_S = 1800.0


def run(out: Path, quality: str) -> None:
    """Write one-shot.mp4, sheet.jpg, report.json and their edited counterparts into `out`. Raises DreamontageError."""
    console = Console()
    out = out.absolute()
    home = out / "studio"
    shutil.rmtree(home, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with Studio(home) as studio:
        for source in sorted(Path(str(files("dreamontage.generator"))).joinpath("media", "demo").iterdir()):
            if source.suffix in (".jpg", ".mp4"):
                shutil.copyfile(source, studio.inbox / source.name)
        try:
            anyio.run(_Demo(studio, out, quality, console).play)
        finally:
            stop_worker(studio)
    console.print(f"Done in {time.monotonic() - began:.0f} s. Look at {out / FILES[0]} and {out / AGAIN[0]}.")


class _Demo:
    """One sitting of an agent: four calls to a shot, two more to an edited one."""

    def __init__(self, studio: Studio, out: Path, quality: str, console: Console) -> None:
        self.studio, self.out, self.quality, self.console = studio, out, quality, console

    async def play(self) -> None:
        """Plan, preview, render, edit, render again."""
        environment = {**os.environ, "DREAMONTAGE_HOME": str(self.studio.folder)}
        environment["DREAMONTAGE_OUT"] = str(self.studio.folder / "exports")
        command = ["-P", "-m", "dreamontage.server.cli", "serve"]
        server = StdioServerParameters(command=sys.executable, args=command, env=environment, cwd=self.studio.inbox)
        refused: DreamontageError | None = None
        async with Client(server) as client:
            self.client = client
            try:
                await self.story()
            except DreamontageError as error:  # kept out of the client's task group, which would wrap it
                refused = error
        if refused:
            raise refused

    async def story(self) -> None:
        """The calls, in order."""
        tools = await self.client.list_tools()
        self.console.print(f"[bold]The server offers[/] {', '.join(tool.name for tool in tools.tools)}")
        plan = await self.call(
            "plan_montage",
            brief="From the mountains to the meadow",
            anchors=[
                {"source": "aitzgorri.jpg", "second": 0, "label": "Aitzgorri"},
                {"source": "picosdeeuropa.jpg", "second": 2.5, "label": "Picos de Europa"},
                {"source": "bunny.mp4", "second": 4.5, "in_s": 0.5, "out_s": 2.0, "label": "Bunny"},
                {"source": "seeding.jpg", "second": 8.5, "label": "Dandelions"},
            ],
            beats=[
                {
                    "start_s": 0, "end_s": 2.5, "prompt": "slow pan right",
                    "camera": {"move": "pan", "direction": "right"},
                },
                {"start_s": 6, "end_s": 8.5, "prompt": "push in", "camera": {"move": "dolly", "direction": "in"}},
            ],
            duration_s=8.5,
        )  # fmt: skip
        montage = plan["montage_id"]
        await self.call("preview_montage", montage_id=montage)
        await self.render(montage, FILES)
        await self.call(
            "update_anchors", montage_id=montage, anchors=[{"id": "a4", "source": "sunset.jpg", "label": "Sunset"}]
        )
        await self.render(montage, AGAIN)

    async def render(self, montage: str, names: tuple[str, str, str]) -> None:
        """Render, wait, and copy the results under these names."""
        job = (await self.call("render_segments", montage_id=montage, quality=self.quality))["job_id"]
        deadline = time.monotonic() + _LIMIT_S
        while True:
            answer = await self.call("get_job", job_id=job, wait_s=45)
            if answer["state"] == "done":
                break
            if answer["state"] in ("failed", "cancelled") or time.monotonic() > deadline:
                raise RenderFailed(answer.get("error") or f"{job} did not finish")
        deliver(self.studio.video(answer["video_id"]), self.out, names)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """One tool call, printed with its answer. Raises RenderFailed with the answer's text if it is an error."""
        self.console.print(f"\n[bold cyan]{tool}[/] [cyan]{escape(json.dumps(arguments, ensure_ascii=False))}[/]")
        with self.console.status("waiting") as status:

            async def show(progress: float, total: float | None, message: str | None) -> None:
                status.update(f"{message} {100 * progress / total:.0f} %" if total else str(message))

            result = await self.client.call_tool(tool, arguments, progress_callback=show)
        for line in _lines(result):
            self.console.print(escape(line), style="red" if result.is_error else None, highlight=False)
        if result.is_error:
            raise RenderFailed(f"{tool} was refused: {' '.join(_lines(result))}")
        return dict(result.structured_content or {})


def _lines(result: CallToolResult) -> list[str]:
    return [
        block.text
        if isinstance(block, TextContent)
        else f"[{block.type}, {len(getattr(block, 'data', '')) * 3 // 4 / 1024:.0f} KiB]"
        for block in result.content
    ]


def stop_worker(studio: Studio) -> None:
    """The demo's worker has nothing more to do; others leave by themselves after ten idle minutes."""
    for worker in studio.workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGTERM)
            for _ in range(100):  # it leaves at its next step
                os.kill(worker.pid, 0)
                time.sleep(0.1)
