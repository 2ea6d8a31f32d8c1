"""Visual-expression SFT: the adapted model goes on, at a small rate, on a small set balanced over the five classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from dreamontage.generator.timeline import frames_of_slots, slot_count
from dreamontage.generator.training.adapt import AdaptTrainer, AdaptTraining
from dreamontage.generator.training.adapt_run import encode_shots, write_strips
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.expression import EXPRESSIONS, Expression
from dreamontage.generator.training.data.expression import clip as expression_clip
from dreamontage.generator.training.data.notes import ClipNote
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.data.store import ClipStore
from dreamontage.generator.training.running import Report, run
from dreamontage.generator.training.samples import Sample, Shelves, load_sample
from dreamontage.generator.training.shots import LARGE_SIZES, SMALL_SIZES, save_shot, shot_of_clip
from dreamontage.generator.training.trainer import Models
from dreamontage.schemas.errors import InvalidInput

CLASSES = len(EXPRESSIONS)
WINDOWS = (7, 9, 9, 11, 13)
"""Slots of the windows; each five windows in a row, one of each class, share size and length."""
STRIPS = CLASSES
"""Windows at the start, one of each class, that are kept out of training and drawn as strips on the way."""
Clip = Callable[[Expression, int], tuple[Pixels, ClipNote]]
"""A clip of a class by number: frames [F,H,W,3] and its note."""


@dataclass(frozen=True)
class SftTraining(AdaptTraining):
    """The recipe: adaptive tuning's conditions and modes, small rates, more words."""

    minutes: float | None = 8.0
    muon_lr: float = 2e-4
    adam_lr: float = 1e-4
    warm_up: float = 0.05
    tail: float = 0.8
    ema: float = 0.995
    tokens: int = 2700
    """Transformer tokens of a batch, rounded down to whole sets of the five classes, but at least one set."""
    wordless: float = 0.1
    modes: tuple[tuple[str, float], ...] = (("follow", 0.4), ("loose", 0.15), ("off", 0.45))
    seen_from: float = 0.0
    large_from: float = 0.0
    """Large windows are drawn from the start, in half of the batches."""


class BalancedBook:
    """Samples in whole sets of the five classes; every batch holds as many of each class."""

    def __init__(self, sets: Sequence[Sequence[Sample]], tokens: int) -> None:
        self.tokens = tokens
        self.shelves = Shelves((one[0].shape, one) for one in sets)

    def draw(self, rng: np.random.Generator, large: bool) -> list[Sample]:
        """Samples of one shape, shapes weighted by how many sets they hold."""
        tokens, shelf = self.shelves.pick(rng, large)
        rounds = max(1, self.tokens // (CLASSES * tokens))
        return [shelf[int(rng.integers(len(shelf)))][number] for _ in range(rounds) for number in range(CLASSES)]


def stored_clips(store: ClipStore) -> Clip:
    """Clips of a store that are long enough, by class. Raises InvalidInput where a class has none."""
    rows = [row for row in store.rows() if slot_count(row.note.frames) >= max(WINDOWS)]
    by_class = {name: [row for row in rows if row.note.category == name] for name in EXPRESSIONS}
    if missing := [name for name, found in by_class.items() if not found]:
        raise InvalidInput(
            f"{store.folder} holds no clip of {frames_of_slots(max(WINDOWS))} frames or more of: {', '.join(missing)}",
            field="clips",
            next_call="dreamontage data build FOLDER --set sft",
        )

    def clip(category: Expression, number: int) -> tuple[Pixels, ClipNote]:
        row = by_class[category][number % len(by_class[category])]
        return store.load(row), row.note

    return clip


def drawn_clips(mixture: ClipMixture, seed: int) -> Clip:
    """Clips drawn on the fly, each number another one."""

    def clip(category: Expression, number: int) -> tuple[Pixels, ClipNote]:
        return expression_clip(seed * 1_000_003 + number, mixture, (256, 144), category)

    return clip


def draw_windows(
    folder: Path, clip: Clip, sets: int, large: int, seed: int, report: Callable[[int], None]
) -> list[Path]:
    """Draw windows of clips into `folder`, `sets` of one of each class, the last `large` sets at draft size."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:06d}.npz" for index in range(CLASSES * sets)]
    for index, path in enumerate(paths):
        number = index // CLASSES
        sizes = LARGE_SIZES if number >= sets - large else SMALL_SIZES
        if not path.exists():
            rng = np.random.default_rng([seed, index, 6])
            frames, note = clip(EXPRESSIONS[index % CLASSES], number)
            save_shot(shot_of_clip(frames, note, rng, sizes[number % len(sizes)], WINDOWS[number % len(WINDOWS)]), path)
        report(index + 1)
    return paths


def train_sft(
    config: SftTraining,
    out: Path,
    models: Models,
    vae: Any,
    clip: Clip,
    sets: int,
    large: int,
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Run the recipe from given models; returns the folder of the tuned one, `out/model`.

    Writes into `out`: shots/ and latents/ (kept for the next run), and what every run leaves (see running.run).
    """
    accelerator = Accelerator(mixed_precision="no")
    vae.to(accelerator.device).requires_grad_(False)
    total = CLASSES * sets
    with accelerator.main_process_first():
        drawn = draw_windows(
            out / "shots", clip, sets, large, config.seed, lambda n: report("shots", n, total, "")
        )
        encoded = encode_shots(drawn, out / "latents", vae, lambda n: report("latents", n, total, ""))
    samples = [load_sample(path) for path in encoded]
    kept = [samples[start : start + CLASSES] for start in range(STRIPS, total, CLASSES)]
    trainer = AdaptTrainer(config, (), vae, models, BalancedBook(kept, config.tokens))

    def strips(path: Path) -> None:
        write_strips(path, trainer, samples[:STRIPS], vae)

    return run(trainer, out, "visual-expression SFT", strips, resume, report)
