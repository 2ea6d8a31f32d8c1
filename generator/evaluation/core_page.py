"""The suite's numbers as a page: what must hold, tables with intervals, plots and sheets, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    means = Table(
        ["between the anchors", "PSNR dB", "LPIPS", *KINDS],
        [
            [label, f"{mean(scores(rows, name, 'psnr_db')):.2f}", f"{mean(lpips(rows, name)):.3f}",
             *(f"{mean(lpips(rows, name, [kind])):.3f}" for kind in KINDS)]
            for name, label in VARIANTS.items()
        ],
        f"Means over {cases} gaps of {len(rows)} one-shots; the last {len(KINDS)} columns are LPIPS on "
        + "; ".join(f"{kind}: {label}" for kind, label in KINDS.items()) + ".",
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
        ["all three", "LPIPS", "minus previz", "on film", "at most previz + .005"],
        [
            [VARIANTS[name], f"{mean(lpips(rows, name)):.4f}", said(against(rows, "previz", name)),
             f"{mean(lpips(rows, name, ['real'])):.4f}", f"{share(behind(rows, 'previz', MARGIN, name)):.0%}"]
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


def transitions_part(rows: Rows) -> Part:
    """Between unrelated photographs."""

    def column(some: Rows, *keys: str) -> list[float]:
        values: list[Any] = list(some)
        for key in keys:
            values = [value[key] for value in values]
        return values

    table_rows = []
    for gap in dict.fromkeys(row["gap_s"] for row in rows):
        some = [row for row in rows if row["gap_s"] == gap]
        table_rows.append([
            f"{gap:g} s", str(len(some)),
            " / ".join(f"{sum(column(some, 'cuts', 'final', how)):.0f}" for how in ("content", "transnet")),
            *(f"{sum(column(some, 'cuts', name, 'content')):.0f}" for name in ("previz", "fade")),
            f"{max(column(some, 'freeze_s')):.2f} s", f"{mean(column(some, 'flicker')):.2f}",
            f"{mean(column(some, 'warp_error', 'mean')):.3f}", f"{mean(column(some, 'motion')):.2f}",
            f"{mean(column(some, 'coherence', 'mean')):.2f} / {min(column(some, 'coherence', 'lowest')):.2f}",
        ])  # fmt: skip
    table = Table(
        ["gap", "transitions", "cuts of final (content / TransNetV2)", "of the previz", "of the cross-fade",
         "longest freeze", "flicker", "warp error", "motion, widths/s", "coherence mean / lowest"], table_rows,
    )  # fmt: skip
    sharp = Table(
        ["sharpness against the anchors' own", "mean", "5th percentile", "reach 80 %"],
        [
            [name, f"{mean(values):.0%}", f"{quantile(values, 0.05):.0%}", f"{share([v >= 0.8 for v in values]):.0%}"]
            for name in ("final", "final_m0", "previz", "fade") for values in [column(rows, "sharpness", name)]
        ],
    )
    halo = [quantile(column(rows, "halo", key), at) for key in ("sharpness_ratio", "jump_ratio") for at in (0.5, 0.95)]
    text = (
        f"{len(rows)} transitions. Around the stills: sharpness ratio median {halo[0]:.2f}, 95th percentile "
        f"{halo[1]:.2f}; step ratio {halo[2]:.2f}, {halo[3]:.2f}."
    )
    figures = [Figure(row["sheet"], f"{row['gap_s']:g} s apart, ending at {row['to']}") for row in rows
               if "sheet" in row]  # fmt: skip
    return Part("Unrelated photographs", text, [table, sharp], figures)


def montages_part(found: Mapping[str, Any], out: Path) -> Part:
    """Seams and colour."""
    rows, drawn = [], {}
    for ratio in ("step_ratio", "jerk_ratio"):
        groups: list[tuple[str, Sequence[float]]] = []
        for kind, seams in found["seams"].items():
            groups.append((kind, [seam["final"][ratio] for seam in seams]))
            inside = [seam["final"][ratio] for seam in seams if not seam["at_anchor"]]
            if kind == "carried" and inside:
                groups.append((f"{kind}, away from stills", inside))
            groups.append((f"{kind}: previz there", [seam["previz"][ratio] for seam in seams]))
        groups.append(("no seam", [fit[ratio] for fit in found["elsewhere"]]))
        label = ratio.removesuffix("_ratio")
        rows += [
            [label, name, str(len(values)), f"{quantile(values, 0.5):.2f}", f"{quantile(values, 0.95):.2f}"]
            for name, values in groups
        ]
        drawn[label] = {name: values for name, values in groups if values}
        plots.boxes(drawn[label], f"{label} ratio at seams", "1 is as the surroundings", (1.2, 2), out / f"{label}.png")
    seams = Table(
        ["ratio", "at", "places", "median", "95th percentile"], rows,
        "1 is as smooth as the second around it. The previz has no seams: its own ratio at the same frames is what the "
        "camera does there.",
    )  # fmt: skip
    drift = Table(
        ["montage", "seconds", "largest lasting change of a colour channel"],
        [[one["montage"], f"{one['seconds']:.1f}", f"{one['drift']:.2%}"] for one in found["drift"]],
    )
    figures = [Figure(f"{label}.png", f"{label} ratios by kind of seam") for label in drawn]
    return Part("Long montages: seams and colour", "", [seams, drift], figures)


def words_part(rows: Rows) -> Part:
    """Camera words."""
    table = Table(
        ["word", "right sign", "median motion per second"],
        [
            [word, f"{share([r['right'] for r in some]):.0%} of {len(some)}", ", ".join(
                f"{key} {np.median([r['motion'][key] for r in some]):+.2f}" for key in some[0]["motion"])]
            for word in dict.fromkeys(row["word"] for row in rows)
            for some in [[row for row in rows if row["word"] == word]]
        ],
        "One still, no end anchor, the words as the prompt. Motion is the content's: right and down in view widths, "
        "log zoom, clockwise degrees.",
    )  # fmt: skip
    return Part("Camera words", "", [table])


def plain_part(found: Mapping[str, Any]) -> Part:
    """Plain mode, as it is."""
    same, unrelated = found["same"], found["unrelated"]
    labels = {"fade": "cross-fade", "plain": "plain, conditions re-encoded", "naive": "plain, naive conditions"}
    table = Table(
        ["one photograph, first–last", "PSNR dB", "LPIPS", "last anchor, PSNR dB", "motion ÷ truth's",
         "LPIPS minus re-encoded"],
        [
            [label, *(f"{mean([row[name][key] for row in same]):.{digits}f}" for key, digits in
                      (("psnr_db", 2), ("lpips", 3), ("anchor_psnr_db", 2))),
             f"{mean([row[name]['motion'] / max(row['truth_motion'], 1e-3) for row in same]):.2f}",
             "" if name == "plain" else said(paired_bootstrap([row[name]["lpips"] for row in same],
                                                              [row["plain"]["lpips"] for row in same], SEED))]
            for name, label in labels.items()
        ],
    )  # fmt: skip
    other = Table(
        ["two photographs, first–last", ""],
        [
            ["pairs", str(len(unrelated))],
            ["pairs with a cut (content / TransNetV2)", " / ".join(
                str(sum(row["cuts"][how] > 0 for row in unrelated)) for how in ("content", "transnet"))],
            ["sharpness against the anchors' own", f"{mean([row['sharpness'] for row in unrelated]):.0%}"],
            ["motion, widths/s", f"{mean([row['motion'] for row in unrelated]):.2f}"],
            ["last anchor, PSNR dB", f"{mean([row['anchor_psnr_db'] for row in unrelated]):.2f}"],
        ],
    )  # fmt: skip
    figures = [Figure(row["sheet"], row["name"]) for row in same]
    return Part("Plain mode (guide off), as it is", "The model alone, without previz and carry-over.", [table, other],
                figures)  # fmt: skip


def speed_part(speed: Mapping[str, Any]) -> Part:
    """The timed shot."""
    table = Table(
        [f"{speed['seconds']:.1f} s shot", "wall s", "CPU s"],
        [
            ["this pipeline, whole shot", f"{speed['ours_wall_s']:.1f}", f"{speed['ours_cpu_s']:.1f}"],
            ["diffusers' WanImageToVideoPipeline, chained", f"{speed['chain_wall_s']:.1f}",
             f"{speed['chain_cpu_s']:.1f}"],
            ["ratio", *(f"{speed[f'chain_{key}'] / speed[f'ours_{key}']:.1f}" for key in ("wall_s", "cpu_s"))],
        ],
        f"{speed['segments']} segments from picture to picture; of the chain {speed['run']} was run and counts for "
        "all. Same transformer weights, number type and step count; the chain's autoencoder is the smallest "
        "AutoencoderKLWan (base_dim=16, num_res_blocks=1), in float32 as in diffusers' examples.",
    )  # fmt: skip
    return Part("Speed", "", [table])


def run_part(run: Mapping[str, Any]) -> Part:
    """What the numbers depend on."""
    rows = [["machine", run["machine"]], ["threads", str(run["threads"])]]
    rows += [[f"setting {key}", str(value)] for key, value in run["settings"].items()]
    rows += [[name, version] for name, version in run["packages"].items()]
    rows += [[f"seconds for {name}", str(seconds)] for name, seconds in run["seconds"].items()]
    return Part("Run", "", [Table(["what", "value"], rows)])
