"""`dreamontage studio`: what is in a studio, whether it is whole, and what can go."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .checking import check as faults
from .checking import size_of_check
from .housekeeping import (
    collect,
    leftovers,
    remove_media,
    remove_videos,
    size_of,
    superseded_videos,
    unpinned_media,
)
from .quotas import KINDS, shown, usage
from .store import Studio

app = typer.Typer(help="Look at a studio, check it, tidy it.", no_args_is_help=True, add_completion=False)
StudioOption = Annotated[Path | None, typer.Option("--studio", help="Studio folder (default: DREAMONTAGE_HOME).")]
_PARTS = ("blobs", "takes", "videos", "previews")
_LISTED = 10


@app.command()
def show(studio: StudioOption = None) -> None:
    """Show how much is in a studio, who holds it, and what is at work."""
    console = Console()
    with Studio(studio) as opened:
        console.print(f"[bold]{opened.folder}[/]", highlight=False)
        parts = ", ".join(f"{part} {_mib(size_of(opened.folder / part))}" for part in _PARTS)
        free, floor = shutil.disk_usage(opened.folder).free, opened.quotas.keep_free_bytes
        console.print(f"{parts}; {_mib(free)} free, {_mib(floor)} stay free", highlight=False)
        console.print(_usage_table(opened))
        for worker in opened.workers(limit=3):
            state = "gone" if worker.gone else worker.doing
            console.print(f"worker {worker.id} on {worker.device}, process {worker.pid}: {state}", highlight=False)
        for job in opened.jobs(states=("queued", "running")):
            console.print(f"{job.id} {job.state} for {job.actor}: {job.progress.stage}", highlight=False)


@app.command()
def check(studio: StudioOption = None) -> None:
    """Check the database, every reference and every file's hash. Exit status 1 if something is wrong."""
    console = Console()
    with Studio(studio) as opened:
        ticks = iter(track(range(size_of_check(opened)), "checking", console=Console(stderr=True), transient=True))
        found = list(faults(opened, partial(next, ticks, None)))
    for fault in found:
        console.print(f"{fault.severity}: {fault.what}", highlight=False, markup=False)
    problems = sum(fault.severity == "problem" for fault in found)
    console.print(f"{problems} problems, {len(found) - problems} notes." if found else "Everything is whole.")
    raise typer.Exit(min(problems, 1))


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Really remove; without it, only say what would go.")] = False,
    media: Annotated[bool, typer.Option("--media", help="Also media that no montage has ever pinned.")] = False,
    superseded: Annotated[
        float | None, typer.Option("--superseded", min=0, help="Also videos this many days old that have a newer one.")
    ] = None,
    studio: StudioOption = None,
) -> None:
    """Remove what nothing needs: takes no video names, old previews, what crashes left behind."""
    console = Console()
    with Studio(studio) as opened:
        unpinned = unpinned_media(opened) if media else []
        videos = [] if superseded is None else superseded_videos(opened, superseded)
        size = sum(opened.media(one).bytes for one in unpinned)
        size += sum(size_of(opened.video_folder(one)) for one in videos)
        if yes:
            remove_media(opened, unpinned)
            remove_videos(opened, videos)
        found = collect(opened) if yes else leftovers(opened)
    whys = {why: [leftover for leftover in found if leftover.why == why] for why in {item.why for item in found}}
    for why, group in sorted(whys.items()):
        names = ", ".join(item.path.name for item in group[:_LISTED]) + (" …" if len(group) > _LISTED else "")
        console.print(f"{len(group)} × {why}: {names}", highlight=False, markup=False)
    for what, ids in (("media that no montage pins", unpinned), ("videos that have a newer one", videos)):
        if ids:
            console.print(f"{len(ids)} × {what}: {', '.join(ids[:_LISTED])}", highlight=False)
    mib = _mib(size + sum(item.bytes for item in found))
    count = len(found) + len(unpinned) + len(videos)
    if not count:
        console.print("There is nothing to remove.")
    elif yes:
        console.print(f"{count} removed, {mib}.", highlight=False)
    else:
        console.print(f"{count} could go, {mib}. To remove them: the same with --yes", highlight=False)


def _usage_table(studio: Studio) -> Table:
    table = Table("", *(kind.removesuffix("_bytes") for kind in KINDS))
    with studio.db.read() as connection:
        actors = connection.execute(
            "SELECT actor FROM montage UNION SELECT actor FROM media UNION SELECT actor FROM job ORDER BY 1"
        ).fetchall()
        for name in [row["actor"] for row in actors] + [None]:
            bounds = [getattr(studio.quotas, kind if name is None else f"{kind}_per_actor") for kind in KINDS]
            held = [usage(connection, kind, name) for kind in KINDS]
            cells = [f"{shown(k, u)} of {shown(k, b)}" for k, u, b in zip(KINDS, held, bounds, strict=True)]
            table.add_row("all" if name is None else name, *cells)
    return table


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
