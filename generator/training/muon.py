"""Muon for convolution kernels: momentum, then the nearest orthogonal matrix (Jordan et al. 2024, Liu et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of [rows, columns] near 1 by a quintic Newton-Schulz iteration."""
    x = matrix.bfloat16()
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: Tensor = (x if wide else x.T).to(matrix.dtype)
    return result


class Muon(Optimizer):
    """Muon over kernels of two or more dimensions, seen as [out, rest].

    The step has the root mean square of an AdamW step (.2 lr), so both may share one learning rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                buffer = state.setdefault("momentum", torch.zeros_like(param))
                buffer.lerp_(param.grad, 1 - group["momentum"])
                update = orthogonalised(param.grad.lerp(buffer, group["momentum"]).flatten(1))
                scale = 0.2 * max(update.shape) ** 0.5
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update.view_as(param), alpha=-group["lr"] * scale)
