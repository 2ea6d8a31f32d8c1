"""Media in."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.media import Media

from ..actors import actor_of
from ..answers import MediaAnswer, MediaLine, UploadLine, reply
from ..arguments import SourceArgument
from ..changes import quoted
from ..context import App, Ctx, app_of
from ..toolkit import tool
from ..uploads import Uploads


@tool("Add pictures and clips", idempotent=True, known=["SourceForm"])
def add_media(
    ctx: Ctx,
    sources: Annotated[list[SourceArgument], Field(max_length=limits.MAX_SOURCES_PER_CALL)] = [],  # noqa: B006
    upload: Annotated[bool, Field(description="Ask instead where to send a file that is not on this machine.")] = False,
) -> Annotated[CallToolResult, MediaAnswer]:
    """Take pictures and clips into the studio and look at them: answers their ids, sizes and one labelled thumbnail
    picture. The same bytes always get the same id. Not needed before plan_montage or add_anchors, which take sources
    themselves. A plain string is a media id or a path inside the media roots."""
    from ..media.thumbnails import thumbnails

    if upload == bool(sources):
        raise InvalidInput(
            "give sources, or upload=true to learn where a file can be sent",
            field="sources",
            allowed=f"1 to {limits.MAX_SOURCES_PER_CALL} sources, without upload",
        )
    app = app_of(ctx)
    if upload:
        return _where_to_send(ctx, app)
    taken = app.take_in(sources, "sources", actor_of(ctx).name)
    unique = list({media.id: media for media in taken}.values())
    seen = [media for media in unique if media.kind != "sound"]
    picture = thumbnails(app.studio, seen) if seen else None
    return reply(describe(taken), MediaAnswer(media=[MediaLine.of(m) for m in taken]), picture)


def _where_to_send(ctx: Ctx, app: App) -> CallToolResult:
    request = ctx.request_context.request
    if request is None:
        inbox = str(app.studio.inbox)
        text = f"This server reads local files: copy the file into {inbox}, then add_media with its name."
        return reply(text, MediaAnswer(media=[], inbox=inbox))
    place = UploadLine(
        put=Uploads(app.studio).address(str(request.base_url), actor_of(ctx).name),
        expires_in_s=limits.UPLOAD_TTL_S,
        max_bytes=limits.MAX_CLIP_BYTES,
    )
    text = (
        f"Send one file within {limits.UPLOAD_TTL_S // 60} minutes: curl -T FILE {place.put} – the answer holds its "
        "media id. The address is a secret, and works once."
    )
    return reply(text, MediaAnswer(media=[], upload=place))


def describe(media: list[Media]) -> str:
    """One line per medium."""
    lines = []
    for line in map(MediaLine.of, media):
        length = f"{line.duration_s:g} s" + (f" at {line.fps:g} fps" if line.fps else "") if line.duration_s else None
        facts = ", ".join(fact for fact in (line.size, length, line.note) if fact)
        lines.append(f"{line.id}: {line.kind} {quoted(line.name)} {facts}")
    return "\n".join(lines)
