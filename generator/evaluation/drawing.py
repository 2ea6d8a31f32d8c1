"""The sheet of the comparison: four rows at the same times, labelled with their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamontage.generator.evaluation.clips import FPS, HeldOut
from dreamontage.generator.evaluation.metrics import Fidelity, Frames

ROWS = {"fade": "cross-fade", "previz": "previz alone", "final": "final", "off": "guide=off"}
TIMES = (0, 3, 6, 8, 11, 13, 16, 20, 24, 28)
CELL = (192, 108)
GAP, TEXT, TITLE = 6, 20, 26
PAPER, INK, PINNED = (18, 18, 22), (240, 240, 240), (255, 176, 32)


def comparison_sheet(
    shown: Sequence[tuple[HeldOut, Mapping[str, Frames], Mapping[str, Fidelity]]],
    means: Mapping[str, Fidelity],
    path: Path,
) -> None:
    """Write a JPEG: for each clip given four rows - cross-fade, previz alone, final, guide=off - at the same times.

    Pinned frames are outlined; each row carries its in-between PSNR and LPIPS on that clip, the title the means.
    """
    width = GAP + len(TIMES) * (CELL[0] + GAP)
    row = TEXT + CELL[1] + GAP
    height = TITLE + len(shown) * (TITLE + len(ROWS) * row)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    title = "means over all clips, in-between PSNR dB / LPIPS:  " + "   ".join(
        f"{label} {means[name].psnr_db:.1f} / {means[name].lpips:.3f}" for name, label in ROWS.items()
    )
    draw.text((GAP, 5), title, INK, font)
    y = TITLE
    for clip, variants, scores in shown:
        times = "  ".join(f"{frame / FPS:.2f}s" for frame in TIMES)
        draw.text((GAP, y + 5), f"{clip.name} ({clip.ease}), frames at {times}; outlined: given", INK, small)
        y += TITLE
        for name, label in ROWS.items():
            text = f"{label}: {scores[name].psnr_db:.1f} dB / LPIPS {scores[name].lpips:.3f}"
            draw.text((GAP, y + 2), text, INK, small)
            for column, frame in enumerate(TIMES):
                x = GAP + column * (CELL[0] + GAP)
                picture = Image.fromarray(np.asarray(variants[name][frame])).resize(CELL, Image.Resampling.LANCZOS)
                sheet.paste(picture, (x, y + TEXT))
                if frame in clip.pinned:
                    frame_box = (x - 2, y + TEXT - 2, x + CELL[0] + 1, y + TEXT + CELL[1] + 1)
                    draw.rectangle(frame_box, outline=PINNED, width=2)
            y += row
    sheet.save(path, quality=88)
