"""Who calls: tokens kept as hashes, scopes checked on every call, names that nobody can pass as an argument."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from agent import Agent
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import Implementation
from serving import served
from typer.testing import CliRunner

from dreamontage.schemas.errors import InvalidInput, NotFound
from dreamontage.server.actors import Actor
from dreamontage.server.app import build_server
from dreamontage.server.http import http_app
from dreamontage.server.store import Studio
from dreamontage.server.tokens_cli import app
from dreamontage.server.tools import TOOLS

pytestmark = pytest.mark.anyio


def test_a_token_is_told_once_and_kept_as_a_hash(studio: Studio) -> None:
    token = studio.add_token("ada", ["edit"])
    assert len(token) > 40
    assert studio.actor_of_token(token) == Actor("ada", frozenset({"read", "edit"}))
    assert studio.actor_of_token(token[:-1]) is None and studio.actor_of_token("") is None
    studio.close()
    assert not any(token.encode() in file.read_bytes() for file in studio.folder.iterdir() if file.is_file())


def test_a_token_opens_nothing_once_it_is_over_or_revoked(studio: Studio) -> None:
    over = studio.add_token("ada", ["read"], time.time() - 1)
    lasting, other = studio.add_token("ada", ["read"], time.time() + 60), studio.add_token("bob")
    assert studio.actor_of_token(over) is None and studio.actor_of_token(lasting) is not None
    studio.revoke_token("ada")
    assert studio.actor_of_token(lasting) is None
    studio.keep_token(lasting, "ada")
    assert studio.actor_of_token(lasting) is None
    (bobs,) = (token for token in studio.tokens() if token.actor == "bob")
    studio.revoke_token(bobs.id)
    assert studio.actor_of_token(other) is None
    with pytest.raises(NotFound, match="ada, bob"):
        studio.revoke_token("eve")


@pytest.mark.parametrize("name", ["", "worker", "a b", "ada\n", "-x", "x" * 41, "ada<script>", "Ада"])
def test_an_actor_has_a_plain_name(studio: Studio, name: str) -> None:
    with pytest.raises(InvalidInput, match="letters, digits"):
        studio.add_token(name)
    with pytest.raises(InvalidInput, match="edit, read, render"):
        studio.add_token("ada", ["admin"])  # type: ignore[list-item]
    assert studio.tokens() == []


def test_no_tool_takes_an_actor() -> None:
    for tool in TOOLS:
        assert not {"actor", "by", "author", "user"} & set(tool.parameters["properties"]), tool.name
        assert "'by'" not in str(tool.parameters), tool.name


@pytest.fixture
def url(studio: Studio, pictures: list[Path]) -> Iterator[str]:
    with served(http_app(studio, "a-token-for-tests-only", roots=[pictures[0].parent])) as address:
        yield address


async def test_a_token_allows_what_its_scopes_say_and_edits_bear_its_name(
    studio: Studio, url: str, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("app", "tools.render", "tools.jobs"):
        monkeypatch.setattr(f"dreamontage.server.{module}.ensure_worker", lambda studio: False)
    told: dict[str, Any] = {}
    for name, scopes in (("edna", ["edit"]), ("rhea", ["render"]), ("reed", ["read"])):
        bearer = {"Authorization": f"Bearer {studio.add_token(name, scopes)}"}  # type: ignore[arg-type]
        async with (
            httpx2.AsyncClient(headers=bearer, timeout=30) as http,
            Client(
                streamable_http_client(f"{url}/mcp", http_client=http),
                client_info=Implementation(name="somebody-else", version="1"),
            ) as client,
        ):
            agent = Agent(client)
            if name == "edna":
                told = await agent.call("plan_montage", anchors=[str(pictures[0])], duration_s=3)
                refusal = await agent.refused("render_segments", montage_id=told["montage_id"])
                assert "scope 'render'" in refusal and "dreamontage token add edna --scope edit,read,render" in refusal
            else:
                await agent.call("get_montage", montage_id=told["montage_id"])
                refusal = await agent.refused("update_montage", montage_id=told["montage_id"], seed=1)
                assert "scope 'edit'" in refusal
            if name == "rhea":
                job = await agent.call("render_segments", montage_id=told["montage_id"])
                await agent.call("cancel_job", job_id=job["job_id"])
    (anchor,) = studio.get_montage(told["montage_id"]).anchors
    assert anchor.by == "edna"
    makers = {event.op: event.actor for event in studio.events(told["montage_id"])}
    assert (makers["create"], makers["job.queued"], makers["job.cancel"]) == ("edna", "rhea", "rhea")


@pytest.mark.parametrize(
    ("client", "configured", "actor"),
    [
        ("Claude Code", None, "Claude-Code"),
        ("Claude Code", "ada", "ada"),
        ("worker", None, "owner"),
        ("<b>\n", None, "b"),
        ("…", None, "owner"),
    ],
)
async def test_without_http_the_actor_is_configured_or_the_clients_name(
    studio: Studio, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, client: str, configured: str, actor: str
) -> None:
    monkeypatch.delenv("DREAMONTAGE_ACTOR", raising=False)
    if configured:
        monkeypatch.setenv("DREAMONTAGE_ACTOR", configured)
    who = Implementation(name=client, version="1")
    async with Client(build_server(studio, roots=[pictures[0].parent]), client_info=who) as connected:
        await Agent(connected).call("plan_montage", anchors=["sunset.jpg"])
    assert studio.events()[-1].actor == actor


def test_the_command_line_adds_lists_and_revokes_tokens(tmp_path: Path) -> None:
    home = str(tmp_path / "studio")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--studio", home], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    token = run("add", "ada", "--scope", "read,edit", "--days", "2").strip()
    with Studio(home) as studio:
        assert studio.actor_of_token(token) == Actor("ada", frozenset({"read", "edit"}))
    listed = run("list")
    assert "ada  edit,read  valid until" in listed and token not in listed
    assert "of ada is revoked" in run("revoke", "ada")
    command = [sys.executable, "-m", "dreamontage.server.cli", "token", "add", "bob", "--scope", "admin"]
    done = subprocess.run([*command, "--studio", home], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Allowed: edit, read, render" in done.stderr
