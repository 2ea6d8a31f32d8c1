"""The suite's part about long montages: every kind of seam, and colour over a minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.progress import Progress

from dreamontage.generator.evaluation.extent import Extent
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.one_shots import CLIP_FRAMES, travel
from dreamontage.generator.evaluation.photographs import MVTB, photograph, stills
from dreamontage.generator.evaluation.renditions import (
    FPS,
    Pinned,
    Staged,
    Takes,
    chunks_of,
    pieces,
    render_takes,
    stage,
)
from dreamontage.generator.evaluation.seams import seam_ratios
from dreamontage.generator.evaluation.stability import colour_drift
from dreamontage.generator.measuring.pairs import PairMeter
from dreamontage.schemas.models import RenderSettings

STILL_GAPS = (7, 8, 9, 10, 11, 12, 13, 18)
"""Slots from one still to the next, drawn from these; beyond 13 a segment is split between two stills."""
CLIP_GAPS = (5, 8)
"""Slots from the end of a clip to the next clip."""
EVERY = 5
"""An edit changes every fifth still: that reaches two gaps on each side, the fifth gap is kept, and held."""
FAR = 9


def run_montages(pipeline: Any, extent: Extent, settings: RenderSettings, progress: Progress) -> dict[str, Any]:
    """Seams by kind, with the previz at the same frames and places that are no seams beside them; drift per montage.

    `usual`: the median ratios of a montage at its places that are neither seams nor anchors.
    """
    found: dict[str, Any] = {"seams": {"carried": [], "pinned": [], "held": []}, "elsewhere": [], "drift": []}
    task = progress.add_task(f"montages of {extent.montage_s:g} s", total=2 + extent.edits)
    slots = round(extent.montage_s * FPS / 4) + 1

    def measured(staged: Staged, takes: Takes, kinds: Sequence[str], name: str) -> None:
        measure(pipeline, staged, takes, kinds, name, found)
        progress.advance(task)

    pinned = montage_of_stills(slots, extent.size)
    staged = stage(pipeline, pinned, 4 * slots - 3, extent.size)
    takes = render_takes(pipeline, staged, settings)
    measured(staged, takes, ["carried"], "stills")
    for edit in range(extent.edits):
        pinned = edited(pinned, edit, extent.size)
        staged = stage(pipeline, pinned, 4 * slots - 3, extent.size)
        takes = render_takes(pipeline, staged, settings, takes)
        measured(staged, takes, ["held"], f"stills, edit {edit + 1}")
    staged = stage(pipeline, montage_of_clips(slots, extent.size), 4 * slots - 3, extent.size)
    measured(staged, render_takes(pipeline, staged, settings), ["pinned"], "clips")
    return found


def measure(
    pipeline: Any, staged: Staged, takes: Takes, kinds: Sequence[str], name: str, found: dict[str, Any]
) -> None:
    """Decode a montage and add its seams of these kinds and its drift to what was found."""
    own, planned = PairMeter(), PairMeter()
    shown: list[Frames] = []
    guides: list[Frames] = []
    for piece in pieces(pipeline, staged, chunks_of(staged, takes)):
        for frame, guide in zip(piece.final, piece.previz, strict=True):
            own.add(frame)
            planned.add(guide)
        shown.append(piece.final)
        guides.append(piece.previz)
    at = [frame for frame, _ in takes.seams]
    anchors = [anchor.frame + offset for anchor in staged.shot.plan.anchors for offset in range(anchor.frames)]
    ends = {anchor.frame + anchor.frames for anchor in staged.shot.plan.anchors}
    delivered = seam_ratios(own.curves, at, anchors, FPS)
    previz = seam_ratios(planned.curves, at, anchors, FPS)
    usual = {
        ratio: float(np.median([getattr(fit, ratio) for fit in delivered.elsewhere]))
        for ratio in ("step_ratio", "jerk_ratio")
    }
    for (frame, kind), fit, plan in zip(takes.seams, delivered.seams, previz.seams, strict=True):
        if kind in kinds:
            found["seams"][kind].append({
                "montage": name, "frame": frame, "at_anchor": frame in ends, "final": asdict(fit),
                "previz": asdict(plan), "usual": usual,
            })  # fmt: skip
    found["elsewhere"] += [{"final": asdict(fit), "usual": usual} for fit in delivered.elsewhere]
    drift = colour_drift(np.concatenate(shown), np.concatenate(guides))
    found["drift"].append({"montage": name, "seconds": staged.shot.plan.frames / FPS, "drift": drift})


def montage_of_stills(slots: int, size: tuple[int, int]) -> Pinned:
    """Unrelated photographs at uneven times over a montage of `slots` slots."""
    rng = np.random.default_rng(51)
    pictures = list(stills(size).values())
    pinned: list[tuple[Frames, int]] = []
    slot = 0
    while slot < slots:
        pinned.append((pictures[len(pinned) % len(pictures)][None], 4 * slot))
        slot += int(rng.choice(STILL_GAPS))
    return pinned


def edited(pinned: Pinned, edit: int, size: tuple[int, int]) -> Pinned:
    """Another photograph at every fifth still, one that is not near it; `edit` 0, 1, 2, … chooses which."""
    pictures = list(stills(size).values())
    return [
        (pictures[(index + FAR * (edit + 1)) % len(pictures)][None] if index % EVERY == edit % EVERY else given, frame)
        for index, (given, frame) in enumerate(pinned)
    ]


def montage_of_clips(slots: int, size: tuple[int, int]) -> Pinned:
    """Clips of half a second, a camera over one photograph each, at uneven times over a montage of `slots` slots."""
    rng = np.random.default_rng(52)
    pinned: list[tuple[Frames, int]] = []
    slot = 0
    while slot + CLIP_FRAMES // 4 < slots:
        picture = photograph(MVTB[len(pinned) % len(MVTB)])
        pinned.append((travel(rng, picture, 3 * CLIP_FRAMES, size)[CLIP_FRAMES : 2 * CLIP_FRAMES], 4 * slot))
        slot += CLIP_FRAMES // 4 + int(rng.integers(*CLIP_GAPS))
    return pinned
