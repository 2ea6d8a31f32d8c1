"""Groups of generations: the same first and last frame and words, several seeds, by the model itself in plain mode.

Cuts exist in plain mode (guide off), so that the cut discriminator and the preference pairs are made there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamontage.generator.conditioning import Assembled, StillCondition, assemble
from dreamontage.generator.conditioning.encoding import encode_video, pixels_to_tensor
from dreamontage.generator.decoding import StreamingDecoder, to_pixels
from dreamontage.generator.models.vocabulary import TimedWord, timed_words
from dreamontage.generator.sampling import Sampling, sample
from dreamontage.generator.timeline import STRIDE, frames_of_slots
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.camera import camera_clip, camera_of, view_of
from dreamontage.generator.training.data.notes import ClipBeat
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.data.subjects import SubjectTruth, subject_clip
from dreamontage.generator.training.trainer import Models

SceneKind = Literal["unrelated", "camera", "subject"]
FPS = 24
STEPS = 10
"""Denoising steps of a generation in plain mode."""


@dataclass(frozen=True)
class Scene:
    """What a shot must lead from and to: frames [H,W,3]; `truth` [F,H,W,3] where a clip is known in between."""

    seed: int
    kind: SceneKind
    first: Pixels
    last: Pixels
    slots: int
    words: tuple[TimedWord, ...] = ()
    truth: Pixels | None = None
    subject: SubjectTruth | None = None


def draw_scene(kind: SceneKind, seed: int, mixture: ClipMixture, size: tuple[int, int], slots: int) -> Scene:
    """The scene of a kind and seed at `size` (width, height): two pictures, or the ends of a clip of known motion."""
    rng = np.random.default_rng([seed, 0x6C, len(kind)])
    width, height = size
    frames = frames_of_slots(slots)
    if kind == "unrelated":
        first, last = (view_of(rng, mixture.picture(rng, seed), height, width) for _ in range(2))
        return Scene(seed, kind, first, last, slots)
    if kind == "camera":
        clip, shot = camera_clip(rng, mixture.picture(rng, seed), frames, height, width)
        words = timed_words("", camera_of(shot, width, height), 0, slots)
        return Scene(seed, kind, clip[0], clip[-1], slots, tuple(words), clip)
    clip, beats, subject = subject_clip(rng, mixture, seed, frames, height, width)
    return Scene(seed, kind, clip[0], clip[-1], slots, words_of(beats, FPS), clip, subject)


def words_of(beats: Sequence[ClipBeat], fps: int) -> tuple[TimedWord, ...]:
    """What a clip's beats say, in slots."""
    per_slot = fps / STRIDE
    return tuple(
        word
        for beat in beats
        for word in timed_words(beat.prompt, beat.camera, beat.start_s * per_slot, beat.stop_s * per_slot)
    )


@torch.no_grad()
def ends_of(vae: Any, scene: Scene) -> Tensor:
    """Both ends as image-mode latents [2,16,1,h,w], each encoded by itself."""
    both = (scene.first, scene.last)
    return torch.stack([encode_video(vae, pixels_to_tensor(end[None], vae.device)) for end in both])


def first_last(ends: Tensor, slots: int, empty: Tensor | None = None) -> Assembled:
    """The window of a first–last shot from its ends [2,16,1,h,w]; `empty` [16,n,h,w] is in between (None: zeros)."""
    conditions = [StillCondition(0, ends[0]), StillCondition(slots - 1, ends[1])]
    between = None if empty is None else empty.to(ends.device)
    return assemble(conditions, slots, *ends.shape[-2:], empty=between, device=ends.device)


def denoiser(models: Models) -> SimpleNamespace:
    """What `sample` takes for a model."""
    scheduler = FlowMatchEulerDiscreteScheduler()  # type: ignore[no-untyped-call]
    return SimpleNamespace(**models._asdict(), scheduler=scheduler)


