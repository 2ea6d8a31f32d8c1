"""The protocol's task extension, `io.modelcontextprotocol/tasks`, over the durable jobs of a studio.

A call of a listed tool by a client that declares the extension is answered with a task: a handle under which the client
polls, answers questions and cancels, and which ends with what the call would finally have answered. The task is on disk
before its handle is told, and says what its job says, so it survives every process. Other clients get the job's id and
call get_job. Source: SEP-2663, https://modelcontextprotocol.io/seps/2663-tasks-extension.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any, Literal, TypeVar

import anyio.to_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import Context, require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    RequestParams,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError
from dreamontage.schemas.job import Job

from .actors import Scope, actor_of
from .context import App, Ctx
from .store.tasks import Task
from .worker import ensure_worker

IDENTIFIER = "io.modelcontextprotocol/tasks"
Status = Literal["working", "input_required", "completed", "failed", "cancelled"]
_MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)

log = logging.getLogger(__name__)
Request = ServerRequestContext[App, Any]


@dataclass(frozen=True)
class TaskTool:
    """A tool whose calls become tasks: the structured content of its answer names the `job_id` that does the work.

    `outcome` tells what a job that ended answers. `resume`, of a tool that asks before it starts, takes the request
    state of its InputRequiredResult and the answers, and returns the job's id; called twice it returns the same.
    `required`: clients without tasks are refused.
    """

    outcome: Callable[[App, Ctx, Job], CallToolResult]
    resume: Callable[[App, str, Mapping[str, Any]], str] | None = None
    required: bool = False


class TaskParams(RequestParams):
    """Which task."""

    task_id: str = Field(max_length=128)


class TaskUpdateParams(TaskParams):
    """Answers to a task's questions, by their keys."""

    input_responses: dict[str, Any]


Params = TypeVar("Params", bound=TaskParams)
Answer = dict[str, Any]
Handler = Callable[["Tasks", Request, Params], Awaitable[Answer]]


def _teaching(handler: Handler[Params]) -> Handler[Params]:
    """What the caller can mend comes back as a protocol error with its sentence."""

    @wraps(handler)
    async def taught(tasks: Tasks, ctx: Request, params: Params) -> Answer:
        try:
            return await handler(tasks, ctx, params)
        except DreamontageError as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error

    return taught


