"""One run of the cut discriminator: generate, label, train, score on held-out shots, draw a sheet to check by eye."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from accelerate import Accelerator

from dreamontage.generator.timeline import frames_of_slots
from dreamontage.generator.training.cut_discriminator import (
    HEIGHT,
    LEVELS,
    WIDTH,
    CutDiscriminator,
    DiscriminatorTrainer,
    DiscriminatorTraining,
    Graded,
    constructed,
    load_discriminator,
    score,
    shrunk,
)
from dreamontage.generator.training.cut_labels import detect
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.groups import GroupPlan, decoded, draw_groups, load_group
from dreamontage.generator.training.running import Report, run
from dreamontage.generator.training.shots import draw_clip
from dreamontage.generator.training.trainer import Models

HELD_OUT = 4
"""One scene and one clip of so many are kept for the score."""
SCORED = 24
"""Constructions of each level in the score."""
ROWS = 6
"""Shots of each level on the sheet."""


def label_group(path: Path, target: Path, vae: Any) -> list[Graded]:
    """The generations of a group at 64x36 with their detectors' severities, kept in `target` (.npz)."""
    if not target.exists():
        shots = [decoded(vae, latents) for latents in load_group(path).latents]
        found = [detect(shot) for shot in shots]
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, small=np.stack([shrunk(shot) for shot in shots]), levels=[one.severity for one in found])
        temporary.rename(target)
        target.with_suffix(".json").write_text(json.dumps([asdict(one) for one in found]) + "\n")
    with np.load(target) as file:
        return [Graded(small, int(level), "model") for small, level in zip(file["small"], file["levels"], strict=True)]


def continuous_shots(mixture: ClipMixture, count: int, frames: int, seed: int) -> list[Graded]:
    """Training clips of any camera move, fast ones too: severity 1 by construction."""
    rngs = [np.random.default_rng([seed, index, 11]) for index in range(count)]
    clips = [draw_clip(rng, mixture, index, frames, 160, 96)[0] for index, rng in enumerate(rngs)]
    return [Graded(shrunk(clip), 1, "clip") for clip in clips]


def split(shots: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Training and held-out parts."""
    kept = [shot for number, shot in enumerate(shots) if number % HELD_OUT]
    return kept, [shot for number, shot in enumerate(shots) if not number % HELD_OUT]


def train_discriminator(
    config: DiscriminatorTraining,
    out: Path,
    models: Models,
    vae: Any,
    mixture: ClipMixture,
    plan: GroupPlan,
    clips: int,
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Run the recipe; returns the discriminator's folder, `out/model/discriminator`.

    Writes into `out`: groups/ and labels/ (kept for the next run), what every run leaves, score.json (held-out
    accuracy and confusion, of constructions, of generations under their detectors' labels, and of both) and strips.jpg:
    held-out shots by true level, each with its grade.
    """
    total = sum(count for _, count in plan.counts)
    accelerator = Accelerator(mixed_precision="no")
    for network in (*models, vae):
        network.to(accelerator.device)
    labels = out / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    own: list[list[Graded]] = []
    with accelerator.main_process_first():
        paths = draw_groups(out / "groups", plan, models, vae, mixture, lambda n: report("groups", n, total, ""))
        for path in paths:
            own.append(label_group(path, labels / f"{path.stem}.npz", vae))
            report("labels", len(own), total, "")
    taught, held = split(own)
    calm, held_calm = split(continuous_shots(mixture, clips, frames_of_slots(plan.slots), config.seed))
    trainer = DiscriminatorTrainer(config, [*calm, *(shot for group in taught for shot in group)])
    examples = held_out_shots([*held_calm, *(shot for group in held for shot in group)], config.seed)

    def strips(path: Path) -> None:
        write_sheet(path, trainer.averages["discriminator"], examples)

    folder = run(trainer, out, "cut discriminator", strips, resume, report) / "discriminator"
    if trainer.accelerator.is_main_process:
        final = load_discriminator(folder)
        parts = {source: [shot for shot in examples if shot.source == source] for source in ("construction", "model")}
        scores = {name: asdict(score(final, shots)) for name, shots in {"all": examples, **parts}.items() if shots}
        (out / "score.json").write_text(json.dumps(scores, indent=1, default=lambda x: x.tolist()) + "\n")
    return folder


def held_out_shots(bank: Sequence[Graded], seed: int) -> list[Graded]:
    """Constructions of every level from a held-out bank, and the generations in it."""
    rng = np.random.default_rng([seed, 13])
    made = [
        Graded(constructed(rng, bank, level), level, "construction")
        for level in range(1, LEVELS + 1)
        for _ in range(SCORED)
    ]
    return [*made, *(shot for shot in bank if shot.source == "model")]


def write_sheet(path: Path, discriminator: CutDiscriminator, shots: Sequence[Graded]) -> None:
    """For each level, up to ROWS shots: nine neighbouring frames around the largest change, with the grade."""
    rows = []
    for level in range(1, LEVELS + 1):
        here = [shot for shot in shots if shot.level == level]
        made, own = ([s for s in here if (s.source == "model") is model] for model in (False, True))
        for shot in [*made[: ROWS // 2], *own[: ROWS - len(made[: ROWS // 2])]]:
            rows.append(_row(shot, discriminator.grade(shot.small)))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def _row(shot: Graded, grade: float, around: int = 4) -> Pixels:
    steps = np.abs(np.diff(shot.small.astype(np.int16), axis=0)).mean((1, 2, 3))
    middle = int(np.clip(int(steps.argmax()), around, max(around, len(shot.small) - around - 1)))
    frames = shot.small[middle - around : middle + around + 1]
    row = np.concatenate([cv2.resize(frame, (2 * WIDTH, 2 * HEIGHT)) for frame in frames], axis=1)
    text = f"{shot.source} {shot.level} graded {grade:.1f}"
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(row, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, width, cv2.LINE_AA)
    return np.asarray(row, np.uint8)
