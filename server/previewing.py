"""The child process that draws a preview: the assignment on stdin, files in its folder. No model, no torch."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage

FAILED = 3
"""Exit status when stdout explains what an agent can mend."""


class Assignment(BaseModel):
    """What to draw and where: `out` appears when all of its files are whole."""

    montage: Montage
    media: dict[str, Media]
    blobs: dict[str, Path]
    out: Path


def draw(assignment: Assignment) -> None:
    """Write sheet.jpg, one-shot.mp4 and report.json. Raises DreamontageError."""
    from dreamontage.generator.render import RenderTask, render

    def no_model(model_id: str) -> NoReturn:
        raise AssertionError(f"a previz asked for the model {model_id}")

    working = assignment.out.with_name(f".part-{secrets.token_hex(6)}")
    working.mkdir(parents=True)
    task = RenderTask(
        montage=assignment.montage,
        media=assignment.media,
        blobs=assignment.blobs,
        request=RenderRequest(quality="previz"),
        base=None,
        takes=working,
        out=working,
        video_id="v_preview",
    )
    try:
        render(task, no_model, lambda _: None)
        if not assignment.out.exists():
            os.replace(working, assignment.out)
        for older in assignment.out.parent.glob(f"{assignment.montage.id}-r*"):
            # Nobody holds a link to it any more.
            if older.stat().st_mtime < time.time() - limits.FILE_URL_TTL_S:
                shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def main() -> None:
    """Draw the assignment on stdin; explain on stdout what went wrong, if an agent can mend it."""
    assignment = Assignment.model_validate_json(sys.stdin.buffer.read())
    try:
        draw(assignment)
    except DreamontageError as error:
        sys.stdout.write(str(error))
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
