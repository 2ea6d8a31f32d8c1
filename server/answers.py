"""What tools answer: typed structured content, a short text beside it, pictures inline."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError
from dreamontage.schemas.job import Job, JobState
from dreamontage.schemas.media import Media, MediaKind
from dreamontage.schemas.montage import Beat, Montage, Quality
from dreamontage.schemas.plan import Plan
from dreamontage.schemas.report import Report, Video

from .changes import quoted
from .paging import fitted


class Answer(BaseModel):
    """Structured content of an answer. One that had to be shortened says so under `cut`, beside its own fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class MediaLine(Answer):
    id: str
    kind: MediaKind | Literal["sound"]
    name: str
    size: str | None = Field(None, description="Pixels.")
    duration_s: float | None = None
    fps: float | None = None
    note: str | None = None

    @classmethod
    def of(cls, media: Media) -> MediaLine:
        clip = media.kind == "clip"
        return cls(
            id=media.id,
            kind=media.kind,
            name=media.name,
            size=f"{media.width}x{media.height}" if media.width else None,
            duration_s=round(media.duration_s, 3) if media.duration_s else None,
            fps=round(media.fps, 3) if clip else None,
            note="its sound will be dropped" if clip and media.sound else None,
        )


class UploadLine(Answer):
    put: str = Field(description="Where one PUT may send one file; it answers the media id.")
    expires_in_s: int
    max_bytes: int


class MediaAnswer(Answer):
    media: list[MediaLine]
    upload: UploadLine | None = None
    inbox: str | None = Field(None, description="Folder to copy files into instead.")


class AnchorLine(Answer):
    id: str
    label: str
    requested_s: float
    snapped_s: float
    end_s: float | None = Field(None, description="Last frame of a clip.")
    by: str | None = Field(None, description="Who wrote the label.")


class Outlook(Answer):
    """What a render of this montage would do now."""

    quality: Quality
    segments_to_render: int
    segments_reused: int
    alternatives: int | None = None
    seconds: float = Field(description="Estimated work.")
    to_render_s: list[list[float]]


class PlanAnswer(Answer):
    montage_id: str
    revision: int
    stored: bool = Field(description="False: a what-if.")
    model: str
    size: str
    fps: int
    requested_duration_s: float
    duration_s: float
    anchors: list[AnchorLine]
    seams_s: list[float]
    outlook: Outlook
    warnings: list[str]
    next: list[str]


class EditAnswer(Answer):
    montage_id: str
    revision: int
    duration_s: float
    anchors: list[AnchorLine]
    beat_ids: list[str]
    outlook: Outlook
    warnings: list[str]
    next: list[str]


class ClashLine(Answer):
    """Changed on both sides."""

    what: str
    base: str
    keep: str
    keep_by: str
    take: str
    take_by: str


class MergeAnswer(EditAnswer):
    conflicts: list[ClashLine] | None = Field(None, description="Where there are any, nothing was changed.")


class ChangesAnswer(Answer):
    montage_id: str
    revision: int
    changes: list[str] = Field(description="Newest last.")
    more: str | None = Field(None, description="Call for earlier ones.")


class MontageAnswer(Answer):
    montage: Annotated[
        dict[str, Any],
        WithJsonSchema(
            {
                "type": "object",
                "description": "id, revision, title, brief, format, duration_s, model, seed, anchors, beats, archived.",
            }
        ),
    ]
    videos: list[str] = Field(description="Newest first.")
    changes: list[str] = Field(description="Newest last.")
    more: str | None = Field(None, description="Call for the other anchors and beats.")
    timeline: str | None = None


class MontageLine(Answer):
    montage_id: str
    revision: int
    title: str | None = None
    brief: str
    by: str = Field(description="Who wrote the brief.")
    duration_s: float
    anchors: int
    latest_video: str | None = None


class MontagesAnswer(Answer):
    montages: list[MontageLine]
    more: str | None = Field(None, description="Call for the rest.")


class FileLine(Answer):
    path: str
    bytes: int
    sha256: str | None = None
    duration_s: float | None = None
    url: str | None = Field(None, description="Expires after an hour.")


class PreviewAnswer(Answer):
    montage_id: str
    revision: int
    sheet: FileLine
    animatic: FileLine | None = None
    notes: list[str]
    next: list[str]


class JobLine(Answer):
    job_id: str
    montage_id: str
    revision: int
    quality: Quality
    state: JobState
    video_id: str | None = None

    @classmethod
    def of(cls, job: Job) -> JobLine:
        return cls(
            job_id=job.id,
            montage_id=job.montage_id,
            revision=job.revision,
            quality=job.request.quality,
            state=job.state,
            video_id=job.video_id,
        )


class TakeLine(Answer):
    """One take of a segment."""

    take_id: str
    start_s: float
    end_s: float


class AlternativeLine(Answer):
    """A video of the same job with other takes."""

    video_id: str
    verdict: str
    file: FileLine
    takes: list[TakeLine] = Field(description="The first 20; view_video names those of a stretch.")


class JobAnswer(Answer):
    job_id: str | None = None
    state: JobState | None = None
    stage: str | None = None
    done: float | None = None
    total: float | None = None
    seconds_left: float | None = None
    check_again_in_s: float | None = None
    verdict: str | None = None
    video_id: str | None = None
    file: FileLine | None = None
    segments_rendered: int | None = None
    segments_reused: int | None = None
    alternatives: list[AlternativeLine] | None = None
    notes: list[str] | None = None
    error: str | None = None
    next: list[str] | None = None
    report: dict[str, Any] | None = None
    jobs: list[JobLine] | None = Field(None, description="Without a job_id.")
    more: str | None = None


