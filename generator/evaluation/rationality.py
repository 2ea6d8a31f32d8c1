"""How rational a subject's motion is: is it there in every frame, whole, and on a way that its physics allow?"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.subjects import SubjectTruth

Video = NDArray[np.uint8]
Field = NDArray[np.float32]

SHORT_SIDE = 48
"""Frames are compared at this size, blurred a little: a pixel's offset does not matter, a subject's width does."""
BLUR = 0.8
SOFT = 2.5
"""Medians of a frame's difference from the background that count as softness."""
LATE = 0.18
"""Share of the clip by which a subject may run ahead or lag until its frame counts e-fold less."""
EVEN = 3.0
"""Mean true steps by which a step may be too long or too short until it counts e-fold less."""


def motion_rationality(frames: Video, truth: SubjectTruth) -> float:
    """0..1 of a clip [F,H,W,3] between the first and last frames of `truth`, whose size and length it has; 1 is true.

    Each frame is matched with every pose of the subject's true way: how much of the subject is there, in its own
    colours, and how little of it is anywhere else. What counts is the best match near the frame's own time, times how
    evenly the matched pose moves on. A cross-fade is at two poses by halves, a frozen subject late, a shuffled one
    jumps. The scale is relative: compare clips of one truth. Raises ValueError for another shape.
    """
    if frames.shape != (len(truth.centres), *truth.background.shape):
        raise ValueError(f"the clip's shape is {frames.shape}, the truth has {len(truth.centres)} frames of "
                         f"{truth.background.shape}")  # fmt: skip
    likeness = pose_likeness(frames, truth)
    count = len(frames)
    offsets = np.abs(np.arange(count)[:, None] - np.arange(count)[None])
    near = likeness * np.exp(-((offsets / (LATE * count)) ** 2))
    states = pose_states(truth)
    true_steps = np.linalg.norm(np.diff(states, axis=0), axis=1)
    steps = np.linalg.norm(np.diff(states[likeness.argmax(axis=1)], axis=0), axis=1)
    uneven = np.abs(steps - true_steps) / max(float(true_steps.mean()), 1e-6)
    return float(near[1:-1].max(axis=1).mean() * np.exp(-uneven / EVEN).mean())


def pose_states(truth: SubjectTruth) -> NDArray[np.float64]:
    """[F,4]: the subject's place in pixels, and its angle as a point on its own rim. Poses that look alike are near."""
    radius = np.sqrt(truth.masks.sum((1, 2)).mean() / np.pi)
    rim = radius * np.stack([np.cos(truth.angles), np.sin(truth.angles)], axis=-1)
    return np.concatenate([truth.centres, rim], axis=1)


def pose_likeness(frames: Video, truth: SubjectTruth) -> NDArray[np.float64]:
    """[F,F] in 0..1: how well frame t shows the subject in its true pose k, and nothing of it elsewhere."""
    background, poses, shown = (_small(video) for video in (truth.background[None], truth.frames, frames))
    result = np.zeros((len(frames), len(frames)))
    strange = np.abs(shown - background).mean(-1)  # what is not background, wherever it is
    # A generation is softer than the truth everywhere; that is no fault of the motion.
    softness = SOFT * np.median(strange, axis=(1, 2), keepdims=True)
    strange = (strange - softness).clip(0, None)
    for k, mask in enumerate(truth.masks):
        cover = _shrunk(mask.astype(np.float32), shown.shape[1:3])
        contrast = float((np.abs(poses[k] - background[0]).mean(-1) * cover).sum()) + 1e-6
        unlike = (np.abs(shown - poses[k]).mean(-1) - softness).clip(0, None)
        missing = (unlike * cover).sum((1, 2)) / contrast
        elsewhere = (strange * (1 - _grown(cover))).sum((1, 2)) / contrast
        result[:, k] = (1 - missing).clip(0, 1) * np.exp(-elsewhere)
    return result


def _small(video: Video) -> Field:
    """Frames [F,H,W,3] at SHORT_SIDE, a little blurred."""
    scale = SHORT_SIDE / min(video.shape[1:3])
    size = round(video.shape[1] * scale), round(video.shape[2] * scale)
    return np.stack([_shrunk(frame.astype(np.float32), size) for frame in video])


def _shrunk(field: Field, size: tuple[int, ...]) -> Field:
    small = cv2.resize(field, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), BLUR), np.float32)


def _grown(cover: Field) -> Field:
    """The cover [h,w] and a rim around it, in which an offset is forgiven."""
    return np.asarray(cv2.dilate((cover > 0.1).astype(np.float32), np.ones((5, 5), np.uint8)), np.float32)
