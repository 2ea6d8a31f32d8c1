"""What travels between a shot and the engine that renders it: one segment's job, and what came of it.

Each is one safetensors file: tensors, and under its metadata one JSON text with a version. A job is complete in itself:
the renderer that gets it needs the model's weights and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, Self

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dreamontage.generator.conditioning.encoding import pixels_to_tensor
from dreamontage.generator.models.family import Pin, Tail, Window
from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.sampling import Sampling
from dreamontage.schemas.errors import RenderFailed

VERSION: Final = 1
_HEADER = "dreamontage"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    tensors: Mapping[str, Tensor] = Field(exclude=True)

    def to_bytes(self) -> bytes:
        """The message as a safetensors file."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return safetensors.torch.save(tensors, {_HEADER: self.model_dump_json()})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a message. Raises RenderFailed where it speaks another version."""
        size = int.from_bytes(content[:8], "little")
        header: dict[str, Any] = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_HEADER])
        if header["version"] != VERSION:
            raise RenderFailed(
                f"a {cls.__name__} of version {header['version']} met a Dreamontage that speaks version {VERSION}",
                next_call="install the same version of Dreamontage on every node of the cluster",
            )
        return cls(tensors=safetensors.torch.load(content), **header)


class JobPin(BaseModel):
    """A still, or a clip's part, inside the window; its frames are the tensor `pin.N`, uint8 [n,H,W,3]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slot: int = Field(description="Window slot whose last frame is its first.")
    strength: float = Field(description="1 pins exactly.")
    clip: bool = Field(description="Whether it is part of a clip.")


class SegmentJob(_Message):
    """One segment to render.

    Tensors, as far as there are such: `pin.N`; the encoded previz `guide` [C,n,h,w]; of the segment before, the frame
    `tail.head` [3,1,H,W] in -1..1 and the latents `tail.rest` [C,O-1,h,w]; the end to keep `held` [C,O,h,w].
    """

    version: Literal[1] = VERSION
    model: str = Field(description="Id of the model.")
    seed: int = Field(description="Seed of the noise, drawn on the CPU: it means the same everywhere.")
    slots: int = Field(description="n, slots of the window.")
    known: int = Field(description="Slots at its start that belong to the segments before.")
    height: int = Field(description="Of the latents.")
    width: int = Field(description="Of the latents.")
    fps: int = Field(description="Frames a second.")
    sampling: Sampling = Field(description="Steps, guidance, shift and t0.")
    words: tuple[TimedWord, ...] = Field((), description="Prompt words and moves, in slots of the window.")
    prompt: str = Field("", description="The same as sentences, for models that read text.")
    negative: str = Field("", description="What to steer away from.")
    pins: tuple[JobPin, ...] = Field((), description="Stills and clips, in order.")
    number_type: str = Field("", description="What the renderer must compute in (`Family.computes`); empty: any.")
    threads: int = Field(0, ge=0, description="Threads the renderer computes with; 0: as many as it has.")

    @classmethod
    def of(
        cls, model: str, window: Window, sampling: Sampling, seed: int, known: int, number_type: str = "",
        threads: int = 0,
    ) -> Self:  # fmt: skip
        """The job that renders a window."""
        tensors = {f"pin.{n}": _frames(pin.pixels) for n, pin in enumerate(window.pins)}
        tail = {} if window.tail is None else {"tail.head": window.tail.head, "tail.rest": window.tail.rest}
        more = {**tail, "guide": window.guide, "held": window.held}
        tensors |= {name: tensor for name, tensor in more.items() if tensor is not None}
        return cls(
            tensors=tensors, model=model, seed=seed, slots=window.slots, known=known, height=window.height,
            width=window.width, fps=window.fps, sampling=sampling, words=window.words, prompt=window.prompt,
            negative=window.negative,
            pins=tuple(JobPin(slot=pin.slot, strength=pin.strength, clip=pin.clip) for pin in window.pins),
            number_type=number_type, threads=threads,
        )  # fmt: skip

    def window(self, device: torch.device) -> Window:
        """The window, on a device."""
        at = {name: tensor.to(device) for name, tensor in self.tensors.items() if not name.startswith("pin.")}
        pins = [
            Pin(pin.slot, pixels_to_tensor(self.tensors[f"pin.{n}"].numpy(), device), pin.strength, pin.clip)
            for n, pin in enumerate(self.pins)
        ]
        window = Window(
            slots=self.slots, height=self.height, width=self.width, fps=self.fps, pins=pins, held=at.get("held"),
            guide=at.get("guide"), words=self.words, prompt=self.prompt, negative=self.negative,
        )  # fmt: skip
        return replace(window, tail=Tail(at["tail.head"], at["tail.rest"])) if "tail.head" in at else window


class SegmentResult(_Message):
    """A segment's take: the tensor `latents` float32 [C,n,h,w], its new slots only."""

    version: Literal[1] = VERSION
    drift: tuple[tuple[float, ...], ...] | None = Field(
        None, description="Channel means and deviations over the overlap: of the new window, of the tail."
    )
    steps: int = Field(0, description="Denoising steps it took.")
    where: str = Field("", description="What rendered it.")

    @property
    def latents(self) -> Tensor:
        """The new slots."""
        return self.tensors["latents"]


def _frames(pixels: Tensor) -> Tensor:
    """Floats [3,n,H,W] that were made from whole pixel values back to uint8 [n,H,W,3]."""
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0)
