"""A clip pinned from one frame on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dreamontage.generator.conditioning.window import LAST_FRAME, WHOLE, Canvas


@dataclass(frozen=True)
class ClipCondition:
    """A clip's latents [C,1+m,h,w], encoded by themselves, from a slot of the window on.

    Its head is in image mode and describes one frame; the other slots are given whole. Where the carried tail already
    holds the head's slot, the tail's four moving frames stay; a clip below strength 1 leaves the tail untouched.
    """

    slot: int
    latents: Tensor
    strength: float = 1.0
    authority: ClassVar[int] = 3

    def write(self, canvas: Canvas) -> None:
        for index in range(self.latents.shape[1]):
            slot = self.slot + index
            flags = WHOLE if index or not slot else LAST_FRAME
            carried = bool(canvas.fixed[slot])
            if not carried or (self.strength == 1 and flags == WHOLE):
                canvas.write(slot, self.latents[:, index], flags, self.strength)
