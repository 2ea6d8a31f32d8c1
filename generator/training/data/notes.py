"""What is known about a training clip: where it comes from, what its camera does, and when."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from dreamontage.schemas.montage import Camera

Category = Literal["camera", "effect", "sport", "space", "transition", "subject", "base"]
"""The five classes of visual-expression SFT (paper section 3.3), motion subjects for DPO, and everything else."""


class ClipBeat(BaseModel):
    """Words and a typed move that hold from `start_s` to `stop_s` of the clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_s: float
    stop_s: float
    prompt: str = ""
    camera: Camera | None = None


class ClipNote(BaseModel):
    """One clip's row in the manifest. `source` names the generator or package, `seed` draws the very same clip again.

    `boundaries_s` are the seconds at which a motion or a word begins or ends: image conditions are drawn there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    licence: str
    seed: int
    category: Category
    fps: int = 24
    frames: int
    width: int
    height: int
    beats: tuple[ClipBeat, ...] = ()
    boundaries_s: tuple[float, ...] = ()
