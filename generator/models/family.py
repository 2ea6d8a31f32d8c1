"""What a family of models must do to render a window: one adapter file per family behind this protocol.

    run = family.begin(window, sampling, generator)      encodes the conditions and the words, draws the noise
    run.velocity(x, time), run.advance(...)              one step each, called by `denoise`
    run.finish(x)                                        the window's latents, what is fixed written verbatim
    family.vae.decode_slot(...)                          decodes them, slot by slot, for the whole shot

The segment loop (sar.py) makes the `Window` from the plan and knows nothing of a family; a family knows nothing of
plans, seams or takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.sampling import Run, Sampled, Sampling, denoise
from dreamontage.schemas.models import ModelCard

__all__ = ["Family", "Pin", "Run", "Sampled", "Sampling", "Tail", "Window", "denoise"]


@dataclass(frozen=True)
class Pin:
    """A still or clip inside a window: pixels [3,1+stride·m,H,W] in -1..1 from the last frame of slot `slot` on.

    `clip`: whether it is part of a clip; a clip's part may be one frame long, too.
    """

    slot: int
    pixels: Tensor
    strength: float = 1.0
    clip: bool = False


class Tail(NamedTuple):
    """The end of the segment before: `head` [3,1,H,W], the one frame in -1..1 that the window's slot 0 stands for, and
    the latents [C,O-1,h,w] of slots 1 … O-1, which stay verbatim."""

    head: Tensor
    rest: Tensor


@dataclass(frozen=True)
class Window:
    """All that is known about one window, in slots of the window; latents are normalised, without a batch.

    `height`, `width`: of the latents. `held` [C,O,h,w]: the end to keep verbatim. `guide` [C,n,h,w]: the encoded
    previz; where it is None, or `sampling.t0` is 1 and the family has no use for a hint, nothing is guided. `words`:
    prompt and moves with their slots; `prompt` and `negative`: the same as sentences.
    """

    slots: int
    height: int
    width: int
    fps: int
    pins: Sequence[Pin] = ()
    tail: Tail | None = None
    held: Tensor | None = None
    guide: Tensor | None = None
    words: tuple[TimedWord, ...] = ()
    prompt: str = ""
    negative: str = ""


class Family(Protocol):
    """A loaded model. `vae` has `encode`, `decode_slot` and `config.latents_mean`, `latents_std` (decoding.py)."""

    card: ModelCard

    @property
    def vae(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def computes(self) -> str:
        """The number type of its networks, and the switches that change latents (`numbers.computes`)."""
        ...

    def learn(self, texts: Sequence[str]) -> None:
        """Encode these prompts and the empty one, remember them by text, and let the text encoder go."""
        ...

    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """Encode a window's conditions and prompts and draw its noise with `generator` (a CPU one)."""
        ...

