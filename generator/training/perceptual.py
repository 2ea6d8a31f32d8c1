"""LPIPS with AlexNet features (Zhang et al. 2018, version 0.1): a distance, and a loss for the decoder."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights" / "lpips_alex.safetensors"
_SHAPES = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))


class PerceptualDistance(nn.Module):
    """Pictures [N,3,H,W] in -1..1 against others of the same shape -> distances [N]; 0 is equal, .1 close, .7 far.

    H and W at least 32. Weights are frozen; gradients flow into the pictures.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, k, stride=s, padding=p) for i, o, k, s, p in _SHAPES)
        self.heads = nn.ParameterList(torch.empty(shape[1]) for shape in _SHAPES)
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
        self.requires_grad_(False)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Unit-length feature maps after each of the five ReLUs."""
        x = ((pictures - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for index, convolution in enumerate(self.convolutions):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(convolution(x))
            y = x.float()
            maps.append(y / (y.square().sum(1, keepdim=True).add(1e-20).sqrt() + 1e-10))
        return maps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        total = torch.zeros(first.shape[0], device=first.device)
        for a, b, head in zip(self.features(first), self.features(second), self.heads, strict=True):
            total = total + ((a - b).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total
