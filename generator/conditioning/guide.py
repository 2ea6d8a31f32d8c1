"""The guide: latents of the previz in every slot that nothing else describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dreamontage.generator.conditioning.window import Canvas


@dataclass(frozen=True)
class GuideCondition:
    """Normalised latents [C,n,h,w] of the previz for the whole window. The mask stays 0000: a hint, nothing known."""

    latents: Tensor
    authority: ClassVar[int] = 0

    def write(self, canvas: Canvas) -> None:
        canvas.cond[:] = self.latents
        canvas.guided = True
