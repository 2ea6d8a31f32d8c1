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


class Lora(BaseModel):
    """A LoRA that can be fetched for a model, and how it is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str = Field(description="What it does, in plain words.")
    source: WeightsSource = Field(description="Its file; for two experts the high-noise one's, then the other's.")
    licence: str = Field("Apache-2.0", description="Licence of the weights.")
    licence_url: str = Field("https://www.apache.org/licenses/LICENSE-2.0", description="Its text.")
    forbids: str = Field("", description="What the licence forbids or asks for, in plain words.")
    must_accept: bool = Field(False, description="Whether the licence has to be accepted before it is pulled.")
    weight: float = Field(1.0, description="Its weight where none is named.")
    settings: RenderSettings = Field(
        default_factory=lambda: RenderSettings(), description="What it needs where a render names nothing else."
    )


class Network(BaseModel):
    """Geometry of a model's networks, as the checkpoints' own configurations say it: what a render takes follows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(description="Blocks of the transformer.", examples=[30])
    width: int = Field(description="Numbers that stand for a token.", examples=[1536])
    ffn: int = Field(description="Width inside a block's feed-forward.", examples=[8960])
    heads: int = Field(description="Attention heads.", examples=[12])
    channels: int = Field(description="Channels that go in: latents and what stands beside them.", examples=[36])
    out_channels: int = Field(16, description="Channels of a latent.")
    patch: int = Field(2, description="Latents along a side of a token.")
    experts: int = Field(1, description="Transformers, of which one works at a time.")
    control_layers: int = Field(0, description="Further blocks that read the control video (VACE).")
    picture_width: int = Field(0, description="Width of the picture embeddings that are attended to; 0: none.")
    sound_width: int = Field(0, description="Width of the stream that makes sound beside (LTX-2); 0: none.")
    text_width: int = Field(4096, description="Width of the text embeddings.")
    text_tokens: int = Field(512, description="Text tokens that are attended to, at most.")
    text_billions: float = Field(5.68, description="Parameters of the text encoder, in billions.")
    autoencoder: Literal["wan-2.1", "wan-2.2", "ltx-0.9.5", "ltx-2"] = Field("wan-2.1", description="Which it has.")


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
    loras: list[str] = Field(default_factory=list, description="LoRA names it accepts: those that are installed.")
    known_loras: dict[str, Lora] = Field(default_factory=dict, description="LoRAs that can be fetched for it, by name.")
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
    network: Network | None = Field(None, description="Geometry of its networks; null: it runs on a CPU.")
    words: list[str] = Field(default_factory=list, description="Prompt words the model understands; empty: free text.")
    speed: dict[str, float] = Field(
        default_factory=dict,
        description="Seconds: {quality}_deliver per slot; where it runs on a CPU, {quality}_step per slot and step.",
        examples=[{"draft_step": 0.02, "draft_deliver": 0.05}],
    )
    available: bool = Field(True, description="Whether its weights are on this machine.")

    def resolve(self, settings: RenderSettings) -> RenderSettings:
        """Settings over those of the LoRAs they name, the first one's before the next one's, over the card's defaults.

        LoRAs are named with their weights, but for 1.
        """
        asked = settings.loras or self.defaults.loras or []
        known = {name: self.known_loras[name] for name in map(lora_name, asked) if name in self.known_loras}
        for lora in known.values():
            settings = settings.over(lora.settings)
        weighed = [f"{lora}:{known[lora].weight:g}" if lora in known and known[lora].weight != 1 else lora
                   for lora in asked]  # fmt: skip
        return settings.over(self.defaults).model_copy(update={"loras": weighed or None})

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
            far = [name for name in wrong if name in self.known_loras]
            raise InvalidInput(
                f"the LoRA {far[0]} of {self.id} is not on this machine" if far else
                f"{', '.join(wrong)} is no LoRA of model {self.id}",
                field="settings.loras",
                allowed=", ".join(self.loras) or "none for this model",
                next_call=f"dreamontage pull {self.id} --lora {far[0]} fetches it" if far else None,
            )  # fmt: skip
        for lora in asked:
            lora_weight(lora)
