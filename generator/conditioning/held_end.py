"""The end of an earlier take that must stay, because what follows is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dreamontage.generator.conditioning.window import WHOLE, Canvas


@dataclass(frozen=True)
class HeldEndCondition:
    """The old take's last latents [C,O,h,w], given whole at the end of the window."""

    latents: Tensor
    authority: ClassVar[int] = 4

    def write(self, canvas: Canvas) -> None:
        first = canvas.cond.shape[1] - self.latents.shape[1]
        for index in range(self.latents.shape[1]):
            canvas.write(first + index, self.latents[:, index], WHOLE)
