"""Model cards and render settings."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import InvalidInput
from .montage import Aspect, Guide, Quality

Family = Literal["nano", "wan", "ti2v", "vace", "ltx", "ltx2"]


def lora_name(lora: str) -> str:
    """The name in "name" or "name:weight"."""
    return lora.partition(":")[0]


def lora_weight(lora: str) -> float:
    """The weight in "name:weight", 1 where there is none. Raises InvalidInput."""
    text = lora.partition(":")[2]
    try:
        weight = float(text or 1)
    except ValueError:
        weight = math.nan
    if not -4 <= weight <= 4:
        raise InvalidInput(f"{lora} has no usable weight", field="settings.loras", allowed="name or name:-4 to 4")
    return weight


class RenderSettings(BaseModel):
    """How a segment is denoised. Every field is optional; the model's card supplies what is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int | None = Field(None, ge=1, le=100, description="Denoising steps per segment.", examples=[4])
    guidance: float | None = Field(
        None, ge=0, le=30, allow_inf_nan=False, description="Classifier-free guidance; 1 is off."
    )
    shift: float | None = Field(
        None, gt=0, le=20, allow_inf_nan=False, description="Flow time shift; larger spends steps at high noise."
    )
    t0: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="Flow time from which guide=follow starts."
    )
    guide: Guide | None = Field(
        None, description="off: the paper's plain mode; loose: guided from noise; follow: guided from t0."
    )
    negative_prompt: str | None = Field(
        None, max_length=500, description="Words to steer away from, where guidance is on."
    )
    loras: list[str] | None = Field(
        None,
        max_length=4,
        description="LoRAs that the model's card lists, by name or name:weight.",
        examples=[["arbitrary-frames:0.8"]],
    )

    def over(self, defaults: RenderSettings) -> RenderSettings:
        """These settings, with what is unset taken from `defaults`."""
        return RenderSettings(**{**defaults.model_dump(), **self.model_dump(exclude_none=True)})


class WeightsSource(BaseModel):
    """Files of a repository that make up a model's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str = Field(description="Repository on the hub.", examples=["Wan-AI/Wan2.2-I2V-A14B-Diffusers"])
    revision: str = Field(description="Pinned commit; main: the newest, kept by hash once it is there.")
    files: list[str] = Field(description="Patterns of the files to take.", examples=[["vae/*", "transformer/*"]])
    into: str = Field("", description="Folder that they go to; empty: as they lie.")


class ModelCard(BaseModel):
    """What a model can do, and its own numbers; everything model-specific lives here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Id used in plan_montage.", examples=["nano"])
    title: str = Field(description="Human name.")
    licence: str = Field(description="Licence of the weights.", examples=["Apache-2.0"])
    forbids: str = Field("", description="What the licence forbids or asks for, in plain words.")
    licence_url: str = Field("", description="Its text.")
    must_accept: bool = Field(False, description="Whether the licence has to be accepted before it is pulled.")
    sources: list[WeightsSource] = Field(default_factory=list, description="Where its weights come from.")
    rank: int = Field(0, description="Quality among the models; model=auto takes the highest that fits.")
    summary: str = Field(description="What it is good for and what it is not, in plain words.")
    window: int = Field(description="W: slots rendered in one pass.", examples=[16])
    overlap: int = Field(description="O: slots carried over from the previous segment.", examples=[3])
    shortest: int = Field(description="L: fewest new slots of a segment.", examples=[4])
    defaults: RenderSettings = Field(description="Settings used where a render names none.")
    settings: list[str] = Field(description="Settings this model accepts.", examples=[["steps", "t0", "guide"]])
    loras: list[str] = Field(default_factory=list, description="LoRA names it accepts.")
    empty_condition: Literal["zeros", "grey"] = Field("zeros", description="What an empty condition slot holds.")
    family: Family = Field("nano", description="Which adapter renders with it.")
    condition: Literal["apart", "padded"] = Field(
        "apart", description="Each condition encoded by itself, or all written to one grey video that is encoded whole."
    )
    stride: int = Field(4, description="Frames that a slot stands for.")
    scale: int = Field(8, description="Pixels along a side that one latent stands for.")
    fps: int | None = Field(None, description="Its own frame rate; null: any.")
    sizes: dict[Quality, dict[Aspect, tuple[int, int]]] = Field(
        default_factory=dict, description="Its own sizes; where there is none, the montage's."
    )
    memory_gb: dict[Quality, float] = Field(
        default_factory=dict, description="GPU memory in GB that one whole window takes at most; empty: runs on a CPU."
    )
    words: list[str] = Field(default_factory=list, description="Prompt words the model understands; empty: free text.")
    speed: dict[str, float] = Field(
        default_factory=dict,
        description="Measured CPU seconds: {quality}_step per window slot and step, {quality}_deliver per slot.",
        examples=[{"draft_step": 0.02, "draft_deliver": 0.05}],
    )
    available: bool = Field(True, description="Whether its weights are on this machine.")

    @property
    def needs_gb(self) -> float:
        """GPU memory in GB below which it cannot render at all; 0: it runs on a CPU."""
        return min(self.memory_gb.values(), default=0.0)

    def check(self, settings: dict[str, Any]) -> None:
        """Refuse settings this model has no use for, naming those it accepts. Raises InvalidInput."""
        unknown = sorted(key for key, value in settings.items() if value is not None and key not in self.settings)
        if unknown:
            raise InvalidInput(
                f"{', '.join(unknown)} not known to model {self.id}",
                field="settings",
                allowed=", ".join(self.settings),
                next_call="list_models() shows each model's settings and defaults",
            )
        asked = settings.get("loras") or []
        wrong = sorted({lora_name(lora) for lora in asked} - set(self.loras))
        if wrong:
            raise InvalidInput(
                f"{', '.join(wrong)} is no LoRA of model {self.id}",
                field="settings.loras",
                allowed=", ".join(self.loras) or "none for this model",
            )
        for lora in asked:
            lora_weight(lora)
