"""What every training stage shares: the networks, their averages, the optimisers and the position.

A stage is a recipe and a loss. `accelerate` says where a run computes and averages gradients over several processes;
on one CPU it adds nothing.
"""

from __future__ import annotations

import copy
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.numbers import number_type
from dreamontage.generator.training import course
from dreamontage.generator.training.muon import Muon


@dataclass(frozen=True)
class Recipe:
    """How long a run lasts and how it learns. One of `minutes` (wall clock of training) and `steps` ends it.

    A run may be one piece of a longer one: `from_share` and `to_share` say which part of the whole course its learning
    rate covers. A piece begins at published weights, without the optimisers' state, so each rises anew for `warm_up`.
    """

    minutes: float | None = 45.0
    steps: int | None = None
    from_share: float = 0.0
    to_share: float = 1.0
    seed: int = 0
    muon_lr: float = 1e-3
    adam_lr: float = 1e-3
    muon_decay: float = 0.01
    """Weight decay of what Muon trains."""
    warm_up: float = 0.02
    """Share of the run in which the rate rises; the last `tail` share of the course falls linearly to zero."""
    tail: float = 0.5
    ema: float = 0.998
    bf16: bool = True
    """Compute in bfloat16 where the device is fast at it."""
    checkpoint_minutes: float = 5.0


class Models(NamedTuple):
    """What is trained: a Wan-layout transformer and what turns timed words into its prompt tokens."""

    transformer: Any
    prompt_tokens: Any


def load_models(folder: Path) -> Models:
    """The transformer and prompt tokens of a model folder, whatever number type they lie in, as float32."""
    return Models(
        NanoTransformer.from_pretrained(folder / "transformer", torch_dtype=torch.float32),
        PromptTokens.from_pretrained(folder / "prompt_tokens", torch_dtype=torch.float32),
    )


