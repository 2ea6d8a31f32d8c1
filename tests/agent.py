"""An agent as tests play it: calls tools, counts its calls, and wants every answer and refusal readable and short."""

from __future__ import annotations

import json
import time
from typing import Any

from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

FINAL = ("done", "failed", "cancelled")


class Agent:
    """A client's tool calls; waits are not counted."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.calls = 0
        self.last: CallToolResult | None = None

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """The structured answer of a call that must succeed."""
        self.calls += tool != "get_job"
        self.last = await self.client.call_tool(tool, arguments)
        assert not self.last.is_error, text(self.last)
        assert self.last.structured_content is not None
        within_budget(self.last)
        return dict(self.last.structured_content)

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        """The sentence with which a call is refused."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, text(result)
        sentence = text(result)
        for leak in ("Traceback", "pydantic", "http", 'File "', "site-packages"):
            assert leak not in sentence, sentence
        assert len(sentence) < 1_000, sentence
        return sentence

    async def finished(self, job_id: str, limit_s: float = 120.0) -> dict[str, Any]:
        """The final answer of a job."""
        deadline = time.monotonic() + limit_s
        while (answer := await self.call("get_job", job_id=job_id, wait_s=20))["state"] not in FINAL:
            assert time.monotonic() < deadline, answer
        assert answer["state"] == "done", answer
        return answer

    async def rendered(self, montage_id: str, **arguments: Any) -> dict[str, Any]:
        """Queue a render and wait for it."""
        return await self.finished((await self.call("render_segments", montage_id=montage_id, **arguments))["job_id"])

    def pictures(self) -> list[ImageContent]:
        """The pictures in the last answer."""
        assert self.last is not None
        return [block for block in self.last.content if isinstance(block, ImageContent)]


def within_budget(result: CallToolResult) -> None:
    """8k tokens of text and structured content, 700 KiB with pictures, whatever was called."""
    words = len(text(result).encode()) + len(json.dumps(result.structured_content, ensure_ascii=False).encode())
    assert words / 4 <= 8_000, words
    assert len(result.model_dump_json(by_alias=True)) <= 700 * 2**10


def text(result: CallToolResult) -> str:
    """The text of an answer."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
