"""What the page shows, as plain data: pure reading of the studio, nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamontage.generator.models.catalogue import cards
from dreamontage.generator.native import delivered_shape, native_shape
from dreamontage.schemas.errors import DreamontageError
from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.montage import Beat, Montage
from dreamontage.schemas.report import Video

from ..answers import verdict
from ..changes import told_patch
from ..context import App
from ..outlook import look_ahead, usual_quality
from ..store.events import Event

LISTED = 200
JOBS_SHOWN = 6
CHANGES_SHOWN = 12

Data = dict[str, Any]


def montages(app: App) -> Data:
    """Every montage in one line, the last edited first."""
    return {
        "montages": [
            {
                "id": montage.id,
                "name": _name(montage),
                "revision": montage.revision,
                "duration_s": montage.duration_s,
                "anchors": len(montage.anchors),
            }
            for montage in app.studio.list_montages(LISTED)
        ]
    }


def pulse(app: App, montage_id: str) -> Data:
    """What changes from second to second: a number that rises with every edit and job, and how far the jobs are."""
    jobs = app.studio.jobs(montage_id, limit=JOBS_SHOWN)
    videos = app.studio.videos(montage_id, 1)
    return {
        "version": f"{app.studio.get_montage(montage_id).revision}/{videos[0].id if videos else ''}",
        "jobs": [_job(job) for job in jobs],
    }


def montage(app: App, montage_id: str, base: str, viewer: str) -> Data:
    """One montage with its plan, jobs, newest video and latest changes. Raises NotFound.

    `base`: where links begin. `viewer`: the actor they are made for.
    """
    stored = app.studio.get_montage(montage_id)
    media = app.media_of(stored)
    videos = app.studio.videos(montage_id, 1)
    lately = app.studio.changes(montage_id, stored.revision - CHANGES_SHOWN)
    return {
        **pulse(app, montage_id),
        "montage": {
            "id": stored.id,
            "name": _name(stored),
            "brief": stored.brief,
            "revision": stored.revision,
            "requested_s": stored.duration_s,
            "size": _size(stored),
            "fps": stored.format.fps,
            "model": stored.model,
        },
        "plan": _plan(app, stored),
        "names": {item.id: item.name or item.id for item in media.values()},
        "beats": [_beat(beat) for beat in stored.beats],
        "video": _video(app, videos[0], base, viewer) if videos else None,
        "changes": [_change(event) for event in reversed(lately)],
    }


def _size(stored: Montage) -> str:
    """Width and height of its video at standard quality."""
    asked, card = stored.format, cards().get(stored.model)
    shape = asked if card is None else delivered_shape(asked, native_shape(asked, card, "standard"))
    return f"{shape.width}x{shape.height}"


def _plan(app: App, stored: Montage) -> Data:
    """Where everything lands and what a render would do now, or the sentence that says why it cannot be planned."""
    if not stored.anchors:
        return {"problem": "Nothing is pinned yet.", "duration_s": stored.duration_s, "anchors": [], "segments": []}
    quality = usual_quality(app, stored.id)
    try:
        plan, decisions, _ = look_ahead(app, stored, RenderRequest(quality=quality))
    except DreamontageError as error:
        return {"problem": str(error), "duration_s": stored.duration_s, "anchors": [], "segments": []}
    fps = plan.format.fps
    by = {anchor.id: anchor.by for anchor in stored.anchors}
    return {
        "quality": quality,
        "duration_s": plan.duration_s,
        "anchors": [
            {
                "id": a.anchor_id,
                "by": by[a.anchor_id],
                "media_id": a.media_id,
                "label": a.label,
                "kind": a.kind,
                "strength": a.strength,
                "requested_s": a.requested_s,
                "start_s": a.snapped_s,
                "end_s": (a.frame + a.frames - 1) / fps,
            }
            for a in plan.anchors
        ],
        "segments": [
            {
                "start_s": d.segment.start_s,
                "end_s": d.segment.end_s,
                "seam": d.segment.seam,
                "action": d.action,
                "reason": d.reason,
            }
            for d in decisions
        ],
        "warnings": plan.warnings,
    }


def _job(job: Job) -> Data:
    return {
        "id": job.id,
        "actor": job.actor,
        "state": job.state,
        "quality": job.request.quality,
        "revision": job.revision,
        "progress": job.progress.model_dump(),
        "error": job.error,
    }


def _video(app: App, video: Video, base: str, viewer: str) -> Data:
    assert app.links is not None
    return {
        "id": video.id,
        "quality": video.quality,
        "revision": video.revision,
        "url": app.links.url(base, Path(video.path), viewer),
        "sheet": app.links.url(base, Path(video.sheet), viewer),
        "bytes": video.bytes,
        "verdict": verdict(video.report),
        "report": video.report.model_dump(mode="json"),
    }


def _beat(beat: Beat) -> Data:
    camera = " ".join(filter(None, (beat.camera.move, beat.camera.direction))) if beat.camera else ""
    return {
        "id": beat.id,
        "by": beat.by,
        "start_s": beat.start_s,
        "end_s": beat.end_s,
        "prompt": beat.prompt,
        "camera": camera,
    }


def _change(event: Event) -> Data:
    return {"at": event.at, "actor": event.actor, "revision": event.revision, "what": told_patch(event.patch)}


def _name(montage: Montage) -> str:
    """Its title, else the first words of what it is about, else its id."""
    words = montage.title.strip() or montage.brief.strip()
    return words.splitlines()[0][:80] if words else montage.id
