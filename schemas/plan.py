"""The plan: where every anchor lands, which segments are rendered in which order, and what it will cost."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .media import MediaKind
from .montage import Guide, Shape

SeamKind = Literal["start", "pinned", "carried"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlacedAnchor(_Frozen):
    """An anchor on the grid."""

    anchor_id: str = Field(description="Id of the anchor.")
    media_id: str = Field(description="Its media.")
    label: str = Field("", description="Short name.")
    kind: MediaKind = Field(description="still, or clip of 1+4m frames.")
    strength: float = Field(1.0, description="1 pins exactly.")
    requested_s: float = Field(description="Time asked for, seconds.")
    snapped_s: float = Field(description="Time it lands on, seconds; never more than half a slot away.")
    frame: int = Field(description="Global frame of its first frame, a multiple of the stride.")
    slot: int = Field(description="Latent slot of its first frame.")
    slots: int = Field(1, description="Latent slots it covers: 1 for a still, m+1 for a clip.")
    stride: int = Field(4, description="Frames that a slot stands for.")

    @property
    def last_slot(self) -> int:
        """The last slot it covers."""
        return self.slot + self.slots - 1

    @property
    def pinned(self) -> bool:
        """Whether the shot must pass exactly through it."""
        return self.strength == 1.0

    @property
    def frames(self) -> int:
        """Frames it covers, 1+4m (1+8m with slots of 8 frames)."""
        return self.stride * (self.slots - 1) + 1


class Segment(_Frozen):
    """A run of slots [start, stop) rendered in one pass on the window [window_start, stop)."""

    index: int = Field(description="Position in the plan, from 0.")
    start: int = Field(description="First new slot.")
    stop: int = Field(description="Slot after the last.")
    window_start: int = Field(
        description="First slot of the rendered window: start minus the overlap, 0 for the first."
    )
    stride: int = Field(4, description="Frames that a slot stands for.")
    start_s: float = Field(description="Start in seconds.")
    end_s: float = Field(description="End in seconds.")
    seam: SeamKind = Field(description="The border at its start: carried seams depend on the segment before.")
    closes: str | None = Field(None, description="Id of the anchor that closes it, if one does.")
    ordinal: int = Field(0, description="Number of forced splits since that anchor.")
    seed: int = Field(description="Seed of its noise, derived from the montage's seed and the anchor that closes it.")
    guide: Guide = Field(
        "follow", description="Resolved over the beats it touches: off if any says off, else the loosest."
    )


class Seam(_Frozen):
    """The border between two segments."""

    slot: int = Field(description="First slot of the later segment.")
    at_s: float = Field(description="Time in seconds.")
    kind: SeamKind = Field(description="pinned: both sides are fixed by a clip; carried: latents are handed over.")


class Estimate(_Frozen):
    """What a render would cost."""

    segments_to_render: int = Field(description="Segments whose take does not exist yet.")
    segments_reused: int = Field(0, description="Segments whose take is kept.")
    alternatives: int = Field(0, description="Takes to render beside the first ones.")
    seconds: float = Field(description="Estimated work in seconds on this machine.")
    low_s: float = Field(description="Lower end of the estimate.")
    high_s: float = Field(description="Upper end of the estimate.")
    bytes: int = Field(0, description="Disk that its takes and its video will take.")
    memory_gb: float | None = Field(None, description="Peak of device memory, in 10^9 bytes; null: not known.")
    segment_s: list[float] = Field(default_factory=list, description="Seconds of denoising, per take to render.")
    correction: float = Field(1.0, description="What the studio's last videos taught: seconds measured ÷ estimated.")


class Plan(_Frozen):
    """How a montage becomes one shot."""

    montage_id: str = Field(description="Montage planned.")
    revision: int = Field(description="Revision planned.")
    model: str = Field(description="Model id.")
    format: Shape = Field(description="Size and frame rate it is rendered in, the grid's: the model's own.")
    shown: Shape | None = Field(None, description="Delivered size and frame rate, where they are others.")
    requested_duration_s: float = Field(description="Duration asked for, seconds.")
    duration_s: float = Field(description="Delivered duration, seconds.")
    frames: int = Field(description="F, frames of the grid.")
    slots: int = Field(description="T, latent slots.")
    stride: int = Field(4, description="Frames that a slot stands for: the model's own.")
    anchors: list[PlacedAnchor] = Field(description="Every anchor on the grid, ordered by slot.")
    segments: list[Segment] = Field(description="Segments in order; together they cover [0, T) exactly.")
    seams: list[Seam] = Field(default_factory=list, description="Borders between segments.")
    warnings: list[str] = Field(default_factory=list, description="What was adapted, in plain words.")
    estimate: Estimate | None = Field(None, description="Cost, where it was asked for.")
