"""Clips for visual-expression SFT: camera, effect, sport, space and transition, with one to three timed intervals."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dreamontage.generator.training.data.batches import ClipMixture, recoloured
from dreamontage.generator.training.data.depths import among, corridor, openings
from dreamontage.generator.training.data.effects import effect_clip
from dreamontage.generator.training.data.journeys import chase_clip, dolly_zoom_clip, moves_clip, ramp_clip
from dreamontage.generator.training.data.notes import ClipNote
from dreamontage.generator.training.data.pictures import Picture, Pixels
from dreamontage.generator.training.data.timing import Made, boundaries
from dreamontage.generator.training.data.transitions import transition_clip

Expression = Literal["camera", "effect", "sport", "space", "transition"]
EXPRESSIONS: tuple[Expression, ...] = ("camera", "effect", "sport", "space", "transition")
LENGTHS = (49, 57, 65, 81)


def _made(
    rng: np.random.Generator, category: Expression, pictures: list[Picture], frames: int, height: int, width: int
) -> Made:
    first, second = pictures[:2]
    match category:
        case "camera":
            kind = rng.choice(3, p=[0.55, 0.25, 0.2])
            if kind == 2:
                return dolly_zoom_clip(rng, first, second, frames, height, width)
            return (moves_clip, ramp_clip)[kind](rng, first, frames, height, width)
        case "effect":
            return effect_clip(rng, first, second, frames, height, width)
        case "sport":
            return chase_clip(rng, first, second, frames, height, width)
        case "space":
            maker = (corridor, openings, among)[int(rng.choice(3, p=[0.4, 0.3, 0.3]))]
            return maker(rng, pictures, frames, height, width)
        case "transition":
            return transition_clip(rng, first, second, frames, height, width)


def clip(seed: int, mixture: ClipMixture, size: tuple[int, int], category: Expression) -> tuple[Pixels, ClipNote]:
    """Clip number `seed` of a category at size (width, height): 49 to 81 frames [F,H,W,3], and its note.

    The note's licence speaks of what is made here; the pictures' own licences are the mixture's.
    """
    rng = np.random.default_rng([seed, EXPRESSIONS.index(category), 0xE5])
    width, height = size
    frames = int(rng.choice(LENGTHS))
    pictures = [mixture.picture(rng, seed) for _ in range(5 if category == "space" else 2)]
    made, beats = _made(rng, category, pictures, frames, height, width)
    if category != "effect":  # whose words speak of light and colour
        made = recoloured(rng, made)
    note = ClipNote(
        source=f"expression, {category}", licence="own work", seed=seed, category=category, frames=frames, width=width,
        height=height, beats=beats, boundaries_s=boundaries(beats),
    )  # fmt: skip
    return made, note
