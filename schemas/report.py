"""The measured report that comes with every video, and the video itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .media import MediaKind
from .models import RenderSettings
from .montage import Guide, Quality
from .plan import SeamKind


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmentReport(_Frozen):
    """One rendered or reused segment."""

    start_s: float = Field(description="Start, seconds.")
    end_s: float = Field(description="End, seconds.")
    seam: SeamKind = Field(description="Border at its start.")
    seed: int = Field(description="Seed of its noise.")
    fingerprint: str = Field(description="Identity of its take.")
    reused: bool = Field(description="Whether the take existed before this job.")


class AnchorReport(_Frozen):
    """How the shot passes through one anchor."""

    label: str = Field(description="Short name or id.")
    kind: MediaKind = Field(description="still or clip.")
    strength: float = Field(description="1 pins exactly; only pinned anchors are graded.")
    requested_s: float = Field(description="Time asked for, seconds.")
    snapped_s: float = Field(description="Time on the grid, seconds.")
    frame: int = Field(description="Frame on the grid.")
    psnr_db: float = Field(description="PSNR of the delivered frame against the anchor's pixels, dB.")
    reference_psnr_db: float | None = Field(description="PSNR of that frame in D(E(previz)), dB; null for a previz.")
    best_offset_frames: int = Field(description="Where the anchor fits best within ±12 frames; 0 is right.")


class IntervalReport(_Frozen):
    """What happens between two neighbouring anchors."""

    start_s: float = Field(description="Start, seconds.")
    end_s: float = Field(description="End, seconds.")
    guide: Guide = Field(description="Guide mode in force.")
    t0: float = Field(description="Flow time the denoising started from.")
    sharpness_vs_anchors: float = Field(
        description="Mean gradient in between ÷ mean gradient of the anchors; 1 is equal."
    )
    motion: float = Field(description="Mean flow, shares of the width per second.")
    static_share: float = Field(description="Share of frame pairs that do not change visibly.")


class SeamReport(_Frozen):
    """How smoothly the shot crosses a seam."""

    at_s: float = Field(description="Time, seconds.")
    step_ratio: float = Field(description="Flow-compensated frame difference ÷ its median nearby; 1 is invisible.")
    jerk_ratio: float = Field(description="Third difference of luma and flow ÷ its median nearby.")
    fault: float | None = Field(None, description="The worse one's part that the previz does not show there, too.")

    @property
    def roughness(self) -> float:
        """What of it is the seam's own fault; above 3 is likely visible. A camera that turns there is not."""
        seen = max(self.step_ratio, self.jerk_ratio)
        return seen if self.fault is None else min(seen, self.fault)


class CutReport(_Frozen):
    """A place that looks like a cut."""

    at_s: float = Field(description="Time, seconds.")
    score: float = Field(description="Detector's score.")
    detector: str = Field(description="Detector's name.")


class Note(_Frozen):
    """A finding in plain words."""

    at_s: float = Field(description="Time, seconds.")
    severity: Literal["info", "warning", "problem"] = Field(description="How much it matters.")
    what: str = Field(description="What was seen.")
    suggestion: str = Field(description="What to try.")


class Timing(_Frozen):
    """Wall seconds of the job's stages."""

    encode_s: float = Field(description="Reading and encoding conditions and previz.")
    denoise_s: float = Field(description="Denoising.")
    decode_s: float = Field(description="Decoding, measuring and writing the video.")
    total_s: float = Field(description="Everything.")


class SegmentTime(_Frozen):
    """How long a segment's takes were denoised in this job."""

    start_s: float = Field(description="Start of the segment, seconds.")
    estimate_s: float = Field(description="Estimated seconds of denoising.")
    measured_s: float = Field(description="Measured seconds of denoising.")


class EstimateReport(_Frozen):
    """What had been estimated for the work of a job, denoising and delivery, beside what was measured."""

    profile: str = Field(description="How the device was used.")
    seconds: float = Field(description="Estimated seconds.")
    low_s: float = Field(description="Lower end of the estimate.")
    high_s: float = Field(description="Upper end of the estimate.")
    correction: float = Field(description="What earlier videos had taught: the factor that is in these seconds.")
    measured_s: float = Field(description="Measured seconds.")
    memory_gb: float | None = Field(description="Estimated peak of device memory in 10^9 bytes; null: not known.")
    measured_gb: float | None = Field(
        description="Measured peak: of the GPU, on a CPU of the process; null: the GPUs were other processes'."
    )
    segments: list[SegmentTime] = Field(description="Segments that were rendered, in order.")