class Tasks(Extension):
    """Serves tasks/get, tasks/update and tasks/cancel, and turns calls of `tools` into tasks."""

    identifier = IDENTIFIER

    def __init__(self, app: App, tools: Mapping[str, TaskTool]) -> None:
        self._app = app
        self._kinds = dict(tools)

    def methods(self) -> Sequence[MethodBinding]:
        """The extension's methods; the handshake-era revisions know another shape of them, so they are not served."""
        return (
            MethodBinding("tasks/get", TaskParams, self._get, _MODERN),
            MethodBinding("tasks/update", TaskUpdateParams, self._update, _MODERN),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, _MODERN),
        )

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        """Call the tool; where it queued a job, or asks before it does, answer with a task instead.

        Raises MCPError with the code for a missing capability where a tool needs tasks.
        """
        tool = self._kinds.get(params.name)
        if tool is not None and tool.required:
            require_client_extension(ctx, IDENTIFIER)
        result = await call_next(ctx)
        if tool is None or not declares_tasks(ctx):
            return result
        if isinstance(result, InputRequiredResult) and tool.resume is not None:
            asked = result.model_dump(by_alias=True, mode="json", exclude_none=True)
            return await self._created(
                ctx, params.name, questions=asked.get("inputRequests", {}), state=asked.get("requestState", "")
            )
        if isinstance(result, CallToolResult) and not result.is_error:
            return await self._created(ctx, params.name, job_id=(result.structured_content or {})["job_id"])
        return result

    async def _created(self, ctx: Request, tool: str, **work: Any) -> Answer:
        name = actor_of(_context(ctx)).name
        task = await anyio.to_thread.run_sync(partial(self._app.studio.add_task, name, tool, **work))
        job = await self._job(task)
        return {"resultType": "task", **_envelope(task, job, _status(task, job))}

    @_teaching
    async def _get(self, ctx: Request, params: TaskParams) -> Answer:
        task = await self._task(ctx, params, "read")
        await anyio.to_thread.run_sync(ensure_worker, self._app.studio)
        job = await self._job(task)
        status = _status(task, job)
        detail: dict[str, Any] = {}
        if status == "input_required":
            detail["inputRequests"] = task.pending
        elif status == "completed":
            assert job is not None
            try:
                result = await anyio.to_thread.run_sync(
                    partial(self._kinds[task.tool].outcome, self._app, _context(ctx), job)
                )
            except Exception as error:
                log.error("the outcome of %s cannot be told", job.id, exc_info=error)
                status = "failed"
                detail["error"] = {
                    "code": INTERNAL_ERROR,
                    "message": f"The outcome of {job.id} cannot be told ({type(error).__name__}); details are in the "
                    "server's log. Next: get_job.",
                }
            else:
                result = result.model_copy(update={"is_error": job.state == "failed"})
                detail["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return _envelope(task, job, status) | detail

    @_teaching
    async def _update(self, ctx: Request, params: TaskUpdateParams) -> Answer:
        task = await self._task(ctx, params, "render")
        studio = self._app.studio
        await anyio.to_thread.run_sync(partial(studio.answer_task, task.id, task.actor, params.input_responses))
        await self._task(ctx, params, "render")  # starts the work if that was the last answer
        return {}

    @_teaching
    async def _cancel(self, ctx: Request, params: TaskParams) -> Answer:
        task = await self._task(ctx, params, "render")
        if task.job_id is None:
            await anyio.to_thread.run_sync(self._app.studio.cancel_task, task.id, task.actor)
        else:
            name = actor_of(_context(ctx)).name
            await anyio.to_thread.run_sync(self._app.studio.cancel, task.job_id, name)
        return {}

    async def _task(self, ctx: Request, params: TaskParams, scope: Scope) -> Task:
        """The caller's task; one whose last answer is there is under way after this, also if a server died over it."""
        require_client_extension(ctx, IDENTIFIER)
        _check_name_header(ctx, params.task_id)
        actor = actor_of(_context(ctx))
        actor.require(scope, ctx.method)
        task = await anyio.to_thread.run_sync(self._app.studio.task, params.task_id, actor.name)
        if task.job_id is not None or task.cancelled or task.pending:
            return task
        resume = self._kinds[task.tool].resume
        assert resume is not None
        job_id = await anyio.to_thread.run_sync(resume, self._app, task.state, task.answers)
        return await anyio.to_thread.run_sync(self._app.studio.give_task_job, task.id, task.actor, job_id)

    async def _job(self, task: Task) -> Job | None:
        return None if task.job_id is None else await anyio.to_thread.run_sync(self._app.studio.job, task.job_id)


def declares_tasks(ctx: Request) -> bool:
    """Whether the client of this request declares the extension, in a revision that has it."""
    capabilities = ctx.session.client_capabilities
    declared = (capabilities.extensions if capabilities else None) or {}
    return ctx.protocol_version in _MODERN and IDENTIFIER in declared


def _context(ctx: Request) -> Ctx:
    return Context(request_context=ctx)


def _check_name_header(ctx: Request, task_id: str) -> None:
    """Over HTTP proxies route by this header, so it must say what the body says. Raises MCPError."""
    if ctx.request is None:
        return
    header = ctx.request.headers.get(MCP_NAME_HEADER)
    if header is None or decode_header_value(header) != task_id:
        raise MCPError(HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId'")


def _status(task: Task, job: Job | None) -> Status:
    if job is None:
        return "cancelled" if task.cancelled else "input_required"
    if job.state == "cancelled":
        return "cancelled"
    return "completed" if job.state in ("done", "failed") else "working"


def _envelope(task: Task, job: Job | None, status: Status) -> Answer:
    told = {
        "taskId": task.id,
        "status": status,
        "createdAt": _iso(task.created_at),
        "lastUpdatedAt": _iso(max(task.updated_at, job.updated_at if job else 0)),
        "ttlMs": limits.TASK_TTL_S * 1_000,
        "pollIntervalMs": limits.TASK_POLL_MS,
    }
    return told if job is None else told | {"statusMessage": _progress(job)}


def _progress(job: Job) -> str:
    """`j_… running: denoising 40 %, about 12 s left`."""
    now = job.progress
    share = f" {100 * now.done / max(now.total, 1e-9):.0f} %" if job.state == "running" else ""
    left = f", about {now.seconds_left:.0f} s left" if now.seconds_left and job.state == "running" else ""
    return f"{job.id} {job.state}: {now.stage}{share}{left}"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
