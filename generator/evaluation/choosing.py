"""The suite `settings`: which defaults a card should name, measured on the validation clips and never on the test's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dreamontage.generator.decoding import ShotDecoder
from dreamontage.generator.evaluation.clips import validation_clips
from dreamontage.generator.evaluation.metrics import Fidelity, fidelity
from dreamontage.generator.evaluation.variants import decoded, latents_of, mean_fidelity, previz_of
from dreamontage.generator.training.perceptual import PerceptualDistance

GRID: tuple[dict[str, Any], ...] = (
    *({"guide": "follow", "num_inference_steps": s, "t0": t} for t in (0.2, 0.4, 0.6) for s in (2, 4)),
    {"guide": "follow", "num_inference_steps": 1, "t0": 0.4},
    {"guide": "loose", "num_inference_steps": 4},
)
EVERY = 3
"""Every third in-between frame is scored."""


def run_settings(pipeline: Any, out: Path, report: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """Score previz and every setting of the grid, with and without carry-over; writes out/settings.json."""
    out.mkdir(parents=True, exist_ok=True)
    distance, clips = PerceptualDistance(), validation_clips()
    guides = [previz_of(clip) for clip in clips]

    def row(name: str, scores: list[Fidelity], **more: Any) -> dict[str, Any]:
        half = len(scores) // 2
        kinds = {"plain": scores[:half], "layered": scores[half:]}
        return {"name": name} | {kind: asdict(mean_fidelity(some)) for kind, some in kinds.items()} | more

    def scored(frames: list[Any]) -> list[Fidelity]:
        picks = [clip.between[::EVERY] for clip in clips]
        pairs = zip(frames, clips, picks, strict=True)
        return [fidelity(one[inner], clip.frames[inner], distance) for one, clip, inner in pairs]

    rows = [row("previz", scored([guide for guide, _ in guides]))]
    report(str(rows[-1]))
    for settings in GRID:
        latents = [latents_of(pipeline, clip, 0, **settings) for clip in clips]
        carried = [
            ShotDecoder(pipeline.vae).next(one, guide, sure).pixels
            for one, (guide, sure) in zip(latents, guides, strict=True)
        ]
        name = " ".join(f"{key}={value}" for key, value in settings.items())
        rows.append(row(name, scored(carried)))
        rows.append(row(f"{name} m=0", scored([decoded(pipeline.vae, one) for one in latents])))
        report(str(rows[-2]))
        report(str(rows[-1]))
    (out / "settings.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows
