"""The loop that every stage runs in: steps, checkpoint, published weights, curve and sample strips."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from dreamontage.generator.training.course import append_rows, draw_curve
from dreamontage.generator.training.trainer import Recipe, Trainer
from dreamontage.schemas.errors import InvalidInput

Report = Callable[[str, float, float, str], None]
"""Called with (stage, done, total, text)."""
CHECKPOINT = "checkpoint.pt"
RECIPES = Path(__file__).parent / "recipes"
R = TypeVar("R", bound=Recipe)


def run(
    trainer: Trainer,
    out: Path,
    title: str,
    strips: Callable[[Path], None],
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Train to the end of the recipe; returns the published folder, `out/model`.

    Writes recipe.json, checkpoint.pt, curve.csv, curve.png and what `strips` draws (strips.jpg) into `out`, refreshed
    every `checkpoint_minutes`. `resume` goes on from out/checkpoint.pt. Of several processes only the first one writes.
    """
    out.mkdir(parents=True, exist_ok=True)
    curve, writes = out / "curve.csv", trainer.accelerator.is_main_process
    if resume:
        trainer.load(out / CHECKPOINT)
    elif writes:
        curve.unlink(missing_ok=True)
    if writes:
        (out / "recipe.json").write_text(json.dumps(asdict(trainer.config), indent=1) + "\n")
    rows: list[dict[str, float]] = []
    saved_at = trainer.elapsed
    while trainer.progress < 1:
        rows.append(trainer.train_step())
        report("training", trainer.progress, 1.0, f"step {trainer.step} loss {rows[-1]['loss']:.4f}")
        due = trainer.progress >= 1 or trainer.elapsed - saved_at > 60 * trainer.config.checkpoint_minutes
        if writes and due:
            saved_at = trainer.elapsed
            trainer.save(out / CHECKPOINT)
            trainer.publish(out / "model")
            append_rows(curve, rows)
            draw_curve(curve, out / "curve.png", title)
            rows.clear()
            strips(out / "strips.jpg")
    return out / "model"


def configured(recipe: R, stage: str, file: Path | None = None, **given: Any) -> R:
    """A recipe with the fields of a TOML file (None: the stage's own), then those given (None: not given).

    `steps` and `minutes` exclude each other: the one named last counts. Raises InvalidInput naming an unknown field.
    """
    known = {field.name for field in fields(recipe)}
    for layer in (tomllib.loads((file or RECIPES / f"{stage}.toml").read_text(encoding="utf-8")), given):
        values = {name: _frozen(value) for name, value in layer.items() if value is not None}
        if unknown := sorted(set(values) - known):
            raise InvalidInput(f"{stage} has no {', '.join(unknown)}", field="config", allowed=", ".join(sorted(known)))
        if values.get("steps"):
            values["minutes"] = None
        elif values.get("minutes"):
            values["steps"] = None
        recipe = replace(recipe, **values)
    return recipe


def _frozen(value: Any) -> Any:
    """TOML's lists as tuples."""
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
