"""The contract with agents: schemas and typical answers as snapshots, and every answer within its budget."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import slow_renderer
from agent import Agent, text, within_budget
from mcp import Client
from snapshots import Steady, check_snapshots

from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.montage import Beat, Montage
from dreamontage.server.app import build_server
from dreamontage.server.paging import cursor_of, fitted, position_of, size_of
from dreamontage.server.store import Studio, new_id
from dreamontage.server.worker import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
async def agent(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    for module in ("app", "tools.render", "tools.jobs", "tasks"):
        monkeypatch.setattr(f"dreamontage.server.{module}.ensure_worker", lambda studio: False)
    monkeypatch.setenv("DREAMONTAGE_ACTOR", "ada")
    monkeypatch.setattr("dreamontage.generator.models.catalogue.gpus", lambda: ())
    (tmp_path / "media").mkdir(exist_ok=True)
    async with Client(build_server(studio, roots=[tmp_path / "media"])) as client:
        yield Agent(client)


@pytest.fixture
def quick_worker(studio: Studio) -> Iterator[None]:
    """A worker whose renderer is done at once."""
    slow_renderer.open_gates(studio, slow_renderer.SEGMENTS)
    working = Worker(studio, render=slow_renderer.render)
    thread = threading.Thread(target=working.run)
    thread.start()
    yield
    working.stop()
    thread.join()


async def test_the_schemas_of_all_tools_are_as_kept(agent: Agent) -> None:
    listed = (await agent.client.list_tools()).model_dump(by_alias=True, mode="json", exclude_none=True)["tools"]
    check_snapshots("tools", {tool["name"]: tool for tool in listed})


async def test_typical_answers_are_as_kept_and_within_budget(
    agent: Agent, pictures: list[Path], clip: Path, tmp_path: Path, quick_worker: None
) -> None:
    steady = Steady(tmp_path)
    kept: dict[str, Any] = {}

    async def call(name: str, tool: str, /, **arguments: Any) -> dict[str, Any]:
        result = await agent.client.call_tool(tool, arguments)
        within_budget(result)
        structured = dict(result.structured_content or {})
        kept[name] = steady({"call": {tool: arguments}, "text": text(result), "structured": structured})
        return structured

    plan = await call(
        "plan_montage", "plan_montage",
        brief="A walk", anchors=[str(pictures[0]), {"source": str(clip), "second": 4.03, "out_s": 1.5}],
        beats=[{"start_s": 0, "end_s": 3, "prompt": "slow pan left", "camera": {"move": "pan", "direction": "left"}}],
        duration_s=8,
    )  # fmt: skip
    montage = {"montage_id": plan["montage_id"]}
    await call("add_media", "add_media", sources=[str(pictures[1])])
    await call("add_anchors", "add_anchors", **montage, anchors=[{"source": str(pictures[1]), "second": 7.5}])
    await call("update_anchors", "update_anchors", **montage, anchors=[{"id": "a3", "second": 8, "label": "the end"}])
    await call("edit_beats", "edit_beats", **montage, upsert=[{"start_s": 4, "end_s": 6, "prompt": "whip"}])
    fork = await call("fork_montage", "fork_montage", **montage, title="Without the end")
    await call("remove_anchors", "remove_anchors", montage_id=fork["montage_id"], ids=["a3"])
    await call("update_montage", "update_montage", **montage, title="A walk", duration_s=9)
    await call("merge_montage", "merge_montage", **montage, source_id=fork["montage_id"])
    await call("undo_changes", "undo_changes", **montage)
    await call("get_changes", "get_changes", **montage, since_revision=1)
    await call("get_montage", "get_montage", **montage)
    await call("get_montage-detailed", "get_montage", **montage, response_format="detailed")
    await call("list_montages", "list_montages")
    await call("list_models", "list_models")
    job = await call("render_segments", "render_segments", **montage)
    await agent.finished(job["job_id"])
    await call("get_job", "get_job", job_id=job["job_id"])
    await call("get_job-detailed", "get_job", job_id=job["job_id"], response_format="detailed")
    await call("cancel_job", "cancel_job", job_id=job["job_id"])
    await call("get_job-list", "get_job")
    await call("refused-unknown", "get_montage", montage_id="m_unknown")
    await call("refused-value", "plan_montage", anchors=[str(pictures[0])], fps=500)
    await call("refused-argument", "get_montage", **montage, depth=3)
    await call("refused-conflict", "update_montage", **montage, duration_s=7, if_revision=1)
    check_snapshots("answers", kept)


async def test_the_largest_montage_is_read_whole_in_pages_within_budget(
    agent: Agent, studio: Studio, pictures: list[Path]
) -> None:
    (media,) = (await agent.call("add_media", sources=[str(pictures[0])]))["media"]
    wide = "漢" * limits.MAX_LABEL_CHARS
    montage = studio.create_montage(
        Montage(
            id=new_id("m"), brief="漢" * limits.MAX_PROMPT_CHARS, duration_s=600,
            anchors=[
                Anchor(id=f"a{n}", media_id=media["id"], second=3 * n, label=wide) for n in range(limits.MAX_ANCHORS)
            ],
            beats=[
                Beat(id=f"b{n}", start_s=3 * n, end_s=3 * n + 3, prompt="漢" * (limits.MAX_PROMPT_CHARS // (n or 1)))
                for n in range(limits.MAX_BEATS)
            ],
        )
    )  # fmt: skip
    for tool, arguments in (
        ("plan_montage", {}),
        ("edit_beats", {"remove": ["b0"]}),
        ("get_changes", {"since_revision": 0}),
        ("get_montage", {"response_format": "detailed"}),
    ):
        result = await agent.client.call_tool(tool, {"montage_id": montage.id, **arguments})
        assert not result.is_error, text(result)
        within_budget(result)
        if tool in ("plan_montage", "edit_beats"):
            assert result.structured_content and result.structured_content["cut"]["anchors"] > 0
            assert f"get_montage(montage_id='{montage.id}') pages" in text(result)
    read: list[str] = []
    arguments = {"montage_id": montage.id}
    while arguments:
        result = await agent.client.call_tool("get_montage", arguments)
        assert not result.is_error and result.structured_content, text(result)
        within_budget(result)
        page = result.structured_content
        read += [part["id"] for name in ("anchors", "beats") for part in page["montage"][name]]
        arguments = _arguments(page["more"]) if "more" in page else {}
    assert read == [f"a{n}" for n in range(limits.MAX_ANCHORS)] + [f"b{n}" for n in range(1, limits.MAX_BEATS)]


async def test_lists_are_read_to_their_end_by_cursor(agent: Agent, studio: Studio) -> None:
    made = [studio.create_montage(Montage(id=new_id("m"), brief="漢" * 2_000, duration_s=1)).id for _ in range(53)]
    read: list[str] = []
    arguments: dict[str, Any] = {"limit": 50}
    while arguments:
        page = await agent.call("list_montages", **arguments)
        assert agent.last is not None
        within_budget(agent.last)
        read += [line["montage_id"] for line in page["montages"]]
        arguments = _arguments(page["more"]) if "more" in page else {}
    assert read == made[::-1]
    sentence = await agent.refused("list_montages", cursor="nonsense")
    assert "cursor" in sentence and "more" in sentence
    await agent.refused("list_montages", cursor=cursor_of("jobs", "j_1"))


async def test_a_long_history_is_told_from_its_end_and_paged_back_to_its_beginning(
    agent: Agent, studio: Studio
) -> None:
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=1))
    for _ in range(70):
        studio.edit_montage(montage.id, "test", {}, lambda m: m.model_copy(update={"seed": m.seed + 1}), actor="bert")
    told: list[str] = []
    arguments: dict[str, Any] = {"montage_id": montage.id, "since_revision": 1}
    while arguments:
        page = await agent.call("get_changes", **arguments)
        told = [*page["changes"], *told]
        arguments = _arguments(page["more"]) if "more" in page else {}
    assert len(told) == 70 and "seed 0 → 1" in told[0] and "seed 69 → 70" in told[-1]


def _arguments(call: str) -> dict[str, Any]:
    """The arguments of a call as answers write it."""
    return dict(eval(call.partition("(")[2].removesuffix(")").join(["dict(", ")"])))


async def test_a_refusal_says_the_same_to_programs(agent: Agent) -> None:
    result = await agent.client.call_tool("get_montage", {"montage_id": "m_x"})
    told = result.structured_content
    assert result.is_error and told and told["code"] == "not_found" and told["field"] == "montage_id"
    assert told["problem"] in text(result) and told["next"] == ["list_montages()"]
    wrong = await agent.client.call_tool("plan_montage", {"anchors": ["a"], "fps": 500})
    assert wrong.structured_content and wrong.structured_content["code"] == "invalid_input"
    assert wrong.structured_content["field"] == "fps"


def test_what_is_too_long_is_cut_and_says_so() -> None:
    words, data = fitted("x" * 20_000, {"montage_id": "m_1", "deep": {"list": ["y" * 100] * 1_000, "short": [1]}})
    assert len(words) + size_of(data) <= limits.MAX_ANSWER_CHARS + 200
    lost = data["cut"]["list"]
    assert lost + len(data["deep"]["list"]) == 1_000 and data["deep"]["short"] == [1]
    assert f"{lost} of list" in words and "get_montage(montage_id='m_1')" in words
    assert fitted("short", {"a": [1]}) == ("short", {"a": [1]})


def test_a_cursor_is_good_for_its_own_list_only() -> None:
    cursor = cursor_of("jobs", "j_1", 2)
    assert cursor.isascii() and "j_1" not in cursor
    assert position_of(cursor, "jobs", str, int) == ["j_1", 2]
    for what, kinds in (("montages", (str, int)), ("jobs", (str,)), ("jobs", (int, int))):
        with pytest.raises(Exception, match="no cursor"):
            position_of(cursor, what, *kinds)
    assert json.loads(json.dumps(cursor)) == cursor
