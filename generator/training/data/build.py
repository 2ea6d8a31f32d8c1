"""Building a set of clips: every place has its source and seeds, so that a build can stop and go on anywhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from dreamontage.generator.files import write_whole
from dreamontage.generator.training.data.filters import LEAST_CHANGE, LEAST_MOTION, judge_clip
from dreamontage.generator.training.data.pictures import Pixels, Source
from dreamontage.generator.training.data.sources import SEED_STRIDE, ClipSource
from dreamontage.generator.training.data.store import ClipRow, ClipStore, NoClip
from dreamontage.schemas.errors import Conflict, InvalidInput

RECORD, RATES = "build.json", "filter.json"
PLACES = 1 << 20
"""Places that one build seed has; seeds of different builds do not meet."""


class BuildRecord(BaseModel):
    """What a build was asked for. The same record gives the same clips, whatever `count` was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    seed: int
    width: int
    height: int
    shares: dict[str, float]
    pictures: tuple[str, ...]
    """SHA-256 of each training picture."""

    def agree(self, folder: Path) -> None:
        """Leave the record in `folder`. Raises Conflict if another build lives there."""
        path = folder / RECORD
        if path.exists():
            other = BuildRecord.model_validate_json(path.read_text())
            if other != self:
                changed = [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]
                raise Conflict(
                    f"the folder holds a build with other {', '.join(changed)}",
                    allowed="the same set, seed, size, sources and pictures; only the count may change",
                    next_call="name an empty folder, or repeat the options of build.json",
                )
            return
        write_whole(path, self.model_dump_json(indent=1).encode() + b"\n")


def size_of(text: str) -> tuple[int, int]:
    """Width and height of "256x144". Raises InvalidInput unless both are even and at least 32."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()) or any(int(n) % 2 or int(n) < 32 for n in (width, height)):
        allowed = "WIDTHxHEIGHT, both even and at least 32, such as 256x144"
        raise InvalidInput(f"{text!r} is no size for clips", field="size", allowed=allowed)
    return int(width), int(height)


def record_of(
    set_name: str, seed: int, size: tuple[int, int], shares: dict[str, float], pictures: Iterable[Source]
) -> BuildRecord:
    """The record of a build from these pictures."""
    hashes = (hashlib.sha256(source.path.read_bytes()).hexdigest() for source in pictures)
    return BuildRecord(
        set=set_name, seed=seed, width=size[0], height=size[1], shares=shares, pictures=tuple(sorted(hashes))
    )


def places(sources: Sequence[ClipSource], count: int) -> list[ClipSource]:
    """The source of each place 0..count-1: numbers follow the shares at every length of the build."""
    total, given, found = sum(source.share for source in sources), [0] * len(sources), list[ClipSource]()
    for place in range(1, count + 1):
        owed = [source.share / total * place - have for source, have in zip(sources, given, strict=True)]
        best = max(range(len(sources)), key=owed.__getitem__)
        given[best] += 1
        found.append(sources[best])
    return found


def build(
    folder: Path,
    record: BuildRecord,
    sources: Sequence[ClipSource],
    count: int,
    report: Callable[[int, Counter[str]], None] = lambda *_: None,
) -> list[ClipRow]:
    """Draw clips 0..count-1 into `folder`; those in its manifest are kept. Writes filter.json at the end.

    `report` is told after each place how many there are, and what was dropped so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record.agree(folder)
    store = ClipStore(folder)
    there = {row.index: row for row in store.rows()}
    owners = places(sources, count)
    for index, source in enumerate(owners):
        if index not in there:
            row = fill(store, index, source, (record.seed * PLACES + index) * SEED_STRIDE)
            if row:
                there[index] = row
        report(index + 1, dropped_of(there.values()))
    rows = [there[index] for index in sorted(there) if index < count]
    write_whole(folder / RATES, json.dumps(rates(rows, owners), indent=1).encode() + b"\n")
    return rows


def fill(store: ClipStore, index: int, source: ClipSource, first_seed: int) -> ClipRow | None:
    """Draw clips from `first_seed` on until one is kept, and write it; None if SEED_STRIDE of them were dropped."""
    dropped: Counter[str] = Counter()
    for attempt in range(SEED_STRIDE):
        try:
            drawn = source.draw(first_seed + attempt)
        except NoClip:
            dropped["nothing to see"] += 1
            continue
        reasons = judge_clip(drawn.frames, drawn.note.fps).reasons if source.filtered else ()
        if not reasons:
            return store.write(drawn.frames, drawn.note, index, attempt + 1, dict(dropped), drawn.truth)
        dropped.update(reasons)
    return None


def dropped_of(rows: Iterable[ClipRow]) -> Counter[str]:
    """How many clips were dropped for which reason before these were kept; one may be dropped for several."""
    return sum((Counter(row.dropped) for row in rows), Counter())


def rates(rows: Sequence[ClipRow], owners: Sequence[ClipSource]) -> dict[str, object]:
    """What the filter let through, whole and by source, with its thresholds."""
    names = sorted({owner.name for owner in owners})
    by_source = {name: [row for row in rows if owners[row.index].name == name] for name in names}
    return {
        "least_change": LEAST_CHANGE,
        "least_motion": LEAST_MOTION,
        **_rate(rows, len(owners)),
        "sources": {name: _rate(own, sum(o.name == name for o in owners)) for name, own in by_source.items()},
    }


def _rate(rows: Sequence[ClipRow], asked: int) -> dict[str, object]:
    drawn = sum(row.drawn for row in rows)
    return {
        "drawn": drawn,
        "kept": len(rows),
        "kept_share": round(len(rows) / max(1, drawn), 3),
        "dropped_for": dict(sorted(dropped_of(rows).items())),
        "places_left_empty": asked - len(rows),
    }


def contact_sheet(store: ClipStore, rows: Sequence[ClipRow], clips: int = 12, frames: int = 5) -> Pixels:
    """One row for each of `clips` clips of one size, spread over `rows`, with `frames` of its frames, first to last."""
    picks = np.linspace(0, len(rows) - 1, min(clips, len(rows))).round().astype(int)
    lines = []
    for pick in picks:
        clip = store.load(rows[pick])
        lines.append(np.concatenate(clip[np.linspace(0, len(clip) - 1, frames).round().astype(int)], axis=1))
    return np.concatenate(lines)
