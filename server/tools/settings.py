"""What a montage is about and how it is made; putting it away and back."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.generator.models.catalogue import card
from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.montage import Aspect, Format, Montage

from ..actors import actor_of
from ..answers import EditAnswer
from ..arguments import Duration, MontageId, Revision
from ..changes import quoted
from ..context import Ctx, app_of
from ..toolkit import tool
from .anchors import SHOWN, edited


@tool("Change a montage's settings", destructive=True, idempotent=True, known=SHOWN)
def update_montage(
    ctx: Ctx,
    montage_id: MontageId,
    title: Annotated[str | None, Field(max_length=limits.MAX_TITLE_CHARS)] = None,
    brief: Annotated[str | None, Field(max_length=limits.MAX_PROMPT_CHARS)] = None,
    duration_s: Duration | None = None,
    format: Aspect | None = None,
    model: Annotated[str | None, Field(max_length=80)] = None,
    seed: Annotated[int | None, Field(ge=0, le=limits.MAX_SEED)] = None,
    audio: Annotated[
        str | None, Field(max_length=4_096, description="Path or media id of a sound or clip; '' for none.")
    ] = None,
    archive: Annotated[bool | None, Field(description="true puts it away, false restores it.")] = None,
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, EditAnswer]:
    """Change a montage's title, brief, duration, format, model or seed; what is left out stays. audio is laid under the
    video, trimmed and faded. archive puts it out of the list without losing anything."""
    asked = {"title": title, "brief": brief, "duration_s": duration_s, "seed": seed, "archived": archive}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    given |= {"model": card(model).id} if model is not None else {}
    notes: list[str] = []
    if audio is not None:
        given["audio"], notes = _sound(ctx, audio)
    touches = [*given, "format"] if format is not None else [*given]
    if not touches:
        raise InvalidInput(
            "nothing to change", allowed="title, brief, duration_s, format, model, seed, audio or archive"
        )

    def change(montage: Montage) -> Montage:
        shape = {} if format is None else {"format": Format.of(format, "standard", montage.format.fps)}
        return montage.model_copy(update=given | shape)

    told = given | ({"format": format} if format is not None else {})
    return edited(ctx, montage_id, "update_montage", told, change, if_revision, touches, notes)


def _sound(ctx: Ctx, source: str) -> tuple[str | None, list[str]]:
    """The medium to lay under the video, None for none, and what is worth saying of it. Raises InvalidInput."""
    if not source:
        return None, []
    (media,) = app_of(ctx).take_in([source], "audio", actor_of(ctx).name)
    name = quoted(media.name or media.id)
    if not media.sound:
        raise InvalidInput(f"{name} has no sound", field="audio", allowed="a sound file, or a clip with sound")
    return media.id, [f"Under the video from its next render on: {name}, {media.duration_s:g} s."]
