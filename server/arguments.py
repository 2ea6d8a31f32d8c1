"""What tools take in: compact, strict models whose faults are reported in one sentence."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Anchor, Fit, Share
from dreamontage.schemas.media import (
    InlineSource,
    MediaIdSource,
    PathSource,
    Source,
    VideoFrameSource,
    VideoPieceSource,
)
from dreamontage.schemas.montage import BeatSpec

Second = Annotated[float, Field(ge=0, le=limits.MAX_DURATION_S, allow_inf_nan=False)]
Gap = Annotated[float, Field(gt=0, le=limits.MAX_DURATION_S, allow_inf_nan=False)]
Duration = Annotated[
    float,
    Field(ge=limits.MIN_DURATION_S, le=limits.MAX_DURATION_S, allow_inf_nan=False, description="0.2 to 600."),
]
MontageId = Annotated[str, Field(max_length=80, examples=["m_3f9k2c7q"])]
Revision = Annotated[int, Field(ge=1, description="Refuse if it has moved on.")]

Focus = Annotated[
    tuple[Share, Share],
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "description": "[x, y] kept in view, as shares."}),
]

_FORMS = (
    (MediaIdSource, {"media_id"}),
    (PathSource, {"path"}),
    (VideoFrameSource, {"video_id", "at_s"}),
    (VideoPieceSource, {"video_id", "from_s", "to_s"}),
    (InlineSource, {"data", "mime"}),
)


class SourceForm(BaseModel):
    """{media_id} | {path} | {video_id, at_s} | {video_id, from_s, to_s} of an earlier video | {data, mime}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    media_id: str | None = None
    path: str | None = None
    video_id: str | None = None
    at_s: Second | None = None
    from_s: Second | None = None
    to_s: Second | None = None
    data: str | None = Field(None, max_length=limits.MAX_INLINE_BYTES * 2, description="Base64, 64 KiB decoded.")
    mime: str | None = Field(None, max_length=100)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if not any(names == self.model_fields_set for _, names in _FORMS):
            given = ", ".join(sorted(self.model_fields_set)) or "nothing"
            forms = " or ".join("{" + ", ".join(sorted(names)) + "}" for _, names in _FORMS)
            raise ValueError(f"a source has one of the forms {forms}, not {{{given}}}")
        return self

    def source(self) -> Source:
        """The typed source."""
        (form,) = (model for model, names in _FORMS if names == self.model_fields_set)
        return form.model_validate(self.model_dump(exclude_unset=True))


SourceArgument = Annotated[
    Annotated[str, Field(max_length=4_096), Tag("text")] | Annotated[SourceForm, Tag("form")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "form"),
]
"""A plain string is a media id or a path."""


def source_of(argument: str | SourceForm) -> Source:
    """The typed source of an argument."""
    return argument if isinstance(argument, str) else argument.source()


class AnchorSpec(BaseModel):
    """A new anchor. A plain string stands for {source}."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: SourceArgument = Field(description="Path or media id, or a form.")
    second: Second | None = Field(None, description="When; a clip's first frame lands there.")
    after: str | None = Field(None, description="Instead: id of the anchor it follows.")
    gap_s: Gap | None = Field(None, description="Seconds after that anchor's end, default 3.")
    strength: Share = Field(1.0, description="1 pins exactly.")
    in_s: Second = Field(0.0, description="Trim of a clip.")
    out_s: Second | None = None
    fit: Fit = "cover"
    focus: Focus = (0.5, 0.5)
    label: str = Field("", max_length=limits.MAX_LABEL_CHARS)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        # Agents also put the source's own fields beside the anchor's; no name is in both.
        if isinstance(value, str):
            return {"source": value}
        if not isinstance(value, dict) or "source" in value or value.keys().isdisjoint(SourceForm.model_fields):
            return value
        source = {key: part for key, part in value.items() if key in SourceForm.model_fields}
        return {"source": source} | {key: part for key, part in value.items() if key not in source}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_placement(self.second, self.after)
        _check_trim(self.in_s, self.out_s)
        if self.gap_s is not None and self.second is None and self.after is None:
            raise ValueError("gap_s needs after, or second with ripple")
        return self

    def anchor(self, anchor_id: str, media_id: str, second: float) -> Anchor:
        """The anchor this becomes."""
        look = self.model_dump(exclude={"source", "second", "after", "gap_s"})
        return Anchor(id=anchor_id, media_id=media_id, second=second, **look)


class AnchorChange(BaseModel):
    """A change of one anchor; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    source: SourceArgument | None = None
    second: Second | None = None
    after: str | None = None
    gap_s: Gap | None = None
    strength: Share | None = None
    in_s: Second | None = None
    out_s: Second | None = None
    fit: Fit | None = None
    focus: Focus | None = None
    label: str | None = Field(None, max_length=limits.MAX_LABEL_CHARS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_placement(self.second, self.after)
        _check_trim(self.in_s, self.out_s)
        if self.gap_s is not None and self.after is None:
            raise ValueError("gap_s needs after")
        return self

    def look(self) -> dict[str, Any]:
        """The fields that change beside place and media."""
        return self.model_dump(exclude={"id", "source", "second", "after", "gap_s"}, exclude_none=True)


class WhatIf(BaseModel):
    """Edits tried without storing them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    add: list[AnchorSpec] = Field(default_factory=list, max_length=limits.MAX_SOURCES_PER_CALL)
    update: Annotated[list[AnchorChange], WithJsonSchema({"type": "array", "description": "As in update_anchors."})] = (
        Field(default_factory=list, max_length=limits.MAX_ANCHORS)
    )
    remove: list[str] = Field(default_factory=list, max_length=limits.MAX_ANCHORS)
    beats: list[BeatSpec] = Field(default_factory=list, max_length=limits.MAX_BEATS)
    ripple: bool = False
    duration_s: Duration | None = None


def _check_placement(second: float | None, after: str | None) -> None:
    if second is not None and after is not None:
        raise ValueError("give second, or after with gap_s, not both")


def _check_trim(in_s: float | None, out_s: float | None) -> None:
    if in_s is not None and out_s is not None and out_s <= in_s:
        raise ValueError(f"out_s {out_s:g} must be after in_s {in_s:g}")
