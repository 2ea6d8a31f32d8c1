"""The montage: a shared document of format, anchors, beats and a revision number. It holds no number of any model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import limits
from .anchor import Anchor

Aspect = Literal["16:9", "9:16", "1:1"]
Quality = Literal["previz", "draft", "standard"]
Guide = Literal["off", "loose", "follow"]
Move = Literal["hold", "pan", "tilt", "zoom", "dolly", "roll", "orbit", "push_through", "whip"]
Direction = Literal["left", "right", "up", "down", "in", "out", "cw", "ccw"]
Ease = Literal["linear", "in", "out", "in_out"]

SIZES: dict[tuple[Aspect, Quality], tuple[int, int]] = {
    ("16:9", "draft"): (256, 144),
    ("9:16", "draft"): (144, 256),
    ("1:1", "draft"): (192, 192),
    ("16:9", "standard"): (512, 288),
    ("9:16", "standard"): (288, 512),
    ("1:1", "standard"): (384, 384),
}
DIRECTIONS: dict[str, tuple[str, ...]] = {
    "hold": (),
    "pan": ("left", "right"),
    "tilt": ("up", "down"),
    "zoom": ("in", "out"),
    "dolly": ("in", "out", "left", "right", "up", "down"),
    "roll": ("cw", "ccw"),
    "orbit": ("left", "right", "up", "down"),
    "push_through": ("in", "out"),
    "whip": ("left", "right", "up", "down"),
}

Seconds = Annotated[float, Field(ge=0, le=limits.MAX_DURATION_S, allow_inf_nan=False)]


class StrictModel(BaseModel):
    """A model that refuses unknown fields, so that a misspelt argument never passes silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(StrictModel):
    """Size in pixels and integer frame rate."""

    width: int = Field(512, description="Width in pixels.", examples=[512])
    height: int = Field(288, description="Height in pixels.", examples=[288])
    fps: int = Field(
        limits.DEFAULT_FPS, ge=limits.MIN_FPS, le=limits.MAX_FPS, description="Frames per second.", examples=[24]
    )

    @property
    def aspect(self) -> Aspect:
        """16:9, 9:16 or 1:1."""
        return "1:1" if self.width == self.height else "16:9" if self.width > self.height else "9:16"


class Format(Shape):
    """Delivered size in pixels, one of the known ones, and integer frame rate."""

    @model_validator(mode="after")
    def _known_size(self) -> Self:
        if (self.width, self.height) not in SIZES.values():
            sizes = ", ".join(f"{w}x{h} ({aspect} {quality})" for (aspect, quality), (w, h) in SIZES.items())
            raise ValueError(f"{self.width}x{self.height} is not a known size; known: {sizes}")
        return self

    @classmethod
    def of(cls, aspect: Aspect, quality: Quality = "standard", fps: int = limits.DEFAULT_FPS) -> Format:
        """The format of an aspect ratio at a quality; previz has the draft's size."""
        width, height = SIZES[aspect, "draft" if quality == "previz" else quality]
        return cls(width=width, height=height, fps=fps)

    def at(self, quality: Quality) -> Format:
        """The same aspect ratio and frame rate at another quality."""
        return Format.of(self.aspect, quality, self.fps)


class Camera(StrictModel):
    """A typed camera move. "Pan left": the camera turns left, the content moves right."""

    move: Move = Field(description="Kind of move.", examples=["pan"])
    direction: Direction | None = Field(
        None, description="Where the camera goes; allowed values depend on the move.", examples=["left"]
    )
    amount: float | None = Field(
        None,
        gt=0,
        le=360,
        allow_inf_nan=False,
        description="View widths for pan, tilt, dolly, whip; factor for zoom, push_through; degrees for roll, orbit.",
        examples=[0.5],
    )
    ease: Ease = Field("in_out", description="How the speed changes over the beat.", examples=["in_out"])

    @model_validator(mode="after")
    def _direction_fits(self) -> Self:
        allowed = DIRECTIONS[self.move]
        if self.direction is not None and self.direction not in allowed:
            raise ValueError(
                f"direction {self.direction} does not fit {self.move}; allowed: {', '.join(allowed) or 'none'}"
            )
        return self


class BeatSpec(StrictModel):
    """An interval of the timeline with a prompt and optionally a typed camera move, as it is asked for."""

    id: str = Field("", max_length=64, description="Id of the beat; empty to create one.", examples=["b1"])
    start_s: Seconds = Field(description="Start in seconds.", examples=[0.0])
    end_s: Seconds = Field(description="End in seconds, after the start.", examples=[4.0])
    prompt: str = Field(
        "",
        max_length=limits.MAX_PROMPT_CHARS,
        description="What happens, in words.",
        examples=["slow pan left over the lake"],
    )
    camera: Camera | None = Field(None, description="Typed camera move of this interval.")
    guide: Guide | None = Field(
        None,
        description="How closely the previz guides this interval; null takes the model's default.",
        examples=["follow"],
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s} must be after start_s {self.start_s}")
        return self


class Beat(BeatSpec):
    """An interval of the timeline as it is stored."""

    by: str = Field("", description="Who wrote it, or last changed more than its times.", examples=["ada"])


class Montage(StrictModel):
    """A shared document that agents edit: what the shot passes through, when, and in which words."""

    id: str = Field(description="Id of the montage.", examples=["m_3f9k2c7q"])
    revision: int = Field(1, ge=1, description="Rises by one with every edit.", examples=[3])
    title: str = Field("", max_length=limits.MAX_TITLE_CHARS, description="Short name for lists.")
    brief: str = Field("", max_length=limits.MAX_PROMPT_CHARS, description="What the shot is about, in words.")
    format: Format = Field(default_factory=lambda: Format(), description="Size at standard quality, and frame rate.")
    duration_s: float = Field(
        ge=limits.MIN_DURATION_S,
        le=limits.MAX_DURATION_S,
        allow_inf_nan=False,
        description="Requested duration in seconds.",
        examples=[12.0],
    )
    model: str = Field("nano", description="Model id, see list_models.", examples=["nano"])
    seed: int = Field(
        0, ge=0, le=limits.MAX_SEED, description="Seed from which every segment's seed derives.", examples=[7]
    )
    audio: str | None = Field(
        None, description="Media whose sound is laid under the video, trimmed and faded; null: none."
    )
    anchors: list[Anchor] = Field(default_factory=list, description="Pinned media, ordered by time.")
    beats: list[Beat] = Field(default_factory=list, description="Intervals with words, ordered by start.")
    archived: bool = Field(False, description="Put away: not listed, and not edited until it is restored.")

    @property
    def media_ids(self) -> set[str]:
        """All media that it uses: pinned ones, and the sound."""
        return {anchor.media_id for anchor in self.anchors} | ({self.audio} if self.audio else set())


def describe_validation_error(error: Any) -> str:
    """One sentence per fault of a pydantic ValidationError: field, problem, received value; no URLs."""
    faults = []
    for fault in error.errors(include_url=False):
        where = "".join(f"{part}." for part in fault["loc"]).removesuffix(".")
        said = (f"{where}: " if where else "") + fault["msg"].removeprefix("Value error, ")
        received = repr(fault.get("input"))
        received = received if len(received) <= 60 else received[:57] + "..."
        # Of a whole object it says already what is missing or does not fit together.
        faults.append(said if isinstance(fault.get("input"), dict) else f"{said} (received {received})")
    shown = "; ".join(faults[:5])
    return shown + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
