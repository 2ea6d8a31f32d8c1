"""Tailored DPO in its flow-matching form: prefer the winner of each pair, measured from the weights it started at.

With e_m(v) the mean over unpinned elements of (u_m(x_t, t, c) − (ε − x0))², t and ε shared in a pair:
L = −log σ(−β/2 · [(e_θ(w) − e_ref(w)) − (e_θ(l) − e_ref(l))]).
Source: Diffusion-DPO (https://arxiv.org/abs/2311.12908) on velocities; DreaMontage's equation 1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.training.adapt import late_times
from dreamontage.generator.training.groups import first_last
from dreamontage.generator.training.preferences import Pair
from dreamontage.generator.training.trainer import Models, Recipe, TransformerTrainer


def velocity_error(predicted: Tensor, velocity: Tensor, pinned: Tensor) -> Tensor:
    """Mean squared error [B] of velocities [B,16,n,h,w] over the slots that are not `pinned` [B,n]."""
    free = (~pinned).float()
    by_slot = (predicted - velocity).square().mean((1, 3, 4))
    return (by_slot * free).sum(1) / free.sum(1)


class Errors(NamedTuple):
    """Velocity errors [B] of the trained model and of the reference, on winners and on losers."""

    winner: Tensor
    loser: Tensor
    winner_before: Tensor
    loser_before: Tensor

    @property
    def margin(self) -> Tensor:
        """How much more the trained model prefers the winner than the reference does [B]; above 0 is right."""
        return (self.loser - self.loser_before) - (self.winner - self.winner_before)


def preference_loss(errors: Errors, beta: float) -> Tensor:
    """The loss [B]; log 2 where the trained model is the reference."""
    return -F.logsigmoid(beta / 2 * errors.margin)


@dataclass(frozen=True)
class DpoTraining(Recipe):
    """The recipe: small rates, as the reference is near."""

    minutes: float | None = 4.0
    muon_lr: float = 1e-4
    adam_lr: float = 5e-5
    warm_up: float = 0.1
    ema: float = 0.99
    beta: float = 1000.0
    shift: float = 2.0
    """Time shift of the windows."""
    tokens: int = 2200
    """Transformer tokens of a batch, winners and losers together."""


class PairBook:
    """Pairs by shape and kind; both kinds take turns in a batch, however many there are of each."""

    def __init__(self, pairs: Sequence[Pair], tokens: int) -> None:
        self.tokens = tokens
        self.shelves: dict[tuple[int, int, int], dict[str, list[Pair]]] = {}
        for pair in pairs:
            self.shelves.setdefault(pair.shape, {}).setdefault(pair.kind, []).append(pair)

    def draw(self, rng: np.random.Generator) -> list[Pair]:
        """Pairs of one shape, shapes weighted by how many they hold."""
        shapes = sorted(self.shelves)
        weights = np.array([sum(map(len, self.shelves[shape].values())) for shape in shapes], dtype=np.float64)
        slots, height, width = shape = shapes[int(rng.choice(len(shapes), p=weights / weights.sum()))]
        kinds = sorted(self.shelves[shape])
        count, first = max(1, self.tokens // (slots * height * width // 2)), int(rng.integers(len(kinds)))
        shelves = [self.shelves[shape][kinds[(first + number) % len(kinds)]] for number in range(count)]
        return [shelf[int(rng.integers(len(shelf)))] for shelf in shelves]


class PairBatch(NamedTuple):
    """Winners, then losers, on their way: model inputs [2B,36,n,h,w], times [2B], velocities, pinned slots [2B,n]."""

    inputs: Tensor
    time: Tensor
    velocity: Tensor
    pinned: Tensor
    words: list[tuple[TimedWord, ...]]


def pair_batch(
    pairs: Sequence[Pair], generator: torch.Generator, device: torch.device, shift: float = 2.0
) -> PairBatch:
    """Put pairs of one shape at random times of their way; winner and loser share time and noise."""
    windows = [first_last(pair.ends, pair.shape[0], pair.empty) for pair in pairs]
    cond, mask = (torch.stack([window[part] for window in windows]).repeat(2, 1, 1, 1, 1) for part in (0, 1))
    truth = torch.stack([pair.winner for pair in pairs] + [pair.loser for pair in pairs])
    noise = torch.randn((len(pairs), *truth.shape[1:]), generator=generator).repeat(2, 1, 1, 1, 1)
    time = late_times(len(pairs), generator, shift).repeat(2)
    velocity = noise - truth
    inputs = torch.cat([truth + time.view(-1, 1, 1, 1, 1) * velocity, mask, cond], dim=1)
    pinned = (mask > 0).any(1).flatten(2).any(2)
    inputs, time, velocity, pinned = (x.to(device) for x in (inputs, time, velocity, pinned))
    return PairBatch(inputs, time, velocity, pinned, 2 * [pair.words for pair in pairs])


class DpoTrainer(TransformerTrainer):
    """Trains on preference pairs in plain mode, beside a frozen copy of the weights it starts from."""

    config: DpoTraining

    def __init__(self, config: DpoTraining, models: Models, pairs: Sequence[Pair]) -> None:
        super().__init__(config, models)
        self.reference = Models(*(copy.deepcopy(network).eval() for network in self.averages.values()))
        self.book = PairBook(pairs, config.tokens)

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """This step's pairs and their loss; they depend on (seed, draw) alone."""
        rng = np.random.default_rng([self.config.seed, self.draw, 9])
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.draw)
        batch = pair_batch(self.book.draw(rng), generator, self.device, self.config.shift)
        errors = self.errors(Models(self.transformer, self.prompt_tokens), batch)
        loss = preference_loss(errors, self.config.beta).mean()
        margin = errors.margin.detach()
        return loss, {
            "loss": loss.item(),
            "accuracy": (margin > 0).float().mean().item(),
            "margin": margin.mean().item(),
            "winner": (errors.winner.detach() - errors.winner_before).mean().item(),
            "loser": (errors.loser.detach() - errors.loser_before).mean().item(),
        }

    def errors(self, models: Models, batch: PairBatch) -> Errors:
        """Velocity errors of `models` and of the reference."""
        with torch.no_grad():
            before = self._error(self.reference, batch)
        return Errors(*self._error(models, batch).chunk(2), *before.chunk(2))

    def _error(self, models: Models, batch: PairBatch) -> Tensor:
        with self.computing():
            prompts = models.prompt_tokens(batch.words)
            predicted = models.transformer(batch.inputs, 1000 * batch.time, prompts, return_dict=False)[0]
        return velocity_error(predicted.float(), batch.velocity, batch.pinned)

    @torch.no_grad()
    def margins(self, pairs: Sequence[Pair], draws: int = 8) -> list[float]:
        """The averaged model's mean margin on each pair over `draws` times and noises, the same for every run."""
        averaged = Models(self.slow_transformer, self.slow_prompt_tokens)
        found = []
        for number, pair in enumerate(pairs):
            generator = torch.Generator().manual_seed(7_000_003 + number)
            batch = pair_batch([pair] * draws, generator, self.device, self.config.shift)
            found.append(float(self.errors(averaged, batch).margin.mean()))
        return found
