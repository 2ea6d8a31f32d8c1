"""The course of a training run: how far it is, its learning rate over time, and its curve on disk."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dreamontage.generator.training.held_out import write_curve


class Course(Protocol):
    """What ends a run and shapes its learning rate; one of `minutes` (wall clock) and `steps` is set."""

    @property
    def minutes(self) -> float | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def warm_up(self) -> float: ...
    @property
    def tail(self) -> float: ...


def progress(course: Course, step: int, elapsed_s: float) -> float:
    """Done share of the run, 0..1."""
    if course.steps is not None:
        return step / course.steps
    assert course.minutes is not None
    return min(1.0, elapsed_s / (60 * course.minutes))


def rate(course: Course, done: float, position: float | None = None) -> float:
    """The learning rate's factor, 0..1, at a done share of a run: a short rise, a plateau, a linear tail.

    `position`: how far the whole course is where the run is only a piece of it.
    """
    position = done if position is None else position
    return min(1.0, (done + 1e-4) / course.warm_up, max(0.0, (1 - position) / course.tail))


def append_rows(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Add rows to a CSV file, with a head line if it is new."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if is_new:
            writer.writeheader()
        writer.writerows({key: round(value, 6) for key, value in row.items()} for row in rows)


def draw_curve(source: Path, target: Path, title: str) -> None:
    """Draw the loss column of a curve file."""
    with source.open() as file:
        values = np.array([float(row["loss"]) for row in csv.DictReader(file)])
    write_curve(target, values, f"{title}: loss by step")