class Trainer(ABC):
    """One run of named networks; `save` and `load` make it resume bit for bit."""

    def __init__(self, config: Recipe, networks: Mapping[str, Any]) -> None:
        if (config.minutes is None) == (config.steps is None):
            raise ValueError("give either minutes or steps")
        self.config = config
        self.accelerator = Accelerator(mixed_precision="no")  # number types are chosen here, as at inference
        self.device: torch.device = self.accelerator.device
        self.networks = {name: network.to(self.device).train() for name, network in networks.items()}
        self.averages: dict[str, Any] = {}
        self.optimisers = self.prepare(config)
        self.step = 0
        self.elapsed = 0.0

    def prepare(self, config: Recipe) -> list[tuple[Optimizer, float]]:
        """Begin the running averages; the optimisers of all that is trained, each with its full rate."""
        for name, network in self.networks.items():
            self.averages[name] = copy.deepcopy(network).eval().requires_grad_(False)
        inner = self.inner_parameters()
        known = {id(p) for p in inner}
        others = [p for p in self.fast_parameters() if id(p) not in known]
        self.muon = Muon(inner, config.muon_lr, weight_decay=config.muon_decay)
        self.adam = torch.optim.AdamW(others, config.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        return [(self.muon, config.muon_lr), (self.adam, config.adam_lr)]

    @abstractmethod
    def inner_parameters(self) -> list[Tensor]:
        """The matrices and kernels that Muon trains; AdamW has the rest."""

    @abstractmethod
    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """This step's batch and its loss; they depend on (seed, draw, position) alone."""

    @property
    def progress(self) -> float:
        """Done share of this run, 0..1."""
        return course.progress(self.config, self.step, self.elapsed)

    @property
    def position(self) -> float:
        """Done share of the whole course that this run may be a piece of, 0..1."""
        return self.config.from_share + (self.config.to_share - self.config.from_share) * self.progress

    @property
    def draw(self) -> int:
        """The number that this step's data and noise are drawn by: another in each process and in each piece."""
        own: int = self.step * self.accelerator.num_processes + self.accelerator.process_index
        return own + round(1_000_000_000 * self.config.from_share)

    def rate(self) -> float:
        """The learning rate's factor, 0..1: a short rise, a plateau, a linear tail."""
        return course.rate(self.config, self.progress, self.position)

    def fast_parameters(self) -> list[Tensor]:
        """All weights in training."""
        return [param for network in self.networks.values() for param in network.parameters()]

    def slow_parameters(self) -> list[Tensor]:
        """Their running averages, in the same order: what is published."""
        return [param for network in self.averages.values() for param in network.parameters()]

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The number type and the attention kernel of a training step.

        In bfloat16 the plain attention is three times as fast as the fused one on a CPU, backward included.
        """
        kernel = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        fast = self.config.bf16 and number_type(self.device) == torch.bfloat16
        with kernel, torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            yield

    def train_step(self) -> dict[str, float]:
        """One update; its losses, time and rate."""
        started = time.perf_counter()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        factor = self.rate()
        for optimiser, rate in self.optimisers:
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        loss, parts = self.losses()
        loss.backward()  # type: ignore[no-untyped-call]
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_([p for g in self.adam.param_groups for p in g["params"]], 1.0)
        for optimiser, _ in self.optimisers:
            optimiser.step()
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for slow, fast in zip(self.slow_parameters(), self.fast_parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        seconds = self._average(time.perf_counter() - started)
        self.elapsed += seconds
        return {"step": self.step, "elapsed_s": self.elapsed, "rate": factor, "seconds": seconds} | parts

    def _average_gradients(self) -> None:
        """Mean over processes; a weight that one of them did not use counts as zero there."""
        if self.accelerator.num_processes == 1:
            return
        for param in self.fast_parameters():
            grad = torch.zeros_like(param) if param.grad is None else param.grad
            param.grad = self.accelerator.reduce(grad, "mean")

    def _average(self, value: float) -> float:
        """Mean over processes, so that all of them agree on the clock and end together."""
        if self.accelerator.num_processes == 1:
            return value
        mean: Tensor = self.accelerator.reduce(torch.tensor(value, device=self.device), "mean")
        return mean.item()

    def _stateful(self) -> dict[str, Any]:
        slow = {f"slow_{name}": network for name, network in self.averages.items()}
        return {**self.networks, **slow, "muon": self.muon, "adam": self.adam}

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        state = {name: part.state_dict() for name, part in self._stateful().items()}
        temporary = path.with_suffix(".tmp")
        torch.save(state | {"step": self.step, "elapsed": self.elapsed}, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Go back to a saved step."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self.step, self.elapsed = state["step"], state["elapsed"]

    def publish(self, folder: Path) -> None:
        """Save the averaged networks in half precision, each in a folder of its name."""
        for name, network in self.averages.items():
            copy.deepcopy(network).half().save_pretrained(folder / name)


class TransformerTrainer(Trainer):
    """A run of a transformer and its prompt tokens."""

    def __init__(self, config: Recipe, models: Models) -> None:
        super().__init__(config, models._asdict())
        self.transformer, self.prompt_tokens = self.networks.values()
        self.slow_transformer, self.slow_prompt_tokens = self.averages.values()

    def inner_parameters(self) -> list[Tensor]:
        """The matrices of the transformer's blocks."""
        return [p for p in self.networks["transformer"].blocks.parameters() if p.ndim == 2]

    def warm_start(self, source: Path) -> None:
        """Take over averaged weights, not a position: of another run's checkpoint, or of a published model folder."""
        if source.is_dir():
            weights = {name: network.state_dict() for name, network in load_models(source)._asdict().items()}
        else:
            state = torch.load(source, map_location=self.device, weights_only=True)
            weights = {name: state[f"slow_{name}"] for name in self.networks}
        for name, values in weights.items():
            self.networks[name].load_state_dict(values)
            self.averages[name].load_state_dict(values)
