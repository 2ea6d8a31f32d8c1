"""`dreamontage evaluate`: the command line of measuring. Torch is imported only when a command runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


class Suite(StrEnum):
    """What can be measured."""

    between = "between"
    core = "core"
    scaling = "scaling"
    settings = "settings"


@app.command()
def evaluate(
    suite: Annotated[
        Suite,
        typer.Option(
            help="core: everything, as one page; between: ten clips; scaling: 60 s against 10 s; settings: which "
            "defaults to choose."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for numbers, tables, page and sheets.")],
    model: Annotated[str, typer.Option(help="Model id or pipeline folder.")] = "nano",
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the model's card.")] = None,
    t0: Annotated[float | None, typer.Option(help="Flow time where guide=follow starts; default: the card.")] = None,
    quick: Annotated[bool, typer.Option(help="core: one of everything, to see that it runs.")] = False,
) -> None:
    """Measure a model's default output beside its alternatives; needs the extra `evaluate`."""
    if suite is Suite.scaling:
        from dreamontage.generator.evaluation.scaling import run_scaling

        numbers = run_scaling(model, out)
        wall, work = numbers["time_per_second_ratio"], numbers["cpu_per_second_ratio"]
        typer.echo(f"60 s against 10 s, per second: time x{wall}, CPU x{work}; peak memory x{numbers['memory_ratio']}")
        return
    import cv2

    from dreamontage.generator.evaluation.between import run_between
    from dreamontage.generator.pipeline import DreaMontagePipeline

    cv2.setNumThreads(1)
    pipeline = DreaMontagePipeline.from_pretrained(model)
    if suite is Suite.settings:
        from dreamontage.generator.evaluation.choosing import run_settings

        run_settings(pipeline, out, typer.echo)
        return
    if suite is Suite.core:
        _core(pipeline, out, steps, t0, quick)
        return
    named = {"num_inference_steps": steps, "t0": t0}
    settings = {key: value for key, value in named.items() if value is not None}
    numbers = run_between(pipeline, out, typer.echo, **settings)
    typer.echo((out / "table.md").read_text())
    typer.echo(f"final beats the cross-fade in LPIPS on {numbers['final_beats_fade_in_lpips']} of 10 clips")


def _core(pipeline: Any, out: Path, steps: int | None, t0: float | None, quick: bool) -> None:
    from dreamontage.generator.evaluation.core import run_core
    from dreamontage.generator.evaluation.extent import FULL, QUICK
    from dreamontage.generator.evaluation.page import HTML_NAME
    from dreamontage.schemas.models import RenderSettings

    run_core(pipeline, out, RenderSettings(steps=steps, t0=t0), QUICK if quick else FULL)
    typer.echo(f"{out / HTML_NAME} holds the tables, plots and sheets; the worst sheets come first")
