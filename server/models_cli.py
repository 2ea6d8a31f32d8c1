"""`dreamontage models` and `dreamontage pull`: what is installed, what could be, and fetching it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dreamontage.generator import machine
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.pulling import FolderStore, HubStore, pull, pull_lora
from dreamontage.schemas.errors import DreamontageError, InvalidInput, NotFound


def show() -> int:
    """Print every model: installed or how to get it, what it needs and how it would be run here, LoRAs, its licence."""
    console, room = Console(), catalogue.gpu_memory_gb()
    for card in catalogue.cards().values():
        size = card.sizes.get("standard", {}).get("16:9")
        own = f"makes {size[0]}x{size[1]} at {card.fps} fps" if size else "makes any size"
        needs = f"at the least a GPU with {machine.needs_gb(card)} GB" if card.network else "a CPU will do"
        here = "installed" if card.available else catalogue.pull_command(card.id)
        console.print(f"[bold]{card.id}[/]: {here}; {needs}, {own}.", highlight=False)
        loras = (
            f"LoRA {name} ({'installed' if name in card.loras else catalogue.pull_command(card.id, name)}):"
            f" {lora.summary} {lora.licence}."
            for name, lora in card.known_loras.items()
        )
        licence = f"Licence: {card.licence}. {card.forbids}".strip()
        for line in filter(None, [card.summary, machine.how_here(card) if room else "", *loras, licence]):
            console.print(Padding(line, (0, 0, 0, 2)), highlight=False)
    chosen, note = machine.choose()
    lacking = "" if room else "There is no GPU here. "
    console.print(lacking + (note or f"model=auto takes {chosen.id}."), highlight=False)
    return 0


def fetch(model: str, source: Path | None, accept: bool, lora: str = "") -> int:
    """Fetch a model, or a LoRA for it, with a bar, the licence shown and asked for where it has to be accepted.

    0 if it is there.
    """
    console = Console()
    try:
        card = catalogue.fetchable().get(model)
        if card is None:
            names = ", ".join(catalogue.fetchable())
            raise NotFound(f"no model that can be fetched is called {model!r}", field="model", allowed=names)
        if source is not None and not source.is_dir():
            raise InvalidInput(f"{source.name} is no folder", field="--from", allowed="one with owner/name folders")
        terms, title = card.known_loras.get(lora, card), f"{card.title}, LoRA {lora}" if lora else card.title
        console.print(f"{title}: {terms.licence} ({terms.licence_url}). {terms.forbids}".strip(), highlight=False)
        if terms.must_accept and not accept and console.is_terminal:
            accept = typer.confirm("Do you accept this licence?")
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                   TimeRemainingColumn())  # fmt: skip
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(card.id, total=None)

            def on_bytes(file: str, done: int, total: int) -> None:
                progress.update(bar, description=file, completed=done, total=total)

            store = HubStore() if source is None else FolderStore(source)
            fetched = pull_lora(card, lora, store, on_bytes, accept) if lora else pull(card, store, on_bytes, accept)
    except DreamontageError as error:
        console.print(f"[red]no[/]  {error}", highlight=False)
        return 1
    use = f"render_segments(settings={{'loras': [{lora!r}]}})" if lora else f"plan_montage(model={card.id!r})"
    console.print(f"{title} is at {fetched}. {use} uses it.", highlight=False)
    return 0
