"""How a shot passes through its anchors: likeness and timing at the pinned frames, and whether they stand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from skimage.metrics import structural_similarity

from dreamontage.generator.decoding import to_tensor
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.measuring.anchors import AnchorMeter
from dreamontage.generator.measuring.judge import STEP_FLOOR
from dreamontage.generator.measuring.pairs import Curves
from dreamontage.generator.training.perceptual import PerceptualDistance

HALO_REACH = 4
"""Frames on each side of an anchor that are compared with it: one slot."""


@dataclass(frozen=True)
class AnchorScore:
    """psnr_db 0..99 and ssim -1..1 (higher is better), lpips 0 or more (lower is better), offset_frames -12..12."""

    frame: int
    psnr_db: float
    ssim: float
    lpips: float
    offset_frames: int


@dataclass(frozen=True)
class AnchorHalo:
    """sharpness_ratio: the anchor's mean gradient ÷ that of its neighbours; jump_ratio: the larger step into or out of
    it ÷ the median of the steps beside. Both are 1 where an anchor does not stand out."""

    sharpness_ratio: float
    jump_ratio: float


def ssim(picture: Frames, truth: Frames) -> float:
    """Structural similarity of two pictures [H,W,3] with the window of Wang et al. 2004, -1..1; 1 for equal ones.

    Forgives a change of brightness; a shift by a few pixels costs it more than a viewer would say.
    """
    value = structural_similarity(  # type: ignore[no-untyped-call]
        picture, truth, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(value)


@torch.no_grad()
def anchor_scores(frames: Frames, pinned: Mapping[int, Frames], distance: PerceptualDistance) -> list[AnchorScore]:
    """Compare the pinned frames of a shot [F,H,W,3] with what was given; one score per anchor, in the order of time.

    `pinned`: by first frame, a still [H,W,3] or a clip [n,H,W,3]; a clip's numbers are means over its frames. The
    offset is where, within ±12 frames and half-way to the neighbours, the PSNR is best (`measuring.anchors`): positive
    is late. It says nothing in a shot that stands still around the anchor, where every offset is as good (then 0).
    """
    places = sorted(pinned)
    given = {frame: pinned[frame].reshape(-1, *pinned[frame].shape[-3:]) for frame in places}
    meter = AnchorMeter([(given[frame], frame) for frame in places], len(frames))
    for frame in frames:
        meter.add(frame, None)
    scores = []
    for start, fit in zip(places, meter.fits(), strict=True):
        pairs = list(zip(frames[start : start + len(given[start])], given[start], strict=True))
        far = [float(distance(to_tensor(shown[None]), to_tensor(asked[None]))) for shown, asked in pairs]
        alike = [ssim(shown, asked) for shown, asked in pairs]
        mean_ssim, mean_lpips = float(np.mean(alike)), float(np.mean(far))
        scores.append(AnchorScore(start, fit.psnr_db, mean_ssim, mean_lpips, fit.best_offset_frames))
    return scores


def anchor_halo(curves: Curves, frame: int, length: int = 1) -> AnchorHalo:
    """Does the anchor on frames [frame, frame + length) stand out of the ±4 frames beside it?

    Ratios of at least 0; 1 is as its surroundings, a sharpness of 1.3 shows as a picture that pops out of mush, a jump
    of 3 as a visible jerk. Fails where the surroundings are busier than the anchor by their own content, as a clear
    picture between textures: then the sharpness is below 1 without a fault.
    """
    before = range(max(0, frame - HALO_REACH), frame)
    after = range(frame + length, min(len(curves), frame + length + HALO_REACH))
    gradient, step = np.array(curves.gradient), np.array(curves.step)
    own = gradient[[frame, frame + length - 1]].mean()
    beside = gradient[[*before, *after]].mean()
    edges = [at for at in (frame, frame + length) if 0 < at < len(curves)]
    calm = [at for at in (*before, *after) if at > 0 and at not in edges]
    return AnchorHalo(
        sharpness_ratio=float(own / max(beside, 0.1)),
        jump_ratio=float(step[edges].max() / max(float(np.median(step[calm])), STEP_FLOOR)),
    )
