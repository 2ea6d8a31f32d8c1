"""Fixtures of the official conformance suite: tools whose calls become tasks, over real rows of the job queue.

Run as a script this is the worker that does their jobs: tasks.py STUDIO. A montage's brief says what a job does:
"SECONDS words" takes that long, "fails" fails after half a second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio.to_thread
from content import Ctx, text
from mcp.server import MCPServer
from mcp.types import CallToolResult, InputRequiredResult
from questions import answered, question
from slow_renderer import delivered

from dreamontage.generator.render import RenderTask
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import Job, Progress, RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Video
from dreamontage.server.actors import actor_of
from dreamontage.server.context import App
from dreamontage.server.store import Studio, new_id
from dreamontage.server.tasks import TaskTool, declares_tasks
from dreamontage.server.worker import Worker, run_exclusively

FAILS = "fails"


def add_task_tools(server: MCPServer[Any], app: App) -> None:
    """The suite's tools; those of TASK_TOOLS queue jobs."""

    @server.tool()
    def greet(name: str) -> str:
        return f"Hello, {name}!"

    @server.tool()
    async def slow_compute(ctx: Ctx, seconds: float = 0, label: str = "") -> CallToolResult:
        return await _called(app, ctx, f"{seconds:g} {label}")

    @server.tool()
    async def failing_job(ctx: Ctx) -> CallToolResult:
        return await _called(app, ctx, FAILS)

    @server.tool()
    async def protocol_error_job(ctx: Ctx) -> CallToolResult:
        return await _called(app, ctx, "0 protocol error")

    @server.tool()
    async def confirm_delete(ctx: Ctx, filename: str) -> CallToolResult | InputRequiredResult:
        if answered(ctx, "confirm", "confirm") is not None:
            return await _called(app, ctx, f"0 deleted {filename}")
        asked = question(f"Delete {filename}?", "confirm", "boolean")
        state = (await _stored(app, f"0 deleted {filename}")).id
        return InputRequiredResult(input_requests={"confirm": asked}, request_state=state)

    @server.tool()
    async def multi_input(ctx: Ctx) -> InputRequiredResult:
        asked = {"name": question("Your name?", "name"), "sure": question("Sure?", "confirm", "boolean")}
        return InputRequiredResult(input_requests=dict(asked), request_state=(await _stored(app, "0 both")).id)

    @server.tool()
    async def test_tool_with_task(ctx: Ctx) -> CallToolResult | InputRequiredResult:
        if (name := answered(ctx, "user_name", "name")) is not None:
            return await _called(app, ctx, f"0.5 Hello, {name}!")
        return InputRequiredResult(input_requests={"user_name": question("Your name?", "name")})


async def _called(app: App, ctx: Ctx, brief: str) -> CallToolResult:
    """The job at once for a client with tasks, its outcome for others."""
    montage = await _stored(app, brief)
    job = await anyio.to_thread.run_sync(partial(_queued, app, montage, actor_of(ctx).name))
    if declares_tasks(ctx.request_context):
        return CallToolResult(content=[text(job.id)], structured_content={"job_id": job.id})
    return _outcome(app, ctx, await app.studio.wait(job.id, 20))


async def _stored(app: App, brief: str) -> Montage:
    montage = Montage(id=new_id("m"), brief=brief, duration_s=1)
    return await anyio.to_thread.run_sync(app.studio.create_montage, montage)


def _queued(app: App, montage: Montage, actor: str = "owner") -> Job:
    return app.studio.enqueue(montage, RenderRequest(quality="previz"), None, actor=actor)


def _resumed(app: App, state: str, answers: Mapping[str, Any]) -> str:
    jobs = app.studio.jobs(state)
    return (jobs[0] if jobs else _queued(app, app.studio.get_montage(state))).id


def _outcome(app: App, ctx: Ctx, job: Job) -> CallToolResult:
    words = job.error or app.studio.get_montage(job.montage_id).brief
    return CallToolResult(content=[text(words)], is_error=job.state == "failed")


def _unable(app: App, ctx: Ctx, job: Job) -> CallToolResult:
    raise RuntimeError("the protocol error that was asked for")


TASK_TOOLS = {
    "slow_compute": TaskTool(_outcome),
    "failing_job": TaskTool(_outcome, required=True),
    "protocol_error_job": TaskTool(_unable),
    "confirm_delete": TaskTool(_outcome, _resumed),
    "multi_input": TaskTool(_outcome, _resumed),
    "test_tool_with_task": TaskTool(_outcome, required=True),
}


def render(task: RenderTask, load_pipeline: object, on_progress: Callable[[Progress], None]) -> Video:
    """Take as long as the brief says, then deliver or fail; progress often enough to be cancelled at once."""
    brief = task.montage.brief
    seconds = 0.5 if brief == FAILS else float(brief.split()[0])
    began = time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        on_progress(Progress(stage="denoising", done=spent, total=seconds, seconds_left=seconds - spent))
        threading.Event().wait(0.05)
    if brief == FAILS:
        raise InvalidInput("this job fails, as it was asked to")
    return delivered(task)


if __name__ == "__main__":
    with Studio(sys.argv[1]) as studio:
        run_exclusively(Worker(studio, render=render, idle_exit_s=60))
