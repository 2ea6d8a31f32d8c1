"""LTX's and LTX-2's encoders piece by piece: every layer goes on from the last frames that it has seen.

Their layers look at no later frame. diffusers has them begin anew with every call, on copies of its first frame; here
the first piece begins so, and what follows begins after the frames that were there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import LTXVideoCausalConv3d, LTXVideoDownsampler3d
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import LTX2VideoCausalConv3d, LTX2VideoDownsampler3d
from torch import Tensor, nn

CONVOLUTIONS = LTXVideoCausalConv3d, LTX2VideoCausalConv3d
DOWNSAMPLERS = LTXVideoDownsampler3d, LTX2VideoDownsampler3d


@contextmanager
def going_on(encoder: nn.Module, kept: dict[str, Tensor]) -> Iterator[None]:
    """Within it the encoder goes on after the frames in `kept` (nothing: begins), and leaves there what the next needs.

    A piece has 1+8m frames at first, then 8m.
    """
    begun = bool(kept)
    found: list[nn.Module] = []
    for name, layer in encoder.named_modules():
        if isinstance(layer, CONVOLUTIONS):
            vars(layer)["forward"] = partial(_convolved, layer, name, kept)
        elif isinstance(layer, DOWNSAMPLERS) and begun:
            vars(layer)["forward"] = partial(_folded, layer)
        else:
            continue
        found.append(layer)
    try:
        yield
    finally:
        for layer in found:
            del vars(layer)["forward"]  # the class's own again


def _convolved(layer: Any, name: str, kept: dict[str, Tensor], x: Tensor, causal: bool | None = None) -> Tensor:
    """A causal convolution of [B,C,F,H,W] after the frames that it still reaches, or copies of the first."""
    reach = layer.kernel_size[0]
    before = kept[name] if name in kept else x[:, :, :1].repeat(1, 1, reach - 1, 1, 1)
    x = torch.cat([before, x], dim=2)
    kept[name] = x[:, :, x.shape[2] - (reach - layer.conv.stride[0]) :].clone()  # a view would keep all of x
    found: Tensor = layer.conv(x)
    return found


def _folded(layer: Any, x: Tensor, causal: bool | None = None) -> Tensor:
    """A downsampler in the middle of a video, where its groups of frames are whole without a copy before them."""
    plain = _blocks(x, layer.stride)
    plain = plain.reshape(len(x), -1, layer.group_size, *plain.shape[2:]).mean(dim=2)
    return _blocks(layer.conv(x), layer.stride) + plain


def _blocks(x: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """[B,C,F,H,W] with blocks of `stride` folded into channels."""
    apart = [size for whole, side in zip(x.shape[2:], stride, strict=True) for size in (whole // side, side)]
    return x.reshape(*x.shape[:2], *apart).permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
