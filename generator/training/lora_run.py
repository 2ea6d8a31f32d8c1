"""One run of LoRA on a Wan-layout base, from drawn shots to a published adapter; for adaptive tuning and for SFT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamontage.generator.conditioning import assemble
from dreamontage.generator.conditioning.encoding import denormalise, pixels_to_tensor
from dreamontage.generator.decoding import to_pixels
from dreamontage.generator.models.wan_text import phrases
from dreamontage.generator.sampling import Sampling, sample
from dreamontage.generator.training.adapt import AdaptTraining, Book
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.lora import LoraAdaptTrainer, LoraOptions, LoraTrainer, lora_models
from dreamontage.generator.training.running import Report, run
from dreamontage.generator.training.samples import (
    Sample,
    conditions_of,
    first_frames,
    load_sample,
    note_of,
    write_sample,
)
from dreamontage.generator.training.sft import CLASSES, BalancedBook, Clip, SftTraining, draw_windows
from dreamontage.generator.training.shots import draw_shots, load_shot
from dreamontage.generator.training.wan import WanFacts, grey, load_vae, posterior, read_facts

STRIPS = 2
"""Shots at the start that are kept out of training and drawn as strips on the way."""
GREY = "grey.safetensors"


def lora_recipe(recipe: AdaptTraining, facts: WanFacts) -> AdaptTraining:
    """A recipe for this base: its own time shift and, where it has two experts, no times that are not its first one's.

    A `follow` window starts below the border between the experts; there it is trained from noise, as `loose`.
    """
    modes = recipe.modes
    if facts.boundary > recipe.t0[0]:
        modes = tuple(("loose" if mode == "follow" else mode, share) for mode, share in modes)
    return replace(recipe, modes=modes, shift=facts.shift, above=facts.boundary)


@torch.no_grad()
def encode_wan_shot(source: Path, target: Path, vae: Any) -> None:
    """Encode a drawn shot once with a Wan autoencoder: the posterior of the truth, the guide, anchors in image mode."""
    shot = load_shot(source)
    mean, logvar = posterior(vae, pixels_to_tensor(shot.truth))
    guide = posterior(vae, pixels_to_tensor(shot.previz))[0]
    stills = [posterior(vae, pixels_to_tensor(first))[0] for first in first_frames(shot)]
    heads = torch.stack(stills) if stills else mean.new_zeros(0, len(mean), 1, *mean.shape[2:])
    words = [(word.word, word.start, word.end) for word in phrases(shot.beats)]
    tensors = {"truth": mean, "logvar": logvar, "guide": guide, "heads": heads}
    write_sample(target, note_of(shot) | {"words": words}, tensors)


def encode_wan_shots(
    shots: Sequence[Path], folder: Path, facts: WanFacts, device: torch.device, report: Callable[[int], None]
) -> list[Path]:
    """Encode shots into `folder`, and the grey window of each of their shapes; files that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"{shot.stem}.safetensors" for shot in shots]
    greys = load_file(folder / GREY) if (folder / GREY).exists() else {}
    vae = None
    for number, (shot, target) in enumerate(zip(shots, targets, strict=True)):
        if not target.exists():
            vae = vae or load_vae(facts, device)
            encode_wan_shot(shot, target, vae)
        shape = load_sample(target).shape
        if _named(shape) not in greys:
            vae = vae or load_vae(facts, device)
            greys[_named(shape)] = grey(vae, *shape).half().cpu().contiguous()
            save_file(greys, folder / GREY)
        report(number + 1)
    return targets


def _named(shape: tuple[int, int, int]) -> str:
    return "x".join(str(size) for size in shape)


def load_wan_samples(paths: Iterable[Path]) -> list[Sample]:
    """Samples of one folder, each with the grey window that its empty slots hold."""
    greys: dict[Path, dict[str, Tensor]] = {}
    samples = []
    for path in paths:
        known = greys.setdefault(path.parent, load_file(path.parent / GREY))
        one = load_sample(path)
        samples.append(replace(one, empty=known[_named(one.shape)].float()))
    return samples


