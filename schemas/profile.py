"""How a model is run on a device: diffusers' switches for memory and speed, and named profiles over them."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import InvalidInput


class Switches(BaseModel):
    """The switches of one render. What is not exact changes latents, and so takes (`mark`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offload: Literal["none", "group"] = Field(
        "none", description="group: blocks wait in the machine's memory and are fetched one after the other; exact."
    )
    storage: Literal["full", "fp8"] = Field(
        "full", description="fp8: weights lie in 8 bits and are cast layer by layer (layerwise casting)."
    )
    quantise: Literal["none", "int8", "int4"] = Field("none", description="Weight-only quantisation by torchao.")
    attention: str = Field("native", description="Attention backend, as diffusers names it.", examples=["sage_hub"])
    cache: float = Field(
        0.0, ge=0, le=1, description="First-block cache: steps whose first block changes less are not computed; 0: off."
    )
    compile: bool = Field(False, description="Compile the repeated blocks; the first step takes minutes.")
    tiling: bool = Field(False, description="Encode and decode in tiles; seams may show on flat backgrounds.")

    @property
    def mark(self) -> str:
        """What of it changes latents, as text: part of every take's fingerprint; empty where nothing does."""
        changed = self.model_dump(exclude_defaults=True, exclude={"offload"})
        return ",".join(f"{name}={value}" for name, value in sorted(changed.items()))


PLAIN: Final = Switches()
PROFILES: Final[dict[str, tuple[Switches, ...]]] = {
    "auto": (
        PLAIN,
        Switches(offload="group"),
        Switches(tiling=True),  # delivery, not denoising, is the peak of most models
        Switches(offload="group", tiling=True),
        Switches(offload="group", storage="fp8", tiling=True),
    ),
    "quality": (PLAIN, Switches(offload="group")),
    "fast": (Switches(compile=True, cache=0.05), Switches(offload="group", cache=0.05)),
    "low-memory": (Switches(offload="group", storage="fp8", tiling=True),),
}
"""For every profile what it tries, from what is best to what takes least memory; the first that fits is taken."""


ATTENTION: Final = (
    "native", "flash", "flash_hub", "flash_varlen", "flash_varlen_hub", "flash_4_hub", "_flash_3", "_flash_varlen_3",
    "_flash_3_hub", "_flash_3_varlen_hub", "aiter_fa2_hub", "flex", "_native_cudnn", "_native_efficient",
    "_native_flash", "_native_math", "_native_npu", "_native_xla", "sage", "sage_hub", "sage_blackwell_hub",
    "sage_varlen", "_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90", "_sage_qk_int8_pv_fp16_cuda",
    "_sage_qk_int8_pv_fp16_triton", "xformers",
)  # fmt: skip
"""diffusers' attention backends, so that a misspelt one is refused when it is asked for, before anything is loaded."""


def ladder(profile: str) -> tuple[Switches, ...]:
    """What a profile tries, in order: a name, or a name and switches of one's own, "fast,cache=0.1,compile=off".

    Raises InvalidInput.
    """
    name, *own = (part.strip() for part in profile.split(","))
    if name not in PROFILES:
        raise InvalidInput(f"no profile is called {name!r}", field="profile", allowed=", ".join(PROFILES))
    settings: dict[str, Any] = {}
    for part in own:
        key, _, value = part.partition("=")
        if key not in Switches.model_fields or not value:
            raise InvalidInput(
                f"{part!r} is no switch",
                field="profile",
                allowed=f"NAME=VALUE; names: {', '.join(Switches.model_fields)}",
            )
        if key == "attention" and value not in ATTENTION:
            raise InvalidInput(
                f"no attention backend is called {value!r}", field="profile", allowed=", ".join(ATTENTION)
            )
        settings[key] = value
    try:
        rungs = [Switches.model_validate({**rung.model_dump(), **settings}) for rung in PROFILES[name]]
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]}={first['input']}: {first['msg']}", field="profile") from None
    return tuple(dict.fromkeys(rungs))
