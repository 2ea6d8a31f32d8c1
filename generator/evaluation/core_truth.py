"""The suite's part with a truth: what stands between the anchors of held-out one-shots, every way of making it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from dreamontage.generator.decoding import UNSURE, to_tensor
from dreamontage.generator.evaluation.anchor_scores import anchor_halo, anchor_scores
from dreamontage.generator.evaluation.baselines import cross_fade, hold_and_cut, interpolated
from dreamontage.generator.evaluation.extent import Extent
from dreamontage.generator.evaluation.metrics import Fidelity, Frames, psnr_db
from dreamontage.generator.evaluation.one_shots import WANTED, OneShot, one_shots
from dreamontage.generator.evaluation.renditions import (
    Piece,
    chunks_of,
    pieces,
    render_takes,
    stage,
    through_autoencoder,
    whole,
    without_tails,
)
from dreamontage.generator.evaluation.rife import Rife
from dreamontage.generator.evaluation.sheets import Row, draw_sheet
from dreamontage.generator.evaluation.stability import pair_curves
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.schemas.models import RenderSettings

VARIANTS = {
    "cut": "hold and cut",
    "fade": "cross-fade",
    "rife": "RIFE",
    "previz": "previz alone",
    "final": "final (carry-over on)",
    "final_m0": "final, carry-over off (m = 0)",
    "no_tails": "final without tails",
    "previz_decoded": "previz through the autoencoder",
    "fade_decoded": "cross-fade through the autoencoder",
    "ceiling": "truth through the autoencoder",
}
DRAWN = {"truth": "truth", "fade": "cross-fade", "rife": "RIFE", "previz": "previz alone", "final": "final"}
LEAST_AREA = 0.002
"""Share of a frame that must be unsure for the frame to be compared there."""
BATCH = 8


def run_truth(
    pipeline: Any, extent: Extent, settings: RenderSettings, out: Path, progress: Progress
) -> list[dict[str, Any]]:
    """One row of numbers per one-shot; draws a sheet of each into out/sheets."""
    distance, rife = PerceptualDistance(), Rife()
    rows: list[dict[str, Any]] = []
    total = len(WANTED[: extent.one_shots])
    for shot in progress.track(one_shots(extent.one_shots, extent.size), total, description="one-shots with a truth"):
        variants, drawn = make_variants(pipeline, shot, rife, settings)
        row = judge_shot(shot, variants, drawn, distance, extent.every)
        row["sheet"] = f"sheets/one-shot-{len(rows) + 1:02}.jpg"
        lines = [
            Row(label, variants.get(name, shot.frames), scored(row, name))
            for name, label in DRAWN.items()
        ]
        draw_sheet(lines, f"{shot.name} ({shot.kind})", set(shot.pinned), out / row["sheet"])
        rows.append(row)
    return rows


def make_variants(
    pipeline: Any, shot: OneShot, rife: Rife, settings: RenderSettings
) -> tuple[dict[str, Frames], Piece]:
    """Every variant of one shot [F,H,W,3] by name, and the whole rendition."""
    frames, size = len(shot.frames), (shot.frames.shape[2], shot.frames.shape[1])
    staged = stage(pipeline, shot.anchors, frames, size)
    takes = render_takes(pipeline, staged, settings)
    made = whole(pieces(pipeline, staged, chunks_of(staged, takes)))
    alone = made
    if len(takes.rendered) > 1:
        alone = whole(pieces(pipeline, staged, without_tails(pipeline, staged, takes)))
    faded = cross_fade(shot.pinned, frames)
    return {
        "cut": hold_and_cut(shot.pinned, frames),
        "fade": faded,
        "rife": interpolated(shot.pinned, frames, rife),
        "previz": made.previz,
        "final": made.final,
        "final_m0": made.own,
        "no_tails": alone.final,
        "previz_decoded": made.guide,
        "fade_decoded": through_autoencoder(pipeline, faded),
        "ceiling": through_autoencoder(pipeline, shot.frames),
    }, made


def judge_shot(
    shot: OneShot, variants: Mapping[str, Frames], made: Piece, distance: PerceptualDistance, every: int
) -> dict[str, Any]:
    """Scores of every gap and variant, of the area where the previz is unsure, and of the anchors."""
    gaps = []
    for gap in shot.gaps:
        picks = list(gap)[every // 2 :: every]
        scores = {name: asdict(compare(frames[picks], shot.frames[picks], distance)) for name, frames in
                  variants.items()}  # fmt: skip
        gaps.append({"start": gap.start - 1, "stop": gap.stop, "scores": scores})
    between = [frame for gap in shot.gaps for frame in list(gap)[every // 2 :: every]]
    given = {first: frames if len(frames) > 1 else frames[0] for frames, first in shot.anchors}
    anchors = {
        name: [asdict(score) for score in anchor_scores(variants[name], given, distance)]
        for name in ("final", "final_m0", "previz_decoded")
    }
    curves = pair_curves(made.final)
    halos = [asdict(anchor_halo(curves, first, count)) for first, count in shot.given if first > 0]
    return {
        "name": shot.name, "kind": shot.kind, "frames": len(shot.frames), "given": [list(one) for one in shot.given],
        "gaps": gaps, "unsure": judge_unsure(shot, made, between, distance), "anchors": anchors, "halos": halos,
    }  # fmt: skip


def judge_unsure(shot: OneShot, made: Piece, between: Sequence[int], distance: PerceptualDistance) -> dict[str, Any]:
    """Final and previz where the confidence is below .5: the rest of each frame is replaced by the truth.

    share: of all pixels in between; l1: mean absolute difference there, 0..255; lpips: mean over the frames that have
    such an area. The last two are null where there is none.
    """
    unsure = made.sure[between] < UNSURE
    found: dict[str, Any] = {"share": float(unsure.mean()), "lpips": None, "l1": None}
    picks = [frame for frame, area in zip(between, unsure, strict=True) if area.mean() >= LEAST_AREA]
    if not picks:
        return found
    area, truth = made.sure[picks][..., None] < UNSURE, shot.frames[picks]
    shown = {"final": made.final[picks], "final_m0": made.own[picks], "previz": made.previz[picks]}
    found["lpips"] = {
        name: compare(np.where(area, frames, truth), truth, distance).lpips for name, frames in shown.items()
    }
    found["l1"] = {
        name: float(np.abs(frames.astype(np.int16) - truth)[np.broadcast_to(area, truth.shape)].mean())
        for name, frames in shown.items()
    }
    return found


@torch.no_grad()
def compare(frames: Frames, truth: Frames, distance: PerceptualDistance) -> Fidelity:
    """Mean PSNR and LPIPS of frames [n,H,W,3] against the truth, a few at a time."""
    far = [
        distance(to_tensor(frames[at : at + BATCH]), to_tensor(truth[at : at + BATCH]))
        for at in range(0, len(frames), BATCH)
    ]
    return Fidelity(psnr_db(frames, truth), float(torch.cat(far).mean()))


def scored(row: Mapping[str, Any], name: str) -> str:
    """The mean over a one-shot's gaps, as a sheet's row says it; empty for the truth."""
    if name not in VARIANTS:
        return ""
    scores = [gap["scores"][name] for gap in row["gaps"]]
    return f"{np.mean([s['psnr_db'] for s in scores]):.1f} dB / LPIPS {np.mean([s['lpips'] for s in scores]):.3f}"
