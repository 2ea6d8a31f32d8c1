"""`dreamontage models` and `dreamontage pull`: what is installed, what could be, and fetching it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from dreamontage.generator import machine
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.pulling import FolderStore, HubStore, pull, pull_lora
from dreamontage.schemas.errors import DreamontageError, InvalidInput, NotFound


def show() -> int:
    """Print every model: installed or how to get it, what it needs and how it would be run here, its licence."""
    console = Console()
    whole = (Column(name, no_wrap=True) for name in ("Model", "Here", "Needs"))  # ids and sizes are never cut short
    folded = (Column(name, overflow="fold") for name in ("Own format", "Licence", "What it is good for"))
    table = Table(*whole, *folded, box=None, pad_edge=False)
    for card in catalogue.cards().values():
        size = card.sizes.get("standard", {}).get("16:9")
        own = f"{size[0]}x{size[1]}, {card.fps} fps" if size else "any"
        needs = f"GPU, {machine.needs_gb(card)} GB" if card.network else "CPU"
        licence = card.licence + (f": {card.forbids}" if card.forbids else "")
        table.add_row(card.id, "yes" if card.available else "pull", needs, own, licence, card.summary)
    console.print(table)
    for note in dict.fromkeys(machine.how_here(card) for card in catalogue.cards().values() if card.network):
        console.print(note, highlight=False)
    for card in catalogue.cards().values():
        for name, lora in card.known_loras.items():
            here = "installed" if name in card.loras else catalogue.pull_command(card.id, name)
            console.print(f"LoRA {name} of {card.id} ({here}): {lora.summary} {lora.licence}.", highlight=False)
    chosen, note = machine.choose()
    console.print(note or f"model=auto takes {chosen.id} here.", highlight=False)
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
