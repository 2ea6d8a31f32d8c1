"""Resources: what tools answer can also be read by address. Nothing an agent needs exists only here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS

from dreamontage.schemas.errors import Forbidden, NotFound

from .actors import actor_of
from .context import App

if TYPE_CHECKING:
    from dreamontage.schemas.report import Video


READING = frozenset({"resources/read", "resources/subscribe", "subscriptions/listen", "prompts/get"})


async def reading_needs_its_scope(ctx: ServerRequestContext[App, Any], call_next: CallNext) -> HandlerResult:
    """Middleware: who may not read gets no resource and no prompt, and hears of no change. Raises MCPError."""
    if ctx.method in READING:
        try:
            actor_of(Context(request_context=ctx)).require("read", ctx.method)
        except Forbidden as error:
            raise MCPError(INVALID_PARAMS, str(error)) from error
    return await call_next(ctx)


def add_resources(server: MCPServer[App], app: App) -> None:
    """Montages, contact sheets and reports as resources."""

    @server.resource("montage://{montage_id}", title="Montage", mime_type="application/json")
    def montage(montage_id: str) -> str:
        """The stored document of a montage."""
        try:
            return app.studio.get_montage(montage_id).model_dump_json(indent=1)
        except NotFound as error:
            raise ResourceNotFoundError(str(error)) from error

    @server.resource("video://{video_id}/sheet", title="Contact sheet", mime_type="image/jpeg")
    def sheet(video_id: str) -> bytes:
        """The contact sheet of a finished video."""
        return Path(_video(video_id).sheet).read_bytes()

    @server.resource("video://{video_id}/report", title="Report", mime_type="application/json")
    def report(video_id: str) -> str:
        """The measured report of a finished video."""
        return _video(video_id).report.model_dump_json(indent=1)

    def _video(video_id: str) -> Video:
        try:
            return app.studio.video(video_id)
        except NotFound as error:
            raise ResourceNotFoundError(str(error)) from error
