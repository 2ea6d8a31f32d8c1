"""The end of the segment before, carried over as latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dreamontage.generator.conditioning.window import WHOLE, Canvas


@dataclass(frozen=True)
class TailCondition:
    """The window's first slots: `head` [C,1,h,w], one frame in image mode, then carried latents `rest` [C,O-1,h,w].

    Window slot 0 stands for one frame, the last of global slot lo; slots 1 ... O-1 are what was generated there,
    pinned stills included, which is why a still is not written again and only a clip overrides.
    """

    head: Tensor
    rest: Tensor
    authority: ClassVar[int] = 2

    def write(self, canvas: Canvas) -> None:
        canvas.write(0, self.head[:, 0], WHOLE)
        for index in range(self.rest.shape[1]):
            canvas.write(1 + index, self.rest[:, index], WHOLE)