class Report(_Frozen):
    """What was delivered, measured on the delivered frames before video compression."""

    requested_duration_s: float = Field(description="Duration asked for, seconds.")
    duration_s: float = Field(description="Delivered duration, seconds.")
    fps: int = Field(description="Frames per second.")
    frames: int = Field(description="Delivered frames.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    model: str = Field(description="Model id, or previz.")
    seed: int = Field(description="The montage's seed.")
    segments: list[SegmentReport] = Field(description="Segments in order.")
    anchors: list[AnchorReport] = Field(description="Anchors in order.")
    intervals: list[IntervalReport] = Field(description="Between and around the anchors.")
    seams: list[SeamReport] = Field(description="Seams in order.")
    cuts: list[CutReport] = Field(description="Suspected cuts; empty is right.")
    notes: list[Note] = Field(description="Findings in plain words.")
    timing: Timing = Field(description="Wall seconds.")
    peak_memory_bytes: int = Field(description="Resident memory of the worker during this job, model included.")
    estimate: EstimateReport | None = Field(None, description="The estimate, checked; null: there was none.")


class VideoSegment(_Frozen):
    """The take a video chose for one segment, with all that decides whether it can be kept after an edit."""

    start: int = Field(description="First new slot.")
    stop: int = Field(description="Slot after the last.")
    window_start: int = Field(description="First slot of its window.")
    seam: SeamKind = Field(description="Border at its start.")
    seed: int = Field(description="Seed used.")
    recipe: str = Field(description="Hash of everything window-relative that decides it, but seed, tail and held end.")
    fingerprint: str = Field(description="Identity of the take.")
    settings: RenderSettings = Field(
        default_factory=lambda: RenderSettings(), description="Settings it was rendered with, where they were named."
    )
    tail: str | None = Field(None, description="sha256 of the tail latents it continued from.")
    held: str | None = Field(None, description="sha256 of the held end, if its end was held.")
    end: str | None = Field(None, description="sha256 of its own last latents, which a carried segment continues from.")

    @property
    def take_id(self) -> str:
        """What agents call the take."""
        return f"t_{self.fingerprint[:16]}"


class Video(_Frozen):
    """An ordered choice of takes, decoded once."""

    id: str = Field(description="Id of the video.", examples=["v_8c2m1x0d"])
    montage_id: str = Field(description="Montage it shows.")
    revision: int = Field(description="Revision of the montage it shows.")
    quality: Quality = Field(description="previz, draft or standard.")
    path: str = Field(description="The mp4.")
    sheet: str = Field(description="The contact sheet.")
    report: Report = Field(description="The measured report.")
    segments: list[VideoSegment] = Field(default_factory=list, description="The takes; empty for a previz.")
    bytes: int = Field(description="Size of the mp4.")
    sha256: str = Field(description="Content hash of the mp4.")
    delivered: str | None = Field(None, description="Copy of the mp4 under a human name, if one was made.")
    alternative_of: str | None = Field(None, description="The video beside which it shows other takes, if it does.")
    alternatives: list[Video] = Field(
        default_factory=list, exclude=True, description="Videos of the same job that show other takes; stored apart."
    )
    last_choice: int = Field(0, description="The newest choice of a take that it knew of.")


class TakeChoice(_Frozen):
    """A take that was chosen for a segment. It counts from the next render on, until that part is rendered anew."""

    id: int = Field(description="Number of the choice, in the order in which they were made.")
    montage_id: str = Field(description="Montage it was chosen for.")
    quality: Quality = Field(description="Quality of the take.")
    video_id: str = Field(description="Video in which the take was found.")
    segment: VideoSegment = Field(description="The take, at the slots of the montage for which it was chosen.")
    actor: str = Field(description="Who chose it.")
    at: float = Field(description="Unix seconds.")
