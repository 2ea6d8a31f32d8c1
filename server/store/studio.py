"""The studio: one private folder with database, media, takes and videos. Any number of processes open it at once."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import platformdirs

from dreamontage.schemas.errors import InvalidInput

from ..quotas import Quotas
from .answers import AnswerStore
from .blobs import MediaStore
from .choices import ChoiceStore
from .db import Database
from .events import EventStore
from .jobs import JobStore
from .montages import MontageStore
from .tasks import TaskStore
from .tokens import TokenStore
from .uploads import UploadStore
from .workers import WorkerStore


class Studio(
    MontageStore, EventStore, MediaStore, JobStore, ChoiceStore,
    WorkerStore, TokenStore, TaskStore, UploadStore, AnswerStore,
):  # fmt: skip
    """Everything durable, behind plain synchronous calls of a few milliseconds, safe from any thread and process.

    `folder` defaults to DREAMONTAGE_HOME, else the platform's data folder; `out`, where finished videos are copied
    under a human name, to DREAMONTAGE_OUT, else Dreamontage in the user's videos. Raises InvalidInput if the folder
    cannot be one.
    """

    def __init__(self, folder: Path | str | None = None, out: Path | str | None = None) -> None:
        home = folder or os.environ.get("DREAMONTAGE_HOME") or platformdirs.user_data_path("dreamontage")
        self.folder = Path(home).expanduser().absolute()
        human = out or os.environ.get("DREAMONTAGE_OUT") or platformdirs.user_videos_path() / "Dreamontage"
        self.out = Path(human).expanduser().absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            for part in ("blobs", "takes", "videos", "inbox"):
                (self.folder / part).mkdir(exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"the studio cannot be in {self.folder}: {error.strerror}",
                field="DREAMONTAGE_HOME",
                allowed="a folder that this user may create or owns",
            ) from error
        self.quotas = Quotas.of(self.folder)
        self.db = Database(self.folder / "studio.db")
        self.sweep()

    @property
    def takes(self) -> Path:
        """The folder of takes."""
        return self.folder / "takes"

    @property
    def inbox(self) -> Path:
        """A media root that always exists."""
        return self.folder / "inbox"

    def close(self) -> None:
        """Close the connections; the studio can be used again afterwards."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
