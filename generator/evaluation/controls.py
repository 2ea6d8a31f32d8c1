"""Shots whose faults are known: a rendered truth and six ways to spoil it.

A metric that ranks them wrongly is not used."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dreamontage.generator.evaluation.baselines import cross_fade
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.training.data.camera import eased, render_views, similarity
from dreamontage.generator.training.data.pictures import Picture

FPS = 24
FRAMES = 33
PINNED = (0, 16, 32)
LATE = 4
CUT_AT = 22
FLASH_AT = 10
FROZEN = range(20, FRAMES)
"""Frames that all show the first of them."""
FLASH_LEVELS = 60
GAMMA = 1.5
"""Reached at the last frame."""
SIZE = (256, 144)


@dataclass(frozen=True)
class Way:
    """A camera's way over a picture, in the content's own motion from first to last frame: shift right and down in view
    widths, log zoom, clockwise roll in radians."""

    right: float = 0.0
    down: float = 0.0
    log_zoom: float = 0.0
    roll: float = 0.0


DEFAULT_WAY = Way(right=-0.33, down=0.07, log_zoom=0.17, roll=0.07)


def travel(picture: Picture, way: Way = DEFAULT_WAY, frames: int = FRAMES, late: int = 0) -> Frames:
    """Render [frames,H,W,3] with a known motion; `late` frames behind the way (the shot begins that much before it)."""
    width, height = SIZE
    fits = min(picture.size[0] / height, picture.size[1] / width)
    scale = fits * 0.5
    middle = np.array(picture.size[::-1]) / 2
    # The view moves against the content.
    reach = -np.array([way.right, way.down]) * width * scale
    views = []
    for progress in eased("linear", frames) - late / (frames - 1):
        s = progress - 0.5
        zoomed = scale * float(np.exp(-way.log_zoom * s))
        views.append(similarity(height, width, middle + reach * s, zoomed, -way.roll * s))
    return render_views(picture, np.stack(views), height, width)


def controls(picture: Picture, other: Picture) -> dict[str, Frames]:
    """The truth and its six corruptions by name, [33,144,256,3] each, at 24 fps.

    `other` is what the hard cut shows from frame 22 on.
    """
    truth = travel(picture)
    cut, frozen, flash = truth.copy(), truth.copy(), truth.copy()
    cut[CUT_AT:] = travel(other)[CUT_AT:]
    frozen[list(FROZEN)] = truth[FROZEN.start]
    flash[FLASH_AT] = cv2.add(truth[FLASH_AT], np.full(3, FLASH_LEVELS, np.float64))
    return {
        "truth": truth,
        "cross-fade": cross_fade(pinned(truth), FRAMES),
        "hard cut": cut,
        "frozen frame": frozen,
        "gamma ramp": np.stack([_gamma(frame, 1 + (GAMMA - 1) * at / (FRAMES - 1)) for at, frame in enumerate(truth)]),
        "anchor late by 4": travel(picture, late=LATE),
        "one-frame flash": flash,
    }


def pinned(truth: Frames) -> dict[int, Frames]:
    """The truth's frames that are given."""
    return {frame: truth[frame] for frame in PINNED}


def _gamma(frame: Frames, gamma: float) -> Frames:
    table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return np.asarray(cv2.LUT(frame, table), np.uint8)
