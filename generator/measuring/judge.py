"""What the curves mean: seams, cuts, freezes and intervals. Pure functions of a few numbers per frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from dreamontage.generator.measuring.pairs import Curve, Curves

STEP_FLOOR = 0.3
"""Grey levels; a step smaller than this is invisible, so that ratios in still stretches stay near 1."""
LUMA_JERK_FLOOR = 0.15
FLOW_JERK_FLOOR = 0.0008
"""Share of the width per frame (about an eighth of a pixel at the measuring size)."""
VISIBLE_STEP, VISIBLE_LUMA_JERK = 1.0, 1.5
"""Grey levels below which a seam's own step or jump of light is not seen (a jump of one level has a jerk of two)."""
CUT_MIN_STEP = 10.0
"""Levels left after flow compensation below which nothing looks like a cut."""
CUT_SCORE = 4.0
CUT_FLOOR = 2.0
CUT_REACH_S = 0.5
STATIC_LEVELS = 0.15
"""Mean difference (0..255) below which a pair is the same picture whatever it shows."""
STATIC_SHIFT = 0.03
"""... or the difference that a shift by this many pixels would make."""
FREEZE_S = 0.3
CUT_DETECTOR = "content"


@dataclass(frozen=True)
class SeamFit:
    """Both at least 0; 1 is as smooth as the surroundings, above 3 is likely visible."""

    step_ratio: float
    jerk_ratio: float


@dataclass(frozen=True)
class Cut:
    """Frame that differs from the one before, and its step ÷ that of its surroundings (at least 4)."""

    frame: int
    score: float


@dataclass(frozen=True)
class Freeze:
    """Frames [start, stop] all show the same picture."""

    start: int
    stop: int


@dataclass(frozen=True)
class IntervalFit:
    """sharpness_vs_anchors >= 0 (1 is equal), motion >= 0 in widths per second, static_share 0..1."""

    sharpness_vs_anchors: float
    motion: float
    static_share: float


def third_difference(curve: Curve) -> Curve:
    """|c[f+1] - 3c[f] + 3c[f-1] - c[f-2]| at f, 0 where a neighbour is missing; a jump between f-1 and f peaks at f."""
    result = np.zeros(len(curve))
    if len(curve) >= 4:
        result[2:-1] = np.abs(curve[3:] - 3 * curve[2:-1] + 3 * curve[1:-2] - curve[:-3])
    return result


def jerk_curves(curves: Curves) -> tuple[Curve, Curve]:
    """Third differences of mean luma (levels) and of mean flow (shares of the width), per frame.

    Entry 0 of the flow is taken from the first pair, so that the curve does not begin with a jump.
    """
    flow = np.array([curves.flow_x, curves.flow_y])
    if flow.shape[1] > 1:
        flow[:, 0] = flow[:, 1]
    return third_difference(np.array(curves.luma)), np.hypot(third_difference(flow[0]), third_difference(flow[1]))


def seam_fits(curves: Curves, seams: Sequence[int], fps: int) -> list[SeamFit]:
    """Step and jerk at each seam ÷ their median within ±1 s outside all seams.

    `seams`: first frames of the later segments. The jerk is the worse of luma and flow, each against its own median.
    """
    step = np.array(curves.step)
    luma, flow = jerk_curves(curves)
    near = {seam + offset for seam in seams for offset in range(-2, 3)}

    def ratio(curve: Curve, seam: int, floor: float) -> float:
        around = [f for f in range(max(2, seam - fps), min(len(curve) - 1, seam + fps + 1)) if f not in near]
        median = float(np.median(curve[around])) if around else floor
        return round(float(curve[seam]) / max(median, floor), 3)

    return [
        SeamFit(
            step_ratio=ratio(step, seam, STEP_FLOOR),
            jerk_ratio=max(ratio(luma, seam, LUMA_JERK_FLOOR), ratio(flow, seam, FLOW_JERK_FLOOR)),
        )
        for seam in seams
    ]