def train_lora(
    config: AdaptTraining,
    options: LoraOptions,
    base: Path,
    out: Path,
    shots: Sequence[Path],
    adapter: Path | None = None,
    title: str = "adaptive tuning (LoRA)",
    strips: int = STRIPS,
    book: Callable[[Sequence[Sample]], Book] | None = None,
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Tune an adapter of `base` on drawn shots; returns its folder, out/model with pytorch_lora_weights.safetensors.

    Writes latents/ and what every run leaves (running.run) into `out`. `adapter`: a published one to begin at. `book`
    draws the batches; the first `strips` shots are kept out of them. Of the base only one network at a time is in
    memory: autoencoder, then text encoder, then transformer.
    Raises InvalidInput for a folder that is no Wan-layout base and for an adapter that does not fit.
    """
    facts = read_facts(base)
    accelerator = Accelerator(mixed_precision="no")
    with accelerator.main_process_first():
        encoded = encode_wan_shots(
            shots, out / "latents", facts, accelerator.device, lambda n: report("latents", n, len(shots), "")
        )
    samples = load_wan_samples(encoded)
    words = [one.words for one in samples]
    models = lora_models(facts, options, words, accelerator.device, config.seed, config.bf16, adapter)
    recipe, kept = lora_recipe(config, facts), samples[strips:]
    trainer = LoraAdaptTrainer(recipe, kept, models=models, book=book(kept) if book else None)

    def draw_strips(path: Path) -> None:
        write_wan_strips(path, trainer, samples[:strips], facts)

    return run(trainer, out, title, draw_strips, resume, report)


@torch.no_grad()
def write_wan_strips(path: Path, trainer: LoraTrainer, samples: Iterable[Sample], facts: WanFacts) -> None:
    """For each sample four rows of decoded frames at the same times: truth, guide, guided result, guide=off."""
    vae, device = load_vae(facts, trainer.device), trainer.device
    scheduler = FlowMatchEulerDiscreteScheduler()  # type: ignore[no-untyped-call]
    model = SimpleNamespace(
        transformer=trainer.slow_transformer, prompt_tokens=trainer.slow_prompt_tokens, scheduler=scheduler
    )
    rows = []
    for number, one in enumerate(samples):
        guide = one.guide.float().to(device)
        results = [one.truth.float().to(device), guide]
        for guided in (True, False):
            empty = None if one.empty is None else one.empty.to(device)
            window = assemble(conditions_of(one, guided), *one.shape, empty=empty, device=device)
            generator = torch.Generator().manual_seed(number)
            sampling = Sampling(8, shift=facts.shift)
            results.append(sample(model, window, one.words, (), sampling, generator, guide).latents)
        for latents in results:
            frames = to_pixels(vae.decode(denormalise(vae, latents)[None]).sample[0].transpose(0, 1))
            picks = np.linspace(0, len(frames) - 1, 8).round().astype(int)
            rows.append(np.concatenate([cv2.resize(frames[i], (160, 96)) for i in picks], axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def train_lora_adapt(
    config: AdaptTraining,
    options: LoraOptions,
    base: Path,
    adapter: Path | None,
    out: Path,
    mixture: ClipMixture,
    shots: int,
    large: int,
    size: tuple[int, int] | None = None,
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Adaptive tuning of an adapter, on the shots that nano's is tuned on (`train_adapt`), at `size` if it is given."""
    read_facts(base)  # refused before anything is drawn
    with Accelerator(mixed_precision="no").main_process_first():
        drawn = draw_shots(
            out / "shots", mixture, shots, large, config.seed, lambda n: report("shots", n, shots, ""), size=size
        )
    return train_lora(config, options, base, out, drawn, adapter, resume=resume, report=report)


def train_lora_sft(
    config: SftTraining,
    options: LoraOptions,
    base: Path,
    adapter: Path | None,
    out: Path,
    clip: Clip,
    sets: int,
    large: int,
    resume: bool = False,
    report: Report = lambda *_: None,
) -> Path:
    """Visual-expression SFT of an adapter, on the windows that nano's is tuned on (`train_sft`)."""
    read_facts(base)
    total = CLASSES * sets
    with Accelerator(mixed_precision="no").main_process_first():
        drawn = draw_windows(
            out / "shots", clip, sets, large, config.seed, lambda n: report("shots", n, total, "")
        )

    def book(kept: Sequence[Sample]) -> BalancedBook:
        return BalancedBook([kept[at : at + CLASSES] for at in range(0, len(kept), CLASSES)], config.tokens)

    title = "visual-expression SFT (LoRA)"
    return train_lora(config, options, base, out, drawn, adapter, title, CLASSES, book, resume, report)
