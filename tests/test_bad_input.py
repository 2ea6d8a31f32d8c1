"""Bad input gets one clear sentence with the way out, and the montage stays as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent import Agent
from mcp import Client

from dreamontage.server.app import build_server
from dreamontage.server.store import Studio

pytestmark = pytest.mark.anyio


@pytest.fixture
async def agent(studio: Studio, pictures: list[Path]) -> AsyncIterator[Agent]:
    async with Client(build_server(studio, roots=[pictures[0].parent])) as client:
        yield Agent(client)


@pytest.fixture
async def montage(agent: Agent) -> str:
    plan = await agent.call("plan_montage", anchors=["aitzgorri.jpg", "sunset.jpg", "seeding.jpg"], duration_s=6)
    return str(plan["montage_id"])


def change(**fields: Any) -> dict[str, Any]:
    return {"anchors": [{"id": "a2", **fields}]}


EDITS = [
    ("update_anchors", change(second=-1), ["second", "greater than or equal to 0", "-1"]),
    ("update_anchors", change(second="NaN"), ["second", "finite", "NaN"]),
    ("update_anchors", change(second="Infinity"), ["second", "finite"]),
    ("update_anchors", change(second="soon"), ["second", "soon"]),
    ("update_anchors", change(second=6.5), ["beyond the end", "0 to 6", "duration_s"]),
    ("update_anchors", change(second=86_400), ["second", "600"]),
    ("update_anchors", change(second=0.05), ["a1", "a2", "nearest seconds that work", "0.16", "ripple"]),
    ("update_anchors", change(second=1, after="a1"), ["not both"]),
    ("update_anchors", change(gap_s=2), ["anchors[0]", "gap_s needs after"]),
    ("update_anchors", change(in_s=2, out_s=1), ["anchors[0]", "out_s 1 must be after in_s 2"]),
    ("update_anchors", change(strength=2), ["strength", "less than or equal to 1", "2"]),
    ("update_anchors", change(fit="zoom"), ["fit", "cover", "zoom"]),
    ("update_anchors", change(secnd=1), ["secnd", "not known", "second"]),
    ("update_anchors", {"anchors": [{"id": "a9", "second": 1}]}, ["a9", "a1, a2, a3"]),
    ("update_anchors", {"anchors": [{"id": "a2"}, {"id": "a2"}]}, ["a2", "twice"]),
    ("update_anchors", {**change(second=2), "duration_s": 0}, ["duration_s", "0.2"]),
    ("update_anchors", {**change(second=2), "duration_s": 86_400}, ["duration_s", "600"]),
    ("update_anchors", {**change(second=2), "duration_s": 4}, ["a3", "beyond the end at 4 s"]),
    ("add_anchors", {"anchors": ["aitzgorri.jpg"] * 10_000}, ["anchors", "50", "10000"]),
    ("add_anchors", {"anchors": [{"source": "aitzgorri.jpg", "second": 3}]}, ["a2", "a4", "nearest seconds that work"]),
    ("add_anchors", {"anchors": ["missing.jpg"]}, ["missing.jpg", "media roots"]),
    ("add_anchors", {"anchors": [{"source": {"path": "aitzgorri.jpg", "data": "x"}}]}, ["source", "one of the forms"]),
    ("add_anchors", {"anchors": ["img_0000000000000000"]}, ["img_0000000000000000"]),
    ("add_anchors", {"anchors": [{"source": {"video_id": "v_none", "at_s": 1}}]}, ["v_none"]),
    ("add_anchors", {"anchors": []}, ["anchors", "at least 1"]),
    ("remove_anchors", {"ids": ["a2", "a9"]}, ["a9", "get_montage"]),
    ("edit_beats", {"upsert": [{"start_s": 3, "end_s": 2}]}, ["end_s", "after start_s"]),
    ("edit_beats", {"upsert": [{"start_s": 7, "end_s": 8}]}, ["beyond the end", "0 to 6"]),
    ("edit_beats", {"upsert": [{"start_s": 0, "end_s": 1, "camera": {"move": "fly"}}]}, ["move", "fly", "pan"]),
    (
        "edit_beats",
        {"upsert": [{"start_s": 0, "end_s": 1, "camera": {"move": "pan", "direction": "up"}}]},
        ["direction up", "left, right"],
    ),
    ("edit_beats", {"remove": ["b7"]}, ["b7", "no beats yet"]),
    ("edit_beats", {}, ["upsert", "remove"]),
    ("render_segments", {"quality": "4k"}, ["quality", "draft", "4k"]),
    ("render_segments", {"from_s": 4, "to_s": 2}, ["to_s", "not after"]),
    ("render_segments", {"from_s": 99}, ["beyond the end"]),
    ("render_segments", {"settings": {"steps": 0}}, ["steps", "1"]),
    ("render_segments", {"settings": {"sampler": "ddim"}}, ["sampler", "not known", "steps"]),
    ("render_segments", {"settings": {"loras": ["anime"]}}, ["loras"]),
    ("plan_montage", {"what_if": {"remove": ["a9"]}}, ["a9", "a1, a2, a3"]),
    ("get_montage", {"revision": 9}, ["revision", "1 to 1"]),
    ("update_montage", {}, ["nothing to change", "archive"]),
    ("update_montage", {"seed": -1}, ["seed", "-1"]),
    ("update_montage", {"title": "x" * 81}, ["title", "80"]),
    ("update_montage", {"format": "4:3"}, ["format", "16:9", "4:3"]),
    ("update_montage", {"by": "ada"}, ["by", "no such argument", "title"]),
    ("update_montage", {"seed": 3, "if_revision": 7}, ["no revision 7 yet", "1 to 1"]),
    ("update_montage", {"seed": 3, "idempotency_key": ["k"]}, ["idempotency_key", "1 to 80 characters"]),
    ("undo_changes", {}, ["no edit", "get_changes"]),
    ("undo_changes", {"revisions": [10**30]}, ["is no edit"]),
    ("get_changes", {"since_revision": -1}, ["since_revision", "-1"]),
    ("get_changes", {"since_revision": 1, "wait_s": 1_000}, ["wait_s", "45"]),
    ("fork_montage", {"revision": 5}, ["revision", "1 to 1"]),
    ("merge_montage", {"source_id": "m_nope"}, ["m_nope", "list_montages"]),
    ("merge_montage", {"source_id": "m_nope", "settle": {"a2": "both"}}, ["settle", "keep", "both"]),
]


@pytest.mark.parametrize(("tool", "arguments", "words"), EDITS, ids=[f"{t}-{i}" for i, (t, _, _) in enumerate(EDITS)])
async def test_a_faulty_edit_is_refused_in_one_sentence_and_changes_nothing(
    agent: Agent, montage: str, tool: str, arguments: dict[str, Any], words: list[str]
) -> None:
    before = (await agent.call("get_montage", montage_id=montage))["montage"]
    sentence = await agent.refused(tool, montage_id=montage, **arguments)
    for word in words:
        assert word in sentence, sentence
    assert (await agent.call("get_montage", montage_id=montage))["montage"] == before
    assert (await agent.call("get_job"))["jobs"] == []


PLANS = [
    ({"anchors": []}, ["at least one anchor"]),
    ({"anchors": ["aitzgorri.jpg"], "duration_s": 0}, ["duration_s", "0.2", "0"]),
    ({"anchors": ["aitzgorri.jpg"], "duration_s": 86_400}, ["duration_s", "600", "86400"]),
    ({"anchors": ["aitzgorri.jpg"], "duration_s": "NaN"}, ["duration_s", "NaN"]),
    ({"anchors": ["aitzgorri.jpg"], "model": "sora"}, ["sora", "nano", "list_models"]),
    ({"anchors": ["aitzgorri.jpg"], "fps": 1000}, ["fps", "60"]),
    ({"anchors": ["aitzgorri.jpg"], "seed": -1}, ["seed", "-1"]),
    ({"anchors": ["aitzgorri.jpg"], "format": "4:3"}, ["format", "16:9", "4:3"]),
    ({"anchors": ["aitzgorri.jpg", "nowhere.jpg"]}, ["anchors[1]", "nowhere.jpg"]),
    ({"anchors": ["aitzgorri.jpg"] * 30, "duration_s": 1}, ["more room", "longer duration_s"]),
    ({"anchors": [{"source": "aitzgorri.jpg", "second": 9}], "duration_s": 5}, ["9 s", "beyond the end", "0 to 5"]),
    ({"anchors": [{"source": "aitzgorri.jpg", "second": s} for s in (1, 1.02)]}, ["a1", "a2", "share"]),
    ({"anchors": [{"source": "aitzgorri.jpg", "after": "a1"}]}, ["after", "'a1'", "it is the first"]),
    ({"anchors": [{"source": "aitzgorri.jpg", "gap_s": 2}]}, ["anchors[0]", "gap_s needs after"]),
    ({"anchors": [{"source": "aitzgorri.jpg", "in_s": 2, "out_s": 1}]}, ["anchors[0]", "out_s 1 must be after"]),
    ({"anchors": [{"source": "/etc/passwd"}]}, ["outside the media roots"]),
    ({"anchors": ["aitzgorri.jpg"], "beats": [{"start_s": 0, "end_s": 1, "prompt": "x" * 9_000}]}, ["prompt", "2000"]),
]


@pytest.mark.parametrize(("arguments", "words"), PLANS)
async def test_a_faulty_plan_is_refused_and_no_montage_appears(
    agent: Agent, arguments: dict[str, Any], words: list[str]
) -> None:
    sentence = await agent.refused("plan_montage", **arguments)
    for word in words:
        assert word in sentence, sentence
    assert (await agent.call("list_montages"))["montages"] == []


async def test_a_montage_that_pins_nothing_is_neither_previewed_nor_rendered(agent: Agent, montage: str) -> None:
    answer = await agent.call("remove_anchors", montage_id=montage, ids=["a1", "a2", "a3"])
    assert [call.partition("(")[0] for call in answer["next"]] == ["add_anchors"]
    for tool in ("preview_montage", "render_segments"):
        assert "add_anchors" in await agent.refused(tool, montage_id=montage)


UNKNOWN = [
    ("get_montage", {"montage_id": "m_nope"}, ["m_nope", "list_montages"]),
    ("add_anchors", {"montage_id": "m_nope", "anchors": ["aitzgorri.jpg"]}, ["m_nope", "list_montages"]),
    ("preview_montage", {"montage_id": "m_nope"}, ["m_nope", "list_montages"]),
    ("render_segments", {"montage_id": "m_nope"}, ["m_nope", "list_montages"]),
    ("get_job", {"job_id": "j_nope"}, ["j_nope", "get_job"]),
    ("get_job", {"job_id": "j_nope", "wait_s": 1_000}, ["wait_s", "45"]),
    ("cancel_job", {"job_id": "j_nope"}, ["j_nope", "get_job"]),
    ("list_models", {"model": "x"}, ["model", "no such argument"]),
    ("list_montages", {"limit": 10**30}, ["limit", "100"]),
    ("get_montage", {}, ["montage_id", "missing"]),
    ("make_movie", {}, ["make_movie", "plan_montage"]),
]


@pytest.mark.parametrize(("tool", "arguments", "words"), UNKNOWN)
async def test_unknown_ids_tools_and_arguments_are_answered_with_those_there_are(
    agent: Agent, tool: str, arguments: dict[str, Any], words: list[str]
) -> None:
    sentence = await agent.refused(tool, **arguments)
    for word in words:
        assert word in sentence, sentence
