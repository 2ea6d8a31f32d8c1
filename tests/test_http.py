"""The HTTP door: a token from the first day, no other host or origin, finished files by signed links with ranges."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from agent import Agent
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.transport_security import TransportSecuritySettings
from serving import served

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.server.actors import Actor
from dreamontage.server.auth import Door, load_token
from dreamontage.server.files import FileLinks
from dreamontage.server.http import check_host, http_app
from dreamontage.server.rates import Rates
from dreamontage.server.store import Studio

pytestmark = pytest.mark.anyio
TOKEN = "a-token-for-tests-only"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}


@pytest.fixture
def url(studio: Studio, pictures: list[Path]) -> Iterator[str]:
    """A real server on a free port."""
    with served(http_app(studio, TOKEN, roots=[pictures[0].parent])) as address:
        yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=20) as client:
        yield client


@pytest.fixture
def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


async def test_nothing_is_answered_without_the_token(http: httpx2.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        for path in ("/mcp", "/", "/health"):
            response = await http.post(path, json=LIST, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN not in response.text and "plan_montage" not in response.text


async def test_another_host_or_origin_is_refused(http: httpx2.AsyncClient, bearer: dict[str, str]) -> None:
    assert (await http.post("/mcp", json=LIST, headers={**bearer, "Host": "evil.example"})).status_code == 421
    assert (await http.post("/mcp", json=LIST, headers={**bearer, "Origin": "http://evil.example"})).status_code == 403


async def test_an_oversized_request_is_refused(http: httpx2.AsyncClient, bearer: dict[str, str]) -> None:
    body = json.dumps({**LIST, "params": {"padding": "x" * (9 * 2**20)}})
    response = await http.post("/mcp", content=body, headers={**bearer, "Content-Type": "application/json"})
    assert response.status_code == 413


async def test_a_client_with_the_token_gets_a_link_and_any_range_of_the_file(
    url: str, http: httpx2.AsyncClient, bearer: dict[str, str], studio: Studio
) -> None:
    async with (
        httpx2.AsyncClient(headers=bearer, timeout=60) as authorised,
        Client(streamable_http_client(f"{url}/mcp", http_client=authorised)) as client,
    ):
        agent = Agent(client)
        montage = (await agent.call("plan_montage", anchors=["sunset.jpg", "seeding.jpg"], duration_s=1))["montage_id"]
        answer = await agent.call("preview_montage", montage_id=montage)
    link = answer["animatic"]["url"]
    assert link.startswith(url)
    whole = await http.get(link)
    assert whole.status_code == 200 and whole.headers["content-type"] == "video/mp4"
    assert whole.content == Path(answer["animatic"]["path"]).read_bytes()
    part = await http.get(link, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == whole.content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert (await http.get(link, headers={"Range": f"bytes={10**9}-"})).status_code == 416


async def test_a_link_opens_one_file_until_it_expires(http: httpx2.AsyncClient, studio: Studio, url: str) -> None:
    links = FileLinks(studio, TOKEN)
    folder = studio.folder / "videos" / "v_1"
    folder.mkdir()
    (folder / "one-shot.mp4").write_bytes(b"film")
    (folder / "report.json").write_text("{}")
    good = links.url(url, folder / "one-shot.mp4")
    assert (await http.get(good)).content == b"film"
    for wrong in (
        links.url(url, folder / "one-shot.mp4", now=0),
        good.replace("one-shot.mp4", "report.json"),
        good.replace("videos/v_1/one-shot.mp4", "studio.db"),
        good.replace("videos/v_1/one-shot.mp4", "videos/v_1/..%2f..%2fstudio.db"),
        FileLinks(studio, "another key").url(url, folder / "one-shot.mp4"),
    ):
        assert (await http.get(wrong)).status_code == 403, wrong
    (folder / "one-shot.mp4").unlink()
    assert (await http.get(good)).status_code == 404


def test_the_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = load_token(file)
    assert len(token) >= 40 and load_token(file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        load_token(file)


def test_listening_beyond_this_machine_needs_to_be_asked_for() -> None:
    check_host("127.0.0.1", allow_remote=False)
    check_host("0.0.0.0", allow_remote=True)
    with pytest.raises(InvalidInput, match="--allow-remote"):
        check_host("0.0.0.0", allow_remote=False)


# Who calls


async def test_a_token_opens_what_its_scopes_allow_until_it_is_revoked(url: str, studio: Studio) -> None:
    reader = studio.add_token("reader", ["read"])
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {reader}"}, timeout=60) as authorised,
        Client(streamable_http_client(f"{url}/mcp", http_client=authorised)) as client,
    ):
        agent = Agent(client)
        assert (await agent.call("list_montages"))["montages"] == []
        assert "'edit'" in await agent.refused("plan_montage", anchors=["sunset.jpg"])
        assert "'edit'" in await agent.refused("add_media", upload=True)
        assert "'render'" in await agent.refused("render_segments", montage_id="m_1")
        studio.revoke_token("reader")
        late = await authorised.post(f"{url}/mcp", json=LIST, headers=HEADERS)
        assert late.status_code == 401


async def test_a_session_belongs_to_the_actor_who_opened_it(http: httpx2.AsyncClient, studio: Studio) -> None:
    ada, bob = ({"Authorization": f"Bearer {studio.add_token(name)}"} for name in ("ada", "bob"))
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    opened = await http.post("/mcp", json={**LIST, "method": "initialize", "params": hello}, headers=ada)
    session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
    assert (await http.post("/mcp", json=LIST, headers={**bob, **session})).status_code == 404
    assert (await http.delete("/mcp", headers={**bob, **session})).status_code == 404
    assert (await http.post("/mcp", json=LIST, headers={**ada, **session})).status_code == 200


async def test_every_path_knows_its_hosts_and_origins(
    http: httpx2.AsyncClient, bearer: dict[str, str], studio: Studio, url: str
) -> None:
    link = FileLinks(studio, TOKEN).url(url, studio.folder / "studio.db").removeprefix(url)
    for method, path in (("GET", "/"), ("GET", link), ("PUT", "/uploads/x/"), ("POST", "/mcp"), ("GET", "/nowhere")):
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Host": "127.0.0.1.evil.example"}, 421),
            ({"Host": "localhost@evil.example"}, 421),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://localhost.evil.example:80"}, 403),
        ):
            answer = await http.request(method, path, headers={**bearer, **headers})
            assert answer.status_code == status, (method, path, headers)


async def test_who_calls_too_often_is_told_when_to_come_back(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CALLS_PER_S", 0.01)
    monkeypatch.setattr(limits, "CALLS_BURST", 3)
    ada, bob = ({"Authorization": f"Bearer {studio.add_token(name)}"} for name in ("ada", "bob"))
    with served(http_app(studio, TOKEN)) as url:
        async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
            codes = [(await client.get("/nowhere", headers=ada)).status_code for _ in range(3)]
            late = await client.get("/nowhere", headers=ada)
            assert (codes, late.status_code) == ([404] * 3, 429)
            assert 90 <= int(late.headers["retry-after"]) <= 100 and "repeat the call" in late.json()["error"]
            assert (await client.get("/nowhere", headers=bob)).status_code == 404


async def test_a_stream_ends_with_its_token(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TOKEN_RECHECK_S", 0.0)
    token, revoked = studio.add_token("ada"), threading.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"before", "more_body": True})
        await anyio.to_thread.run_sync(revoked.wait, 20)
        await send({"type": "http.response.body", "body": b"after", "more_body": True})
        await send({"type": "http.response.body", "body": b"all", "more_body": False})

    async def known(given: str) -> Actor | None:
        return studio.actor_of_token(given)

    security = TransportSecuritySettings(allowed_hosts=["127.0.0.1:*"])
    with served(Door(stream, known, security), lifespan="off") as url, anyio.fail_after(20):
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers) as client, client.stream("GET", url) as answer:
            parts = answer.aiter_bytes()
            assert await anext(parts) == b"before"
            studio.revoke_token("ada")
            revoked.set()
            assert [part async for part in parts] == []


def test_calls_are_counted_per_name_in_a_row_and_at_once() -> None:
    rates = Rates(per_s=2.0, burst=2, at_once=1)
    assert [rates.wait("ada", now=0) for _ in range(3)] == [0, 0, 0.5]
    assert rates.wait("bob", now=0) == 0
    assert rates.wait("ada", now=0.5) == 0 and rates.wait("ada", now=0.5) == 0.5
    with rates.under_way("ada"):
        assert rates.wait("ada", now=9) == 1 and rates.wait("bob", now=9) == 0
    assert rates.wait("ada", now=9) == 0
    for number in range(10_000):
        rates.wait(str(number), now=10 + number)
    assert len(rates._left) < 5_000


async def test_a_link_is_its_actors_and_dies_with_the_last_token(
    http: httpx2.AsyncClient, studio: Studio, url: str
) -> None:
    film = studio.folder / "videos" / "film.mp4"
    film.write_bytes(b"film")
    ada, bob = ({"Authorization": f"Bearer {studio.add_token(name)}"} for name in ("ada", "bob"))
    link = FileLinks(studio, TOKEN).url(url, film, "ada")
    owner = {"Authorization": f"Bearer {TOKEN}"}
    for headers, status in (({}, 200), (ada, 200), (owner, 200), (bob, 403), ({"Authorization": "Bearer x"}, 401)):
        assert (await http.get(link, headers=headers)).status_code == status
    assert (await http.get(link.replace("/ada/", "/owner/"))).status_code == 403
    studio.revoke_token("ada")
    assert (await http.get(link)).status_code == 403


def test_a_revoked_owners_token_does_not_come_back_with_its_file(studio: Studio) -> None:
    http_app(studio, TOKEN)
    studio.revoke_token("owner")
    with pytest.raises(InvalidInput, match="revoked"):
        http_app(studio, TOKEN)
