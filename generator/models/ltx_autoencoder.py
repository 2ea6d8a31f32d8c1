"""LTX's and LTX-2's autoencoders, slot by slot: 8 frames a slot, 32 pixels a latent, a decoder that looks ahead."""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from dreamontage.generator.models.causal_encoding import going_on

DECODE_TIME, DECODE_NOISE = 0.05, 0.025
"""What a decoder that knows its input's noise is told, and the noise it is given (diffusers' examples for 0.9.5)."""


class SlotAutoencoder:
    """What makes a stock class of LTX one in float32 with `encode_slot` and `decode_slot`, and its statistics in the
    configuration as Wan's has them.

    The decoder is not causal: a slot's frames depend on `ahead` slots after it and as many before it that are shown to
    it, and on further ones less and less. Noise is drawn by slot number, so that pieces do not change pixels.
    """

    ahead: int
    config: Any
    decode: Any
    encoder: Any
    temporal_compression_ratio: int

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """As the stock class."""
        stock: Any = super()
        vae = stock.from_pretrained(pretrained_model_name_or_path, **kwargs)
        spread = vae.latents_std / vae.config["scaling_factor"]
        vae.register_to_config(latents_mean=vae.latents_mean.tolist(), latents_std=spread.tolist())
        found: Self = vae
        return found

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """As the stock class: video [B,3,1+8m,H,W] in -1..1 to `.latent_dist` over raw latents."""
        stock: Any = super()
        with torch.autocast(x.device.type, enabled=False):
            return stock.encode(x.float(), return_dict=return_dict)

    def encode_slot(self, x: Tensor, state: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The frames of one slot [B,3,1 (slot 0) or 8,H,W] to raw latents [B,C,1,h,w] (the mode) and the next state.

        In order, slots give the latents of `encode`, with the memory of one slot; never in tiles.
        """
        kept = dict(state or {})
        with torch.autocast(x.device.type, enabled=False), going_on(self.encoder, kept):
            moments: Tensor = self.encoder(x.float())
        return DiagonalGaussianDistribution(moments).mode(), kept

    def decode_slot(
        self, z: Tensor, state: list[Tensor] | None, after: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """One slot of raw latents [B,C,1,h,w] to frames [B,3,1 (slot 0) or 8,H,W] and the state for the next slot.

        `after` [B,C,<=ahead,h,w]: the slots that follow. The state is the number of slots so far and the last of them.
        """
        done, before = (0, z[:, :, :0]) if state is None else (int(state[0]), state[1])
        after = z[:, :, :0] if after is None else after[:, :, : self.ahead]
        shown = torch.cat([before, z, after], dim=2)
        first = done - before.shape[2]
        with torch.autocast(z.device.type, enabled=False):
            frames: Tensor = self.decode(*self._noised(shown.float(), first)).sample
        at = 0 if before.shape[2] == 0 else self.temporal_compression_ratio * (before.shape[2] - 1) + 1
        count = 1 if done == 0 else self.temporal_compression_ratio
        frames = frames[:, :, at : at + count].clamp(-1, 1)
        seen = torch.cat([before, z], dim=2)[:, :, -self.ahead :]
        return frames, [torch.tensor(done + 1), seen]

    def _noised(self, z: Tensor, first: int) -> tuple[Tensor, Tensor | None]:
        """Latents with the noise that the decoder was trained to remove, and its time; as they are where it was not."""
        if not self.config["timestep_conditioning"]:
            return z, None
        noise = [
            torch.randn(z[:, :, 0].shape, generator=torch.Generator().manual_seed(first + slot))
            for slot in range(z.shape[2])
        ]
        mixed = (1 - DECODE_NOISE) * z + DECODE_NOISE * torch.stack(noise, dim=2).to(z)
        return mixed, z.new_tensor([DECODE_TIME])


class LtxAutoencoder(SlotAutoencoder, AutoencoderKLLTXVideo):  # type: ignore[misc]
    """LTX-Video's."""

    ahead = 3


class Ltx2Autoencoder(SlotAutoencoder, AutoencoderKLLTX2Video):  # type: ignore[misc]
    """LTX-2's, whose blocks are deeper: it is shown one slot more than the three that its authors' tiles overlap by."""

    ahead = 4
