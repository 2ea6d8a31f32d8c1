"""`dreamontage models` and `dreamontage pull`: what is installed, what could be, and fetching it."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from dreamontage.generator.models import catalogue
from dreamontage.generator.models.pulling import FolderStore, HubStore, pull
from dreamontage.schemas.errors import DreamontageError, InvalidInput, NotFound


def show() -> int:
    """Print every model: installed or how to get it, what it needs, its licence."""
    console, room = Console(), catalogue.gpu_memory_gb()
    table = Table("Model", "Here", "Needs", "Own format", "Licence", "What it is good for", box=None, pad_edge=False)
    for card in catalogue.cards().values():
        size = card.sizes.get("standard", {}).get("16:9")
        own = f"{size[0]}x{size[1]}, {card.fps} fps" if size else "any"
        fits = "" if card.needs_gb <= room else " (more than this machine has)"
        needs = f"GPU, {card.needs_gb:g} GB{fits}" if card.needs_gb else "CPU"
        licence = card.licence + (f": {card.forbids}" if card.forbids else "")
        table.add_row(card.id, "yes" if card.available else "pull", needs, own, licence, card.summary)
    console.print(table)
    chosen, note = catalogue.choose()
    console.print(note or f"model=auto takes {chosen.id} here.", highlight=False)
    return 0


def fetch(model: str, source: Path | None, accept: bool) -> int:
    """Fetch a model with a bar, its licence shown and asked for where it has to be accepted; 0 if it is there."""
    console = Console()
    try:
        card = catalogue.fetchable().get(model)
        if card is None:
            names = ", ".join(catalogue.fetchable())
            raise NotFound(f"no model that can be fetched is called {model!r}", field="model", allowed=names)
        if source is not None and not source.is_dir():
            raise InvalidInput(f"{source.name} is no folder", field="--from", allowed="one with owner/name folders")
        console.print(f"{card.title}: {card.licence} ({card.licence_url}). {card.forbids}".strip(), highlight=False)
        if card.must_accept and not accept and console.is_terminal:
            accept = typer.confirm("Do you accept this licence?")
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                   TimeRemainingColumn())  # fmt: skip
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(card.id, total=None)

            def on_bytes(file: str, done: int, total: int) -> None:
                progress.update(bar, description=file, completed=done, total=total)

            folder = pull(card, HubStore() if source is None else FolderStore(source), on_bytes, accept)
    except DreamontageError as error:
        console.print(f"[red]no[/]  {error}", highlight=False)
        return 1
    console.print(f"{card.id} is at {folder}. plan_montage(model={card.id!r}) uses it.", highlight=False)
    return 0
