"""`dreamontage doctor`: is everything here that a render needs? Every problem comes with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from dreamontage.schemas.errors import DreamontageError

Check = Callable[[Path | None], Iterator[str]]


def run(studio_folder: Path | None) -> int:
    """Print every check; 0 if all passed, else 1."""
    console = Console()
    failed = 0
    for check in (_python, _studio, _models, _torch, _video, _roots, _reader):
        try:
            for line in check(studio_folder):
                console.print(f"[green]ok[/]  {line}", highlight=False)
        except DreamontageError as error:
            failed += 1
            console.print(f"[red]no[/]  {error}", highlight=False)
        except ImportError as error:
            failed += 1
            console.print(f"[red]no[/]  {error.name or error} cannot be imported. Next: pip install dreamontage again.")
    console.print("Everything a render needs is here." if not failed else f"{failed} problems.")
    return min(failed, 1)


def _python(_: Path | None) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"Python {platform.python_version()} at {sys.executable}, {cores} cores, MCP SDK {version('mcp')}"


def _studio(folder: Path | None) -> Iterator[str]:
    from .store import Studio

    with Studio(folder) as studio:
        studio.require_space()
        free = shutil.disk_usage(studio.folder).free
        waiting = len(studio.jobs(states=("queued", "running")))
        yield f"Studio {studio.folder}, {free / 2**30:.1f} GiB free, {waiting} jobs waiting or running"


def _models(_: Path | None) -> Iterator[str]:
    from dreamontage.generator.models.catalogue import cards, fetchable, weights_folder

    for model_id, card in cards().items():
        if not card.available:
            if model_id in fetchable():
                continue
            raise DreamontageError(
                f"the weights of {model_id} are missing from {weights_folder(model_id)}",
                next_call="pip install dreamontage again; previz renders work without them",
            )
        yield f"Model {model_id}: {card.title}, {card.licence}"


def _torch(_: Path | None) -> Iterator[str]:
    import torch

    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(1, 3, 8, 8, generator=generator)
    torch.nn.functional.conv2d(picture, torch.ones(3, 3, 3, 3))
    yield f"torch {torch.__version__}, {'CUDA' if torch.cuda.is_available() else 'CPU'}"


def _video(_: Path | None) -> Iterator[str]:
    import av

    try:
        av.codec.Codec("libx264", "w")
    except ValueError:
        raise DreamontageError("PyAV has no H.264 encoder", next_call="pip install --force-reinstall av") from None
    yield f"PyAV {av.__version__} with H.264"


def _roots(folder: Path | None) -> Iterator[str]:
    from .media.roots import media_roots, shorten
    from .store import Studio

    with Studio(folder) as studio:
        yield "Media roots: " + ", ".join(shorten(root) for root in media_roots(studio.inbox))


def _reader(_: Path | None) -> Iterator[str]:
    from .media.child import ask

    with tempfile.NamedTemporaryFile() as other, socket.create_server(("127.0.0.1", 0)) as listening:
        attempt = {"read": other.name, "write": other.name, "connect": listening.getsockname()}
        outcome = ask("escape", attempt)
    ways_out = [way for way, works in outcome.replies[0].items() if works]
    kept = f"; this system leaves it: {', '.join(ways_out)}" if ways_out else ", without files, programs or network"
    yield f"Media are read in a process of their own, with bounded memory and time{kept}"
