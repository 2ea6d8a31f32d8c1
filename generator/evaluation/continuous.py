"""Shots without a truth: unrelated photographs, one photograph alone, a clip that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dreamontage.generator.evaluation.clips import FPS, GAP, similarity_clip, test_pictures
from dreamontage.generator.evaluation.metrics import Continuity, Frames, continuity

SIZE = (256, 144)
EXTENSION_S = 4.0


def shoot(pipeline: Any, anchors: list[tuple[Any, float]], duration: float, **settings: Any) -> Frames:
    """Render a shot at draft size: uint8 [F,H,W,3]."""
    frames = pipeline(
        anchors=anchors, duration=duration, width=SIZE[0], height=SIZE[1], fps=FPS,
        generator=torch.Generator().manual_seed(0), output_type="pil", **settings,
    ).frames[0]  # fmt: skip
    return np.stack([np.asarray(frame) for frame in frames])


def continuous_shots() -> dict[str, tuple[list[tuple[Any, float]], float]]:
    """Anchors and duration of every shot that is judged, by name."""
    clips = [similarity_clip(picture, index) for index, picture in enumerate(test_pictures())]
    stills = [clip.frames[GAP] for clip in clips]
    going_on = clips[4].frames
    return {
        "three unrelated photographs, 4 s": ([(stills[i], 2.0 * n) for n, i in enumerate((0, 3, 5))], 4.0),
        "three other unrelated photographs, 4 s": ([(stills[i], 2.0 * n) for n, i in enumerate((7, 4, 2))], 4.0),
        "one photograph alone, 4 s": ([(stills[1], 0.0)], 4.0),
        "a clip extended by 4 s": ([(going_on, 0.0)], (len(going_on) - 1) / FPS + EXTENSION_S),
    }


def judge_continuity(pipeline: Any, report: Callable[[str], None], **settings: Any) -> dict[str, Continuity]:
    """Render every shot with the default output and judge it."""
    results = {}
    for name, (anchors, duration) in continuous_shots().items():
        report(name)
        results[name] = continuity(shoot(pipeline, anchors, duration, **settings), FPS)
    return results
