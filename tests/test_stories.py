"""Five stories of agents, each through the tools within eight calls, waits not counted."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from agent import Agent
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image
from serving import served

from dreamontage.server.app import build_server
from dreamontage.server.http import http_app
from dreamontage.server.store import Studio

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("worker")]
TOKEN = "a-token-for-tests-only"


@pytest.fixture
async def agent(studio: Studio, pictures: list[Path]) -> AsyncIterator[Agent]:
    async with Client(build_server(studio, roots=[pictures[0].parent])) as client:
        playing = Agent(client)
        yield playing
    assert 0 < playing.calls <= 8


@pytest.fixture
def url(studio: Studio) -> Iterator[str]:
    """A server over HTTP, for a client that shares no files with it."""
    with served(http_app(studio, TOKEN)) as address:
        yield address


async def test_a_shot_of_twelve_seconds_from_five_photographs(
    agent: Agent, pictures: list[Path], tiny_model: str
) -> None:
    plan = await agent.call(
        "plan_montage", anchors=[p.name for p in pictures], duration_s=12, model=tiny_model, fps=8, brief="Five views"
    )
    assert [a["snapped_s"] for a in plan["anchors"]] == [0, 3, 6, 9, 12]
    await agent.call("preview_montage", montage_id=plan["montage_id"])
    answer = await agent.rendered(plan["montage_id"])
    assert answer["file"]["duration_s"] == pytest.approx(97 / 8) and Path(answer["file"]["path"]).name.startswith(
        "five-views"
    )
    assert agent.pictures()


async def test_a_clip_inserted_between_two_photographs_with_a_ripple(
    agent: Agent, pictures: list[Path], clip: Path, tiny_model: str
) -> None:
    plan = await agent.call(
        "plan_montage", anchors=[p.name for p in pictures[:3]], duration_s=8, model=tiny_model, fps=8
    )
    montage = plan["montage_id"]
    before = await agent.rendered(montage)
    edit = await agent.call(
        "add_anchors", montage_id=montage, ripple=True,
        anchors=[{"source": clip.name, "after": "a1", "gap_s": 2, "out_s": 1.2}],
    )  # fmt: skip
    assert [(a["id"], a["snapped_s"]) for a in edit["anchors"]] == [("a1", 0), ("a4", 2), ("a2", 7), ("a3", 11)]
    answer = await agent.rendered(montage)
    assert answer["file"]["duration_s"] == pytest.approx(before["file"]["duration_s"] + 3)
    assert answer["segments_rendered"] == edit["outlook"]["segments_to_render"]


async def test_one_anchor_of_another_agents_montage_changed_and_only_that_part_rendered(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str
) -> None:
    async with Client(build_server(studio, roots=[pictures[0].parent]), mode="legacy") as client:
        other = Agent(client)
        names = [p.name for p in pictures]
        made = await other.call("plan_montage", anchors=[*names, *names[:2]], duration_s=24, model=tiny_model, fps=8)
        await other.rendered(made["montage_id"])
    (line,) = (await agent.call("list_montages"))["montages"]
    montage = line["montage_id"]
    assert len((await agent.call("get_montage", montage_id=montage))["montage"]["anchors"]) == 7
    edit = await agent.call("update_anchors", montage_id=montage, anchors=[{"id": "a2", "source": pictures[4].name}])
    outlook = edit["outlook"]
    assert 0 < outlook["segments_to_render"] < len(made["seams_s"]) + 1 and outlook["segments_reused"] > 0
    touched = [r for r in outlook["to_render_s"] if r[0] > 8.5]
    assert not touched, "what lies beyond the gaps around the anchor is kept"
    answer = await agent.rendered(montage)
    assert (answer["segments_rendered"], answer["segments_reused"]) == (
        outlook["segments_to_render"], outlook["segments_reused"],
    )  # fmt: skip


async def test_a_bad_stretch_rolled_again_with_another_seed(
    agent: Agent, pictures: list[Path], tiny_model: str
) -> None:
    plan = await agent.call(
        "plan_montage", anchors=[p.name for p in pictures[:4]], duration_s=12, model=tiny_model, fps=8
    )
    montage = plan["montage_id"]
    first = await agent.rendered(montage)
    job = await agent.call("render_segments", montage_id=montage, from_s=5, to_s=5.5, seed=11)
    low, high = job["range_s"]
    assert low <= 5 and high >= 5.5 and "widened" in job["notes"][0]
    second = await agent.finished(job["job_id"])
    assert second["segments_rendered"] == job["outlook"]["segments_to_render"] < first["segments_rendered"]
    assert second["segments_reused"] > 0
    assert second["file"]["sha256"] != first["file"]["sha256"]


async def test_an_http_client_without_file_access_sends_pictures_and_gets_a_link(
    url: str, pictures: list[Path], tiny_model: str
) -> None:
    def inline(path: Path) -> dict[str, str]:
        with Image.open(path) as picture:
            picture.thumbnail((320, 320))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=80)
        return {"data": base64.b64encode(buffer.getvalue()).decode(), "mime": "image/jpeg"}

    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=bearer, timeout=60) as authorised,
        Client(streamable_http_client(f"{url}/mcp", http_client=authorised)) as client,
    ):
        agent = Agent(client)
        plan = await agent.call(
            "plan_montage", anchors=[{"source": inline(p)} for p in pictures[:2]], duration_s=3, model=tiny_model, fps=8
        )
        answer = await agent.rendered(plan["montage_id"])
        assert agent.calls <= 8
    async with httpx2.AsyncClient(timeout=20) as anybody:
        film = await anybody.get(answer["file"]["url"])
    assert film.status_code == 200 and len(film.content) == answer["file"]["bytes"]
    assert film.content[4:8] == b"ftyp"
