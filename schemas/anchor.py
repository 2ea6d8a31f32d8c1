"""Anchors: media pinned at a time, through which the shot must pass."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import limits

Fit = Literal["cover", "contain", "stretch"]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Anchor(BaseModel):
    """One pinned picture or clip. The first frame of a clip lands at `second`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(max_length=64, description="Id of the anchor within its montage.", examples=["a1"])
    media_id: str = Field(description="Media taken in with add_media.", examples=["img_5d1f0c2ab3e4"])
    second: float = Field(
        ge=0, le=limits.MAX_DURATION_S, allow_inf_nan=False, description="Requested time in seconds.", examples=[3.0]
    )
    strength: float = Field(
        1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="1 pins exactly; below 1 the shot may deviate.",
        examples=[1.0],
    )
    in_s: float = Field(0.0, ge=0, allow_inf_nan=False, description="Start of a clip's trim, seconds in the clip.")
    out_s: float | None = Field(None, gt=0, allow_inf_nan=False, description="End of a clip's trim; null: its end.")
    fit: Fit = Field("cover", description="cover crops, contain adds a blurred border, stretch distorts.")
    focus: tuple[Share, Share] = Field(
        (0.5, 0.5), description="Point kept in view by cover, as shares of width and height.", examples=[(0.5, 0.4)]
    )
    label: str = Field("", max_length=limits.MAX_LABEL_CHARS, description="Short name shown in sheets and reports.")
    by: str = Field("", description="Who pinned it, or last changed more than its time.", examples=["ada"])

    @model_validator(mode="after")
    def _trim_is_ordered(self) -> Self:
        if self.out_s is not None and self.out_s <= self.in_s:
            raise ValueError(f"out_s {self.out_s} must be after in_s {self.in_s}")
        return self

    @property
    def pinned(self) -> bool:
        """Whether the shot must pass exactly through this anchor."""
        return self.strength == 1.0
