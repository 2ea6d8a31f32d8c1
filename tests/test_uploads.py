"""Files sent over HTTP: addresses that work once, for a while, for whom they were made, and for bounded files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agent import Agent
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from serving import served

from dreamontage.schemas import limits
from dreamontage.schemas.errors import QuotaExceeded
from dreamontage.server.app import build_server
from dreamontage.server.http import http_app
from dreamontage.server.store import Studio

pytestmark = pytest.mark.anyio
OWNER_TOKEN = "a-token-for-tests-only"


@pytest.fixture
def url(studio: Studio) -> Iterator[str]:
    with served(http_app(studio, OWNER_TOKEN)) as address:
        yield address


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=30) as client:
        yield client


async def asked(url: str, token: str, tool: str = "add_media", **arguments: Any) -> dict[str, Any]:
    """The answer of one call made with a token."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as authorised,
        Client(streamable_http_client(f"{url}/mcp", http_client=authorised)) as client,
    ):
        return await Agent(client).call(tool, **arguments)


async def test_one_file_is_sent_to_an_address_and_becomes_media_of_its_actor(
    url: str, http: httpx2.AsyncClient, studio: Studio, pictures: list[Path]
) -> None:
    token = studio.add_token("ada", ["edit"])
    place = (await asked(url, token, upload=True))["upload"]
    assert place["put"].startswith(f"{url}/uploads/") and place["expires_in_s"] == 600
    sent = await http.put(f"{place['put']}lake.jpg", content=pictures[0].read_bytes())
    assert sent.status_code == 201, sent.text
    media = studio.media(sent.json()["media"]["id"])
    assert (media.name, media.kind) == ("lake.jpg", "still")
    assert (await asked(url, token, sources=[media.id]))["media"][0]["id"] == media.id
    with studio.db.read() as connection:
        assert connection.execute("SELECT actor FROM media").fetchone()[0] == "ada"
    again = await http.put(place["put"], content=pictures[1].read_bytes())
    assert again.status_code == 403 and "was used" in again.json()["error"]


async def test_an_address_is_refused_alike_whether_wrong_expired_used_or_anothers(
    url: str, http: httpx2.AsyncClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"Authorization": f"Bearer {studio.add_token('bob', ['edit'])}"}
    secret = studio.add_upload("ada")
    monkeypatch.setattr(limits, "UPLOAD_TTL_S", -1)
    expired = studio.add_upload("bob")
    answers = {
        (await http.put(f"{url}/uploads/{secret}/", content=b"x", headers=other)).text,
        (await http.put(f"{url}/uploads/{expired}/", content=b"x")).text,
        (await http.put(f"{url}/uploads/nonsense/", content=b"x")).text,
        (await http.put(f"{url}/uploads/%00/..%2f..%2fstudio.db", content=b"x")).text,
    }
    assert len(answers) == 1 and "not valid" in answers.pop()
    assert (await http.get(f"{url}/uploads/{secret}/")).status_code == 405


async def test_an_address_dies_with_the_token_it_was_made_with(
    url: str, http: httpx2.AsyncClient, studio: Studio
) -> None:
    studio.add_token("ada", ["edit"])
    secret = studio.add_upload("ada")
    studio.revoke_token("ada")
    answer = await http.put(f"{url}/uploads/{secret}/", content=b"x")
    assert answer.status_code == 403 and "no longer valid" in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"just some words, no picture at all" * 40, 415, "looks like text"),
        (b"", 415, "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), 415, "damaged PNG"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n" * 20, 415, "HLS"),
    ],
    ids=["words", "nothing", "damage", "playlist"],
)
async def test_what_is_no_picture_or_clip_is_refused_and_nothing_is_kept(
    url: str, http: httpx2.AsyncClient, studio: Studio, content: bytes, status: int, words: str
) -> None:
    answer = await http.put(f"{url}/uploads/{studio.add_upload('owner')}/a.png", content=content)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert list((studio.folder / "blobs").iterdir()) == []
    assert not [path for path in studio.folder.iterdir() if path.name.startswith("tmp")]


async def test_an_upload_beyond_its_bound_ends_early(
    url: str, http: httpx2.AsyncClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", 2_000)
    monkeypatch.setattr(limits, "MAX_CLIP_BYTES", 5_000)
    declared = await http.put(f"{url}/uploads/{studio.add_upload('owner')}/", content=bytes(6_000))
    assert declared.status_code == 413

    async def trickle() -> AsyncIterator[bytes]:
        yield b"\x89PNG\r\n\x1a\n" + bytes(600)
        for _ in range(4):
            yield bytes(600)

    streamed = await http.put(f"{url}/uploads/{studio.add_upload('owner')}/", content=trickle())
    assert streamed.status_code == 415 and "more than 2,000 bytes" in streamed.json()["error"]


async def test_open_addresses_are_counted_per_actor(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_OPEN_UPLOADS", 1)
    secret = studio.add_upload("ada")
    with pytest.raises(QuotaExceeded, match="still wait to be used"):
        studio.add_upload("ada")
    studio.add_upload("bob")
    assert studio.use_upload(secret, "ada", "owner") == "ada"
    studio.add_upload("ada")


async def test_without_http_the_inbox_is_named(studio: Studio) -> None:
    async with Client(build_server(studio)) as client:
        agent = Agent(client)
        answer = await agent.call("add_media", upload=True)
        assert answer["inbox"] == str(studio.inbox)
        for arguments in ({}, {"sources": ["a.png"], "upload": True}):
            assert "upload=true" in await agent.refused("add_media", **arguments)
