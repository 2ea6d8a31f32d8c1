"""Wan's autoencoder, slot by slot and in float32: what streaming decode needs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, patchify, unpatchify
from torch import Tensor

State = list[Any] | None
"""What convolutions remember of earlier slots; in tiles one such list per tile."""
Piece = Callable[[Tensor, State], tuple[Tensor, State]]


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

    def encode_slot(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The frames of one slot [B,3,1 (slot 0) or 4,H,W] to raw latents [B,C,1,h,w] (the mode) and the next state.

        In order, slots give bit for bit the latents of `encode`, in tiles too, with the memory of one slot.
        """
        folded = self.config["patch_size"] or 1
        with torch.autocast(x.device.type, enabled=False):
            x, tiled = x.float(), self._tiled(x, 1)
            if folded > 1:
                x = patchify(x, folded)  # type: ignore[no-untyped-call]
            latent = self.config["scale_factor_spatial"] // folded
            moments, state = self._in_tiles(self._encode_tile, x, state, tiled, 1, latent)
        return moments.chunk(2, dim=1)[0], state

    def decode_slot(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One slot of raw latents [B,C,1,h,w] to frames [B,3,1 (slot 0) or 4,H,W] and the state for the next slot.

        In order, slots give bit for bit the frames of `decode`, in tiles too.
        """
        folded, latent = self.config["patch_size"] or 1, self.config["scale_factor_spatial"]
        with torch.autocast(z.device.type, enabled=False):
            tiled = self._tiled(z, latent)
            frames, state = self._in_tiles(self._decode_tile, z.float(), state, tiled, latent, folded)
            if folded > 1:
                frames = unpatchify(frames, folded)  # type: ignore[no-untyped-call]
        return frames.clamp(-1, 1), state

    def _encode_tile(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        cache = [None] * self._cached_conv_counts["encoder"] if state is None else list(state)
        return self.quant_conv(self.encoder(x, feat_cache=cache, feat_idx=[0])), cache

    def _decode_tile(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        cache = [None] * self._cached_conv_counts["decoder"] if state is None else list(state)
        z = self.post_quant_conv(z)
        return self.decoder(z, feat_cache=cache, feat_idx=[0], first_chunk=state is None), cache

    def _tiled(self, x: Tensor, pixels: int) -> bool:
        """Whether the stock class would take a picture in tiles; `pixels` along a side of one of `x`."""
        height, width = self.tile_sample_min_height // pixels, self.tile_sample_min_width // pixels
        return self.use_tiling and (x.shape[-2] > height or x.shape[-1] > width)

    def _in_tiles(
        self, piece: Piece, x: Tensor, state: State, tiled: bool, before: int, after: int
    ) -> tuple[Tensor, State]:
        """One slot whole, or in the stock class's tiles, blended as there. Then every tile has a state of its own which
        waits in the machine's memory: as tiles overlap, all states would take more of the device than no tiles.

        `before`, `after`: pixels, folded ones where it folds, along a side of one of `x` and one of the result.
        """
        if not tiled:
            return piece(x, state)
        (high, wide, down, right), (tall, broad, low, far) = self._tile_sizes(before), self._tile_sizes(after)
        rows, columns = range(0, x.shape[-2], down), range(0, x.shape[-1], right)
        corners = [(top, left) for top in rows for left in columns]
        tiles, parked = [], []
        for at, (top, left) in enumerate(corners):
            known = None if state is None else _moved(state[at], x.device)
            tile, known = piece(x[..., top : top + high, left : left + wide], known)
            tiles.append(tile)
            parked.append(_moved(known, "cpu"))
        for at, tile in enumerate(tiles):
            if at >= len(columns):
                self.blend_v(tiles[at - len(columns)], tile, tall - low)
            if at % len(columns):
                self.blend_h(tiles[at - 1], tile, broad - far)
        strips = [
            torch.cat([tile[..., :low, :far] for tile in tiles[start : start + len(columns)]], dim=-1)
            for start in range(0, len(tiles), len(columns))
        ]
        height, width = (side * before // after for side in x.shape[-2:])
        return torch.cat(strips, dim=-2)[..., :height, :width], parked

    def _tile_sizes(self, pixels: int) -> tuple[int, int, int, int]:
        """Height, width, step down and step to the right of tiles, in units of so many pixels."""
        sizes = self.tile_sample_min_height, self.tile_sample_min_width
        steps = self.tile_sample_stride_height, self.tile_sample_stride_width
        return sizes[0] // pixels, sizes[1] // pixels, int(steps[0]) // pixels, int(steps[1]) // pixels


def _moved(state: State, device: torch.device | str) -> State:
    """What convolutions remember, on a device."""
    return [entry.to(device) if isinstance(entry, Tensor) else entry for entry in state or ()]
