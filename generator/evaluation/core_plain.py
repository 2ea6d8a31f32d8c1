"""The suite's part in the paper's mode (guide off): first and last picture, nothing in between but the model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from dreamontage.generator.evaluation.baselines import cross_fade
from dreamontage.generator.evaluation.core_transitions import journeys
from dreamontage.generator.evaluation.core_truth import compare
from dreamontage.generator.evaluation.cuts import cuts_content, cuts_transnet
from dreamontage.generator.evaluation.extent import Extent, Journeys
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.one_shots import Wanted, make_one_shot
from dreamontage.generator.evaluation.photographs import MVTB
from dreamontage.generator.evaluation.renditions import FPS, plain, plain_naive, stage
from dreamontage.generator.evaluation.sheets import Row, draw_sheet
from dreamontage.generator.evaluation.stability import motion_amount, pair_curves, sharpness
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.schemas.models import RenderSettings

GAP = 32
SEED = 600
"""First number of the shots made for this part: other motions than elsewhere."""


def run_plain(
    pipeline: Any, extent: Extent, settings: RenderSettings, out: Path, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """`same`: two views of one photograph with the truth between them, conditions re-encoded and naive; `unrelated`:
    two photographs."""
    distance = PerceptualDistance()
    same, unrelated = [], []
    for index in progress.track(range(extent.plain), description="plain mode, one photograph"):
        wanted = Wanted("camera", MVTB[index % len(MVTB)], (GAP,))
        shot = make_one_shot(wanted, SEED + index, extent.size)
        staged = stage(pipeline, shot.anchors, GAP + 1, extent.size)
        ways = {
            "fade": cross_fade(shot.pinned, GAP + 1),
            "plain": plain(pipeline, staged, settings),
            "naive": plain_naive(pipeline, staged, shot.frames),
        }
        row: dict[str, Any] = {"name": shot.name, "truth_motion": motion_of(shot.frames)}
        for name, frames in ways.items():
            inner = range(1, GAP, extent.every)
            row[name] = {
                **asdict(compare(frames[inner], shot.frames[inner], distance)),
                "anchor_psnr_db": compare(frames[[GAP]], shot.frames[[GAP]], distance).psnr_db,
                "motion": motion_of(frames),
            }
        row["sheet"] = f"sheets/plain-{index + 1}.jpg"
        lines = [Row("truth", shot.frames), Row("cross-fade", ways["fade"]), Row("plain mode", ways["plain"]),
                 Row("plain mode, naive conditions", ways["naive"])]  # fmt: skip
        draw_sheet(lines, f"plain mode, {shot.name}", set(shot.pinned), out / row["sheet"])
        same.append(row)
    pairs = journeys((Journeys(GAP / FPS, extent.plain, 2),), extent.size)
    for journey in progress.track(pairs, extent.plain, description="plain mode, two photographs"):
        staged = stage(pipeline, journey.pinned, journey.frames, extent.size)
        frames = plain(pipeline, staged, settings)
        curves = pair_curves(frames)
        given = np.concatenate([pictures for pictures, _ in journey.pinned])
        own = sharpness(pair_curves(given)).mean()
        unrelated.append({
            "from": journey.names[0], "to": journey.names[1],
            "cuts": {"content": len(cuts_content(curves, FPS)), "transnet": len(cuts_transnet(frames))},
            "sharpness": float(sharpness(curves)[1:-1].mean() / own), "motion": motion_amount(curves, FPS),
            "anchor_psnr_db": compare(frames[[-1]], given[[-1]], distance).psnr_db,
        })  # fmt: skip
    return {"same": same, "unrelated": unrelated}


def motion_of(frames: Frames) -> float:
    """Mean flow in view widths per second."""
    return motion_amount(pair_curves(frames), FPS)
