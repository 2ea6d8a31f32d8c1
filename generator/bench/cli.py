"""`dreamontage bench`: the command line. Torch is imported only when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def bench() -> None:
    """What models take and what switches give, counted and measured without any weights."""


ModelsArgument = Annotated[list[str] | None, typer.Argument(help="Model ids; default: all that have a geometry.")]


@app.command()
def estimate(
    models: ModelsArgument = None,
    every: Annotated[bool, typer.Option("--every", help="All shapes, not only 16:9.")] = False,
) -> None:
    """Hold the estimate of memory and work against the real networks at their real size, which compute nothing here."""
    from dreamontage.generator.bench.estimating import run
    from dreamontage.generator.models import catalogue

    cards = [catalogue.card(model) for model in models] if models else list(catalogue.fetchable().values())
    raise typer.Exit(run([card for card in cards if card.network is not None], every))
