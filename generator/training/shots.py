"""Training shots for adaptive tuning: a clip with known motion, anchors taken from it, and the previz they lead to.

A shot depends on (seed, index) alone. What is kept is one window of it, as a segment sees it: the first slot stands for
one frame. The previz is the product's own, with its true errors (eased speed, unseen borders, parallax, seams).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dreamontage.generator.previz import Previz, PrevizAnchor, PrevizBeat
from dreamontage.generator.timeline import STRIDE, frames_of_slots
from dreamontage.generator.training.data.batches import ClipMixture, recoloured
from dreamontage.generator.training.data.camera import Shot, camera_clip, layered_clip, world_clip
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.schemas.montage import Camera

FPS = 24
OVERLAP = 3
"""Slots of a tail."""
SLOTS = (5, 6, 7, 8, 9, 9, 9, 10, 11, 12, 14, 16)
KINDS, KIND_SHARES = ("camera", "world", "layers"), (0.62, 0.14, 0.24)
SMALL_SIZES = ((160, 96), (160, 96), (128, 128), (96, 160))
LARGE_SIZES = ((256, 144), (256, 144), (192, 192), (144, 256))


@dataclass(frozen=True)
class ShotAnchor:
    """A still (slots = 1) or clip taken from the truth, at its window-relative slot; strength 1 pins."""

    slot: int
    slots: int
    strength: float = 1.0


@dataclass(frozen=True)
class TrainingShot:
    """One window: truth and previz [1+4(n-1),H,W,3], the previz's confidence as 0..255 [1+4(n-1),H,W], what conditions
    it and what the camera did.

    `tail`: slots at its start that are handed over by a segment before (0 or OVERLAP). `camera` covers
    [camera_start, camera_stop) in window slots; camera_known: whether a beat says so.
    """

    truth: Pixels
    previz: Pixels
    confidence: Pixels
    anchors: tuple[ShotAnchor, ...]
    tail: int
    kind: str
    camera: Camera
    camera_start: float
    camera_stop: float
    camera_known: bool

    @property
    def slots(self) -> int:
        """Latent slots of the window."""
        return (len(self.truth) - 1) // STRIDE + 1


def camera_of(shot: Shot, width: int, height: int) -> Camera:
    """The typed move that a user would write for a shot's way."""
    if shot.move == "hold" or shot.amount < 0.01:
        return Camera(move="hold", direction=None, amount=None, ease="linear")
    amount = shot.amount
    if shot.move == "dolly":  # a dolly counts in view widths, e-fold each; the shot in zoom factors
        amount = max(0.02, float(np.log(amount)))
    if shot.move == "tilt" and shot.kind != "world":
        amount *= width / height
    return Camera.model_validate({"move": shot.move, "direction": shot.direction, "amount": amount, "ease": shot.ease})


def draw_clip(
    rng: np.random.Generator, mixture: ClipMixture, index: int, frames: int, width: int, height: int
) -> tuple[Pixels, Shot]:
    """A recoloured clip of one of the three kinds."""
    kind = str(rng.choice(KINDS, p=KIND_SHARES))
    first = mixture.picture(rng, index)
    if kind == "world":
        clip, shot = world_clip(rng, first, mixture.picture(rng, index), frames, height, width)
    elif kind == "layers":
        sprites = [mixture.picture(rng, index) for _ in range(int(rng.integers(1, 4)))]
        clip, shot = layered_clip(rng, first, sprites, frames, height, width)
    else:
        clip, shot = camera_clip(rng, first, frames, height, width)
    return recoloured(rng, clip), shot


def draw_anchors(rng: np.random.Generator, slots: int) -> list[ShotAnchor]:
    """Anchors on a shot of `slots` slots: ends mostly pinned, some in the middle, sometimes a clip or a weak one."""
    places: set[int] = set()
    if rng.random() < 0.9:
        places.add(0)
    if rng.random() < 0.85:
        places.add(slots - 1)
    inner = int(rng.choice(4, p=[0.3, 0.42, 0.2, 0.08]))
    places.update(int(slot) for slot in rng.integers(1, slots - 1, inner))
    if not places:
        places.add(0)
    anchors: list[ShotAnchor] = []
    clip_at = int(rng.choice(sorted(places))) if rng.random() < 0.3 else -1
    for slot in sorted(places):
        if anchors and slot < anchors[-1].slot + anchors[-1].slots:
            continue  # inside a clip
        room = slots - slot
        length = min(room, int(rng.integers(2, 5))) if slot == clip_at else 1
        weak = rng.random() < 0.08
        anchors.append(ShotAnchor(slot, length, round(float(rng.uniform(0.3, 0.9)), 2) if weak else 1.0))
    return anchors


