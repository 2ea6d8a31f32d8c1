"""Paired comparisons: how sure is it that one way of making frames is better than another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 2000
SURE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of a − b over pairs, its bootstrap interval, and the number of pairs."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def paired_bootstrap(a: Sequence[float], b: Sequence[float], seed: int, rounds: int = ROUNDS) -> Difference:
    """Mean difference a − b of paired values with its 95 % percentile interval over `rounds` resamplings of the pairs.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), §13.3. One pair has an interval of no width;
    raises ValueError without a pair or where the lengths differ.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"pairs need values of equal, positive number; got {len(a)} and {len(b)}")
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(differences), (rounds, len(differences)))
    means = differences[picks].mean(1)
    low, high = np.quantile(means, [(1 - SURE) / 2, (1 + SURE) / 2])
    mean = float(differences.mean())
    return Difference(mean, min(float(low), mean), max(float(high), mean), len(differences))


def share(hits: Sequence[bool]) -> float:
    """Share of true values, 0..1; nan of none."""
    return float(np.mean(hits)) if len(hits) else float("nan")


def mean(values: Sequence[float]) -> float:
    """Plain mean; nan of none."""
    return float(np.mean(values)) if len(values) else float("nan")


def quantile(values: Sequence[float], at: float) -> float:
    """The quantile `at` (0..1) by linear interpolation; nan of none."""
    return float(np.quantile(values, at)) if len(values) else float("nan")
