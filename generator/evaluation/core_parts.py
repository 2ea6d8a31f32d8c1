"""The page's parts without a truth: unrelated photographs, long montages, camera words, plain mode, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamontage.generator.evaluation import plots
from dreamontage.generator.evaluation.core_goals import SEED, Rows, beyond_previz, elsewhere, said
from dreamontage.generator.evaluation.page import Figure, Part, Table
from dreamontage.generator.evaluation.statistics import mean, paired_bootstrap, quantile, share


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
        f"{halo[1]:.2f}; step ratio {halo[2]:.2f}, {halo[3]:.2f}. Where the previz is unsure, "
        f"mostly the rim of a blend, the output differs from it by {mean(column(rows, 'rim')):.1f} grey levels."
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
            groups.append((kind, elsewhere(seams, ratio)))
            inside = [seam for seam in seams if not seam["at_anchor"]]
            if kind == "carried" and inside:
                groups.append((f"{kind}, away from stills", elsewhere(inside, ratio)))
            groups.append((f"{kind}: previz there", elsewhere(seams, ratio, "previz")))
            groups.append((f"{kind} ÷ previz there", beyond_previz(seams, ratio)))
        groups.append(("no seam", elsewhere(found["elsewhere"], ratio)))
        label = ratio.removesuffix("_ratio")
        rows += [
            [label, name, str(len(values)), f"{quantile(values, 0.5):.2f}", f"{quantile(values, 0.95):.2f}"]
            for name, values in groups
        ]
        drawn[label] = {name: values for name, values in groups if values}
        title, along = f"{label} ratio at seams", "1 is as elsewhere in the montage"
        plots.boxes(drawn[label], title, along, (1.2, 2), out / f"{label}.png")
    seams_table = Table(
        ["ratio", "at", "places", "median", "95th percentile"], rows,
        "Step and jerk ÷ their median within ±1 s, then ÷ the same at the montage's places without seam or anchor: 1 "
        "is as anywhere. The previz has no seams: its own ratio at the same frames is what the camera does there, and "
        "what a seam adds to it stands in the rows “÷ previz there”.",
    )  # fmt: skip
    drift = Table(
        ["montage", "seconds", "largest lasting change of a colour channel"],
        [[one["montage"], f"{one['seconds']:.1f}", f"{one['drift']:.2%}"] for one in found["drift"]],
    )
    figures = [Figure(f"{label}.png", f"{label} ratios by kind of seam") for label in drawn]
    return Part("Long montages: seams and colour", "", [seams_table, drift], figures)


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
