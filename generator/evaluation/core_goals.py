"""What must hold, checked against the suite's numbers; nothing is left out where it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamontage.generator.evaluation.statistics import Difference, mean, paired_bootstrap, quantile, share

SEED = 2024
MARGIN = 0.005
"""LPIPS by which the output may be behind the previz and still counts as no worse."""
LEAST_USUAL = 0.5
"""A montage's usual ratio counts as at least this, so that a very calm one blames no seam for nothing."""
RIM_LEVELS = 4.0
"""Mean change of a pixel that is not seen as a line around a blend, in grey levels of 255."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """One thing that must hold: what, what was measured, what was asked, and whether it holds."""

    what: str
    measured: str
    asked: str
    holds: bool


def lpips(rows: Rows, name: str, kinds: Sequence[str] = ()) -> list[float]:
    """A variant's LPIPS in every gap of the one-shots (of these kinds)."""
    return scores(rows, name, "lpips", kinds)


def scores(rows: Rows, name: str, metric: str, kinds: Sequence[str] = ()) -> list[float]:
    """A variant's scores in every gap of the one-shots (of these kinds)."""
    return [
        gap["scores"][name][metric] for row in rows if not kinds or row["kind"] in kinds for gap in row["gaps"]
    ]


def per_shot(rows: Rows, name: str, metric: str = "lpips", kinds: Sequence[str] = ()) -> list[float]:
    """The means of that over each one-shot: independent of each other, as gaps of one shot are not."""
    return [
        mean([gap["scores"][name][metric] for gap in row["gaps"]])
        for row in rows
        if not kinds or row["kind"] in kinds
    ]


def against(
    rows: Rows, other: str, name: str = "final", metric: str = "lpips", kinds: Sequence[str] = ()
) -> Difference:
    """Paired difference of a variant and another over one-shots."""
    return paired_bootstrap(per_shot(rows, name, metric, kinds), per_shot(rows, other, metric, kinds), SEED)


def behind(rows: Rows, other: str, margin: float = 0.0, name: str = "final") -> list[bool]:
    """In which gaps the variant's LPIPS is below the other's, plus a margin."""
    return [a < b + margin for a, b in zip(lpips(rows, name), lpips(rows, other), strict=True)]


def unsure(rows: Rows, metric: str, name: str) -> list[float]:
    """A variant's values where the previz is unsure, one per one-shot that has such an area."""
    return [row["unsure"][metric][name] for row in rows if row["unsure"][metric] is not None]


def stills(rows: Rows, name: str) -> list[Mapping[str, Any]]:
    """Anchor scores of a variant at all stills but frame 0's."""
    found = []
    for row in rows:
        lengths = dict(row["given"])
        found += [one for one in row["anchors"][name] if lengths[one["frame"]] == 1]
    return found


def said(difference: Difference, digits: int = 4) -> str:
    """A difference with its interval."""
    return f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def goals(results: Mapping[str, Any], speed: Mapping[str, Any]) -> list[Goal]:
    """All of them, in order."""
    parts: list[Callable[[], Iterator[Goal]]] = [
        lambda: anchor_goals(results["truth"]),
        lambda: between_goals(results["truth"]),
        lambda: unsure_goals(results["truth"]),
        lambda: transition_goals(results["transitions"]),
        lambda: montage_goals(results["montages"]),
        lambda: word_goals(results["words"]),
        lambda: speed_goals(speed),
    ]
    return [goal for part in parts for goal in part()]


def anchor_goals(rows: Rows) -> Iterator[Goal]:
    """Stills of the one-shots."""
    final, own, reference = (stills(rows, name) for name in ("final", "final_m0", "previz_decoded"))
    late = [one for one in final if one["offset_frames"]]
    yield Goal("offset of every still", f"{len(late)} of {len(final)} off", "0", not late)
    worst = min(one["psnr_db"] for one in final)
    yield Goal("PSNR of stills, default mode", f"worst {worst:.1f} dB", "≥ 30 dB", worst >= 30)
    loss = [ref["psnr_db"] - one["psnr_db"] for one, ref in zip(own, reference, strict=True)]
    yield Goal(
        "loss against D(E(previz)) at stills, carry-over off",
        f"median {np.median(loss):.2f} dB, worst {max(loss):.2f} dB", "≤ 1 dB", max(loss) <= 1,
    )  # fmt: skip


