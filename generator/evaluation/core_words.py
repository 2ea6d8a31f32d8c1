"""The suite's part about camera words: does a word in the prompt move the picture the way it says?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.progress import Progress

from dreamontage.generator.evaluation.extent import Extent
from dreamontage.generator.evaluation.motion import GlobalMotion, follow, global_motion
from dreamontage.generator.evaluation.photographs import stills
from dreamontage.generator.evaluation.renditions import FPS, chunks_of, pieces, render_takes, stage, whole
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Beat

FRAMES = 25
WORDS = {
    "pan left": ("right", 1),
    "pan right": ("right", -1),
    "tilt up": ("down", 1),
    "tilt down": ("down", -1),
    "zoom in": ("log_zoom", 1),
    "zoom out": ("log_zoom", -1),
    "roll clockwise": ("roll_deg", -1),
    "roll counterclockwise": ("roll_deg", 1),
}
"""Which of the content's motions a word means, and its sign: what the camera does, the content does the other way."""
LEAST = {"right": 0.01, "down": 0.01, "log_zoom": 0.01, "roll_deg": 0.5}
"""Motion per second below which a picture stands still, whatever the sign."""


def run_words(pipeline: Any, extent: Extent, settings: RenderSettings, progress: Progress) -> list[dict[str, Any]]:
    """One row per word and photograph: the measured motion, and whether it has the word's sign."""
    pictures = list(stills(extent.size).items())[-extent.words :]
    rows = []
    jobs = [(word, name, picture) for word in extent.vocabulary or WORDS for name, picture in pictures]
    for word, name, picture in progress.track(jobs, description="camera words"):
        beat = Beat(start_s=0, end_s=(FRAMES - 1) / FPS, prompt=word)
        staged = stage(pipeline, [(picture[None], 0)], FRAMES, extent.size, [beat])
        made = whole(pieces(pipeline, staged, chunks_of(staged, render_takes(pipeline, staged, settings))))
        motion = global_motion(follow(made.final), FPS)
        rows.append({"word": word, "picture": name, "motion": asdict(motion), "right": follows(word, motion)})
    return rows


def follows(word: str, motion: GlobalMotion) -> bool:
    """Whether the content moves, visibly, as the word says."""
    axis, sign = WORDS[word]
    return sign * float(getattr(motion, axis)) > LEAST[axis]
