"""One window's condition channels: an empty canvas that conditions write to in the order of their authority."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

WHOLE = (1.0, 1.0, 1.0, 1.0)
"""Mask of a slot whose frames are all given (and of the single frame of slot 0)."""
LAST_FRAME = (0.0, 0.0, 0.0, 1.0)
"""Mask of a slot k >= 1 of which only the last frame, a multiple of 4, is given."""


class Assembled(NamedTuple):
    """A window's condition [C,n,h,w], mask [4,n,h,w] and `fixed` [n]: slots that are given whole and stay verbatim."""

    cond: Tensor
    mask: Tensor
    fixed: Tensor


@dataclass
class Canvas:
    """Condition channels under construction."""

    cond: Tensor
    mask: Tensor
    fixed: Tensor
    generator: torch.Generator | None = None
    guided: bool = False

    def write(self, slot: int, latent: Tensor, flags: tuple[float, ...], strength: float = 1.0) -> None:
        """Put one latent [C,h,w] at a slot. Below strength 1 it is mixed with noise and its mask scaled.

        Where a guide is, a slot of which only the last frame is given, or given below strength 1, keeps the guide's
        latent and is marked: the guide passes through the given frames and also says how those before them move.
        """
        if self.guided and (flags == LAST_FRAME or strength < 1):
            latent = self.cond[:, slot]
        elif strength < 1:
            noise = torch.randn(latent.shape, generator=self.generator).to(latent)
            latent = strength * latent + (1 - strength) * noise
        self.cond[:, slot] = latent
        self.mask[:, slot] = strength * self.mask.new_tensor(flags)[:, None, None]
        self.fixed[slot] = strength == 1 and flags == WHOLE


class Condition(Protocol):
    """Something known about a window. Higher `authority` is written later and so wins where two meet."""

    authority: ClassVar[int]

    def write(self, canvas: Canvas) -> None:
        """Write itself to the canvas."""


def assemble(
    conditions: Sequence[Condition],
    slots: int,
    height: int,
    width: int,
    *,
    channels: int = 16,
    empty: Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Assembled:
    """Write conditions to an empty window of `slots` x height x width latents (design: mask 0000 where nothing is).

    `empty` [C,n,h,w] is what "no condition" means to the model; None is zeros. `generator` (CPU) draws the noise that
    conditions of strength < 1 are mixed with.
    """
    cond = torch.zeros(channels, slots, height, width, device=device) if empty is None else empty.clone()
    mask = torch.zeros(4, slots, height, width, device=device)
    canvas = Canvas(cond, mask, torch.zeros(slots, dtype=torch.bool), generator)
    for condition in sorted(conditions, key=lambda condition: condition.authority):
        condition.write(canvas)
    return Assembled(canvas.cond, canvas.mask, canvas.fixed)
