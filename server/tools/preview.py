"""See the camera's way in seconds, without the model."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import anyio
import anyio.to_thread
from mcp.types import CallToolResult

from dreamontage.generator.models.catalogue import card
from dreamontage.generator.planner import plan_montage
from dreamontage.schemas.errors import DreamontageError, RenderFailed
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Report

from ..answers import PreviewAnswer, anchor_lines, describe_anchors, reply
from ..arguments import MontageId
from ..context import App, Ctx, app_of
from ..outlook import require_anchors
from ..previewing import FAILED, Assignment
from ..toolkit import tool

_TIMEOUT_S = 120.0


@tool("Preview a montage", read_only=True)
async def preview_montage(ctx: Ctx, montage_id: MontageId) -> Annotated[CallToolResult, PreviewAnswer]:
    """Look before rendering: a contact sheet of the previz, the sharp animatic of the camera's way between the anchors
    that guides the model, inline; and the animatic itself as a file. Takes seconds and no model."""
    app = app_of(ctx)
    montage = await anyio.to_thread.run_sync(app.studio.get_montage, montage_id)
    assignment = await anyio.to_thread.run_sync(partial(_assignment, app, montage))
    out = assignment.out
    if not (out / "report.json").exists():
        await ctx.report_progress(0, 1, "drawing the previz")
        await _draw(assignment)
    plan = plan_montage(montage, assignment.media, card(montage.model), "previz")
    report = Report.model_validate_json((out / "report.json").read_bytes())
    answer = PreviewAnswer(
        montage_id=montage.id,
        revision=montage.revision,
        sheet=app.file(ctx, out / "sheet.jpg"),
        animatic=app.file(ctx, out / "one-shot.mp4", duration_s=round(report.duration_s, 3)),
        notes=[*plan.warnings, *(f"{n.at_s:g} s: {n.what}" for n in report.notes[:5])],
        next=[f"render_segments(montage_id={montage_id!r})"],
    )
    assert answer.animatic is not None
    anchors = describe_anchors(anchor_lines(plan, montage))
    text = (
        f"Previz of {montage.id} revision {montage.revision}, {report.duration_s:.2f} s. "
        f"Anchors: {anchors}. Animatic: {answer.animatic.url or answer.animatic.path}. "
        f"{' '.join(answer.notes)} Next: {answer.next[0]}, or move what is not right with update_anchors or edit_beats."
    )
    return reply(" ".join(text.split()), answer, (out / "sheet.jpg").read_bytes())


def _assignment(app: App, montage: Montage) -> Assignment:
    require_anchors(montage)
    media = app.media_of(montage)
    plan_montage(montage, media, card(montage.model), "previz")
    return Assignment(
        montage=montage,
        media=media,
        blobs={media_id: app.studio.blob_path(media_id) for media_id in media},
        out=app.studio.folder / "previews" / f"{montage.id}-r{montage.revision}",
    )


async def _draw(assignment: Assignment) -> None:
    """Draw in a child process, which goes when the call is cancelled. Raises RenderFailed, or what the child met."""
    command = [sys.executable, "-P", "-m", "dreamontage.server.previewing"]
    with anyio.move_on_after(_TIMEOUT_S):
        done = await anyio.run_process(command, input=assignment.model_dump_json().encode(), check=False)
        if done.returncode == FAILED:
            raise DreamontageError(done.stdout.decode())
        if done.returncode != 0:
            sys.stderr.buffer.write(done.stderr)
            raise RenderFailed("the preview could not be drawn; details are in the server's log")
        return
    raise RenderFailed(
        f"the preview took longer than {_TIMEOUT_S:.0f} s",
        next_call=f"render_segments(montage_id={assignment.montage.id!r}, quality='previz') does it in the background",
    )
