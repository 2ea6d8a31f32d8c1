"""One run of tailored DPO: groups, preference pairs of both kinds, one training for each β, and the sweep's report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from accelerate import Accelerator

from dreamontage.generator.evaluation.rationality import motion_rationality
from dreamontage.generator.evaluation.stability import motion_amount, pair_curves
from dreamontage.generator.training.cut_discriminator import CutDiscriminator
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.dpo import DpoTrainer, DpoTraining
from dreamontage.generator.training.groups import (
    FPS,
    NANO_MODE,
    Group,
    GroupPlan,
    PlainMode,
    Scene,
    decoded,
    draw_groups,
    draw_scene,
    ends_of,
    generate,
)
from dreamontage.generator.training.preferences import (
    Gaps,
    Judge,
    Pair,
    PairKind,
    alternate,
    build_pairs,
    load_pair,
)
from dreamontage.generator.training.running import CHECKPOINT, Report, run
from dreamontage.generator.training.trainer import Models, load_models
from dreamontage.schemas.errors import InvalidInput

HELD_OUT_SCENES = 8
"""Scenes of each kind that are generated anew with every β, and with the reference."""
STRIPS = 4


def cut_judge(discriminator: CutDiscriminator) -> Judge:
    """The less abrupt the better: minus the severity, -5..-1."""
    return lambda _, frames: -discriminator.grade(frames)


def motion_judge(mixture: ClipMixture, plan: GroupPlan) -> Judge:
    """How rational the subject moves, 0..1; its true motion is drawn again from the scene's seed."""

    def judge(group: Group, frames: Pixels) -> float:
        scene = draw_scene(group.kind, group.seed, mixture, plan.size, plan.slots)
        assert scene.subject is not None
        return motion_rationality(frames, scene.subject)

    return judge


@dataclass(frozen=True)
class Outcome:
    """One β on held-out material; β 0 is the reference.

    accuracy: share of held-out pairs whose winner it prefers more than the reference does, margin: by how much (mean);
    severity 1..5 over unrelated pictures, motion in view widths per second over all, rationality 0..1 over subjects.
    """

    beta: float
    accuracy: float
    margin: float
    severity: float
    motion: float
    rationality: float


class Examiner:
    """Generates held-out scenes with a model and judges them; the seeds are the same for all."""

    def __init__(
        self, scenes: Sequence[Scene], vae: Any, discriminator: CutDiscriminator, mode: PlainMode = NANO_MODE
    ) -> None:
        self.scenes, self.vae, self.discriminator, self.mode = scenes, vae, discriminator, mode
        self.ends = [ends_of(vae, scene) for scene in scenes]

    def frames(self, models: Models, number: int) -> Pixels:
        """The model's shot of a scene."""
        scene = self.scenes[number]
        return decoded(self.vae, generate(models, self.ends[number], scene.slots, scene.words, scene.seed, self.mode))

    def judge(self, models: Models) -> dict[str, float]:
        """Mean severity, motion and rationality."""
        found: dict[str, list[float]] = {"severity": [], "motion": [], "rationality": []}
        for number, scene in enumerate(self.scenes):
            frames = self.frames(models, number)
            found["motion"].append(motion_amount(pair_curves(frames), FPS))
            if scene.subject is None:
                found["severity"].append(self.discriminator.grade(frames))
            else:
                found["rationality"].append(motion_rationality(frames, scene.subject))
        return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}


@dataclass(frozen=True)
class Pairing:
    """Which groups are generated, what makes a pair of each kind, and the values of β to try."""

    groups: GroupPlan
    cut_gaps: Gaps = field(default_factory=lambda: Gaps(2.0))
    """Pairs whose severities differ by less than 2 of 5 levels are dropped."""
    motion_gaps: Gaps = field(default_factory=lambda: Gaps(0.02, 0.6))
    """Of the subjects' groups the 60 % of the highest contrast."""
    betas: tuple[float, ...] = (500.0, 2000.0)


def make_pairs(
    folder: Path, paths: Sequence[Path], plan: Pairing, vae: Any, judges: dict[PairKind, Judge], report: Report
) -> dict[PairKind, list[Path]]:
    """Pairs of both kinds from groups. Raises InvalidInput where no two generations of any group differ enough."""
    sets: dict[PairKind, list[Path]] = {}
    seen = 0
    asked: dict[PairKind, Gaps] = {"cut": plan.cut_gaps, "motion": plan.motion_gaps}
    for kind, gaps in asked.items():
        own = [path for path in paths if path.name.startswith("subject") is (kind == "motion")]

        def step(done: int, before: int = seen) -> None:
            report("pairs", before + done, len(paths), "")

        sets[kind] = build_pairs(kind, own, folder, vae, judges[kind], gaps, step)
        seen += len(own)
    if not any(sets.values()):
        raise InvalidInput(
            f"no pair in {len(paths)} groups: their generations are too alike",
            field="cut_gap",
            allowed=f"less than {plan.cut_gaps.least:g} (see scores-cut.json in {folder}), or more groups",
        )
    return sets


