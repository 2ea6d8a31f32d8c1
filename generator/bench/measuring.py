"""Seconds and memory of a window's phases on the device at hand, by the product's own loading and denoising."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dreamontage.generator.bench import phases
from dreamontage.generator.memory import give_back_memory
from dreamontage.generator.models.loading import load_model
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import Switches

GIGA = 1e9


@dataclass(frozen=True)
class Phase:
    """Seconds and, on a GPU, the peak of allocated memory in 10⁹ bytes, weights included."""

    seconds: float
    memory_gb: float | None


@dataclass(frozen=True)
class Measured:
    """Of a window: encoding of its conditions, a step (the median, without the first), delivery of two chunks of slots,
    and the latents [C,n,h,w] that came out."""

    encode: Phase
    step: Phase
    deliver: Phase
    latents: Tensor


def measure(
    folder: Path, channels: int, size: tuple[int, int], slots: int, steps: int, switches: Switches, device: torch.device
) -> Measured:
    """Load the model of a folder under these switches and run a window. Raises InvalidInput, RenderFailed."""
    try:
        return _measured(folder, channels, size, slots, steps, switches, device)
    finally:
        give_back_memory()


def _measured(
    folder: Path, channels: int, size: tuple[int, int], slots: int, steps: int, switches: Switches, device: torch.device
) -> Measured:
    model = load_model(folder, device, switches)
    run, encode = timed(device, phases.begin, model, size, slots, steps + 1)
    latents, passes = run.latents, []
    for moment in run.times:
        latents, passed = timed(device, phases.step, run, latents, moment)
        passes.append(passed)
    peaks = [passed.memory_gb for passed in passes if passed.memory_gb is not None]
    step = Phase(median(passed.seconds for passed in passes[1:]), max(peaks, default=None))
    made = run.finish(latents).latents.float().cpu()
    del run, latents
    _, deliver = timed(device, phases.deliver, model.vae, model.card, channels, size)
    return Measured(encode, step, deliver, made)


def timed(device: torch.device, work: Callable[..., Any], *args: Any) -> tuple[Any, Phase]:
    """What some work gives, its seconds until the device is done, and its peak of memory."""
    if device.type != "cuda":
        began = time.perf_counter()
        return work(*args), Phase(time.perf_counter() - began, None)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    found = work(*args)
    torch.cuda.synchronize(device)
    return found, Phase(time.perf_counter() - began, torch.cuda.max_memory_allocated(device) / GIGA)


def here() -> torch.device:
    """The GPU at hand, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tried(card: ModelCard, layers: int | None, small: bool) -> ModelCard:
    """A card for trying: one expert, since one works at a time, with so many layers; `small`: narrow ones, too."""
    network = card.network
    assert network is not None, f"{card.id} runs on a CPU"
    change: dict[str, Any] = {"experts": 1}
    if small:
        change |= {"width": 64, "ffn": 128, "heads": 2, "layers": 2, "text_width": 32}
        change["sound_width"] = min(network.sound_width, 32)
    if layers is not None:
        change["layers"] = layers
    least = change.get("layers", network.layers)
    change["control_layers"] = min(network.control_layers, -(-least // 2))
    return card.model_copy(update={"network": network.model_copy(update=change)})
