"""The tools, one file per subject, in the order in which agents meet them."""

from __future__ import annotations

from ..tasks import TaskTool
from ..toolkit import ScopedTool
from . import anchors, beats, jobs, media, models, planning, preview, render, seeing, settings, sharing

TOOLS: tuple[ScopedTool, ...] = (
    planning.plan_montage,
    planning.get_montage,
    planning.list_montages,
    settings.update_montage,
    media.add_media,
    anchors.add_anchors,
    anchors.update_anchors,
    anchors.remove_anchors,
    beats.edit_beats,
    preview.preview_montage,
    render.render_segments,
    jobs.get_job,
    jobs.cancel_job,
    seeing.view_video,
    seeing.choose_take,
    sharing.get_changes,
    sharing.undo_changes,
    sharing.fork_montage,
    sharing.merge_montage,
    models.list_models,
)

TASK_TOOLS = {"render_segments": TaskTool(jobs.describe_job)}
"""Whose calls become tasks for clients that have them."""
