"""Train nano's autoencoder: L1 and LPIPS, equivariant bounded latents, Muon; bounded by steps or by the wall clock."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.training import course
from dreamontage.generator.training.course import append_rows, draw_curve
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.pictures import Picture
from dreamontage.generator.training.held_out import held_out_clips, mean_scores, reconstruct, write_sheet
from dreamontage.generator.training.muon import Muon
from dreamontage.generator.training.perceptual import PerceptualDistance

Progress = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class AutoencoderTraining:
    """The recipe. One of `minutes` (wall clock) and `steps` ends the run and shapes the learning rate."""

    minutes: float | None = 50.0
    steps: int | None = None
    seed: int = 0
    widths: tuple[int, ...] = (48, 96, 160)
    encoder_blocks: tuple[int, ...] = (1, 2, 3)
    decoder_blocks: tuple[int, ...] = (2, 3, 3)
    decoder_memory: tuple[int, ...] = (1, 2, 2)
    muon_lr: float = 1.5e-3
    adam_lr: float = 1e-3
    warm_up: float = 0.01
    """Share of the run in which the rate rises; the last `tail` share falls linearly to zero."""
    tail: float = 0.55
    ema: float = 0.998
    batch_slots: int = 18
    frames: tuple[int, ...] = (9, 9, 9, 9, 9, 9, 5, 17)
    crops: tuple[tuple[int, int], ...] = ((128, 128), (96, 160), (96, 192), (160, 96))
    lpips: float = 0.15
    lpips_frames: int = 2
    latent_penalty: float = 1e-2
    """Weight of the mean square of the latents: at a tenth of it they drifted towards the bound."""
    equivariance: float = 0.3
    """Share of batches whose latents and pixels are turned, zoomed and shifted alike (EQ-VAE)."""
    bf16: bool = True
    checkpoint_minutes: float = 4.0


class AutoencoderTrainer:
    """Model, average, optimisers and position of one run; `save` and `load` make it resume bit for bit."""

    def __init__(self, config: AutoencoderTraining, pictures: Sequence[Picture]) -> None:
        if (config.minutes is None) == (config.steps is None):
            raise ValueError("give either minutes or steps")
        self.config = config
        torch.manual_seed(config.seed)
        self.model = NanoAutoencoder(
            config.widths, config.encoder_blocks, config.decoder_blocks, config.decoder_memory
        ).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        ends = {self.model.encoder.body[1].weight, self.model.decoder.body[-2].weight}
        kernels = [p for p in self.model.parameters() if p.ndim == 4 and p not in ends]
        others = [p for p in self.model.parameters() if p.ndim != 4 or p in ends]
        self.muon = Muon(kernels, config.muon_lr)
        self.adam = torch.optim.AdamW(others, config.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.distance = PerceptualDistance()
        self.mixture = ClipMixture(list(pictures), config.seed)
        self.step = 0
        self.elapsed = 0.0

    @property
    def progress(self) -> float:
        """Done share of the run, 0..1."""
        return course.progress(self.config, self.step, self.elapsed)

    def rate(self) -> float:
        """The learning rate's factor, 0..1: a short rise, a plateau, a linear tail."""
        return course.rate(self.config, self.progress)

    def batch(self) -> Tensor:
        """This step's clips [B,3,F,H,W]."""
        rng = np.random.default_rng([self.config.seed, self.step, 1])
        frames = int(rng.choice(self.config.frames))
        height, width = self.config.crops[int(rng.integers(len(self.config.crops)))]
        size = max(1, self.config.batch_slots // ((frames - 1) // 4 + 1))
        return self.mixture.batch(self.step, frames, height, width, size)

    def losses(self, video: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch and its parts."""
        config = self.config
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            z = self.model.encode_folded(video).float()
            penalty = z.square().mean()
            if torch.rand(()) < config.equivariance:
                z, video = moved_alike(z, video)
            decoded = self.model.decode_folded(z + self.model.sigma * torch.randn_like(z)).float()
            picks = torch.randperm(video.shape[2])[: config.lpips_frames]
            pairs = [v[:, :, picks].transpose(1, 2).flatten(0, 1) for v in (decoded, video)]
            lpips = self.distance(*pairs).mean()
        l1 = F.l1_loss(decoded, video)
        loss = l1 + config.lpips * lpips + config.latent_penalty * penalty
        return loss, {"loss": loss.item(), "l1": l1.item(), "lpips": lpips.item(), "z2": penalty.item()}

    def train_step(self) -> dict[str, float]:
        """One update; its losses, time and rate."""
        started = time.perf_counter()
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        factor = self.rate()
        for optimiser, rate in ((self.muon, self.config.muon_lr), (self.adam, self.config.adam_lr)):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        loss, parts = self.losses(self.batch())
        loss.backward()  # type: ignore[no-untyped-call]
        self.muon.step()
        self.adam.step()
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        seconds = time.perf_counter() - started
        self.elapsed += seconds
        return {"step": self.step, "elapsed_s": self.elapsed, "rate": factor, "seconds": seconds} | parts

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "muon", "adam")}
        temporary = path.with_suffix(".tmp")
        torch.save(state | {"step": self.step, "elapsed": self.elapsed}, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Go back to a saved step."""
        state = torch.load(path, weights_only=True)
        for name in ("model", "average", "muon", "adam"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.elapsed = state["step"], state["elapsed"]

    @torch.no_grad()
    def latent_statistics(self, clips: int = 24) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel of the averaged model's latents over fresh training clips."""
        seen = []
        for index in range(clips):
            video = self.mixture.batch(2**30 + index, 9, 144, 256, 1)
            seen.append(self.average.encode_folded(video).transpose(0, 2).flatten(1))
        latents = torch.cat(seen, dim=1)
        return latents.mean(1).tolist(), latents.std(1).tolist()

    def publish(self, folder: Path) -> None:
        """Save the averaged model in half precision with its latent statistics, replacing `folder`."""
        mean, std = self.latent_statistics()
        model = copy.deepcopy(self.average)
        model.register_to_config(latents_mean=[round(v, 5) for v in mean], latents_std=[round(v, 5) for v in std])
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        model.half().save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)


def moved_alike(z: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
    """Turn, zoom and shift latents [T,B,C,h,w] and video [B,3,F,H,W] by the same random similarity for each clip."""
    slots, batch = z.shape[:2]
    frames, height, width = video.shape[2:]
    angle = (torch.rand(batch) - 0.5) * 0.8 + torch.pi * torch.randint(0, 2, (batch,))
    zoom = torch.exp((torch.rand(batch) - 0.5) * 0.8)
    shift = (torch.rand(batch, 2) - 0.5) * 0.3
    aspect = width / height
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    theta = torch.stack(
        [torch.stack([cos, -sin / aspect, shift[:, 0]], -1), torch.stack([sin * aspect, cos, shift[:, 1]], -1)], 1
    )
    moved = []
    for x, count in ((z.transpose(0, 1), slots), (video.transpose(1, 2), frames)):
        flat = x.flatten(0, 1)
        grid = F.affine_grid(theta.repeat_interleave(count, 0), list(flat.shape), align_corners=False)
        result = F.grid_sample(flat, grid, padding_mode="reflection", align_corners=False)
        moved.append(result.view(batch, count, *result.shape[1:]).transpose(0, 1))
    return moved[0], moved[1].permute(1, 2, 0, 3, 4)


def train_autoencoder(
    config: AutoencoderTraining,
    out: Path,
    pictures: Sequence[Picture],
    held_out: Sequence[Picture] = (),
    resume: bool = False,
    report: Progress = lambda _: None,
) -> Path:
    """Run the recipe; returns the folder of the published model (`out/model`).

    Writes into `out`: checkpoint.pt, curve.csv, curve.png, recipe.json and, with held-out pictures, held_out.csv and
    sheet.png; all are refreshed every `checkpoint_minutes`. `resume` goes on from out/checkpoint.pt.
    """
    out.mkdir(parents=True, exist_ok=True)
    trainer = AutoencoderTrainer(config, pictures)
    checkpoint, curve = out / "checkpoint.pt", out / "curve.csv"
    if resume:
        trainer.load(checkpoint)
    else:
        curve.unlink(missing_ok=True)
        (out / "held_out.csv").unlink(missing_ok=True)
    (out / "recipe.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    clips = held_out_clips(held_out)
    names = [picture.name for picture in held_out]
    rows: list[dict[str, float]] = []
    saved_at = trainer.elapsed
    while trainer.progress < 1:
        rows.append(trainer.train_step())
        report(rows[-1])
        if trainer.progress >= 1 or trainer.elapsed - saved_at > 60 * config.checkpoint_minutes:
            started = time.perf_counter()
            trainer.save(checkpoint)
            append_rows(curve, rows)
            draw_curve(curve, out / "curve.png", "autoencoder")
            rows.clear()
            trainer.publish(out / "model")
            if clips:
                scores, results = reconstruct(trainer.average, clips, names, trainer.distance)
                write_sheet(out / "sheet.png", clips, results)
                position = {"step": trainer.step, "elapsed_s": trainer.elapsed}
                append_rows(out / "held_out.csv", [position | mean_scores(scores)])
            trainer.elapsed += time.perf_counter() - started
            saved_at = trainer.elapsed
    return out / "model"