def draw_shot(seed: int, index: int, mixture: ClipMixture, size: tuple[int, int], slots: int = 0) -> TrainingShot:
    """Shot number `index` at `size` (width, height); `slots` of the window, 0: drawn from 5..16."""
    rng = np.random.default_rng([seed, index, 2])
    width, height = size
    window = slots or int(rng.choice(SLOTS))
    before = int(rng.integers(OVERLAP, 7)) if rng.random() < 0.3 else 0
    total = before + window
    clip, shot = draw_clip(rng, mixture, index, frames_of_slots(total), width, height)
    anchors = draw_anchors(rng, total)
    camera, known = camera_of(shot, width, height), bool(rng.random() < 0.5)
    pinned = [
        PrevizAnchor(clip[STRIDE * a.slot : STRIDE * a.slot + frames_of_slots(a.slots)], STRIDE * a.slot, str(a.slot))
        for a in anchors
    ]
    beats = [PrevizBeat(0, len(clip), camera)] if known else []
    start = STRIDE * before
    guide, sure = Previz(pinned, beats, len(clip), size, FPS).window(start, len(clip))
    return TrainingShot(
        truth=clip[start:],
        previz=guide,
        confidence=(255 * sure + 0.5).astype(np.uint8),
        anchors=_in_window(anchors, before),
        tail=OVERLAP if before else 0,
        kind=shot.kind,
        camera=camera,
        camera_start=float(-before),
        camera_stop=float(window),
        camera_known=known,
    )


def _in_window(anchors: list[ShotAnchor], before: int) -> tuple[ShotAnchor, ...]:
    """Anchors relative to a window that starts at slot `before`; what the tail already shows is left out."""
    free = before + OVERLAP if before else 0
    kept: list[ShotAnchor] = []
    for anchor in anchors:
        stop = anchor.slot + anchor.slots
        if stop <= free or (anchor.slots > 1 and anchor.slot < free):
            continue
        kept.append(ShotAnchor(anchor.slot - before, anchor.slots, anchor.strength))
    return tuple(kept)


def save_shot(shot: TrainingShot, path: Path) -> None:
    """Write a shot as one .npz; the name appears only when the file is whole."""
    note = {
        "anchors": [asdict(anchor) for anchor in shot.anchors],
        "tail": shot.tail,
        "kind": shot.kind,
        "camera": shot.camera.model_dump(),
        "camera_start": shot.camera_start,
        "camera_stop": shot.camera_stop,
        "camera_known": shot.camera_known,
    }
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, truth=shot.truth, previz=shot.previz, confidence=shot.confidence, note=np.array(json.dumps(note)))
    temporary.rename(path)


def load_shot(path: Path) -> TrainingShot:
    """Read a shot written by `save_shot`."""
    with np.load(path) as file:
        note = json.loads(str(file["note"]))
        note["anchors"] = tuple(ShotAnchor(**anchor) for anchor in note["anchors"])
        note["camera"] = Camera.model_validate(note["camera"])
        pixels = {name: file[name] for name in ("truth", "previz", "confidence")}
        return TrainingShot(**pixels, **note)


def draw_shots(
    folder: Path,
    mixture: ClipMixture,
    count: int,
    large: int,
    seed: int = 0,
    report: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Draw shots 0..count-1 into `folder`, the last `large` of them at draft size; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:06d}.npz" for index in range(count)]
    for index, path in enumerate(paths):
        sizes = LARGE_SIZES if index >= count - large else SMALL_SIZES
        if not path.exists():
            save_shot(draw_shot(seed, index, mixture, sizes[index % len(sizes)]), path)
        report(index + 1)
    return paths
