"""One adaptive-tuning run from pictures to weights: draw shots, encode them, train, with curves and sample strips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from diffusers import FlowMatchEulerDiscreteScheduler

from dreamontage.generator.conditioning import assemble
from dreamontage.generator.decoding import StreamingDecoder, to_pixels
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.sampling import Sampling, sample
from dreamontage.generator.training.adapt import AdaptTrainer, AdaptTraining
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.running import Report, run
from dreamontage.generator.training.samples import Sample, conditions_of, encode_shot, load_sample
from dreamontage.generator.training.shots import draw_shots
from dreamontage.generator.training.trainer import TransformerTrainer

STRIPS = 4
"""Shots at the start that are kept out of training and drawn as strips on the way."""


def encode_shots(
    shots: Sequence[Path], folder: Path, vae: NanoAutoencoder, report: Callable[[int], None]
) -> list[Path]:
    """Encode drawn shots into `folder`; those that exist are kept. Use a new folder for another autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"{shot.stem}.safetensors" for shot in shots]
    for index, (shot, target) in enumerate(zip(shots, targets, strict=True)):
        if not target.exists():
            encode_shot(shot, target, vae)
        report(index + 1)
    return targets


def train_adapt(
    config: AdaptTraining,
    out: Path,
    mixture: ClipMixture,
    vae: NanoAutoencoder,
    shots: int,
    large: int,
    resume: bool = False,
    warm_start: Path | None = None,
    report: Report = lambda *_: None,
) -> Path:
    """Run the recipe; returns the folder of the tuned model (`out/model` with transformer/ and prompt_tokens/).

    Writes into `out`: shots/ and latents/ (kept for the next run), and what every run leaves (see running.run).
    `warm_start` begins at the weights of another run's checkpoint or of a model folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="no")
    vae.to(accelerator.device)
    with accelerator.main_process_first():
        drawn = draw_shots(out / "shots", mixture, shots, large, config.seed, lambda n: report("shots", n, shots, ""))
        encoded = encode_shots(drawn, out / "latents", vae, lambda n: report("latents", n, shots, ""))
    kept = [load_sample(path) for path in encoded]
    trainer = AdaptTrainer(config, kept[STRIPS:], vae.requires_grad_(False))
    if warm_start is not None:
        trainer.warm_start(warm_start)

    def strips(path: Path) -> None:
        write_strips(path, trainer, kept[:STRIPS], vae)

    return run(trainer, out, "adaptive tuning", strips, resume, report)


@torch.no_grad()
def write_strips(path: Path, trainer: TransformerTrainer, samples: Iterable[Sample], vae: NanoAutoencoder) -> None:
    """For each sample four rows of decoded frames at the same times: truth, guide, guided result, guide=off."""
    model = SimpleNamespace(
        transformer=trainer.slow_transformer,
        prompt_tokens=trainer.slow_prompt_tokens,
        scheduler=FlowMatchEulerDiscreteScheduler(),  # type: ignore[no-untyped-call]
    )
    rows = []
    for number, one in enumerate(samples):
        guide = one.guide.float().to(trainer.device)
        results = [one.truth.float().to(trainer.device), guide]
        for guided, sampling in ((True, Sampling(3, t0=0.5)), (False, Sampling(10))):
            window = assemble(conditions_of(one, guided), *one.shape, device=trainer.device)
            generator = torch.Generator().manual_seed(number)
            results.append(sample(model, window, one.words, (), sampling, generator, guide).latents)
        for latents in results:
            frames = to_pixels(torch.cat(list(StreamingDecoder(vae).slots(latents))))
            picks = np.linspace(0, len(frames) - 1, 8).round().astype(int)
            rows.append(np.concatenate([_small(frames[i]) for i in picks], axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def _small(frame: Pixels) -> Pixels:
    return np.asarray(cv2.resize(frame, (160, 96), interpolation=cv2.INTER_AREA), np.uint8)
