"""The shipped HTTP server with the conformance suite's fixtures beside its own tools: serve.py STUDIO PORT.

Everything else is as shipped: extensions, subscriptions, door, tokens, Host and Origin checks. The suite's harness
cannot send a token, so one is put into every request before it reaches the door. The process says "ready" and listens
once its stdin ends, so that a replacement can stand by.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from content import add_content
from mcp.server import MCPServer
from mcp.types import CallToolResult, InputRequiredResult
from questions import add_questions
from starlette.types import ASGIApp, Receive, Scope, Send
from tasks import TASK_TOOLS, add_task_tools

from dreamontage.server import app as shipped
from dreamontage.server import http
from dreamontage.server.store import Studio

TOKEN = "conformance-suite-token-0123456789"


class WithFixtures(shipped.DreamontageServer):
    """The server, whose own tools are called as always; calls of fixtures go past its list of tools."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Any = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool of either kind."""
        if name in {tool.name for tool in shipped.TOOLS} or self._tool_manager.get_tool(name) is None:
            return await super().call_tool(name, arguments, context)
        return await MCPServer.call_tool(self, name, arguments, context)


class WithToken:
    """Puts the owner's token into requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with the token."""
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", f"Bearer {TOKEN}".encode())]}
        await self._app(scope, receive, send)


def application(studio: Studio) -> ASGIApp:
    """The shipped ASGI app over a studio, with fixtures and token."""
    shipped.DreamontageServer = WithFixtures  # type: ignore[misc]
    shipped.TASK_TOOLS.update(TASK_TOOLS)
    build = shipped.build_server

    def build_with_fixtures(studio: Studio, **options: Any) -> shipped.DreamontageServer:
        server = build(studio, **options)
        add_content(server)
        add_questions(server)
        add_task_tools(server, shipped.App(studio, ()))
        for fixture in (*server._tool_manager.list_tools(), *server._prompt_manager.list_prompts()):
            fixture.description = fixture.description or f"The suite's fixture {fixture.name}."
        return server

    http.build_server = build_with_fixtures
    return WithToken(http.http_app(studio, TOKEN))


if __name__ == "__main__":
    with Studio(sys.argv[1]) as opened:
        app = application(opened)
        print("ready", flush=True)
        sys.stdin.read()
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
