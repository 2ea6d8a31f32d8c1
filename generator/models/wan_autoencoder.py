"""Wan's autoencoder, slot by slot and in float32: what streaming decode needs of it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, patchify, unpatchify
from torch import Tensor


class WanAutoencoder(AutoencoderKLWan):
    """`AutoencoderKLWan` slot by slot. It computes in float32 within autocast, too: in bfloat16 it leaves traces
    that add up on still backgrounds. Its caches are handed over between slots: unlike nano's, its encoder remembers
    earlier slots, too.
    """

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """As the stock class: video [B,3,1+4m,H,W] in -1..1 to `.latent_dist` over raw latents."""
        with torch.autocast(x.device.type, enabled=False):
            return super().encode(x.float(), return_dict=return_dict)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """As the stock class: raw latents [B,C,n,h,w] to `.sample` [B,3,1+4(n-1),H,W] in -1..1."""
        with torch.autocast(z.device.type, enabled=False):
            return super().decode(z.float(), return_dict=return_dict)

    def encode_slot(self, x: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """The frames of one slot [B,3,1 (slot 0) or 4,H,W] to raw latents [B,C,1,h,w] (the mode) and the next state.

        In order, slots give bit for bit the latents of `encode`, with the memory of one slot.
        """
        cache = [None] * self._cached_conv_counts["encoder"] if state is None else list(state)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.config["patch_size"] is not None:
                x = patchify(x, self.config["patch_size"])  # type: ignore[no-untyped-call]
            moments = self.quant_conv(self.encoder(x, feat_cache=cache, feat_idx=[0]))
        return moments.chunk(2, dim=1)[0], cache

    def decode_slot(self, z: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """One slot of raw latents [B,C,1,h,w] to frames [B,3,1 (slot 0) or 4,H,W] and the state for the next slot.

        In order, slots give bit for bit the frames of `decode`.
        """
        cache = [None] * self._cached_conv_counts["decoder"] if state is None else list(state)
        with torch.autocast(z.device.type, enabled=False):
            x = self.post_quant_conv(z.float())
            frames = self.decoder(x, feat_cache=cache, feat_idx=[0], first_chunk=state is None)
            if self.config["patch_size"] is not None:
                frames = unpatchify(frames, self.config["patch_size"])  # type: ignore[no-untyped-call]
        return frames.clamp(-1, 1), cache
