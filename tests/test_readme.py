"""The README claims only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
from mcp import Client

from dreamontage.server.app import build_server
from dreamontage.server.store import Studio

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_tool_and_no_other(studio: Studio) -> None:
    async def names() -> set[str]:
        async with Client(build_server(studio)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    rows = [line for line in README.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([a-z]+_[a-z]+)`", row.split("|")[1])}
    assert listed == anyio.run(names)


def test_every_file_the_readme_names_is_there() -> None:
    code = re.findall(r"`((?:generator|server|schemas)/[\w./]*)`", README)
    for path in code + re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / path).exists(), path
