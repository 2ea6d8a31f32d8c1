"""Words and camera moves on intervals of the timeline."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult
from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.montage import BeatSpec, Montage

from .. import edits
from ..answers import EditAnswer
from ..arguments import MontageId, Revision
from ..context import Ctx
from ..toolkit import tool
from .anchors import SHOWN, edited


@tool("Edit beats", destructive=True, known=["Camera", *SHOWN])
def edit_beats(
    ctx: Ctx,
    montage_id: MontageId,
    upsert: Annotated[list[BeatSpec], Field(max_length=limits.MAX_BEATS)] = [],  # noqa: B006
    remove: Annotated[list[str], Field(max_length=limits.MAX_BEATS)] = [],  # noqa: B006
    if_revision: Revision | None = None,
) -> Annotated[CallToolResult, EditAnswer]:
    """Say what happens when: beats with an id replace that beat, those without are new, ids in remove go. Example:
    upsert=[{"start_s": 0, "end_s": 4, "prompt": "slow pan left", "camera": {"move": "pan", "direction": "left"}}]."""
    if not upsert and not remove:
        raise InvalidInput("nothing to do", field="upsert", allowed="beats in upsert, ids in remove, or both")

    def change(montage: Montage) -> Montage:
        return edits.edit_beats(montage, upsert, remove)

    changed = {"upsert": [b.model_dump(exclude_none=True) for b in upsert], "remove": remove}
    touches = [f"beat:{name}" for name in (*(b.id for b in upsert if b.id), *remove)]
    return edited(ctx, montage_id, "edit_beats", changed, change, if_revision, touches)
