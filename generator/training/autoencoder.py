"""Train nano's autoencoder: L1 and LPIPS, equivariant bounded latents, Muon; bounded by steps or by the wall clock."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.training.course import append_rows
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.pictures import Picture
from dreamontage.generator.training.held_out import held_out_clips, mean_scores, reconstruct, write_sheet
from dreamontage.generator.training.perceptual import PerceptualDistance
from dreamontage.generator.training.running import Report, run
from dreamontage.generator.training.trainer import Recipe, Trainer


@dataclass(frozen=True)
class AutoencoderTraining(Recipe):
    """The recipe."""

    minutes: float | None = 50.0
    muon_lr: float = 1.5e-3
    muon_decay: float = 0.0
    warm_up: float = 0.01
    tail: float = 0.55
    checkpoint_minutes: float = 4.0
    widths: tuple[int, ...] = (48, 96, 160)
    encoder_blocks: tuple[int, ...] = (1, 2, 3)
    decoder_blocks: tuple[int, ...] = (2, 3, 3)
    decoder_memory: tuple[int, ...] = (1, 2, 2)
    batch_slots: int = 18
    frames: tuple[int, ...] = (9, 9, 9, 9, 9, 9, 5, 17)
    crops: tuple[tuple[int, int], ...] = ((128, 128), (96, 160), (96, 192), (160, 96))
    lpips: float = 0.15
    lpips_frames: int = 2
    latent_penalty: float = 1e-2
    """Weight of the mean square of the latents: at a tenth of it they drifted towards the bound."""
    equivariance: float = 0.3
    """Share of batches whose latents and pixels are turned, zoomed and shifted alike (EQ-VAE)."""


class AutoencoderTrainer(Trainer):
    """A run of the autoencoder on clips that the mixture draws by number."""

    config: AutoencoderTraining

    def __init__(self, config: AutoencoderTraining, pictures: Sequence[Picture]) -> None:
        torch.manual_seed(config.seed)
        layers = (config.widths, config.encoder_blocks, config.decoder_blocks, config.decoder_memory)
        super().__init__(config, {"vae": NanoAutoencoder(*layers)})
        self.model, self.average = self.networks["vae"], self.averages["vae"]
        self.distance = PerceptualDistance().to(self.device)
        self.mixture = ClipMixture(list(pictures), config.seed)

    def inner_parameters(self) -> list[Tensor]:
        """The kernels, but for the first and the last one."""
        model = self.networks["vae"]
        ends = {model.encoder.body[1].weight, model.decoder.body[-2].weight}
        return [p for p in model.parameters() if p.ndim == 4 and p not in ends]

    def batch(self) -> Tensor:
        """This step's clips [B,3,F,H,W]."""
        rng = np.random.default_rng([self.config.seed, self.draw, 1])
        frames = int(rng.choice(self.config.frames))
        height, width = self.config.crops[int(rng.integers(len(self.config.crops)))]
        size = max(1, self.config.batch_slots // ((frames - 1) // 4 + 1))
        return self.mixture.batch(self.draw, frames, height, width, size)

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """The loss of this step's batch and its parts."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.draw)
        video = self.batch().to(self.device)
        with self.computing():
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

    @torch.no_grad()
    def latent_statistics(self, clips: int = 24) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel of the averaged model's latents over fresh training clips."""
        seen = []
        for index in range(clips):
            video = self.mixture.batch(2**30 + index, 9, 144, 256, 1)
            seen.append(self.average.encode_folded(video.to(self.device)).transpose(0, 2).flatten(1))
        latents = torch.cat(seen, dim=1)
        return latents.mean(1).tolist(), latents.std(1).tolist()

    def publish(self, folder: Path) -> None:
        """Save the averaged model in half precision with its latent statistics."""
        mean, std = self.latent_statistics()
        model = copy.deepcopy(self.average)
        model.register_to_config(latents_mean=[round(v, 5) for v in mean], latents_std=[round(v, 5) for v in std])
        model.half().save_pretrained(folder)


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
    ).to(z.device)
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
    report: Report = lambda *_: None,
) -> Path:
    """Run the recipe; returns the folder of the published model (`out/model`).

    Besides what every run writes (see running.run), held-out pictures leave held_out.csv and strips.jpg in `out`.
    """
    trainer = AutoencoderTrainer(config, pictures)
    clips, names = held_out_clips(held_out), [picture.name for picture in held_out]
    if not resume:
        (out / "held_out.csv").unlink(missing_ok=True)

    def strips(path: Path) -> None:
        if clips:
            scores, results = reconstruct(trainer.average, clips, names, trainer.distance)
            write_sheet(path, clips, results)
            position = {"step": trainer.step, "elapsed_s": trainer.elapsed}
            append_rows(path.with_name("held_out.csv"), [position | mean_scores(scores)])

    return run(trainer, out, "autoencoder", strips, resume, report)