class Start(Protocol):
    """What DPO begins at: the reference, and for each β a trainer that begins at it."""

    def reference(self, device: torch.device) -> Models:
        """The models that generate the groups; training leaves them as they are."""

    def trainer(self, config: DpoTraining, pairs: Sequence[Pair]) -> DpoTrainer:
        """A run from the reference's weights."""


@dataclass(frozen=True)
class NanoStart:
    """A model folder with transformer/ and prompt_tokens/."""

    folder: Path

    def reference(self, device: torch.device) -> Models:
        """The folder's models."""
        return Models(*(model.to(device) for model in load_models(self.folder)))

    def trainer(self, config: DpoTraining, pairs: Sequence[Pair]) -> DpoTrainer:
        """All of its weights are trained."""
        return DpoTrainer(config, load_models(self.folder), pairs)


def train_dpo(
    config: DpoTraining,
    plan: Pairing,
    out: Path,
    start: Start,
    vae: Any,
    mixture: ClipMixture,
    discriminator: CutDiscriminator,
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Run the recipe once for each β from `start`; returns the best one's folder, `out/model`.

    Writes into `out`: groups/ and pairs/ (kept for the next run), beta-N/ with what every run leaves, and sweep.json.
    Best is the β whose held-out severity falls and rationality rises most, each as a share of its scale.
    """
    total = sum(count for _, count in plan.groups.counts)
    accelerator = Accelerator(mixed_precision="no")
    models = start.reference(accelerator.device)
    for network in (vae, discriminator):
        network.to(accelerator.device)
    with accelerator.main_process_first():
        paths = draw_groups(
            out / "groups", plan.groups, models, vae, mixture, lambda n: report("groups", n, total, "")
        )
        judges: dict[PairKind, Judge] = {
            "cut": cut_judge(discriminator), "motion": motion_judge(mixture, plan.groups)
        }  # fmt: skip
        sets = make_pairs(out / "pairs", paths, plan, vae, judges, report)
    taught, held = ([load_pair(path) for path in part] for part in alternate(list(sets.values())))
    examiner = Examiner(held_out_scenes(plan.groups, mixture), vae, discriminator, plan.groups.mode)
    outcomes = [Outcome(0.0, 0.5, 0.0, **examiner.judge(models))]
    for number, beta in enumerate(plan.betas):
        trainer = start.trainer(replace(config, beta=beta), taught)
        averaged = Models(trainer.slow_transformer, trainer.slow_prompt_tokens)

        def strips(path: Path, averaged: Models = averaged) -> None:
            write_strips(path, examiner, models, averaged)

        def step(stage: str, done: float, of: float, text: str, number: int = number, beta: float = beta) -> None:
            report(stage, (number + done / of) / len(plan.betas), 1.0, f"β {beta:g} {text}")

        here = out / f"beta-{beta:g}"
        run(trainer, here, f"DPO, beta {beta:g}", strips, resume and (here / CHECKPOINT).exists(), step)
        margins = np.array(trainer.margins(held or taught))
        outcomes.append(Outcome(beta, float((margins > 0).mean()), float(margins.mean()), **examiner.judge(averaged)))
    best = max(outcomes[1:], key=lambda outcome: gain(outcome, outcomes[0]))
    sweep = {
        "groups": total, "pairs": {kind: len(found) for kind, found in sets.items()}, "held_out_pairs": len(held),
        "best_beta": best.beta, "outcomes": [asdict(outcome) for outcome in outcomes],
    }  # fmt: skip
    if accelerator.is_main_process:
        (out / "sweep.json").write_text(json.dumps(sweep, indent=1) + "\n")
        shutil.copytree(out / f"beta-{best.beta:g}" / "model", out / "model", dirs_exist_ok=True)
    return out / "model"


def gain(outcome: Outcome, reference: Outcome) -> float:
    """How much better than the reference, severity and rationality each as a share of its scale; unknown counts 0."""
    gains = [(reference.severity - outcome.severity) / 4, outcome.rationality - reference.rationality]
    return float(np.nansum(gains))


def held_out_scenes(plan: GroupPlan, mixture: ClipMixture) -> list[Scene]:
    """Scenes of the plan's kinds that are in none of its groups."""
    first = plan.first_seed + 5_000_000
    return [
        draw_scene(kind, first + number, mixture, plan.size, plan.slots)
        for kind, count in plan.counts
        for number in range(min(HELD_OUT_SCENES, count))
    ]


@torch.no_grad()
def write_strips(path: Path, examiner: Examiner, before: Models, after: Models) -> None:
    """For some held-out scenes two rows of frames at the same times: the reference's shot and the trained model's."""
    rows = []
    step = max(1, len(examiner.scenes) // STRIPS)
    for number in range(0, len(examiner.scenes), step):
        for models in (before, after):
            frames = examiner.frames(models, number)
            picks = np.linspace(0, len(frames) - 1, 9).round().astype(int)
            rows.append(np.concatenate([cv2.resize(frames[i], (160, 96)) for i in picks], axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
