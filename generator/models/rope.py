"""Rotary positions of Wan's networks, said explicitly on the time axis: between two slots, or twice the same one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExplicitRope(nn.Module):
    """Takes the place of `rope` in a network of Wan's.

    Called with latents [B,C,n,h,w] it returns the stock module's tables bit for bit. Inside `with rope.at(times)` the
    latent frames stand at these times instead, in units of the network's own frames, fractional ones too: a condition
    latent that is appended to the sequence can share the position of the slot it describes (Shared-RoPE). It holds no
    tensors, so that nothing of it has to be moved, cast or offloaded with the network's weights.
    """

    def __init__(self, head_dim: int, patch_size: Sequence[int], theta: float = 10_000.0) -> None:
        super().__init__()
        side = 2 * (head_dim // 6)
        self.axes = (head_dim - 2 * side, side, side)
        self.patch_size = tuple(patch_size)
        self.theta = theta
        self._times: tuple[float, ...] | None = None

    @contextmanager
    def at(self, times: Sequence[float]) -> Iterator[None]:
        """Within the block every call is about latent frames at these times, one for each."""
        self._times = tuple(times)
        try:
            yield
        finally:
            self._times = None

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1,tokens,1,head_dim] in float32 for the tokens of latents [B,C,n,h,w].

        Angles are computed in float64 on the CPU, as the stock module's are: they mean the same on every device.
        """
        sizes = [size // patch for size, patch in zip(hidden_states.shape[2:], self.patch_size, strict=True)]
        places = [torch.arange(size, dtype=torch.float64) for size in sizes]
        if self._times is not None:
            places[0] = torch.tensor(self._times, dtype=torch.float64)
        cosines: list[Tensor] = []
        sines: list[Tensor] = []
        for axis, (place, dim) in enumerate(zip(places, self.axes, strict=True)):
            speeds = 1.0 / self.theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
            angles = torch.outer(place, speeds).repeat_interleave(2, dim=1)
            shape = [len(place) if other == axis else 1 for other in range(3)]
            for tables, table in ((cosines, angles.cos()), (sines, angles.sin())):
                there = table.float().to(hidden_states.device).view(*shape, dim)
                tables.append(there.expand(*map(len, places), dim))
        cosine, sine = (torch.cat(tables, dim=-1).flatten(0, 2)[None, :, None] for tables in (cosines, sines))
        return cosine, sine