@dataclass(frozen=True)
class PlainMode:
    """How a model is sampled in plain mode: steps, its time shift, and its empty condition [16,n,h,w] (None: zeros)."""

    steps: int = STEPS
    shift: float = 1.0
    empty: Tensor | None = None


NANO_MODE = PlainMode()


def generate(
    models: Models, ends: Tensor, slots: int, words: Sequence[TimedWord], seed: int, mode: PlainMode = NANO_MODE
) -> Tensor:
    """One generation in plain mode: latents [16,n,h,w], the first slot verbatim."""
    generator = torch.Generator().manual_seed(seed)
    window, sampling = first_last(ends, slots, mode.empty), Sampling(mode.steps, shift=mode.shift)
    return sample(denoiser(models), window, words, (), sampling, generator).latents


def decoded(vae: Any, latents: Tensor) -> Pixels:
    """Latents [16,n,h,w] as frames [F,H,W,3]."""
    return to_pixels(torch.cat(list(StreamingDecoder(vae).slots(latents.to(vae.device)))))


@dataclass(frozen=True)
class Group:
    """Generations [seeds,16,n,h,w] of one scene, whose ends [2,16,1,h,w], words and empty condition all share."""

    kind: SceneKind
    seed: int
    latents: Tensor
    ends: Tensor
    words: tuple[TimedWord, ...]
    empty: Tensor | None = None


def draw_group(models: Models, vae: Any, scene: Scene, seeds: int, mode: PlainMode = NANO_MODE) -> Group:
    """Generate one scene with as many seeds."""
    ends = ends_of(vae, scene)
    drawn = [generate(models, ends, scene.slots, scene.words, 1000 * scene.seed + n, mode) for n in range(seeds)]
    return Group(scene.kind, scene.seed, torch.stack(drawn), ends, scene.words, mode.empty)


def save_group(group: Group, path: Path) -> None:
    """Write a group in half precision; the name appears only when the file is whole."""
    words = [[w.word, w.start, w.end, w.amount] for w in group.words]
    note = json.dumps({"kind": group.kind, "seed": group.seed, "words": words})
    halves = in_halves(latents=group.latents, ends=group.ends, empty=group.empty)
    temporary = path.with_suffix(".tmp")
    save_file(halves, temporary, metadata={"note": note})
    temporary.rename(path)


def load_group(path: Path) -> Group:
    """Read what `save_group` wrote."""
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["note"])
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    return Group(note["kind"], note["seed"], words=tuple(TimedWord(*word) for word in note["words"]), **tensors)


def in_halves(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Those tensors that there are, in half precision."""
    return {name: value.half().cpu().contiguous() for name, value in tensors.items() if value is not None}


@dataclass(frozen=True)
class GroupPlan:
    """Which scenes are generated: counts by kind, seeds of each, size (width, height), slots, first scene's seed."""

    counts: tuple[tuple[SceneKind, int], ...]
    seeds: int = 4
    size: tuple[int, int] = (160, 96)
    slots: int = 9
    first_seed: int = 0
    mode: PlainMode = NANO_MODE

    def scenes(self) -> list[tuple[SceneKind, int]]:
        """Kind and seed of every scene; the kinds take turns."""
        numbered = [(n / count, kind, self.first_seed + n) for kind, count in self.counts for n in range(count)]
        return [(kind, seed) for _, kind, seed in sorted(numbered)]


def draw_groups(
    folder: Path,
    plan: GroupPlan,
    models: Models,
    vae: Any,
    mixture: ClipMixture,
    report: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Generate a plan's groups into `folder`; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, seed in plan.scenes():
        path = folder / f"{kind}-{seed:06d}.safetensors"
        if not path.exists():
            scene = draw_scene(kind, seed, mixture, plan.size, plan.slots)
            save_group(draw_group(models, vae, scene, plan.seeds, plan.mode), path)
        paths.append(path)
        report(len(paths))
    return paths
