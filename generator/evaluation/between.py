"""The suite `between`: is there mush between the anchors, is the shot continuous, and what is each part worth?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dreamontage.generator.evaluation.clips import HeldOut, test_clips
from dreamontage.generator.evaluation.continuous import judge_continuity
from dreamontage.generator.evaluation.drawing import comparison_sheet
from dreamontage.generator.evaluation.metrics import Continuity, Fidelity
from dreamontage.generator.evaluation.variants import VARIANTS, mean_fidelity, render_variants, score
from dreamontage.generator.training.perceptual import PerceptualDistance

DRAWN = (0, 6)
"""Test clips that the sheet shows."""
Report = Callable[[str], None]


def run_between(pipeline: Any, out: Path, report: Report = lambda _: None, **settings: Any) -> dict[str, Any]:
    """Measure all variants on the ten test clips and the continuous shots; write numbers.json, table.md and sheet.jpg.

    `settings` override the card's defaults, as in the pipeline's call. Returns what numbers.json holds.
    """
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    distance, shown, scores = PerceptualDistance(), [], []
    clips = test_clips()
    for index, clip in enumerate(clips):
        report(f"clip {index + 1} of {len(clips)}: {clip.name}")
        variants = render_variants(pipeline, clip, **settings)
        scores.append(score(variants, clip, distance))
        if index in DRAWN:
            shown.append((clip, variants, scores[-1]))
    means = {name: mean_fidelity([row[name] for row in scores]) for name in VARIANTS}
    continuous = judge_continuity(pipeline, report, **settings)
    comparison_sheet(shown, means, out / "sheet.jpg")
    numbers = {
        "clips": [
            {"name": c.name, "ease": c.ease, "scores": {n: asdict(s) for n, s in row.items()}}
            for c, row in zip(clips, scores, strict=True)
        ],
        "means": {name: asdict(value) for name, value in means.items()},
        "final_beats_fade_in_lpips": wins(scores, "final", "fade"),
        "final_beats_previz_in_lpips": wins(scores, "final", "previz"),
        "continuous": {name: asdict(value) for name, value in continuous.items()},
        "settings": {**pipeline.card.defaults.model_dump(exclude_none=True), **settings},
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (out / "table.md").write_text(table(clips, scores, means, continuous))
    return numbers


def wins(scores: Sequence[dict[str, Fidelity]], first: str, second: str) -> int:
    """Clips on which one variant has the lower LPIPS."""
    return sum(row[first].lpips < row[second].lpips for row in scores)


def table(
    clips: Sequence[HeldOut],
    scores: Sequence[dict[str, Fidelity]],
    means: dict[str, Fidelity],
    continuous: dict[str, Continuity],
) -> str:
    """The results as Markdown."""
    lines = ["| between the anchors | PSNR dB | LPIPS | beats the cross-fade in LPIPS |", "|---|---|---|---|"]
    for name, label in VARIANTS.items():
        count = "" if name == "fade" else f"{wins(scores, name, 'fade')} of {len(scores)}"
        lines.append(f"| {label} | {means[name].psnr_db:.2f} | {means[name].lpips:.3f} | {count} |")
    lines += ["", "| clip | " + " | ".join(VARIANTS) + " |", "|---|" + "---|" * len(VARIANTS)]
    for clip, row in zip(clips, scores, strict=True):
        cells = (f"{row[name].psnr_db:.1f} / {row[name].lpips:.3f}" for name in VARIANTS)
        lines.append(f"| {clip.name} ({clip.ease}) | " + " | ".join(cells) + " |")
    lines += ["", "| shot | largest step / median | cuts | longest frozen stretch |", "|---|---|---|---|"]
    for name, value in continuous.items():
        lines.append(f"| {name} | {value.step_ratio:.2f} | {value.cuts} | {value.frozen_s:.2f} s |")
    return "\n".join(lines) + "\n"
