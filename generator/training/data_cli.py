"""`dreamontage data …`: the command line of training data. Torch is imported only when a command runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="data", help="Build and look at sets of training clips.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Build and look at sets of training clips."""


@app.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder for the clips and manifest.jsonl; a build in it goes on.")],
    set_name: Annotated[str, typer.Option("--set", help="base, sft or subjects.")] = "base",
    count: Annotated[int, typer.Option(help="Clips the folder holds in the end.", min=1)] = 500,
    seed: Annotated[int, typer.Option(help="The same seed gives the same clips.", min=0)] = 0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, both even.")] = "256x144",
    source: Annotated[
        list[str] | None, typer.Option(help="Use only this source; repeat. Default: all that are installed.")
    ] = None,
    pictures: Annotated[
        list[Path] | None, typer.Option(help="Folder of training pictures, besides the installed packages. Repeatable.")
    ] = None,
) -> None:
    """Draw clips, drop those that adaptive tuning learns little from, and write them as small mp4 files.

    Sets: base (pictures, transitions, galleries, flights), sft (the five classes of visual expression), subjects
    (things whose motion is known). manifest.jsonl names source, licence, seed, words and hash of each clip; filter.json
    how many were dropped and why.
    """
    import cv2
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dreamontage.generator.training.data import build as building
    from dreamontage.generator.training.data.pictures import find_pictures, load_pictures
    from dreamontage.generator.training.data.sources import World, chosen, refuse_reserved, set_named

    cv2.setNumThreads(1)
    named = set_named(set_name)
    shares, left_out = chosen(named, source or [])
    for line in left_out:
        typer.echo(f"Left out: {line}", err=True)
    found = find_pictures(pictures or [])
    refuse_reserved(found)
    world = World.of(load_pictures(found), found, building.size_of(size))
    record = building.record_of(named, seed, world.size, shares, found)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("clips", total=count)

        def report(done: int, dropped: Counter[str]) -> None:
            said = ", ".join(f"{n} {reason}" for reason, n in dropped.most_common())
            bar.update(task, completed=done, description=f"clips (dropped: {said})" if said else "clips")

        rows = building.build(out, record, world.sources(shares), count, report)
    weight = sum(row.bytes for row in rows) / 2**20
    typer.echo(f"{len(rows)} clips, {sum(row.note.frames for row in rows)} frames, {weight:.1f} MiB in {out}")


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a build.")],
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG.")] = None,
    clips: Annotated[int, typer.Option(help="Clips on the sheet, spread over the build.", min=1)] = 12,
    first: Annotated[int, typer.Option(help="Begin the sheet at this clip.", min=0)] = 0,
) -> None:
    """Print what a build holds: clips, frames and licences by source."""
    import cv2
    from rich.console import Console
    from rich.table import Table

    from dreamontage.generator.training.data.build import contact_sheet
    from dreamontage.generator.training.data.store import ClipStore

    store = ClipStore(folder)
    rows = store.rows()
    table = Table("source", "category", "clips", "frames", "MiB", "licences")
    for source, category in sorted({(row.note.source, row.note.category) for row in rows}):
        own = [row for row in rows if (row.note.source, row.note.category) == (source, category)]
        licences = sorted({part for row in own for part in row.note.licence.split("; ")})
        weight = sum(row.bytes for row in own) / 2**20
        frames = sum(row.note.frames for row in own)
        table.add_row(source, category, str(len(own)), str(frames), f"{weight:.1f}", "; ".join(licences))
    Console().print(table)
    if sheet:
        picture = contact_sheet(store, rows[first:], clips)
        cv2.imwrite(str(sheet), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


@app.command()
def join(folder: Annotated[Path, typer.Argument(help="Folder whose subfolders hold builds.")]) -> None:
    """Make one set of several builds: FOLDER/manifest.jsonl names all their clips."""
    from dreamontage.generator.training.data import store

    typer.echo(f"{len(store.join(folder))} clips in {folder / store.MANIFEST}")
