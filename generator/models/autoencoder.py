"""nano's autoencoder: the geometry and the interface of `AutoencoderKLWan`, built from plain 2-D convolutions.

A slot (one frame, then four at a time) is folded into channels, so time costs nothing. The encoder keeps no memory
across slots: a slice of a clip's latents is the stand-alone encode of that slice, but for its first slot (image mode).
The decoder sees the previous slot's features in five blocks and works slot by slot: its state is a list of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

SLOT_FRAMES = 4
"""Frames folded into one latent slot (slot 0 holds frame 0 four times)."""

State = list[Tensor]
"""One contiguous tensor [B,h,w,C] for each remembering block: its input at the previous slot."""


def fold_frames(video: Tensor) -> Tensor:
    """Group frames into slots: [B,3,1+4m,H,W] -> [T,B,12,H,W], the first frame repeated four times."""
    if video.ndim != 5 or video.shape[2] % SLOT_FRAMES != 1:
        raise ValueError(f"expected [B,3,1+4m,H,W], got {tuple(video.shape)}")
    padded = torch.cat([video[:, :, :1].expand(-1, -1, SLOT_FRAMES - 1, -1, -1), video], dim=2)
    batch, colours, frames, height, width = padded.shape
    slots = padded.view(batch, colours, frames // SLOT_FRAMES, SLOT_FRAMES, height, width)
    return slots.permute(2, 0, 3, 1, 4, 5).flatten(2, 3)


def unfold_frames(slots: Tensor) -> Tensor:
    """Undo `fold_frames`: [T,B,12,H,W] -> [B,3,1+4(T-1),H,W]; slot 0 gives its last frame."""
    count, batch, _, height, width = slots.shape
    frames = slots.reshape(count, batch, SLOT_FRAMES, 3, height, width).permute(1, 3, 0, 2, 4, 5)
    return frames.flatten(2, 3)[:, :, SLOT_FRAMES - 1 :]


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), begun as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.outer(F.relu(self.inner(x)))
        return x + change


class RememberingBlock(ResidualBlock):
    """A residual block that also sees its own input at the previous slot (nothing at slot 0)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.past = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.inner(x)
        if before is not None:
            hidden = hidden + self.past(before)
        change: Tensor = self.outer(F.relu(hidden))
        return x + change