class RenderAnswer(Answer):
    job_id: str
    state: JobState
    montage_id: str
    revision: int
    range_s: list[float] = Field(description="Widened to whole segments.")
    outlook: Outlook
    check_again_in_s: float
    notes: list[str]
    next: list[str]


class ModelLine(Answer):
    id: str
    title: str
    licence: str
    summary: str
    forbids: str
    available: bool
    get: str
    needs_gpu_gb: float
    here: str
    settings: list[str]
    defaults: dict[str, str | float | int | list[str]]
    loras: list[str]
    get_loras: list[str]
    words: list[str]


class ModelsAnswer(Answer):
    models: list[ModelLine]


class Refusal(Answer):
    """What every error answers, whatever the tool."""

    code: str
    problem: str
    field: str | None = None
    allowed: str | None = None
    next: list[str] | None = None


def reply(text: str, structured: Answer, picture: bytes | None = None) -> CallToolResult:
    """The result of a call: short text, structured content without nulls, one JPEG inline; all within limits."""
    text, data = fitted(text, structured.model_dump(mode="json", exclude_none=True))
    content: list[ContentBlock] = [TextContent(type="text", text=text)]
    if picture is not None:
        assert len(picture) <= limits.MAX_PICTURE_BYTES
        content.append(ImageContent(type="image", data=base64.b64encode(picture).decode(), mime_type="image/jpeg"))
    return CallToolResult(content=content, structured_content=data)


def failure(error: DreamontageError, field: str | None = None) -> CallToolResult:
    """An error the agent can read and act on, and a program, too. `field`: where the error's own text names it."""
    refusal = Refusal(
        code=error.code,
        problem=error.problem,
        field=error.field or field,
        allowed=error.allowed,
        next=[error.next_call] if error.next_call else None,
    )
    return reply(str(error), refusal).model_copy(update={"is_error": True})


def anchor_lines(plan: Plan, montage: Montage) -> list[AnchorLine]:
    """Every anchor with the time asked for and the time it lands on."""
    fps = plan.format.fps
    authors = {anchor.id: anchor.by for anchor in montage.anchors if anchor.label}
    return [
        AnchorLine(
            id=a.anchor_id,
            label=a.label,
            requested_s=a.requested_s,
            snapped_s=round(a.snapped_s, 3),
            end_s=round((a.frame + a.frames - 1) / fps, 3) if a.kind == "clip" else None,
            by=authors.get(a.anchor_id) or None,
        )
        for a in plan.anchors
    ]


def describe_anchors(lines: list[AnchorLine]) -> str:
    """`a1 "lake.jpg" at 0 s; a2 "walk" by ada at 3–5.5 s (asked 2.9)`."""
    texts = []
    for line in lines:
        at = f"{line.snapped_s:g}" + (f"–{line.end_s:g}" if line.end_s is not None else "")
        asked = f" (asked {line.requested_s:g})" if abs(line.requested_s - line.snapped_s) > 5e-4 else ""
        texts.append(f"{line.id} {quoted(line.label, line.by or '')} at {at} s{asked}")
    shown = "; ".join(texts[:12])
    return shown + (f"; and {len(texts) - 12} more" if len(texts) > 12 else "")


def describe_outlook(outlook: Outlook) -> str:
    """One sentence on what a render would cost."""
    if outlook.quality == "previz":
        return f"A previz takes about {outlook.seconds:.0f} s."
    kept = f", {outlook.segments_reused} reused" if outlook.segments_reused else ""
    count = outlook.segments_to_render
    others = f" and {outlook.alternatives} alternatives" if outlook.alternatives else ""
    return (
        f"A {outlook.quality} render would now do {count} segment{'s' * (count != 1)}{others}{kept}, "
        f"about {outlook.seconds:.0f} s."
    )


def describe_beat(beat: Beat) -> str:
    """`b1 0–4 s: "slow pan left" by ada (pan left)`."""
    words = quoted(beat.prompt, beat.by) if beat.prompt else "–"
    camera = f" ({beat.camera.move} {beat.camera.direction or ''})".replace(" )", ")") if beat.camera else ""
    return f"{beat.id} {beat.start_s:g}–{beat.end_s:g} s: {words}{camera}"


def verdict(report: Report) -> str:
    """One sentence: did it work, and what should be looked at."""
    pinned = [a for a in report.anchors if a.strength == 1.0]
    hit = sum(a.best_offset_frames == 0 for a in pinned)
    parts = [
        f"One continuous shot of {report.duration_s:.2f} s at {report.width}x{report.height}",
        f"{hit} of {len(pinned)} pinned anchors exactly on time",
        f"{len(report.cuts)} suspected cut{'s' * (len(report.cuts) != 1)}" if report.cuts else "no cut found",
    ]
    problems = [f"{n.at_s:.2f} s: {n.what.rstrip('.')}" for n in report.notes if n.severity == "problem"]
    return "; ".join(parts) + ("." if not problems else f". Look at {problems[0]}.")


def take_lines(video: Video) -> list[TakeLine]:
    """The takes of a video with the seconds they show."""
    return [
        TakeLine(take_id=take.take_id, start_s=round(part.start_s, 3), end_s=round(part.end_s, 3))
        for take, part in zip(video.segments, video.report.segments, strict=True)
    ]


def reused(video: Video) -> tuple[int, int]:
    """How many segments a video rendered and how many it kept."""
    kept = sum(s.reused for s in video.report.segments)
    return len(video.report.segments) - kept, kept