def between_goals(rows: Rows) -> Iterator[Goal]:
    """In-between LPIPS by gap."""
    cases = len(lpips(rows, "final"))
    for other, label, asked, margin in (
        ("fade", "better than the cross-fade", 0.9, 0.0), ("rife", "better than RIFE", 0.5, 0.0),
        ("previz", f"at most previz + {MARGIN}", 0.8, MARGIN),
    ):  # fmt: skip
        found = share(behind(rows, other, margin))
        sign = ">" if other == "rife" else "≥"
        holds = found > asked if other == "rife" else found >= asked
        yield Goal(f"in-between LPIPS {label}", f"{found:.0%} of {cases} gaps", f"{sign} {asked:.0%}", holds)


def unsure_goals(rows: Rows) -> Iterator[Goal]:
    """Where the previz is wrong by its own word, and film."""
    if unsure(rows, "lpips", "final"):
        area = mean([row["unsure"]["share"] for row in rows])
        apart = paired_bootstrap(unsure(rows, "lpips", "final"), unsure(rows, "lpips", "previz"), SEED)
        yield Goal(
            f"LPIPS where the previz is unsure ({area:.1%} of pixels), final − previz", said(apart), "< 0",
            apart.mean < 0,
        )  # fmt: skip
    if per_shot(rows, "final", kinds=("real",)):
        film = against(rows, "previz", kinds=("real",))
        yield Goal("LPIPS on film with moving things, final − previz", said(film), "< 0", film.mean < 0)


def transition_goals(rows: Rows) -> Iterator[Goal]:
    """Unrelated photographs."""
    for how in ("content", "transnet"):
        cuts = sum(row["cuts"]["final"][how] for row in rows)
        asked = "0 in ≥ 100 transitions"
        yield Goal(f"hard cuts, {how} detector", f"{cuts} in {len(rows)} transitions", asked, not cuts)
    sharp = [row["sharpness"]["final"] for row in rows]
    yield Goal(
        "sharpness between unrelated photographs against the anchors' own",
        f"mean {mean(sharp):.0%}; {share([s >= 0.8 for s in sharp]):.0%} of transitions reach 80 %", "≥ 80 %",
        mean(sharp) >= 0.8,
    )  # fmt: skip
    rims = [row["rim"] for row in rows]
    yield Goal(
        "repaint of a blend's rim, where nobody knows better than the previz, grey levels",
        f"mean {mean(rims):.1f}, worst transition {max(rims):.1f}", f"≤ {RIM_LEVELS:g}", mean(rims) <= RIM_LEVELS,
    )  # fmt: skip


def elsewhere(seams: Rows, ratio: str, shown: str = "final") -> list[float]:
    """Step or jerk at each place ÷ the montage's median at places that are neither seam nor anchor."""
    return [seam[shown][ratio] / max(seam["usual"][ratio], LEAST_USUAL) for seam in seams]


def beyond_previz(seams: Rows, ratio: str) -> list[float]:
    """The same ÷ what the previz has at that frame, where that is more: what the seam adds to the camera's own turn."""
    return [
        seam["final"][ratio] / max(seam["previz"][ratio], seam["usual"][ratio], LEAST_USUAL) for seam in seams
    ]


def montage_goals(found: Mapping[str, Any]) -> Iterator[Goal]:
    """Seams and drift."""
    for kind, seams in found["seams"].items():
        for ratio in ("step_ratio", "jerk_ratio"):
            for values, of in ((elsewhere(seams, ratio), "elsewhere"), (beyond_previz(seams, ratio), "the previz")):
                middle, high = quantile(values, 0.5), quantile(values, 0.95)
                yield Goal(
                    f"{kind} seams, {ratio.removesuffix('_ratio')} against {of}",
                    f"median {middle:.2f}, 95th percentile {high:.2f} of {len(values)}", "≤ 1.2, ≤ 2",
                    middle <= 1.2 and high <= 2,
                )  # fmt: skip
    drift = max(one["drift"] for one in found["drift"])
    seconds = max(one["seconds"] for one in found["drift"])
    yield Goal(f"colour drift over {seconds:.0f} s", f"worst {drift:.1%}", "≤ 3 %", drift <= 0.03)


def word_goals(rows: Rows) -> Iterator[Goal]:
    """Camera words."""
    for word in dict.fromkeys(row["word"] for row in rows):
        right = [row["right"] for row in rows if row["word"] == word]
        yield Goal(f"“{word}” has the right sign", f"{share(right):.0%} of {len(right)}", "≥ 90 %", share(right) >= 0.9)


def speed_goals(speed: Mapping[str, Any]) -> Iterator[Goal]:
    """The timed shot."""
    own, ratio = speed["ours_wall_s"], speed["chain_wall_s"] / speed["ours_wall_s"]
    yield Goal(f"{speed['seconds']:.0f} s shot, seconds", f"{own:.1f} s", "< 120 s", own < 120)
    yield Goal("times faster than diffusers' chain", f"{ratio:.1f}", "≥ 5", ratio >= 5)
