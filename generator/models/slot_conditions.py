"""A window's conditions as Wan's layout takes them: each encoded by itself and put at its slots, with a mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamontage.generator.conditioning import (
    Assembled,
    ClipCondition,
    Condition,
    GuideCondition,
    HeldEndCondition,
    StillCondition,
    TailCondition,
    assemble,
)
from dreamontage.generator.conditioning.encoding import encode_video
from dreamontage.generator.models.family import Pin, Tail, Window


def pinned(vae: Any, pin: Pin) -> Condition:
    """A still or a clip's part, encoded by itself."""
    kind = ClipCondition if pin.clip else StillCondition
    return kind(pin.slot, encode_video(vae, pin.pixels), pin.strength)


def tail_condition(vae: Any, tail: Tail) -> TailCondition:
    """The carried tail, its one frame encoded in image mode."""
    return TailCondition(encode_video(vae, tail.head), tail.rest)


def kept(vae: Any, window: Window) -> list[Condition]:
    """What must stay of other takes: the carried tail and the held end."""
    conditions: list[Condition] = []
    if window.tail is not None:
        conditions.append(tail_condition(vae, window.tail))
    if window.held is not None:
        conditions.append(HeldEndCondition(window.held))
    return conditions


def assembled(
    vae: Any, window: Window, generator: torch.Generator, device: torch.device, empty: Tensor | None = None
) -> Assembled:
    """Condition, mask and fixed slots of a window; `empty` [C,n,h,w]: what no condition means, None for zeros."""
    conditions = [*(pinned(vae, pin) for pin in window.pins), *kept(vae, window)]
    if window.guide is not None:
        conditions.append(GuideCondition(window.guide))
    return assemble(
        conditions, window.slots, window.height, window.width, empty=empty, generator=generator, device=device
    )


def grey(vae: Any, window: Window, device: torch.device) -> Tensor:
    """The encoding [C,n,h,w] of grey frames: what an empty condition holds on Wan's weights."""
    return encode_video(vae, torch.zeros(3, 4 * window.slots - 3, 8 * window.height, 8 * window.width, device=device))
