"""The suite's part between unrelated photographs, where there is no truth: cuts, mush, ghosts, freezes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from dreamontage.generator.decoding import UNSURE
from dreamontage.generator.evaluation.anchor_scores import anchor_halo
from dreamontage.generator.evaluation.baselines import cross_fade, picture_at
from dreamontage.generator.evaluation.coherence import coherence
from dreamontage.generator.evaluation.cuts import cuts_content, cuts_transnet
from dreamontage.generator.evaluation.extent import Extent, Journeys
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.motion import flicker, follow, warp_error
from dreamontage.generator.evaluation.photographs import stills
from dreamontage.generator.evaluation.renditions import FPS, Pinned, chunks_of, pieces, render_takes, stage, whole
from dreamontage.generator.evaluation.rife import Rife
from dreamontage.generator.evaluation.sheets import COLUMNS, Row, columns_of, draw_sheet
from dreamontage.generator.evaluation.stability import freeze_s, motion_amount, pair_curves, sharpness
from dreamontage.generator.measuring.pairs import Curves
from dreamontage.schemas.models import RenderSettings

WAYS = {"fade": "cross-fade", "previz": "previz alone", "final": "final", "final_m0": "final, m = 0"}


class Journey(NamedTuple):
    """A montage of unrelated photographs: names and anchors, the same gap between all neighbours."""

    gap_s: float
    names: list[str]
    pinned: Pinned

    @property
    def frames(self) -> int:
        """Frames up to and including the last still."""
        return self.pinned[-1][1] + 1


def journeys(every: tuple[Journeys, ...], size: tuple[int, int]) -> Iterator[Journey]:
    """The montages of the suite, the same for every run: photographs in an order that is drawn anew for each."""
    pictures = stills(size)
    number = 0
    for kind in every:
        for _ in range(kind.montages):
            order = np.random.default_rng([number, 41]).permutation(sorted(pictures))[: kind.stills]
            step = 4 * round(kind.gap_s * FPS / 4)
            pinned = [(pictures[name][None], step * index) for index, name in enumerate(order)]
            yield Journey(kind.gap_s, [str(name) for name in order], pinned)
            number += 1


def run_transitions(
    pipeline: Any, extent: Extent, settings: RenderSettings, out: Path, progress: Progress
) -> list[dict[str, Any]]:
    """One row of numbers per transition; draws sheets of the first montages of each gap into out/sheets."""
    rows: list[dict[str, Any]] = []
    drawn: dict[float, int] = {}
    rife = Rife()
    total = sum(kind.montages for kind in extent.journeys)
    for journey in progress.track(journeys(extent.journeys, extent.size), total, description="unrelated photographs"):
        staged = stage(pipeline, journey.pinned, journey.frames, extent.size)
        made = whole(pieces(pipeline, staged, chunks_of(staged, render_takes(pipeline, staged, settings))))
        stand = {frame: pictures[0] for pictures, frame in journey.pinned}
        ways = {"fade": cross_fade(stand, journey.frames), "previz": made.previz, "final": made.final,
                "final_m0": made.own}  # fmt: skip
        rows += judge_journey(journey, ways, made.sure < UNSURE)
        drawn[journey.gap_s] = drawn.get(journey.gap_s, 0) + 1
        if drawn[journey.gap_s] <= extent.sheets:
            path = f"sheets/unrelated-{journey.gap_s:g}s-{drawn[journey.gap_s]}.jpg"
            draw_journey(journey, ways, rife, out / path)
            rows[-1]["sheet"] = path
    return rows


def judge_journey(journey: Journey, ways: dict[str, Frames], unsure: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """A row per transition: cuts between its stills, and how its in-between frames compare with the stills.

    `unsure` [n,H,W]: what the previz cannot vouch for. `rim`: how far its pixels there are repainted, in grey levels;
    between strangers nobody knows better, and the rim of a blend shows.
    """
    curves = {name: pair_curves(frames) for name, frames in ways.items()}
    own = sharpness(pair_curves(np.concatenate([pictures for pictures, _ in journey.pinned])))
    found = {name: {"content": cuts_content(curves[name], FPS)} for name in ("final", "previz", "fade")}
    found["final"]["transnet"] = cuts_transnet(ways["final"])
    rows = []
    places = [frame for _, frame in journey.pinned]
    for index, (low, high) in enumerate(pairwise(places)):
        between = {name: sharpness(curve)[low + 1 : high] for name, curve in curves.items()}
        part = cut_out(curves["final"], low, high)
        followed = follow(ways["final"][low : high + 1])
        rows.append({
            "gap_s": journey.gap_s,
            "from": journey.names[index],
            "to": journey.names[index + 1],
            "cuts": {
                name: {how: sum(low < at <= high for at in at_all) for how, at_all in kinds.items()}
                for name, kinds in found.items()
            },
            "sharpness": {name: float(values.mean() / own[index : index + 2].mean()) for name, values in
                          between.items()},
            "warp_error": asdict(warp_error(followed)),
            "flicker": flicker(followed),
            "freeze_s": freeze_s(part, FPS),
            "motion": motion_amount(part, FPS),
            "coherence": asdict(coherence(ways["final"][low : high + 1], FPS)),
            "halo": asdict(anchor_halo(curves["final"], high)),
            "rim": repaint(ways["final"][low + 1 : high], ways["previz"][low + 1 : high], unsure[low + 1 : high]),
        })  # fmt: skip
    return rows


def repaint(final: Frames, previz: Frames, unsure: NDArray[np.bool_]) -> float:
    """Mean change of the pixels [n,H,W] that the previz is unsure of, in grey levels of 255; 0 where there are none."""
    changed = np.abs(final[unsure].astype(np.float32) - previz[unsure])
    return float(changed.mean()) if changed.size else 0.0


def cut_out(curves: Curves, low: int, high: int) -> Curves:
    """The values of the frames low … high."""
    return Curves(**{name: values[low : high + 1] for name, values in vars(curves).items()})


def draw_journey(journey: Journey, ways: dict[str, Frames], rife: Rife, path: Path) -> None:
    """The first transitions of a montage as a sheet, RIFE among the ways."""
    last = journey.pinned[min(2, len(journey.pinned) - 1)][1]
    stand = {frame: pictures[0] for pictures, frame in journey.pinned if frame <= last}
    lines = [Row(label, ways[name][: last + 1]) for name, label in WAYS.items() if name != "final_m0"]
    times = columns_of(last + 1, stand, COLUMNS)
    lines.insert(1, Row("RIFE", {frame: picture_at(stand, frame, rife.between) for frame in times}))
    names = ", ".join(Path(name).stem for name in journey.names[: len(stand)])
    draw_sheet(lines, f"unrelated: {names}, {journey.gap_s:g} s apart", set(stand), path)
