"""Adaptive tuning of nano's transformer: random sets of anchors on clips of known motion, guided and plain.

Each window is trained on the straight way that inference walks, from its start s to the truth x0:
x_t = x0 + (t/t0)(s − x0).
Plain and loose windows start at noise (t0 = 1, the usual flow); `follow` starts at s = (1−t0)·guide + t0·ε, so the
network meets the guide's errors, and not a blend of truth and noise that inference never shows.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreamontage.generator.conditioning.encoding import denormalise
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer, init_from_scratch
from dreamontage.generator.training import course
from dreamontage.generator.training.muon import Muon
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.generator.training.samples import Batch, Sample, SampleBook, collate

Mode = str
"""off, loose or follow"""


@dataclass(frozen=True)
class AdaptTraining:
    """The recipe. One of `minutes` (wall clock of training) and `steps` ends the run and shapes the learning rate."""

    minutes: float | None = 45.0
    steps: int | None = None
    seed: int = 0
    num_layers: int = 4
    num_attention_heads: int = 4
    attention_head_dim: int = 64
    ffn_dim: int = 1024
    text_dim: int = 64
    muon_lr: float = 1e-3
    adam_lr: float = 1e-3
    warm_up: float = 0.02
    """Share of the run in which the rate rises; the last `tail` share falls linearly to zero."""
    tail: float = 0.5
    ema: float = 0.998
    tokens: int = 2200
    """Transformer tokens of a batch, about four windows of nine slots at 160x96."""
    large_from: float = 0.75
    """Share of the run from which half the batches are of draft size."""
    modes: tuple[tuple[Mode, float], ...] = (("follow", 0.5), ("loose", 0.15), ("off", 0.35))
    """Plain windows get a third: on two cores they cannot learn to paint; the guided ones are what nano ships for."""
    t0: tuple[float, float] = (0.2, 0.7)
    wordless: float = 0.15
    """Share of windows whose words are dropped, for classifier-free guidance."""
    guided_weight: float = 3.0
    softness: float = 0.1
    """Guided slots are scored by sqrt(d² + softness²): mostly right, they must not pay for what cannot be known."""
    seen_from: float = 0.55
    """Share of the run from which one follow window of a batch is also judged by eye: decoded, by L1 and LPIPS."""
    seen_weight: float = 3.0
    seen_lpips: float = 0.3
    bf16: bool = True
    checkpoint_minutes: float = 5.0


class Way(NamedTuple):
    """A batch on its way: x_t [B,16,n,h,w], time t [B], the velocity there, and which slots [B,n] are guided."""

    noisy: Tensor
    time: Tensor
    velocity: Tensor
    guided: Tensor


def draw_modes(config: AdaptTraining, count: int, rng: np.random.Generator) -> list[Mode]:
    """One mode for each window."""
    names, shares = zip(*config.modes, strict=True)
    return [str(rng.choice(names, p=shares)) for _ in range(count)]


def set_out(batch: Batch, modes: Sequence[Mode], config: AdaptTraining, generator: torch.Generator) -> Way:
    """Put every window at a random time of its way (see the module's text)."""
    count = len(modes)
    noise = torch.randn(batch.truth.shape, generator=generator)
    low, high = config.t0
    follows = torch.tensor([mode == "follow" for mode in modes])
    t0 = torch.where(follows, low + (high - low) * torch.rand(count, generator=generator), 1.0)
    place = torch.sigmoid(torch.randn(count, generator=generator))
    late = 2 * place / (1 + place)  # time shift 2: where the picture is decided
    first = torch.rand(count, generator=generator) < 0.35  # the start itself, which every render passes
    share = torch.where(first, torch.ones(count), 0.1 + 0.9 * torch.rand(count, generator=generator))
    time = torch.where(follows, t0 * share, late)
    shape = (-1, 1, 1, 1, 1)
    clean = torch.where(batch.fixed[:, None, :, None, None], batch.cond, batch.guide)
    start = torch.where(follows.view(shape), (1 - t0.view(shape)) * clean + t0.view(shape) * noise, noise)
    velocity = (start - batch.truth) / t0.view(shape)
    guided = torch.tensor([mode != "off" for mode in modes])[:, None] & ~batch.fixed
    return Way(batch.truth + time.view(shape) * velocity, time, velocity, guided)


def flow_loss(predicted: Tensor, way: Way, batch: Batch, config: AdaptTraining) -> tuple[Tensor, dict[str, float]]:
    """Squared velocity error on plain slots; on guided slots the softened distance of the end x0 that it points at."""
    error = predicted - way.velocity
    plain = error.square().mean((1, 3, 4))
    end = way.time.view(-1, 1, 1, 1, 1) * error
    softened = ((end.square() + config.softness**2).sqrt() - config.softness).mean((1, 3, 4))
    free = ~batch.fixed
    off = free & ~way.guided
    loss = (config.guided_weight * (softened * way.guided).sum() + (plain * off).sum()) / free.sum().clamp(min=1)
    parts = {"loss": loss.item()}
    for name, values, where in (("guided", softened, way.guided), ("plain", plain, off)):
        parts[name] = (values * where).sum().item() / int(where.sum()) if bool(where.any()) else float("nan")
    return loss, parts


class AdaptTrainer:
    """Models, averages, optimisers and position of one run; `save` and `load` make it resume bit for bit."""

    def __init__(
        self, config: AdaptTraining, samples: Sequence[Sample], vae: NanoAutoencoder | None = None
    ) -> None:
        if (config.minutes is None) == (config.steps is None):
            raise ValueError("give either minutes or steps")
        self.config = config
        torch.manual_seed(config.seed)
        self.transformer = NanoTransformer(
            num_layers=config.num_layers,
            num_attention_heads=config.num_attention_heads,
            attention_head_dim=config.attention_head_dim,
            ffn_dim=config.ffn_dim,
            text_dim=config.text_dim,
            from_condition=True,
        ).train()
        init_from_scratch(self.transformer)
        self.prompt_tokens = PromptTokens(config.text_dim).train()
        self.slow_transformer = copy.deepcopy(self.transformer).eval().requires_grad_(False)
        self.slow_prompt_tokens = copy.deepcopy(self.prompt_tokens).eval().requires_grad_(False)
        inner = [p for p in self.transformer.blocks.parameters() if p.ndim == 2]
        known = {id(p) for p in inner}
        others = [p for p in self.fast_parameters() if id(p) not in known]
        self.muon = Muon(inner, config.muon_lr, weight_decay=0.01)
        self.adam = torch.optim.AdamW(others, config.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.vae = vae
        self.distance = PerceptualDistance() if vae is not None else None
        self.book = SampleBook(samples, config.tokens)
        self.step = 0
        self.elapsed = 0.0

    @property
    def progress(self) -> float:
        """Done share of the run, 0..1."""
        return course.progress(self.config, self.step, self.elapsed)

    def rate(self) -> float:
        """The learning rate's factor, 0..1: a short rise, a plateau, a linear tail."""
        return course.rate(self.config, self.progress)

    def fast_parameters(self) -> list[Tensor]:
        """All weights in training."""
        return [*self.transformer.parameters(), *self.prompt_tokens.parameters()]

    def slow_parameters(self) -> list[Tensor]:
        """Their running averages, in the same order: what is published."""
        return [*self.slow_transformer.parameters(), *self.slow_prompt_tokens.parameters()]

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """This step's batch and its loss; they depend on (seed, step, progress past `large_from`) alone."""
        config = self.config
        rng = np.random.default_rng([config.seed, self.step, 3])
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        samples = self.book.draw(rng, self.progress >= config.large_from and rng.random() < 0.5)
        modes = draw_modes(config, len(samples), rng)
        batch = collate(samples, [mode != "off" for mode in modes], generator)
        way = set_out(batch, modes, config, generator)
        words = [() if rng.random() < config.wordless else words for words in batch.words]
        # In bfloat16 the plain attention is three times as fast as the fused one on a CPU, backward included.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            inputs = torch.cat([way.noisy, batch.mask, batch.cond], dim=1)
            predicted = self.transformer(inputs, 1000 * way.time, self.prompt_tokens(words), return_dict=False)[0]
            loss, parts = flow_loss(predicted.float(), way, batch, config)
            follows = [index for index, mode in enumerate(modes) if mode == "follow"]
            if self.vae is not None and follows and self.progress >= config.seen_from:
                one = int(rng.choice(follows))
                end = way.noisy[one] - way.time[one] * predicted[one].float()
                parts["seen"], seen = self._seen(end, batch.truth[one], int(rng.integers(batch.truth.shape[2] - 2)))
                loss = loss + config.seen_weight * seen
        return loss, {"seen": float("nan")} | parts

    def _seen(self, end: Tensor, truth: Tensor, slot: int) -> tuple[float, Tensor]:
        """How different two slots look: predicted and true latents [16,n,h,w], decoded from `slot`, which leads in."""
        assert self.vae is not None and self.distance is not None
        pair = denormalise(self.vae, torch.stack([end, truth])[:, :, slot : slot + 3]).permute(2, 0, 1, 3, 4)
        ours, theirs = self.vae.decode_folded(pair).float()[:, :, 1:].clamp(-1, 1)
        l1 = (ours - theirs.detach()).abs().mean()
        lpips = self.distance(ours[:, 3::4].transpose(0, 1), theirs[:, 3::4].transpose(0, 1).detach()).mean()
        seen = l1 + self.config.seen_lpips * lpips
        return seen.item(), seen

    def train_step(self) -> dict[str, float]:
        """One update; its losses, time and rate."""
        started = time.perf_counter()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        factor = self.rate()
        for optimiser, rate in ((self.muon, self.config.muon_lr), (self.adam, self.config.adam_lr)):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        loss, parts = self.losses()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for g in self.adam.param_groups for p in g["params"]], 1.0)
        self.muon.step()
        self.adam.step()
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for slow, fast in zip(self.slow_parameters(), self.fast_parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        seconds = time.perf_counter() - started
        self.elapsed += seconds
        return {"step": self.step, "elapsed_s": self.elapsed, "rate": factor, "seconds": seconds} | parts

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        temporary = path.with_suffix(".tmp")
        torch.save(state | {"step": self.step, "elapsed": self.elapsed}, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Go back to a saved step."""
        state = torch.load(path, weights_only=True)
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.step, self.elapsed = state["step"], state["elapsed"]

    def warm_start(self, path: Path) -> None:
        """Take over the averaged weights of another run's checkpoint, not its position."""
        state = torch.load(path, weights_only=True)
        for name in ("transformer", "prompt_tokens"):
            getattr(self, name).load_state_dict(state[f"slow_{name}"])
            getattr(self, f"slow_{name}").load_state_dict(state[f"slow_{name}"])

    def publish(self, folder: Path) -> None:
        """Save the averaged models in half precision as folder/transformer and folder/prompt_tokens."""
        for name, model in (("transformer", self.slow_transformer), ("prompt_tokens", self.slow_prompt_tokens)):
            copy.deepcopy(model).half().save_pretrained(folder / name)


STATEFUL = ("transformer", "prompt_tokens", "slow_transformer", "slow_prompt_tokens", "muon", "adam")
Report = Callable[[dict[str, float]], None]
