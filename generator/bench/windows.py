"""`dreamontage bench window`: one window on the device at hand, beside what was estimated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from dreamontage.generator.bench.measuring import Measured, Phase, here, measure, tried
from dreamontage.generator.bench.networks import network_of, save_random
from dreamontage.generator.chips import known_tflops
from dreamontage.generator.footprint import CONTEXT_GB, Footprint, footprint
from dreamontage.generator.machine import SHARE
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import Switches

Row = tuple[str, str, str, str, str, str]


def run(
    card: ModelCard, sizes: Sequence[tuple[int, int]], slots: int, steps: int, switches: Switches,
    layers: int | None = None, small: bool = False,
) -> int:  # fmt: skip
    """Write random weights of a model's geometry, run a window at every size, and print measured beside estimated."""
    console, device, card = Console(), here(), tried(card, layers, small)
    network = network_of(card)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(f"{card.id} on {name}: {network.layers} layers of width {network.width}, random weights.")
    table = Table("size", "slots", "phase", "seconds", "estimated", "GB", "estimated", "share of the chip's peak")
    with TemporaryDirectory(prefix="dreamontage-bench-") as folder:
        save_random(card, Path(folder), device, thin=small)
        for size in sizes:
            found = measure(Path(folder), network.out_channels, size, slots, steps, switches, device)
            said = footprint(card, size, slots, switches)
            for row in rows(found, said, name if device.type == "cuda" else None):
                table.add_row(f"{size[0]}x{size[1]}", str(slots), *row)
    console.print(table)
    if device.type != "cuda":
        console.print("On a CPU memory is not measured, and the share of its peak is not known.")
    elif known_tflops(name) is None:
        console.print(f"The peak of {name} is not known, so no share of it is.")
    return 0


def rows(found: Measured, said: Footprint, gpu: str | None) -> list[Row]:
    """A line for every phase: seconds and GB, each measured and estimated, and the share of the peak. `gpu`: its name.

    Measured memory is what tensors take, so the estimate stands here without the context's share.
    """
    peak = None if gpu is None else known_tflops(gpu)
    guess = "" if peak is None else f"{said.step_tflop / (SHARE * peak):.3g} (at {SHARE:.0%})"
    share = "not known" if peak is None else f"{said.step_tflop / found.step.seconds / peak:.0%}"
    return [
        _row("encode", found.encode, said.encode_gb),
        _row("step", found.step, said.step_gb, guess, share),
        _row("deliver two chunks", found.deliver, said.deliver_gb),
    ]


def _row(name: str, phase: Phase, said_gb: float, guess: str = "", share: str = "") -> Row:
    memory = "" if phase.memory_gb is None else f"{phase.memory_gb:.2f}"
    return name, f"{phase.seconds:.3g}", guess, memory, f"{said_gb - CONTEXT_GB:.2f}", share
