"""`dreamontage fuzz`: thousands of spoiled files against the intake, and what became of them.

Every file is read in the confined child as a real one would be. A file is taken in, refused, or ends the child by one
of its limits; what must not happen is that the child crashes in a decoder (contained, but worth a report to its
authors), that an error other than ours comes out, or that anything is read, written or connected to beyond the file.
"""

from __future__ import annotations

import random
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dreamontage.schemas.errors import DreamontageError

from .media.child import ask
from .media.ingest import take_in_all
from .media.mutations import mutated, samples
from .store import Studio

_BATCH = 50
_LIMITS = (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL, signal.SIGXFSZ)
SECRET = b"dreamontage-canary-4f1c0e"


@dataclass
class Tally:
    """What became of the files. `worst` names those that deserve a look: (what, how the file was made)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    worst: list[tuple[str, str]] = field(default_factory=list)

    def note(self, outcome: str, made: str, *, bad: bool = False) -> None:
        """Count one file."""
        self.outcomes[outcome] += 1
        if bad:
            self.worst.append((outcome, made))


def run(cases: int, seed: int, keep: Path | None) -> int:
    """Try so many files and print what became of them; 1 if anything went wrong. `keep`: folder for those that did."""
    console = Console()
    tally = Tally()
    with (
        tempfile.TemporaryDirectory(prefix="dreamontage-fuzz-") as folder,
        socket.create_server(("127.0.0.1", 0)) as ear,
    ):
        ear.setblocking(False)
        place = Path(folder)
        (place / "canary").write_bytes(SECRET)
        with Studio(place / "studio", place / "out") as studio:
            batches = _batches(place, cases, seed, ear.getsockname()[1])
            told, count = f"{cases} files, seed {seed}", -(-cases // _BATCH)
            for batch in track(batches, told, total=count, console=console, transient=True):
                _try(studio, place, batch, tally, keep)
            for escape in escapes(place, studio, ear):
                tally.note(f"escape: {escape}", "any of them", bad=True)
    for outcome, count in tally.outcomes.most_common():
        console.print(f"{count:6}  {outcome}", highlight=False)
    for outcome, made in tally.worst[:20]:
        console.print(f"[red]look at[/] {outcome} – {made}", highlight=False)
    console.print("Nothing went wrong." if not tally.worst else f"{len(tally.worst)} files went wrong.")
    return min(len(tally.worst), 1)


def _batches(place: Path, cases: int, seed: int, port: int) -> Iterator[dict[Path, str]]:
    """Files on disk with how they were made: first those that refer to others, then spoiled samples."""
    lures = _lures(place, port)
    for first in range(0, cases, _BATCH):
        batch = {}
        for number in range(first, min(first + _BATCH, cases)):
            made, data = lures[number] if number < len(lures) else mutated(random.Random(f"{seed}/{number}"))
            file = place / f"{number}.bin"
            file.write_bytes(data)
            batch[file] = f"seed {seed}, case {number}: {made}"
        yield batch


def _lures(place: Path, port: int) -> list[tuple[str, bytes]]:
    """Files that ask their reader to open something else."""
    secret, address = str(place / "canary").encode(), f"http://127.0.0.1:{port}/x".encode()
    mp4 = samples()["mp4"]
    lists = [
        b"#EXTM3U\n#EXTINF:1,\n%s\n", b"ffconcat version 1.0\nfile '%s'\n", b"[playlist]\nFile1=%s\n",
        b'<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="%s"/></svg>',
        b"<?xml version='1.0'?><MPD><BaseURL>%s</BaseURL></MPD>", b"v=0\nc=IN IP4 127.0.0.1\nu=%s\n",
    ]  # fmt: skip
    plain = [(f"{text[:12]!r} with {what!r}", text % what) for text in lists for what in (secret, address)]
    heads = (b"", mp4[:32], b"\x1a\x45\xdf\xa3", b"RIFF\0\0\0\0AVI ", b"GIF89a", b"\x89PNG\r\n\x1a\n")
    return [(f"{made} behind {head[:8]!r}", head + text) for made, text in plain for head in heads] + [
        (f"mp4 that refers to {what!r}", _referring(mp4, what)) for what in (secret, address)
    ]


def _referring(mp4: bytes, what: bytes) -> bytes:
    """A clip whose samples are said to be in another file."""
    at = mp4.index(b"url \0\0\0\x01")
    return mp4[: at + 4] + b"\0\0\0\0" + what + b"\0" + mp4[at + 8 :]


def _try(studio: Studio, place: Path, batch: dict[Path, str], tally: Tally, keep: Path | None) -> None:
    waiting, taken = list(batch), []
    while waiting:
        with ExitStack() as opened:
            files = [opened.enter_context(file.open("rb+")) for file in waiting]
            arguments = {"paths": [str(file) for file in waiting]}
            try:
                replies, _, ended = ask(
                    "judge", arguments, [file.fileno() for file in files], output_bytes=2**26, items=len(files)
                )
            except DreamontageError as error:
                tally.note(f"the reader broke: {error.problem}", batch[waiting[0]], bad=True)
                return
        for file, reply in zip(waiting, replies, strict=False):
            taken += [file] if reply["outcome"] == "taken in" else []
            tally.note(reply["outcome"], batch[file], bad=reply["outcome"].startswith("taken in, but"))
        if len(replies) < len(waiting):
            culprit = waiting[len(replies)]
            limit = ended in _LIMITS
            what = f"{'ended by a limit' if limit else 'crashed the child'} ({signal.Signals(ended).name})"
            tally.note(what, batch[culprit], bad=not limit)
            if keep is not None and not limit:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / culprit.name).write_bytes(culprit.read_bytes())
        waiting = waiting[len(replies) + 1 :]
    try:
        if taken:
            take_in_all(studio, [str(file) for file in taken], [place])
    except DreamontageError as error:
        tally.note(f"taken in, but refused the second time: {error.problem}", batch[taken[0]], bad=True)
    for file in batch:
        file.unlink()


def escapes(place: Path, studio: Studio, ear: socket.socket) -> Iterator[str]:
    """Signs that something beyond the files was touched."""
    try:
        ear.accept()[0].close()
        yield "a connection was made"
    except BlockingIOError:
        pass
    strange = {path.name for path in place.iterdir()} - {"canary", "studio", "out"}
    if strange:
        yield f"a file was written: {sorted(strange)[0]}"
    if any(SECRET in blob.read_bytes() for blob in (studio.folder / "blobs").iterdir()):
        yield "another file was read"
