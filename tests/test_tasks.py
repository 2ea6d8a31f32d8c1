"""Tasks of the protocol over durable jobs: handles that outlive servers, questions, cancels, whose they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
import slow_renderer
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    Request,
    RequestParams,
    Result,
    TextContent,
)
from pydantic import ConfigDict

from dreamontage.schemas import limits
from dreamontage.schemas.errors import NotFound
from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.server import tools
from dreamontage.server.app import build_server
from dreamontage.server.store import Studio, new_id
from dreamontage.server.tasks import IDENTIFIER, TaskTool
from dreamontage.server.worker import Worker

pytestmark = pytest.mark.anyio


class Params(RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class GetTask(Request[Params, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: Params
    name_param = "taskId"


class UpdateTask(Request[Params, Literal["tasks/update"]]):
    method: Literal["tasks/update"] = "tasks/update"
    params: Params
    name_param = "taskId"


class CancelTask(Request[Params, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    params: Params
    name_param = "taskId"


class Detail(Result):
    model_config = ConfigDict(extra="allow")


class Created(Result):
    result_type: Literal["task"]
    task_id: str
    status: str
    ttl_ms: int
    poll_interval_ms: int
    status_message: str = ""


class Polling(ClientExtension):
    """A host with tasks: a call that became one is polled to its end, unseen by who called the tool."""

    identifier = IDENTIFIER

    def __init__(self) -> None:
        self.created: list[Created] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._resolve)]

    async def _resolve(self, created: Created, context: ClaimContext) -> CallToolResult:
        self.created.append(created)
        while True:
            detail = await ask(context.session, GetTask, created.task_id)
            if detail["status"] != "working":
                return CallToolResult.model_validate(detail["result"])
            await anyio.sleep(0.05)


async def ask(session: Any, kind: type[Any], task_id: str, **more: Any) -> dict[str, Any]:
    """One request about a task."""
    request = kind(params=Params(task_id=task_id, **more))
    detail = await session.send_request(request, Detail)
    return dict(detail.model_dump(by_alias=True, exclude_unset=True, exclude={"meta"}))


async def refused(session: Any, kind: type[Any], task_id: str) -> tuple[int, str]:
    """Code and message with which a request is refused."""
    with pytest.raises(MCPError) as caught:
        await ask(session, kind, task_id)
    return caught.value.error.code, caught.value.error.message


@pytest.fixture
def worker_thread(studio: Studio) -> Iterator[Callable[[], None]]:
    """Starts a worker that renders at once."""
    slow_renderer.open_gates(studio, slow_renderer.SEGMENTS)
    working = Worker(studio, render=slow_renderer.render)
    thread = threading.Thread(target=working.run)
    yield thread.start
    working.stop()
    thread.join()


@pytest.fixture(autouse=True)
def no_other_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("app", "tools.render", "tools.jobs", "tasks"):
        monkeypatch.setattr(f"dreamontage.server.{module}.ensure_worker", lambda studio: False)


async def planned(client: Client, pictures: list[Path]) -> str:
    arguments = {"anchors": [str(path) for path in pictures[:2]], "duration_s": 2}
    result = await client.call_tool("plan_montage", arguments)
    assert result.structured_content
    return str(result.structured_content["montage_id"])


async def test_a_render_becomes_a_task_that_another_server_finishes(
    studio: Studio, pictures: list[Path], tmp_path: Path, worker_thread: Callable[[], None]
) -> None:
    def server() -> Any:
        return build_server(studio, roots=[tmp_path / "media"])

    with anyio.fail_after(60):
        async with Client(server(), extensions=[Polling()]) as client:
            montage = await planned(client, pictures)
            created = await client.session.call_tool("render_segments", {"montage_id": montage}, allow_claimed=True)
            assert isinstance(created, Created) and created.status == "working" and len(created.task_id) >= 32
            assert created.ttl_ms == 1000 * limits.TASK_TTL_S and created.status_message.startswith("j_")
        async with Client(server(), extensions=[advertise(IDENTIFIER)]) as other:
            waiting = await ask(other.session, GetTask, created.task_id)
            assert waiting["status"] == "working" and "result" not in waiting
            worker_thread()
            while (detail := await ask(other.session, GetTask, created.task_id))["status"] == "working":
                await anyio.sleep(0.05)
            assert detail["status"] == "completed" and not detail["result"]["isError"]
            assert detail["result"]["structuredContent"]["state"] == "done"
            assert await ask(other.session, CancelTask, created.task_id) == {"resultType": "complete"}


async def test_a_host_with_tasks_gets_the_video_from_one_call(
    studio: Studio, pictures: list[Path], tmp_path: Path, worker_thread: Callable[[], None]
) -> None:
    worker_thread()
    host = Polling()
    with anyio.fail_after(60):
        async with Client(build_server(studio, roots=[tmp_path / "media"]), extensions=[host]) as client:
            montage = await planned(client, pictures)
            result = await client.call_tool("render_segments", {"montage_id": montage})
            assert result.structured_content and result.structured_content["video_id"].startswith("v_")
            refusal = await client.call_tool("render_segments", {"montage_id": "m_unknown"})
    assert refusal.is_error and len(host.created) == 1, "what is refused at once is no task"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_host_without_tasks_gets_the_job_and_no_task_methods(
    studio: Studio, pictures: list[Path], tmp_path: Path, mode: Literal["auto", "legacy"]
) -> None:
    async with Client(build_server(studio, roots=[tmp_path / "media"]), mode=mode) as client:
        montage = await planned(client, pictures)
        result = await client.call_tool("render_segments", {"montage_id": montage})
        assert result.structured_content and result.structured_content["job_id"].startswith("j_")
        task = studio.add_task("owner", "render_segments", job_id=result.structured_content["job_id"])
        code, _ = await refused(client.session, GetTask, task.id)
        assert code == (MISSING_REQUIRED_CLIENT_CAPABILITY if mode == "auto" else -32601)


async def test_a_task_belongs_to_its_actor_and_to_the_owner(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=1))
    job = studio.enqueue(montage, RenderRequest(quality="previz"), None, actor="ada")
    task = studio.add_task("ada", "render_segments", job_id=job.id)
    async with Client(build_server(studio), extensions=[advertise(IDENTIFIER)]) as client:
        monkeypatch.setenv("DREAMONTAGE_ACTOR", "bert")
        for kind in (GetTask, CancelTask):
            code, told = await refused(client.session, kind, task.id)
            assert code == INVALID_PARAMS and "ada" not in told
            assert (code, told) == await refused(client.session, kind, "guessed")
        monkeypatch.setenv("DREAMONTAGE_ACTOR", "owner")
        assert (await ask(client.session, GetTask, task.id))["status"] == "working"
        monkeypatch.setenv("DREAMONTAGE_ACTOR", "ada")
        assert await ask(client.session, CancelTask, task.id) == {"resultType": "complete"}
        assert (await ask(client.session, GetTask, task.id))["status"] == "cancelled"
        assert studio.job(job.id).state == "cancelled"


async def test_a_failed_job_is_a_completed_task_with_an_error_and_only_a_lost_outcome_is_a_failed_task(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_ACTOR", "ada")
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=1))
    job = studio.enqueue(montage, RenderRequest(quality="previz"), None, actor="ada")
    task = studio.add_task("ada", "render_segments", job_id=job.id)
    studio.heartbeat("w_1", "cpu", 1, "waiting")
    claimed = studio.claim("w_1")
    assert claimed is not None
    studio.fail(job.id, claimed.attempt, "It cannot be. Next: another way.")
    async with Client(build_server(studio), extensions=[advertise(IDENTIFIER)]) as client:
        detail = await ask(client.session, GetTask, task.id)
        assert detail["status"] == "completed" and detail["result"]["isError"]
        assert "another way" in detail["result"]["content"][0]["text"]
    monkeypatch.setitem(tools.TASK_TOOLS, "render_segments", TaskTool(_broken))
    async with Client(build_server(studio), extensions=[advertise(IDENTIFIER)]) as client:
        detail = await ask(client.session, GetTask, task.id)
        assert detail["status"] == "failed" and "result" not in detail
        assert detail["error"]["code"] == INTERNAL_ERROR and "secret" not in detail["error"]["message"]


async def test_a_task_that_asks_waits_for_all_answers_and_starts_once_also_after_a_crash(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_ACTOR", "ada")
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=1))
    started: list[dict[str, Any]] = []

    def resume(app: Any, state: str, answers: Any) -> str:
        started.append(dict(answers))
        return studio.enqueue(studio.get_montage(state), RenderRequest(quality="previz"), None, actor="ada").id

    monkeypatch.setitem(tools.TASK_TOOLS, "asks", TaskTool(_told, resume))
    question = {"method": "elicitation/create", "params": {"message": "Sure?"}}
    task = studio.add_task("ada", "asks", questions={"a": question, "b": question}, state=montage.id)
    async with Client(build_server(studio), extensions=[advertise(IDENTIFIER)]) as client:
        detail = await ask(client.session, GetTask, task.id)
        assert detail["status"] == "input_required" and detail["inputRequests"] == {"a": question, "b": question}
        await ask(client.session, UpdateTask, task.id, input_responses={"a": {"action": "accept"}, "other": {}})
        detail = await ask(client.session, GetTask, task.id)
        assert detail["inputRequests"] == {"b": question} and not started
    studio.answer_task(task.id, "ada", {"b": {"action": "decline"}})  # a server that died before it started the job
    async with Client(build_server(studio), extensions=[advertise(IDENTIFIER)]) as client:
        assert (await ask(client.session, GetTask, task.id))["status"] == "working"
        await ask(client.session, UpdateTask, task.id, input_responses={"a": {"action": "cancel"}})
    assert started == [{"a": {"action": "accept"}, "b": {"action": "decline"}}] and len(studio.jobs(montage.id)) == 1
    never = studio.add_task("ada", "asks", questions={"a": question}, state=montage.id)
    async with Client(build_server(studio), extensions=[advertise(IDENTIFIER)]) as client:
        await ask(client.session, CancelTask, never.id)
        assert (await ask(client.session, GetTask, never.id))["status"] == "cancelled"


def test_tasks_are_forgotten_after_their_time_to_live(studio: Studio) -> None:
    old, young = studio.add_task("ada", "x"), studio.add_task("ada", "x")
    with studio.db.write() as connection:
        connection.execute("UPDATE task SET created_at = created_at - ? WHERE id = ?", (limits.TASK_TTL_S + 1, old.id))
    studio.add_task("ada", "x")
    assert studio.task(young.id, "ada") == young
    with pytest.raises(NotFound):
        studio.task(old.id, "ada")


def _told(app: Any, ctx: Any, job: Job) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=job.id)])


def _broken(app: Any, ctx: Any, job: Job) -> CallToolResult:
    raise RuntimeError("a secret")
