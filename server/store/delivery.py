"""The copy of a finished video for people: a readable name in a folder they look into."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
from pathlib import Path

from dreamontage.schemas.montage import Montage, Quality

from .blobs import fsync_folder

_MAX_STEM_CHARS = 40


def human_name(montage: Montage, quality: Quality) -> str:
    """A file stem such as lake-walk-r3-draft: the first words of the brief, else the id; revision; quality."""
    words = re.sub(r"[\W_]+", "-", montage.brief.lower()).strip("-")
    if len(words) > _MAX_STEM_CHARS:
        words = words[: _MAX_STEM_CHARS + 1].rpartition("-")[0] or words[:_MAX_STEM_CHARS]
    return f"{words or montage.id}-r{montage.revision}-{quality}"


def copy_for_people(video: Path, folder: Path, stem: str) -> Path:
    """Copy a video into `folder` as stem.mp4, else stem-2.mp4 and so on; it appears whole and replaces nothing.

    Raises OSError if the folder cannot take it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(8)}.mp4"
    try:
        shutil.copyfile(video, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        for number in itertools.count(1):
            target = folder / (f"{stem}.mp4" if number == 1 else f"{stem}-{number}.mp4")
            try:
                target.open("xb").close()  # reserves the name; hard links would do both, but not on every disk
            except FileExistsError:
                continue
            os.replace(temporary, target)
            break
        fsync_folder(folder)
        return target
    finally:
        temporary.unlink(missing_ok=True)
