"""`dreamontage bench`: the command line. Torch is imported only when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.profile import ladder

app = typer.Typer(add_completion=False, no_args_is_help=True)

ModelsArgument = Annotated[list[str] | None, typer.Argument(help="Model ids; default: all that have a geometry.")]
ModelArgument = Annotated[str, typer.Argument(help="Id of a model that needs a GPU, see `dreamontage models`.")]
SizeOption = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT; default: the model's own 16:9.")]
SlotsOption = Annotated[int | None, typer.Option(min=2, help="Slots; default: the model's window.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Steps that are measured, after one that is not.")]
LayersOption = Annotated[int | None, typer.Option(min=1, help="So many blocks instead of all.")]
SmallOption = Annotated[bool, typer.Option("--small", help="Narrow layers, thin autoencoder: to try it on a CPU.")]


@app.callback()
def bench() -> None:
    """What models take and what switches give, counted and measured without any weights."""


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


@app.command()
def window(
    model: ModelArgument,
    size: SizeOption = None,
    slots: SlotsOption = None,
    steps: StepsOption = 3,
    profile: Annotated[str, typer.Option(help="The first switches of a profile: auto,offload=group for one.")] = "auto",
    layers: LayersOption = None,
    small: SmallOption = False,
) -> None:
    """Run one window with random weights of the model's real size: seconds, memory, share of the chip's peak."""
    from dreamontage.generator.bench.windows import run
    from dreamontage.generator.models import catalogue

    card = catalogue.card(model)
    sizes = [_size(size)] if size else [card.sizes[quality]["16:9"] for quality in ("draft", "standard")]
    raise typer.Exit(run(card, sizes, slots or card.window, steps, ladder(profile)[0], layers, small))


@app.command()
def switches(
    model: ModelArgument = "wan21-fun-inp-1.3b",
    profile: Annotated[
        list[str] | None, typer.Option(help="Only this profile's first switches; repeat. Default: every switch.")
    ] = None,
    attention: Annotated[str | None, typer.Option(help="An attention backend to try, too.")] = None,
    size: SizeOption = None,
    slots: SlotsOption = None,
    steps: StepsOption = 3,
    layers: LayersOption = None,
    small: SmallOption = False,
) -> None:
    """Run one window plain and under every switch: time, memory, and how far the latents are from the plain run's."""
    from dreamontage.generator.bench.switches import every_switch, run
    from dreamontage.generator.models import catalogue

    card = catalogue.card(model)
    chosen = _size(size) if size else card.sizes["standard"]["16:9"]
    tries = [ladder(text)[0] for text in profile] if profile else every_switch(attention)
    raise typer.Exit(run(card, chosen, slots or card.window, steps, tries, layers, small))


def _size(text: str) -> tuple[int, int]:
    """Width and height in "848x480". Raises InvalidInput."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise InvalidInput(f"{text!r} is no size", field="--size", allowed="WIDTHxHEIGHT, such as 848x480")
    return int(width), int(height)