class SlotEncoder(nn.Module):
    """Folded slots [N,12,H,W] -> bounded latents [N,z,H/8,W/8], each slot by itself."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], z_dim: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12 * 4, widths[0], 3, padding=1)]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if level:
                layers.append(nn.Conv2d(widths[level - 1], width, 2, stride=2))
            layers.extend(ResidualBlock(width) for _ in range(count))
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], z_dim, 3, padding=1))

    def forward(self, slots: Tensor) -> Tensor:
        x: Tensor = self.body(slots.contiguous(memory_format=torch.channels_last))
        return self.bound * torch.tanh(x / self.bound)


class SlotDecoder(nn.Module):
    """Latents -> folded slots [N,12,H,W]; the first `memory[level]` blocks of a level remember the previous slot."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], memory: Sequence[int], z_dim: int) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Conv2d(z_dim, widths[-1], 3, padding=1)])
        for level in reversed(range(len(widths))):
            for index in range(blocks[level]):
                remembers = index < memory[level]
                self.body.append(RememberingBlock(widths[level]) if remembers else ResidualBlock(widths[level]))
            if level:
                self.body.append(nn.Conv2d(widths[level], widths[level - 1] * 4, 1))
                self.body.append(nn.PixelShuffle(2))
        self.body.append(nn.Conv2d(widths[0], 12 * 4, 3, padding=1))
        self.body.append(nn.PixelShuffle(2))

    def step(self, z: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Decode one slot [B,z,h,w] after `state`: folded frames [B,12,H,W] and the state after it."""
        x = z.contiguous(memory_format=torch.channels_last)
        after: State = []
        for layer in self.body:
            if isinstance(layer, RememberingBlock):
                before = None if state is None else state[len(after)].permute(0, 3, 1, 2)
                x = x.contiguous(memory_format=torch.channels_last)
                after.append(x.permute(0, 2, 3, 1).contiguous())
                x = layer(x, before)
            else:
                x = layer(x)
        return x, after

    def forward(self, z: Tensor) -> Tensor:
        """Decode all slots at once, for training: [T,B,z,h,w] -> [T,B,12,H,W]."""
        count, batch = z.shape[:2]
        x = z.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for layer in self.body:
            if isinstance(layer, RememberingBlock):
                before = torch.cat([torch.zeros_like(x[:batch]), x[:-batch]]) if count > 1 else None
                x = layer(x, before)
            else:
                x = layer(x)
        return x.view(count, batch, *x.shape[1:])


class NanoAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Video [B,3,1+4m,H,W] in -1..1 <-> raw latents [B,16,1+m,H/8,W/8]; H and W multiples of 8.

    `latents_mean` and `latents_std` (per channel) normalise the raw latents for a transformer: (z - mean) / std.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        widths: Sequence[int] = (48, 96, 160),
        encoder_blocks: Sequence[int] = (1, 2, 3),
        decoder_blocks: Sequence[int] = (2, 3, 3),
        decoder_memory: Sequence[int] = (1, 2, 2),
        z_dim: int = 16,
        bound: float = 3.0,
        sigma: float = 0.05,
        latents_mean: Sequence[float] = (0.0,) * 16,
        latents_std: Sequence[float] = (1.0,) * 16,
        scale_factor_temporal: int = 4,
        scale_factor_spatial: int = 8,
        temperal_downsample: Sequence[bool] = (False, True, True),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoder = SlotEncoder(widths, encoder_blocks, z_dim, bound)
        self.decoder = SlotDecoder(widths, decoder_blocks, decoder_memory, z_dim)
        self.temperal_downsample = list(temperal_downsample)
        self.sigma = sigma

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Encode video [B,3,1+4m,H,W] in -1..1 slot by slot; `.latent_dist` is a Gaussian of fixed sigma, raw scale.

        Raises ValueError if the number of frames is not 1+4m.
        """
        slots = fold_frames(x)
        mean = torch.stack([self.encoder(slot).contiguous() for slot in slots], dim=2)
        log_variance = torch.full_like(mean, 2 * math.log(self.sigma))
        posterior = DiagonalGaussianDistribution(torch.cat([mean, log_variance], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode_slot(self, z: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Decode one slot of raw latents [B,16,1,h,w]; `state` None means slot 0.

        Returns frames [B,3,1 (slot 0) or 4,H,W] in -1..1 and the state to pass with the next slot.
        """
        folded, after = self.decoder.step(z[:, :, 0], state)
        batch, _, height, width = folded.shape
        frames = folded.reshape(batch, SLOT_FRAMES, 3, height, width).transpose(1, 2).clamp(-1, 1).contiguous()
        return (frames[:, :, -1:].contiguous() if state is None else frames), after

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Decode raw latents [B,16,T,h,w] to video [B,3,1+4(T-1),H,W] in -1..1: `decode_slot` in a loop."""
        state: State | None = None
        pieces: list[Tensor] = []
        for slot in torch.split(z, 1, dim=2):
            frames, state = self.decode_slot(slot, state)
            pieces.append(frames)
        sample = torch.cat(pieces, dim=2)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def encode_folded(self, video: Tensor) -> Tensor:
        """All slots in one pass, for training: [B,3,1+4m,H,W] -> raw latents [T,B,16,h,w]."""
        slots = fold_frames(video)
        z: Tensor = self.encoder(slots.flatten(0, 1))
        return z.view(*slots.shape[:2], *z.shape[1:])

    def decode_folded(self, z: Tensor) -> Tensor:
        """All slots in one pass, unclamped, for training: raw latents [T,B,16,h,w] -> video [B,3,1+4(T-1),H,W]."""
        return unfold_frames(self.decoder(z))

    def forward(self, video: Tensor) -> Tensor:
        """Reconstruct video [B,3,1+4m,H,W] without noise, in one pass."""
        return self.decode_folded(self.encode_folded(video))
