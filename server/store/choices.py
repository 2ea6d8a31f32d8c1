"""Chosen takes: which take a segment shows from the next render on, and where takes are found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dreamontage.schemas.errors import NotFound
from dreamontage.schemas.montage import Quality
from dreamontage.schemas.report import TakeChoice, Video, VideoSegment

from .events import record
from .videos import VideoStore

if TYPE_CHECKING:
    import sqlite3

Then = Callable[["sqlite3.Connection", list[TakeChoice]], None]
TAKE_ID = r"t_[0-9a-f]{16}"


class Found(NamedTuple):
    """A take in a video that shows it."""

    video: Video
    ordinal: int

    @property
    def take(self) -> VideoSegment:
        """The take, at the slots it has in that video."""
        return self.video.segments[self.ordinal]


class ChoiceStore(VideoStore):
    """The videos of a studio, their takes, and the choices among them."""

    def find_take(self, take_id: str) -> Found:
        """A take by its id, in the newest video that shows it and whose file is there. Raises NotFound."""
        start = take_id.removeprefix("t_")
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT body, ordinal FROM take JOIN video ON video.id = video_id"
                " WHERE fingerprint >= :start AND fingerprint < :start || 'g' ORDER BY video.rowid DESC",
                {"start": start},
            ).fetchall()
        for row in rows:
            video = Video.model_validate_json(row["body"])
            if Path(video.path).is_file():
                return Found(video, row["ordinal"])
        raise NotFound(
            f"no video shows a take called {take_id!r}",
            field="take_ids",
            allowed="takes of videos that are still there",
            next_call="view_video(video_ids=[...]), which names the takes of a video",
        )

    def base(self, montage_id: str, quality: Quality) -> tuple[Video | None, list[TakeChoice]]:
        """What the next render starts from: the newest video, and the takes chosen since it was begun, oldest first.

        A fork that has no video of its own starts from where its source is.
        """
        lineage, source = [montage_id], self._source(montage_id)
        while (video := self.latest_video(lineage[-1], quality)) is None and source is not None:
            lineage.append(source)
            source = self._source(source)
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT body FROM choice WHERE montage_id IN (SELECT value FROM json_each(?))"
                " AND quality = ? AND id > ? ORDER BY id",
                (json.dumps(lineage), quality, video.last_choice if video else 0),
            ).fetchall()
        return video, [TakeChoice.model_validate_json(row["body"]) for row in rows]

    def choose(
        self, montage_id: str, quality: Quality, takes: Sequence[tuple[VideoSegment, str]], actor: str = "owner",
        then: Then | None = None,
    ) -> list[TakeChoice]:  # fmt: skip
        """Choose takes, each with the video it was found in; one event tells of all of them.

        `then` runs inside the write transaction when all is written.
        """
        made = []
        with self.db.write() as connection:
            (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM choice").fetchone()
            for number, (segment, video_id) in enumerate(takes, last + 1):
                choice = TakeChoice(
                    id=number, montage_id=montage_id, quality=quality, video_id=video_id, segment=segment,
                    actor=actor, at=time.time(),
                )  # fmt: skip
                body = choice.model_dump_json()
                connection.execute("INSERT INTO choice VALUES (?, ?, ?, ?)", (number, montage_id, quality, body))
                made.append(choice)
            told = {"take": ", ".join(choice.segment.take_id for choice in made), "quality": quality}
            record(connection, "choose_take", told, actor=actor, montage_id=montage_id)
            if then is not None:
                then(connection, made)
        return made

    def _source(self, montage_id: str) -> str | None:
        """The montage that a fork was made from."""
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT args ->> 'source' AS source FROM event WHERE montage_id = ? AND op = 'fork'", (montage_id,)
            ).fetchone()
        return None if row is None else str(row["source"])
