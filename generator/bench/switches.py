"""`dreamontage bench switches`: what every switch gives against a plain run, on the device at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from dreamontage.generator.bench.measuring import Measured, Phase, here, measure, tried
from dreamontage.generator.bench.networks import network_of, save_random
from dreamontage.schemas.errors import DreamontageError
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, PROFILES, Switches


def every_switch(attention: str | None) -> list[Switches]:
    """Plain once more, which shows how far two equal runs differ; every switch by itself; the rungs of all profiles."""
    single = [
        PLAIN,
        Switches(offload="group"),
        Switches(storage="fp8"),
        Switches(quantise="int8"),
        Switches(quantise="int4"),
        *([Switches(attention=attention)] if attention else []),
        Switches(cache=0.05),
        Switches(compile=True),
        Switches(tiling=True),
    ]
    return single + [rung for rungs in PROFILES.values() for rung in rungs if rung not in single]


def named(switches: Switches) -> str:
    """Switches in a few words."""
    changed = switches.model_dump(exclude_defaults=True)
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or "plain"


def run(
    card: ModelCard, size: tuple[int, int], slots: int, steps: int, tries: Sequence[Switches],
    layers: int | None = None, small: bool = False,
) -> int:  # fmt: skip
    """Write random weights of a model's geometry, run a window plain and then under every switch, and print what that
    changed: seconds, memory, latents."""
    console, device, card = Console(), here(), tried(card, layers, small)
    network = network_of(card)
    console.print(f"{card.id}: {network.layers} layers of width {network.width}, {size[0]}x{size[1]}, {slots} slots.")
    table = Table("switches", "s/step", "ratio", "GB encode", "GB step", "GB deliver", "max |Δ|", "mean |Δ|")
    refused: list[str] = []
    with TemporaryDirectory(prefix="dreamontage-bench-") as folder:
        save_random(card, Path(folder), device, thin=small)
        plain = measure(Path(folder), network.out_channels, size, slots, steps, PLAIN, device)
        for switches in tries:
            try:
                found = measure(Path(folder), network.out_channels, size, slots, steps, switches, device)
            except DreamontageError as error:
                refused.append(f"Not here: {named(switches)}: {error}")
                continue
            table.add_row(named(switches), *against(found, plain))
    console.print(table, *refused, sep="\n")
    console.print(
        f"Latents of the plain run spread by {plain.latents.std():.3g}. Seconds are medians of {steps} steps."
    )
    return 0


def against(found: Measured, plain: Measured) -> tuple[str, ...]:
    """Seconds of a step and their ratio to plain, memory by phase, and how far the latents are from plain's."""
    away = (found.latents - plain.latents).abs()
    return (
        f"{found.step.seconds:.3g}",
        f"{found.step.seconds / plain.step.seconds:.2f}",
        *(_gb(phase) for phase in (found.encode, found.step, found.deliver)),
        f"{away.max():.3g}",
        f"{away.mean():.3g}",
    )


def _gb(phase: Phase) -> str:
    return "" if phase.memory_gb is None else f"{phase.memory_gb:.2f}"
