"""The suite's numbers as a page: what must hold, tables with intervals, plots and sheets, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamontage.generator.evaluation import plots
from dreamontage.generator.evaluation.core_goals import (
    MARGIN,
    SEED,
    Rows,
    against,
    behind,
    goals,
    lpips,
    per_shot,
    said,
    scores,
    stills,
    unsure,
)
from dreamontage.generator.evaluation.core_parts import (
    montages_part,
    plain_part,
    run_part,
    speed_part,
    transitions_part,
    words_part,
)
from dreamontage.generator.evaluation.core_truth import VARIANTS
from dreamontage.generator.evaluation.one_shots import KINDS
from dreamontage.generator.evaluation.page import Figure, Page, Part, Table
from dreamontage.generator.evaluation.statistics import mean, paired_bootstrap, quantile, share

WORST = 3
COMPARED = ("fade", "rife", "previz", "no_tails", "previz_decoded", "cut")


def core_page(numbers: Mapping[str, Any], out: Path) -> Page:
    """The page of what numbers.json holds; draws the plots into `out`."""
    results, run = numbers["results"], numbers["run"]
    kept = goals(results, run["speed"])
    holding = Table(
        ["what", "measured", "asked", "holds"],
        [[goal.what, goal.measured, goal.asked, "yes" if goal.holds else "NO"] for goal in kept],
    )
    settings = ", ".join(f"{key} {value}" for key, value in run["settings"].items())
    minutes = sum(run["seconds"].values()) / 60
    return Page(
        f"{run['model']}: what the output is worth",
        f"Everything below was measured on held-out pictures and films by `dreamontage evaluate --suite core`, with "
        f"the settings {settings}; {run['threads']} threads, {minutes:.0f} minutes. LPIPS is LPIPS-Alex, lower is "
        f"better. Square brackets hold 95 % paired bootstrap intervals.",
        [
            Part("What must hold", f"{sum(g.holds for g in kept)} of {len(kept)} hold.", [holding]),
            between_part(results["truth"], out),
            anchors_part(results["truth"]),
            sheets_part(results["truth"]),
            transitions_part(results["transitions"]),
            montages_part(results["montages"], out),
            words_part(results["words"]),
            plain_part(results["plain"]),
            speed_part(run["speed"]),
            run_part(run),
        ],
    )


def between_part(rows: Rows, out: Path) -> Part:
    """In-between fidelity of every variant, the comparisons, the kinds, the area where the previz is unsure."""
    cases = len(lpips(rows, "final"))
    kinds = {kind: label for kind, label in KINDS.items() if lpips(rows, "final", [kind])}
    means = Table(
        ["between the anchors", "PSNR dB", "LPIPS", *kinds],
        [
            [label, f"{mean(scores(rows, name, 'psnr_db')):.2f}", f"{mean(lpips(rows, name)):.3f}",
             *(f"{mean(lpips(rows, name, [kind])):.3f}" for kind in kinds)]
            for name, label in VARIANTS.items()
        ],
        f"Means over {cases} gaps of {len(rows)} one-shots; the last {len(kinds)} columns are LPIPS on "
        + "; ".join(f"{kind}: {label}" for kind, label in kinds.items()) + ".",
    )  # fmt: skip
    compared = Table(
        ["final minus …", "LPIPS", "PSNR dB", "LPIPS on film", "final is better in", f"within + {MARGIN} in"],
        [
            [VARIANTS[name], said(against(rows, name)), said(against(rows, name, metric="psnr_db"), 2),
             said(against(rows, name, kinds=["real"])) if per_shot(rows, name, kinds=["real"]) else "",
             f"{share(behind(rows, name)):.0%} of gaps", f"{share(behind(rows, name, MARGIN)):.0%}"]
            for name in COMPARED
        ],
        "Intervals over one-shots, shares over gaps.",
    )  # fmt: skip
    three = Table(
        ["all three", "LPIPS", "minus previz", "at most previz + .005"],
        [
            [VARIANTS[name], f"{mean(lpips(rows, name)):.4f}", said(against(rows, "previz", name)),
             f"{share(behind(rows, 'previz', MARGIN, name)):.0%}"]
            for name in ("final", "final_m0", "previz")
        ],
    )  # fmt: skip
    plots.distribution(
        {f"final − {VARIANTS[name]}": [a - b for a, b in zip(lpips(rows, "final"), lpips(rows, name), strict=True)]
         for name in ("fade", "rife", "previz")},
        "LPIPS differences between the anchors, by gap", "LPIPS, left of 0: final is better", out / "lpips.png",
    )  # fmt: skip
    figures = [Figure("lpips.png", "How often the output is better, and by how much")]
    return Part("Between the anchors, truth known", "", [means, compared, three, unsure_table(rows)], figures)


def unsure_table(rows: Rows) -> Table:
    """Final against previz where the previz does not know."""
    area = mean([row["unsure"]["share"] for row in rows])
    found = []
    for metric, label, digits in (("lpips", "LPIPS", 4), ("l1", "mean difference, levels", 2)):
        values = {name: unsure(rows, metric, name) for name in ("final", "final_m0", "previz")}
        if values["final"]:
            apart = said(paired_bootstrap(values["final"], values["previz"], SEED), digits)
            found.append([label, *(f"{mean(values[name]):.{digits}f}" for name in values), apart,
                          f"{len(values['final'])}"])  # fmt: skip
    return Table(
        ["where the previz is unsure", "final", "final, m = 0", "previz", "final − previz", "one-shots"], found,
        f"Confidence below .5: {area:.1%} of the pixels in between. For LPIPS the rest of the frame is the truth's.",
    )  # fmt: skip


def anchors_part(rows: Rows) -> Part:
    """How the shots pass through what was given."""
    names = {"final": "carry-over on", "final_m0": "carry-over off", "previz_decoded": "reference D(E(previz))"}
    table = Table(
        ["stills", "PSNR dB, mean", "worst", "SSIM", "LPIPS", "offset 0"],
        [
            [label, f"{mean([s['psnr_db'] for s in found]):.2f}", f"{min(s['psnr_db'] for s in found):.2f}",
             f"{mean([s['ssim'] for s in found]):.3f}", f"{mean([s['lpips'] for s in found]):.3f}",
             f"{share([s['offset_frames'] == 0 for s in found]):.0%} of {len(found)}"]
            for name, label in names.items() for found in [stills(rows, name)]
        ],
    )  # fmt: skip
    halos = [halo for row in rows for halo in row["halos"]]
    around = Table(
        ["halo: anchor against its ±4 frames", "median", "95th percentile"],
        [
            [label, f"{quantile([h[key] for h in halos], 0.5):.2f}", f"{quantile([h[key] for h in halos], 0.95):.2f}"]
            for key, label in (("sharpness_ratio", "sharpness, 1 is equal"), ("jump_ratio", "step into or out of it"))
        ],
    )
    return Part("Anchors", "", [table, around])


def sheets_part(rows: Rows) -> Part:
    """All sheets, the worst three first and marked."""

    def lost(row: Mapping[str, Any]) -> float:
        return per_shot([row], "final")[0] - per_shot([row], "previz")[0]

    behind_previz = sorted(rows, key=lost, reverse=True)[:WORST]
    worst = sorted(rows, key=lambda row: per_shot([row], "final")[0], reverse=True)[:WORST]
    figures = [
        Figure(row["sheet"], f"WORST against the previz, {n + 1}: {row['name']}, final − previz {lost(row):+.4f} LPIPS",
               True) for n, row in enumerate(behind_previz)
    ]  # fmt: skip
    figures += [
        Figure(row["sheet"], f"WORST by LPIPS, {n + 1}: {row['name']}, {per_shot([row], 'final')[0]:.3f}", True)
        for n, row in enumerate(worst) if row not in behind_previz
    ]
    shown = {figure.file for figure in figures}
    figures += [
        Figure(row["sheet"], f"{row['name']} ({row['kind']}): final − previz {lost(row):+.4f} LPIPS")
        for row in rows if row["sheet"] not in shown
    ]
    return Part("Sheets of the one-shots", "Rows are ways of making the same shot; the worst come first.", [], figures)
