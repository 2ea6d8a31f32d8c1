"""Streaming decode of the whole shot, and detail carry-over from the previz (design: one decode stream, flat memory).

Everything is done slot by slot, so that chunks are a matter of delivery only: the pixels do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dreamontage.generator.conditioning.encoding import normalise
from dreamontage.generator.numbers import computing
from dreamontage.generator.timeline import STRIDE

State = list[Tensor]

AGREE_BELOW = 0.05
"""Mean difference (scale -1..1) of D(z) and D(E(P)) up to which the previz's detail comes through whole: what denoising
alone changes where the transformer keeps to the guide."""
DISAGREE_ABOVE = 0.25
"""Difference from which the transformer has painted something else and its own pixels stand."""
UNSURE = 0.5
"""Confidence of the previz below which a pixel counts as unsure."""
SOFT = 0.25
"""Within so much of UNSURE a transformer's change counts in part: below whole, above not at all."""
CELL = 4
"""The difference is averaged over cells of this many pixels, then over neighbours; sides are multiples of it."""


class StreamingAutoencoder(Protocol):
    """What decoding needs of an autoencoder; `NanoAutoencoder` is one. `config` has latents_mean and latents_std."""

    @property
    def config(self) -> Any: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def encode(self, x: Tensor) -> Any:
        """Video [B,3,1+4m,H,W] in -1..1 to `.latent_dist` over raw latents, each slot by itself."""
        ...

    def decode_slot(self, z: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One slot of raw latents [B,C,1,h,w] to frames [B,3,1|4,H,W] and the state to pass on.

        One that is not causal has `ahead`, and takes as a third argument up to so many of the slots after this one.
        """
        ...


class StreamingDecoder:
    """One decode stream: normalised latents in order, frames out; memory of one slot.

    `state` (None before slot 0) may be taken at any slot border and given to a new decoder, which goes on bit for bit.
    """

    def __init__(self, vae: StreamingAutoencoder, state: State | None = None) -> None:
        self.vae, self.state = vae, state
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(vae.config.latents_mean, device=vae.device, dtype=torch.float32).view(shape)
        self._std = torch.tensor(vae.config.latents_std, device=vae.device, dtype=torch.float32).view(shape)

    def slots(self, latents: Tensor, after: Tensor | None = None) -> Iterator[Tensor]:
        """Decode the next latents [C,n,h,w] (normalised); yields per slot float32 frames [1 or 4,3,H,W] in -1..1.

        `after`: the slots that follow, which an autoencoder with `ahead` looks at.
        """
        ahead = getattr(self.vae, "ahead", 0)
        known = latents if after is None or not ahead else torch.cat([latents, after.to(latents)], dim=1)
        for index in range(latents.shape[1]):
            yield self.slot(latents[:, index : index + 1], known[:, index + 1 : index + 1 + ahead] if ahead else None)

    @torch.no_grad()
    def slot(self, latents: Tensor, after: Tensor | None = None) -> Tensor:
        """Decode the next slot [C,1,h,w] to float32 frames [1 (slot 0) or 4,3,H,W] in -1..1."""
        raw = self._raw(latents)
        more = () if after is None else (self._raw(after),)
        decode: Any = self.vae.decode_slot
        frames: Tensor
        with computing(self.vae.device):
            frames, self.state = decode(raw, self.state, *more)
        return frames[0].transpose(0, 1).float()

    def _raw(self, latents: Tensor) -> Tensor:
        return (latents[None].to(self._mean) * self._std + self._mean).to(self.vae.dtype)


@torch.no_grad()
def encode_slots(vae: StreamingAutoencoder, video: Tensor, first: bool) -> Tensor:
    """Normalised latents [16,n,h,w] of the next n slots of a video.

    `video` float [F,3,H,W] in -1..1 holds 1+4(n-1) frames if `first` (it begins with frame 0), else 4n. For an encoder
    with no memory across slots, which gives exactly what it gives of the whole.
    """
    if not first:
        video = torch.cat([video[:1], video])  # stands in for a slot 0, which is dropped again
    x = video.transpose(0, 1)[None].to(vae.device, vae.dtype)
    with computing(vae.device):
        raw: Tensor = vae.encode(x).latent_dist.mode()[0].float()
    shape = (-1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=raw.device).view(shape)
    std = torch.tensor(vae.config.latents_std, device=raw.device).view(shape)
    latents = (raw - mean) / std
    return latents if first else latents[:, 1:]


class StreamingEncoder:
    """One encode stream: the frames of a video in order, whole slots at a time, to normalised latents."""

    def __init__(self, vae: StreamingAutoencoder) -> None:
        self.vae = vae
        self._first = True
        self._state: Any = None

    @torch.no_grad()
    def next(self, video: Tensor) -> Tensor:
        """Latents [C,n,h,w] of the next frames [F,3,H,W] in -1..1: 1+4(n-1) of them at first, then 4n (LTX: 8)."""
        first, self._first = self._first, False
        if not hasattr(self.vae, "encode_slot"):
            return encode_slots(self.vae, video, first)
        frames = video.to(self.vae.device, self.vae.dtype)
        stride = getattr(self.vae, "temporal_compression_ratio", STRIDE)
        pieces = [frames[:1]] * first + list(frames[1 if first else 0 :].split(stride))  # type: ignore[no-untyped-call]
        raw = []
        for piece in pieces:
            latents, self._state = self.vae.encode_slot(piece.transpose(0, 1)[None], self._state)
            raw.append(latents)
        return normalise(self.vae, torch.cat(raw, dim=2)[0].float())


def to_tensor(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 [n,H,W,3] to float32 [n,3,H,W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(frames: Tensor) -> NDArray[np.uint8]:
    """Float [n,3,H,W] in -1..1 to uint8 [n,H,W,3], clipped and rounded."""
    levels = ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def agreement(painted: Tensor, guide: Tensor) -> Tensor:
    """How far the transformer's picture D(z) keeps to the decoded guide D(E(P)): [n,3,H,W] twice -> [n,1,H,W] in 0..1.

    A smooth fall over the spatially smoothed mean difference: exactly 1 where both are equal, exactly 0 where it is
    DISAGREE_ABOVE or more all around.
    """
    cells = F.avg_pool2d((painted - guide).abs().mean(dim=1, keepdim=True), CELL)
    difference = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    share = ((difference - AGREE_BELOW) / (DISAGREE_ABOVE - AGREE_BELOW)).clamp(0, 1)
    fall = 1 - share * share * (3 - 2 * share)
    return F.interpolate(fall, scale_factor=CELL, mode="bilinear", align_corners=False)


def carry_over(painted: Tensor, guide: Tensor, previz: Tensor, confidence: Tensor) -> Tensor:
    """The previz as it is where it is sure; elsewhere its detail where the transformer agrees, else the transformer.

    output = D(z) + s·((P - D(E(P))) - k·(D(z) - D(E(P)))), k = a smooth rise of the confidence around UNSURE,
    s = k + (1 - k)·agreement. Where the previz is sure that is P, so that neither the autoencoder's loss nor a blurred
    repaint of what is known reaches the output; where it is not, P + change, or D(z) where the change is large.

    painted D(z), guide D(E(P)) and previz P are [n,3,H,W] in -1..1, confidence is [n,H,W] in 0..1: zeros where the
    previz did not lead the denoising.
    """
    share = ((confidence[:, None] - UNSURE) / (2 * SOFT) + 0.5).clamp(0, 1)
    known = share * share * (3 - 2 * share)
    kept = torch.lerp(agreement(painted, guide), torch.ones_like(known), known)
    return torch.lerp(painted, torch.lerp(previz + painted - guide, previz, known), kept).clamp(-1, 1)


@dataclass(frozen=True)
class Decoded:
    """The next delivered frames, uint8 [n,H,W,3], and the same frames of D(E(previz)), the reference of anchors."""

    pixels: NDArray[np.uint8]
    guide: NDArray[np.uint8]


class ShotDecoder:
    """Decodes a shot with detail carry-over: D(z) and D(E(P)) are streamed in step.

    `carried` False sets m = 0: the delivered frames are D(z) itself.
    """

    def __init__(self, vae: StreamingAutoencoder, carried: bool = True) -> None:
        self.vae, self.carried = vae, carried
        self.painted, self.guide, self.encoder = StreamingDecoder(vae), StreamingDecoder(vae), StreamingEncoder(vae)

    def next(
        self, latents: Tensor, previz: NDArray[np.uint8], confidence: NDArray[np.float32], after: Tensor | None = None
    ) -> Decoded:
        """The frames of the next slots.

        latents [C,n,h,w] normalised; previz [F,H,W,3] and confidence [F,H,W] cover the same slots; `after`: the latents
        that follow, as far as the autoencoder looks ahead.
        """
        target = to_tensor(previz).to(self.vae.device)
        trust = torch.from_numpy(np.ascontiguousarray(confidence)).to(self.vae.device)
        encoded = self.encoder.next(target)
        pieces: list[Tensor] = []
        guides: list[Tensor] = []
        at = 0
        for painted, guide in zip(self.painted.slots(latents, after), self.guide.slots(encoded), strict=True):
            here = slice(at, at + len(painted))
            at = here.stop
            pieces.append(carry_over(painted, guide, target[here], trust[here]) if self.carried else painted)
            guides.append(guide)
        return Decoded(to_pixels(torch.cat(pieces)), to_pixels(torch.cat(guides)))
