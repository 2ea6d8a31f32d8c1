"""Media in."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.media import Media

from ..answers import MediaAnswer, MediaLine, reply
from ..arguments import SourceArgument
from ..context import Ctx, app_of
from ..toolkit import tool


@tool("Add pictures and clips", idempotent=True, known=["SourceForm"])
def add_media(
    ctx: Ctx,
    sources: Annotated[list[SourceArgument], Field(min_length=1, max_length=limits.MAX_SOURCES_PER_CALL)],
) -> Annotated[CallToolResult, MediaAnswer]:
    """Take pictures and clips into the studio and look at them: answers their ids, sizes and one labelled thumbnail
    picture. The same bytes always get the same id. Not needed before plan_montage or add_anchors, which take sources
    themselves. A plain string is a media id or a path inside the media roots."""
    from ..media.thumbnails import thumbnails

    app = app_of(ctx)
    taken = app.take_in(sources, "sources")
    unique = list({media.id: media for media in taken}.values())
    picture = thumbnails(app.studio, unique)
    return reply(describe(taken), MediaAnswer(media=[MediaLine.of(m) for m in taken]), picture)


def describe(media: list[Media]) -> str:
    """One line per medium."""
    lines = []
    for line in map(MediaLine.of, media):
        length = f", {line.duration_s:g} s at {line.fps:g} fps" if line.duration_s is not None else ""
        lines.append(
            f"{line.id}: {line.kind} {line.name} {line.size}{length}" + (f", {line.note}" if line.note else "")
        )
    return "\n".join(lines)
