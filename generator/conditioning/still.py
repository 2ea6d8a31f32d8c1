"""A picture pinned at one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dreamontage.generator.conditioning.window import LAST_FRAME, WHOLE, Canvas


@dataclass(frozen=True)
class StillCondition:
    """A picture's image-mode latent [C,1,h,w] at a slot of the window; it describes the slot's last frame."""

    slot: int
    latent: Tensor
    strength: float = 1.0
    authority: ClassVar[int] = 1

    def write(self, canvas: Canvas) -> None:
        canvas.write(self.slot, self.latent[:, 0], LAST_FRAME if self.slot else WHOLE, self.strength)
