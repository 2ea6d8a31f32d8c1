"""A soft imagined sky for shots without any anchor."""

from __future__ import annotations

import cv2
import numpy as np

from dreamontage.generator.previz.render import Frame, to_bytes


def sky(size: tuple[int, int]) -> Frame:
    """Gradient with soft clouds [H,W,3], the same for every call; `size` = (width, height)."""
    width, height = size
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    top, haze = np.array([55, 95, 160], np.float32), np.array([225, 205, 190], np.float32)
    ground = top + (haze - top) * down
    draw = np.random.default_rng(7)
    clouds = np.zeros((height, width), np.float32)
    for octave in range(5):
        cells = 3 * 2**octave
        noise = draw.random((max(2, cells * 2 * height // width), cells), dtype=np.float32)
        clouds += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 0.62**octave
    share = np.clip((clouds / 2.0 - 0.42) * 3.5, 0, 0.9)[..., None]
    return to_bytes(np.asarray(ground * (1 - share) + 245 * share, np.float32))
