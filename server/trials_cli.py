"""Trials of an installation on the command line: fuzz, drill, load, speedup, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def fuzz(
    cases: Annotated[int, typer.Option("--cases", min=1, help="Files to try.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same files.")] = 0,
    keep: Annotated[Path | None, typer.Option("--keep", help="Folder for files that crashed a decoder.")] = None,
) -> None:
    """Try spoiled pictures and clips on this installation's intake, and say what became of them."""
    from .fuzz import run

    raise typer.Exit(run(cases, seed, keep))


@app.command()
def drill(
    kills: Annotated[int, typer.Option("--kills", min=0, help="How many workers and servers to kill.")] = 100,
    stops: Annotated[int, typer.Option("--stops", min=0, help="How many workers to stop and continue.")] = 10,
    agents: Annotated[int, typer.Option("--agents", min=1, max=20, help="Agents, each with a server.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the choices that are left to chance.")] = 0,
    keep: Annotated[Path | None, typer.Option("--keep", help="New folder for the drill's studio.")] = None,
) -> None:
    """Kill and stall real workers and servers under load, on a studio of its own, and count what was lost."""
    from .drill import run

    raise typer.Exit(run(kills, stops, agents, seed, keep))


@app.command()
def load(
    agents: Annotated[int, typer.Option("--agents", min=1, max=200, help="Agents at the same time.")] = 20,
    calls: Annotated[int, typer.Option("--calls", min=2, help="Calls of each, half reads and half edits.")] = 50,
    pause: Annotated[float, typer.Option("--pause", min=0, help="Mean seconds between two calls of an agent.")] = 0.5,
    most_ms: Annotated[float, typer.Option("--most-ms", help="Largest p99 that passes, milliseconds.")] = 100.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the choices that are left to chance.")] = 0,
) -> None:
    """Let many agents read and edit one montage through two servers: lock errors, lost updates, latency, all beside
    the SDK's own echo tool."""
    from .load import run

    raise typer.Exit(run(agents, calls, pause, most_ms, seed))


@app.command()
def speedup(
    workers: Annotated[int, typer.Option("--workers", min=2, help="Renderers, one thread each.")] = 2,
    segments: Annotated[int, typer.Option("--segments", min=2, help="Segments of the shot.")] = 6,
    model: Annotated[str, typer.Option("--model", help="Model id.")] = "nano",
    quality: Annotated[str, typer.Option("--quality", help="draft or standard.")] = "draft",
    least: Annotated[float, typer.Option("--least", help="Exit status 1 below this.")] = 1.6,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="The best of so many counts.")] = 3,
) -> None:
    """Render a shot with pinned seams on one renderer of a Ray cluster and on several: how much faster, same bytes?"""
    from typing import cast

    from dreamontage.schemas.errors import RenderFailed
    from dreamontage.schemas.montage import Quality

    try:
        from dreamontage.generator.engines.speedup import run
    except ImportError as error:
        raise RenderFailed("Ray is not installed here", next_call="pip install 'dreamontage[ray]'") from error
    raise typer.Exit(run(model, workers, segments, cast(Quality, quality), least, repeats))


@app.command()
def simulate(
    agents: Annotated[int, typer.Option("--agents", min=1, max=10_000_000, help="Agents in all.")] = 500,
    studios: Annotated[int, typer.Option("--studios", min=0, help="Studios; 0: one for every 500 agents.")] = 0,
    devices: Annotated[int, typer.Option("--devices", min=1, help="Devices that render, in each studio.")] = 4,
    montages: Annotated[float, typer.Option("--montages", min=0.001, help="Montages an hour of each agent.")] = 0.2,
    renders: Annotated[float, typer.Option("--renders", min=1, help="Renders of a montage, repairs included.")] = 3,
    segments: Annotated[float, typer.Option("--segments", min=1, help="Segments of a render, on average.")] = 3,
    segment_s: Annotated[float, typer.Option("--segment-s", min=0.01, help="Seconds a segment takes.")] = 10,
    delivery_s: Annotated[float, typer.Option("--delivery-s", min=0, help="Seconds a delivery takes.")] = 5,
    device_hour: Annotated[float, typer.Option("--device-hour", min=0, help="Cost of a device for an hour.")] = 2.0,
    hours: Annotated[float, typer.Option("--hours", min=0.1, help="Hours that are simulated.")] = 4,
    heavy: Annotated[float, typer.Option("--heavy", min=0, max=1, help="Share of agents that ask in bursts.")] = 0.0,
    burst: Annotated[int, typer.Option("--burst", min=2, help="Renders in one burst.")] = 10,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Studios that are simulated, of them all.")] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of what is left to chance.")] = 0,
) -> None:
    """Run the real queue under a fleet that you describe, without rendering: waiting times, utilisation, cost."""
    from .simulation import AGENTS_PER_STUDIO, Fleet, run

    fleet = Fleet(
        agents, studios or -(-agents // AGENTS_PER_STUDIO), devices, montages, renders, segments, segment_s,
        delivery_s, device_hour, hours, heavy, burst,
    )  # fmt: skip
    raise typer.Exit(run(fleet, sample, seed))
