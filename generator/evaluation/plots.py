"""The suite's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280")
SIZE = (9.0, 3.4)


def distribution(values: Mapping[str, Sequence[float]], title: str, along: str, path: Path) -> None:
    """Sorted values of each name against their share: how often a value is at most that large."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    for (name, numbers), colour in zip(values.items(), COLOURS, strict=False):
        ordered = sorted(numbers)
        shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
        axes.step(ordered, shares, where="post", color=colour, label=f"{name} ({len(ordered)})")
    axes.axvline(0, color="#888", linewidth=0.8)
    axes.set(title=title, xlabel=along, ylabel="share of cases")
    save(figure, axes, path)


def boxes(values: Mapping[str, Sequence[float]], title: str, along: str, limits: Sequence[float], path: Path) -> None:
    """A box per name with all points; dashed lines at `limits`."""
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    names, numbers = list(values), list(values.values())
    axes.boxplot(numbers, orientation="horizontal", tick_labels=names, flierprops={"markersize": 3})
    for limit in limits:
        axes.axvline(limit, color="#d33", linewidth=0.8, linestyle="--")
    axes.set(title=title, xlabel=along)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save(figure: Any, axes: Any, path: Path) -> None:
    """Add a grid and a legend, and write the picture."""
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
