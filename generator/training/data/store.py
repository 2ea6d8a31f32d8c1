"""Clips on disk: one small mp4 each, and a manifest whose rows say where every clip comes from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from dreamontage.generator.files import write_whole
from dreamontage.generator.frames import load_clip
from dreamontage.generator.training.data.notes import ClipNote
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.video import VideoWriter
from dreamontage.schemas.errors import DreamontageError

CRF = 18
MANIFEST = "manifest.jsonl"


class NoClip(DreamontageError):
    """A source found nothing worth keeping for a seed; another seed may."""


class ClipRow(BaseModel):
    """A line of the manifest. `truth` holds what a source knows beyond the note, such as a subject's dynamics.

    `dropped` counts the clips that were drawn for this place before and dropped, by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    file: str
    sha256: str
    """Of the file."""
    bytes: int
    drawn: int = 1
    dropped: dict[str, int] = {}
    note: ClipNote
    truth: dict[str, Any] | None = None


class ClipStore:
    """A folder of clips; a clip exists when its row does.

    The row is written after its file, each whole or not at all, so that an interrupted build leaves nothing half done.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / MANIFEST

    def rows(self) -> list[ClipRow]:
        """All rows, in the order of writing; a line that was cut off while written does not count."""
        if not self.manifest.exists():
            return []
        whole, _, _ = self.manifest.read_text().rpartition("\n")
        return [ClipRow.model_validate_json(line) for line in whole.splitlines()]

    def write(
        self,
        frames: Pixels,
        note: ClipNote,
        index: int,
        drawn: int = 1,
        dropped: dict[str, int] | None = None,
        truth: dict[str, Any] | None = None,
    ) -> ClipRow:
        """Write clip number `index`, uint8 [F,H,W,3] with even sides, and then its row."""
        path = self.folder / f"{index:05d}.mp4"
        with VideoWriter(path, (note.width, note.height), note.fps, crf=CRF) as writer:
            writer.write(frames)
        content = path.read_bytes()
        row = ClipRow(
            index=index, file=path.name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), drawn=drawn,
            dropped=dropped or {}, note=note, truth=truth,
        )  # fmt: skip
        self._append(row.model_dump_json())
        return row

    def _append(self, line: str) -> None:
        with self.manifest.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():  # drop what an interruption cut off
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def load(self, row: ClipRow) -> Pixels:
        """The clip's frames [F,H,W,3] as delivered by H.264."""
        size = (row.note.width, row.note.height)
        frames = load_clip(self.folder / row.file, "mov", fps=row.note.fps, size=size, max_frames=row.note.frames)
        return np.ascontiguousarray(frames)


def join(folder: Path) -> list[ClipRow]:
    """Write the manifest of `folder` anew: all clips of the builds in its subfolders, where they lie."""
    rows: list[ClipRow] = []
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        place = manifest.parent
        rows += [row.model_copy(update={"file": f"{place.name}/{row.file}"}) for row in ClipStore(place).rows()]
    rows = [row.model_copy(update={"index": index}) for index, row in enumerate(rows)]
    write_whole(folder / MANIFEST, "".join(row.model_dump_json() + "\n" for row in rows).encode())
    return rows
