"""How much the suite `core` measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Journeys:
    """Montages of `stills` unrelated photographs, `gap_s` seconds apart."""

    gap_s: float
    montages: int
    stills: int


@dataclass(frozen=True)
class Extent:
    """Counts of everything, and the size at which pictures are compared.

    one_shots, words and plain: how many subjects (None: all); every: which in-between frames are scored; montage_s,
    edits: length of the montages for seams and how often each is edited; vocabulary: the camera words (empty: all);
    speed_s, speed_size: the timed shot; sheets: drawn for each gap between unrelated photographs.
    """

    journeys: tuple[Journeys, ...]
    one_shots: int | None = None
    every: int = 3
    montage_s: float = 60.0
    edits: int = 6
    words: int = 12
    vocabulary: tuple[str, ...] = ()
    plain: int = 8
    speed_s: float = 10.0
    speed_size: tuple[int, int] = (512, 288)
    size: tuple[int, int] = (256, 144)
    sheets: int = 4


FULL = Extent(journeys=(Journeys(2.0, 15, 5), Journeys(4.0, 8, 5), Journeys(8.0, 6, 3)))
"""104 transitions: 60 of 2 s, 32 of 4 s, 12 of 8 s."""
QUICK = Extent(
    journeys=(Journeys(1.0, 1, 2),), one_shots=1, every=12, montage_s=2.75, edits=0, words=1,
    vocabulary=("pan left",), plain=1, speed_s=0.7, speed_size=(256, 144), sheets=1,
)  # fmt: skip
"""One of everything: says that the suite runs, and nothing about quality."""
