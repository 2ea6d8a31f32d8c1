"""Every way to install that the documents show works as it is written there: blocks, bundle, registry entry."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

ROOT = Path(__file__).parents[1]
HOSTS = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = re.compile(r"(?:~|/home/you|\$\{HOME\}|\$\{userHome\})/\.dreamontage/bin/dreamontage")
PART = re.compile(
    r"^## (?P<heading>[^\n]+)$|^```(?P<language>\w+) (?P<kind>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
ADDRESS = "http://127.0.0.1:8765"
HERE = [sys.executable, "-P", "-m", "dreamontage.server.cli"]
"""The installed command, wherever the tests run from."""


@dataclass(frozen=True)
class Way:
    """How a host reaches the server: a command on stdio, or an address with headers."""

    host: str
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def blocks(kind: str) -> list[tuple[str, str, str]]:
    """Heading, language and text of every block of a kind."""
    found, heading = [], ""
    for part in PART.finditer(HOSTS):
        heading = part["heading"] or heading
        if part["kind"] == kind:
            found.append((heading, part["language"], part["text"]))
    return found


def ways(kind: str) -> list[Way]:
    return [_way(heading, language, text) for heading, language, text in blocks(kind)]


def _way(heading: str, language: str, text: str) -> Way:
    if language == "sh":
        words = shlex.split(text)
        assert words[:3] == ["claude", "mcp", "add"], text
        if "--" in words:
            return Way("Claude Code", command=tuple(words[words.index("--") + 1 :]))
        (url,) = (word for word in words if word.startswith("http:"))
        return Way("Claude Code", url=url, headers=_header(words[words.index("--header") + 1]))
    told = json.loads(text)
    (server,) = (told.get("mcpServers") or told["servers"]).values()
    if "url" in server:
        return Way(heading, url=server["url"], headers=server["headers"])
    return Way(heading, (server["command"], *server["args"]), server.get("env", {}))


def _header(text: str) -> dict[str, str]:
    name, _, value = text.partition(": ")
    return {name: value}


def installed(command: tuple[str, ...]) -> list[str]:
    """A block's command with the path of the installed one put in."""
    assert INSTALLED.fullmatch(command[0]), command[0]
    return [*HERE, *command[1:]]


def shell(kind: str) -> list[str]:
    ((_, _, text),) = blocks(kind)
    return installed(tuple(shlex.split(text)))


async def handshake(client: Client) -> set[str]:
    async with client:
        with anyio.fail_after(30):
            return {tool.name for tool in (await client.list_tools()).tools}


def test_the_four_hosts_have_a_block_each() -> None:
    assert {way.host for way in ways("stdio")} == {"Claude Desktop", "Claude Code", "VS Code", "Cursor"}
    assert len(ways("http")) == 3


@functools.cache
def tools_over_stdio(command: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> set[str]:
    server = StdioServerParameters(command=command[0], args=list(command[1:]), env={**os.environ, **dict(environment)})
    return anyio.run(handshake, Client(server))


@pytest.mark.parametrize("way", ways("stdio"), ids=lambda way: way.host)
def test_every_stdio_block_starts_a_server_that_lists_its_tools(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_HOME", str(tmp_path))
    tools = tools_over_stdio(tuple(installed(way.command)), tuple(way.environment.items()))
    assert {"plan_montage", "render_segments", "get_job"} <= tools


@pytest.fixture(scope="module")
def over_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and token of a server that the document's own commands started and named an agent to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "DREAMONTAGE_HOME": str(tmp_path_factory.mktemp("studio")), "DREAMONTAGE_LOG": "json"}
    start = [port if word == "8765" else word for word in shell("http-server")]
    with subprocess.Popen(start, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert f"http://127.0.0.1:{port}/mcp" in server.stderr.readline()
        made = subprocess.run(shell("token"), env=environment, capture_output=True, text=True, timeout=60)
        assert made.returncode == 0, made.stderr
        (token,) = re.findall(r"dm_[\w-]{40,}", made.stdout)
        yield f"http://127.0.0.1:{port}", token
        server.terminate()
        server.stderr.read()


@pytest.mark.anyio
@pytest.mark.parametrize("way", ways("http"), ids=lambda way: way.host)
async def test_every_http_block_reaches_a_server_that_lists_its_tools(way: Way, over_http: tuple[str, str]) -> None:
    address, token = over_http
    assert way.url.startswith(ADDRESS)
    headers = {k: v.replace("${input:token}", "TOKEN").replace("TOKEN", token) for k, v in way.headers.items()}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as authorised:
        url = way.url.replace(ADDRESS, address)
        assert "plan_montage" in await handshake(Client(streamable_http_client(url, http_client=authorised)))


def test_the_bundle_starts_the_server_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((ROOT / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == (PROJECT["name"], PROJECT["version"])
    pack = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "git archive" in line)
    paths = shlex.split(pack.replace("$(ROOMS)", "server generator schemas"))[5:]
    archive = ["git", "archive", "--format=zip", "HEAD", *paths]
    packed = subprocess.run(archive, cwd=ROOT, check=True, capture_output=True).stdout
    names = set(zipfile.ZipFile(io.BytesIO(packed)).namelist())
    assert {"manifest.json", "pyproject.toml", "README.md", "LICENSE", manifest["server"]["entry_point"]} <= names
    config: dict[str, Any] = manifest["server"]["mcp_config"]
    uv, script = config["args"][:3], tuple(config["args"][3:])
    assert (config["command"], uv) == ("uv", ["run", "--directory", "${__dirname}"])
    assert script[0] in PROJECT["scripts"]
    for value in re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(config)):
        assert value in manifest["user_config"]
    monkeypatch.setenv("DREAMONTAGE_HOME", str(tmp_path))
    environment = {k: v.replace("${user_config.media_root}", str(tmp_path)) for k, v in config["env"].items()}
    assert "plan_montage" in tools_over_stdio((*HERE, *script[1:]), tuple(environment.items()))


def test_the_registry_entry_names_this_package_and_how_to_start_it() -> None:
    entry = json.loads((ROOT / "server.json").read_text())
    assert entry["$schema"].endswith("/2025-12-11/server.schema.json")
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"]) and len(entry["description"]) <= 100
    assert entry["version"] == PROJECT["version"]
    (package,) = entry["packages"]
    assert (package["identifier"], package["version"]) == (PROJECT["name"], PROJECT["version"])
    assert package["identifier"] in PROJECT["scripts"], "uvx runs the script that is called like the package"
    assert [argument["value"] for argument in package["packageArguments"]] == ["serve"]
    code = "\n".join(file.read_text() for file in (ROOT / "server").rglob("*.py"))
    for variable in package["environmentVariables"]:
        assert f'"{variable["name"]}"' in code
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"mcp-name: {entry['name']}" in readme, "by this the registry knows that the package agrees"
