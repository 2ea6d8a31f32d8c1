"""Preference pairs for DPO: of a group of generations the best and the worst, by cuts or by the motion of a subject."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.groups import Group, decoded, in_halves, load_group

PairKind = Literal["cut", "motion"]
Judge = Callable[[Group, Pixels], float]
"""How good a generation of a group is, from its frames [F,H,W,3]; higher is better."""


@dataclass(frozen=True)
class Pair:
    """Two generations [16,n,h,w] of the same ends [2,16,1,h,w] and words, and their scores (higher is better)."""

    kind: PairKind
    winner: Tensor
    loser: Tensor
    ends: Tensor
    words: tuple[TimedWord, ...]
    scores: tuple[float, float]
    empty: Tensor | None = None
    """What is between the ends [16,n,h,w] where the model takes no zeros there."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slots, latent height, latent width."""
        slots, height, width = self.winner.shape[1:]
        return slots, height, width


@dataclass(frozen=True)
class Gaps:
    """What makes a pair: the least difference of scores, and which share of the groups with the largest is taken."""

    least: float
    share: float = 1.0


def save_pair(pair: Pair, path: Path, source: str) -> None:
    """Write a pair in half precision; `source` names the group it is from."""
    words = [[w.word, w.start, w.end, w.amount] for w in pair.words]
    note = {"kind": pair.kind, "words": words, "scores": pair.scores, "source": source}
    halves = in_halves(winner=pair.winner, loser=pair.loser, ends=pair.ends, empty=pair.empty)
    temporary = path.with_suffix(".tmp")
    save_file(halves, temporary, metadata={"note": json.dumps(note)})
    temporary.rename(path)


def load_pair(path: Path) -> Pair:
    """Read what `save_pair` wrote."""
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["note"])
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    words = tuple(TimedWord(*word) for word in note["words"])
    return Pair(note["kind"], words=words, scores=(note["scores"][0], note["scores"][1]), **tensors)


def score_group(path: Path, vae: Any, judge: Judge) -> list[float]:
    """The judge's score of every generation of a group."""
    group = load_group(path)
    return [judge(group, decoded(vae, latents)) for latents in group.latents]


def chosen(scores: Mapping[Path, Sequence[float]], gaps: Gaps) -> list[Path]:
    """The groups whose best and worst differ enough, those with the largest difference first."""
    widths = {path: max(values) - min(values) for path, values in scores.items()}
    wide = sorted((path for path in widths if widths[path] >= gaps.least), key=lambda path: (-widths[path], path.name))
    return wide[: int(np.ceil(gaps.share * len(scores)))]


def build_pairs(
    kind: PairKind,
    paths: Sequence[Path],
    folder: Path,
    vae: Any,
    judge: Judge,
    gaps: Gaps,
    report: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Score groups, keep the scores in `folder`/scores-KIND.json, and write a pair for each that differs enough.

    Groups that were scored before are not scored again; use a new folder for another judge.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / f"scores-{kind}.json"
    known: dict[str, list[float]] = json.loads(ledger.read_text()) if ledger.exists() else {}
    for number, path in enumerate(paths):
        if path.name not in known:
            known[path.name] = score_group(path, vae, judge)
            ledger.write_text(json.dumps(known, indent=1) + "\n")
        report(number + 1)
    written = []
    for path in chosen({path: known[path.name] for path in paths}, gaps):
        group, scores = load_group(path), known[path.name]
        best, worst = int(np.argmax(scores)), int(np.argmin(scores))
        pair = Pair(
            kind, group.latents[best], group.latents[worst], group.ends, group.words, (scores[best], scores[worst]),
            group.empty,
        )
        written.append(folder / f"{kind}-{path.stem}.safetensors")
        save_pair(pair, written[-1], path.name)
    return written


def alternate(pairs: Sequence[Sequence[Path]]) -> tuple[list[Path], list[Path]]:
    """Training and held-out pairs: of each set one in five is kept, if it has so many."""
    held = [path for found in pairs for number, path in enumerate(sorted(found)) if number % 5 == 2]
    return [path for found in pairs for path in sorted(found) if path not in held], held