def seam_faults(curves: Curves, guide: Curves | None, seams: Sequence[int], fps: int) -> list[float]:
    """Of each seam, the worst of step and jerk beyond what the previz shows at that frame, ÷ the median within ±1 s.

    `guide`: the same curves of the previz, None if there was none. A camera that turns at an anchor is the previz's own
    motion, not the seam's fault; what is too small to be seen counts in proportion.
    """
    owns = (np.array(curves.step), *jerk_curves(curves))
    plans = [np.zeros_like(own) for own in owns] if guide is None else (np.array(guide.step), *jerk_curves(guide))
    floors = (VISIBLE_STEP, VISIBLE_LUMA_JERK, FLOW_JERK_FLOOR)
    near = {seam + offset for seam in seams for offset in range(-2, 3)}

    def fault(own: Curve, planned: Curve, floor: float, seam: int) -> float:
        around = [f for f in range(max(2, seam - fps), min(len(own) - 1, seam + fps + 1)) if f not in near]
        median = float(np.median(own[around])) if around else floor
        return float(own[seam] - planned[seam]) / max(median, floor)

    judged = list(zip(owns, plans, floors, strict=True))
    return [round(max(0.0, *(fault(*curve, seam) for curve in judged)), 3) for seam in seams]


def cuts(curves: Curves, fps: int) -> list[Cut]:
    """Frames whose flow-compensated difference stands alone: at least 10 levels, and 4 times its surroundings.

    The surroundings are the median within ±0.5 s or the calmer side's next two steps, whichever is larger, so that a
    fast move, whose steps come in a row, is no cut, and a flash (a pair of cuts) is one.
    """
    step = np.array(curves.step)
    reach = max(3, round(CUT_REACH_S * fps))
    found: list[Cut] = []
    for at in np.flatnonzero(step >= CUT_MIN_STEP):
        frame = int(at)
        around = np.concatenate([step[max(1, frame - reach) : frame], step[frame + 1 : frame + 1 + reach]])
        before, after = step[max(1, frame - 2) : frame], step[frame + 1 : frame + 3]
        calmer = min((side.max() for side in (before, after) if len(side)), default=0.0)
        base = max(float(np.median(around)) if len(around) else 0.0, float(calmer), CUT_FLOOR)
        score = float(step[frame]) / base
        if score >= CUT_SCORE:
            found.append(Cut(frame, round(score, 2)))
    return found


def static_pairs(curves: Curves) -> Curve:
    """1 where a frame shows the same picture as the one before, else 0; entry 0 is 0."""
    change, gradient = np.array(curves.change), np.array(curves.gradient)
    same = change < np.maximum(STATIC_LEVELS, STATIC_SHIFT * gradient)
    if len(same):
        same[0] = False
    return same.astype(np.float64)


def freezes(curves: Curves, fps: int, allowed: Collection[int] = ()) -> list[Freeze]:
    """Stretches longer than 0.3 s in which nothing changes. Pairs ending on an `allowed` frame (inside a clip anchor,
    which may stand still by itself) do not count."""
    found: list[Freeze] = []
    run = 0
    same = static_pairs(curves)
    for frame in range(len(same) + 1):
        if frame < len(same) and same[frame] and frame not in allowed:
            run += 1
            continue
        if run / fps > FREEZE_S:
            found.append(Freeze(frame - 1 - run, frame - 1))
        run = 0
    return found


def interval_fit(curves: Curves, start: int, stop: int, anchor_gradient: float, fps: int) -> IntervalFit:
    """The frames strictly between the frames `start` and `stop` (exclusive both), and the pairs that lead across.

    `anchor_gradient`: mean gradient of the bounding anchors' pictures.
    """
    inner = curves.gradient[start + 1 : stop] or curves.gradient[start : stop + 1]
    pairs = slice(max(1, start + 1), min(stop, len(curves) - 1) + 1)
    speed, same = np.array(curves.speed[pairs]), static_pairs(curves)[pairs]
    return IntervalFit(
        sharpness_vs_anchors=round(float(np.mean(inner)) / max(anchor_gradient, 0.1), 3),
        motion=round(float(speed.mean()) * fps, 4) if len(speed) else 0.0,
        static_share=round(float(same.mean()), 3) if len(same) else 0.0,
    )
