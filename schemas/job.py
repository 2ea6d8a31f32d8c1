"""Jobs: durable, resumable, cancellable requests to render, pinned to a revision."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from . import limits
from .models import RenderSettings
from .montage import Quality
from .plan import Estimate
from .profile import Switches

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
After = Literal["hold", "follow"]


class RenderRequest(BaseModel):
    """What a job was asked to render."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quality: Quality = Field("draft", description="previz: no model; draft: small; standard: full size.")
    from_s: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Start of the part to render anew, seconds."
    )
    to_s: float | None = Field(None, gt=0, allow_inf_nan=False, description="End of the part to render anew, seconds.")
    seed: int | None = Field(None, ge=0, description="Seed for the part rendered anew; null keeps the derived seeds.")
    settings: RenderSettings = Field(
        default_factory=lambda: RenderSettings(), description="Overrides of the card's defaults."
    )
    after: After = Field("hold", description="hold keeps what follows the part; follow renders it anew.")
    takes: int = Field(
        1, ge=1, le=limits.MAX_TAKES, description="Takes of every segment of the part: what is there, and alternatives."
    )
    profile: str = Field("auto", description="How a GPU is used: auto, quality, fast, low-memory; own switches on top.")
    switches: Switches | None = Field(None, description="What the profile came to when the job was queued; null: none.")
    window: int | None = Field(None, ge=1, description="Slots of a window that fit the device; null: the model's own.")


class Progress(BaseModel):
    """How far a job is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str = Field("queued", description="queued, loading, denoising, decoding or done.")
    done: float = Field(0.0, description="Work units finished.")
    total: float = Field(1.0, description="Work units in all.")
    seconds_left: float | None = Field(None, description="Estimate of the remaining wall time.")
    segments_done: int = Field(0, description="Segments whose take exists.")
    segments_total: int = Field(0, description="Segments in the plan.")


class Job(BaseModel):
    """One request to render, pinned to a revision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Id of the job.", examples=["j_5t0v9e2a"])
    montage_id: str = Field(description="Montage to render.")
    revision: int = Field(description="Revision it is pinned to.")
    actor: str = Field("owner", description="Who asked for it.")
    request: RenderRequest = Field(description="What was asked for.")
    state: JobState = Field("queued", description="queued, running, done, failed or cancelled.")
    attempt: int = Field(0, description="How many workers have claimed it.")
    progress: Progress = Field(default_factory=lambda: Progress(), description="How far it is.")
    estimate: Estimate | None = Field(None, description="Cost as estimated when it was queued.")
    error: str | None = Field(None, description="Why it failed, and the way out.")
    video_id: str | None = Field(None, description="The finished video.")
    created_at: float = Field(description="Unix seconds.")
    updated_at: float = Field(description="Unix seconds.")
