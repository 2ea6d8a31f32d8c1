"""Training shots for adaptive tuning: a clip with known motion, anchors taken from it, and the previz they lead to.

A shot depends on (seed, index) alone, and on the store if one is given. What is kept is one window of it, as a segment
sees it: the first slot stands for one frame. The previz is the product's own, with its true errors (eased speed, unseen
borders, parallax, seams).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from dreamontage.generator.models.vocabulary import spoken_camera
from dreamontage.generator.previz import Previz, PrevizAnchor, PrevizBeat
from dreamontage.generator.timeline import STRIDE, frames_of_slots, slot_count, snap_frame
from dreamontage.generator.training.data.batches import ClipMixture, recoloured
from dreamontage.generator.training.data.camera import Shot, camera_clip, camera_of, layered_clip, world_clip
from dreamontage.generator.training.data.notes import ClipBeat, ClipNote
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.data.store import ClipRow, ClipStore
from dreamontage.generator.training.data.subjects import subject_clip
from dreamontage.generator.training.data.timing import beat_of, boundaries
from dreamontage.generator.training.data.transitions import LEAST_FRAMES, transition_clip
from dreamontage.schemas.montage import Camera

FPS = 24
OVERLAP = 3
"""Slots of a tail."""
SLOTS = (5, 6, 7, 8, 9, 9, 9, 10, 11, 12, 14, 16)
KINDS, KIND_SHARES = ("camera", "world", "layers"), (0.61, 0.1, 0.29)
"""What a camera does with pictures."""
TRANSITIONS, SUBJECTS, STORED = 0.14, 0.08, 0.25
"""Shares of two-picture transitions (where long enough) and motion subjects among drawn clips, and of stored clips."""
TELLINGS, TELLING_SHARES = ("typed", "spoken", "words", "silent"), (0.45, 0.12, 0.18, 0.25)
"""How much the beats of a shot say: all, all in words, what happens but no camera, nothing."""
SMALL_SIZES = ((160, 96), (160, 96), (128, 128), (96, 160))
PIXELS = ("truth", "previz", "confidence")
LARGE_SIZES = ((256, 144), (256, 144), (192, 192), (144, 256))


@dataclass(frozen=True)
class ShotAnchor:
    """A still (slots = 1) or clip taken from the truth, at its window-relative slot; strength 1 pins."""

    slot: int
    slots: int
    strength: float = 1.0


@dataclass(frozen=True)
class ShotBeat:
    """Words and a typed move that hold from `start` to `stop`, in slots of the window (fractions allowed)."""

    start: float
    stop: float
    prompt: str = ""
    camera: Camera | None = None


@dataclass(frozen=True)
class TrainingShot:
    """One window: truth and previz [1+4(n-1),H,W,3], the previz's confidence as 0..255 [1+4(n-1),H,W], what conditions
    it and what is said of it.

    `tail`: slots at its start that are handed over by a segment before (0 or OVERLAP).
    """

    truth: Pixels
    previz: Pixels
    confidence: Pixels
    anchors: tuple[ShotAnchor, ...]
    tail: int
    kind: str
    beats: tuple[ShotBeat, ...] = ()

    @property
    def slots(self) -> int:
        """Latent slots of the window."""
        return slot_count(len(self.truth))


def draw_clip(
    rng: np.random.Generator, mixture: ClipMixture, index: int, frames: int, width: int, height: int
) -> tuple[Pixels, Shot]:
    """A recoloured clip of what a camera does: over a picture, from one to another, or before layers."""
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


def draw_noted(
    rng: np.random.Generator, mixture: ClipMixture, index: int, frames: int, width: int, height: int
) -> tuple[Pixels, str, tuple[ClipBeat, ...]]:
    """A clip of any kind with its kind and its timed words."""
    share = rng.random()
    if share < TRANSITIONS and frames >= LEAST_FRAMES:
        first, second = (mixture.picture(rng, index) for _ in range(2))
        clip, beats = transition_clip(rng, first, second, frames, height, width)
        return recoloured(rng, clip), "transition", beats
    if TRANSITIONS <= share < TRANSITIONS + SUBJECTS:
        clip, beats, _ = subject_clip(rng, mixture, index, frames, height, width)
        return recoloured(rng, clip), "subject", beats
    clip, shot = draw_clip(rng, mixture, index, frames, width, height)
    camera = camera_of(shot, width, height)
    return clip, shot.kind, (beat_of(0, frames - 1, "", **camera.model_dump()),)


def draw_anchors(rng: np.random.Generator, slots: int, marks: Sequence[int] = ()) -> list[ShotAnchor]:
    """Anchors on a shot of `slots` slots: ends mostly pinned, some in the middle, sometimes a clip or a weak one.

    `marks`: slots at which a motion or a word begins or ends; stills are there and at random places (paper A3.3).
    """
    places: set[int] = set()
    if rng.random() < 0.9:
        places.add(0)
    if rng.random() < 0.85:
        places.add(slots - 1)
    inner = int(rng.choice(4, p=[0.55, 0.3, 0.1, 0.05] if marks else [0.3, 0.42, 0.2, 0.08]))
    places.update(mark for mark in marks if rng.random() < 0.6)
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


def told(rng: np.random.Generator, beats: Sequence[ClipBeat]) -> list[ClipBeat]:
    """What a user might say of a clip: typed moves, the same in words, only what happens, or nothing."""
    telling = str(rng.choice(TELLINGS, p=TELLING_SHARES))
    if telling == "silent":
        return []
    said = []
    for beat in beats:
        camera, prompt = beat.camera, beat.prompt
        if telling != "typed" and camera is not None:
            move = f"{camera.move.replace('_', ' ')} {camera.direction or ''}".strip()
            prompt, camera = f"{move} {prompt}" if telling == "spoken" else prompt, None
        if camera is not None or prompt:
            said.append(beat.model_copy(update={"camera": camera, "prompt": prompt.strip()}))
    return said


def _window_sizes(rng: np.random.Generator, slots: int, most: int) -> tuple[int, int]:
    """Slots of a window and of what came before it, together at most `most`; `slots` 0: drawn from SLOTS."""
    window = min(slots or int(rng.choice(SLOTS)), most)
    before = int(rng.integers(OVERLAP, 7)) if rng.random() < 0.3 else 0
    return window, min(before, most - window) if most - window >= OVERLAP else 0


def draw_shot(
    seed: int,
    index: int,
    mixture: ClipMixture,
    size: tuple[int, int],
    slots: int = 0,
    stored: tuple[ClipStore, Sequence[ClipRow]] | None = None,
    strangers: float = 0.0,
) -> TrainingShot:
    """Shot number `index` at `size` (width, height); `slots` of the window, 0: drawn from 5..16.

    `stored`: a store and its rows; a part of the shots are windows of its clips. `strangers`: see `draw_shots`.
    """
    rng = np.random.default_rng([seed, index, 2])
    if np.random.default_rng([seed, index, 6]).random() < strangers:
        return draw_strangers(rng, mixture, index, size, slots)
    if stored is not None and stored[1] and np.random.default_rng([seed, index, 4]).random() < STORED:
        store, rows = stored
        row = rows[int(rng.integers(len(rows)))]
        return shot_of_clip(store.load(row), row.note, rng, size, slots)
    window, before = _window_sizes(rng, slots, 99)
    clip, kind, beats = draw_noted(rng, mixture, index, frames_of_slots(before + window), *size)
    return _shot(rng, clip, kind, beats, boundaries(beats), before)


def draw_strangers(
    rng: np.random.Generator, mixture: ClipMixture, index: int, size: tuple[int, int], slots: int = 0
) -> TrainingShot:
    """A window of a way between two or three scenes that have nothing in common, at `size` (width, height).

    Nobody knows what lies between them: the previz is what a repaint is compared with.
    """
    window, before = _window_sizes(rng, slots, 99)
    total = before + window
    borders = [0, *sorted(rng.choice(np.arange(2, total - 1), 1 + int(total > 9 and rng.random() < 0.4), False)), total]
    scenes: list[Pixels] = []
    anchors: list[ShotAnchor] = []
    beats: list[ClipBeat] = []
    for start, stop in pairwise(map(int, borders)):
        clip, moves = draw_clip(rng, mixture, index, STRIDE * (stop - start), *size)
        scenes.append(clip)
        first = 0 if start == 0 else int(rng.integers(start, stop)) if stop < total else stop - 1
        length = min(stop - first, int(rng.integers(2, 5))) if rng.random() < 0.4 else 1
        anchors.append(ShotAnchor(first, length))
        camera = camera_of(moves, *size).model_dump()
        beats.append(beat_of(STRIDE * start, STRIDE * stop - 1, "", **camera))
    frames = np.concatenate(scenes)[: frames_of_slots(total)]
    guided = _guided(rng, frames, anchors, "strangers", beats, before)
    return replace(guided, truth=guided.previz)


def shot_of_clip(
    frames: Pixels, note: ClipNote, rng: np.random.Generator, size: tuple[int, int], slots: int = 0
) -> TrainingShot:
    """A window of a noted clip [F,H,W,3] of at least 17 frames, at `size` (width, height; the rest is cut off).

    Most windows hold a boundary of the note, if it has one inside; image conditions are drawn there (paper A3.3).
    """
    window, before = _window_sizes(rng, slots, slot_count(len(frames)))
    count = frames_of_slots(before + window)
    last = len(frames) - count
    start = int(rng.integers(last + 1))
    inner = [round(second * note.fps) for second in note.boundaries_s]
    inner = [frame for frame in inner if 0 < frame < len(frames) - 1]
    if inner and rng.random() < 0.7:
        mark = inner[int(rng.integers(len(inner)))]
        start = min(max(0, mark - STRIDE * int(rng.integers(1, before + window))), last)
    shift, end = start / note.fps, (count - 1) / note.fps
    beats = [
        beat.model_copy(update={"start_s": max(0.0, beat.start_s - shift), "stop_s": min(end, beat.stop_s - shift)})
        for beat in note.beats
        if min(end, beat.stop_s - shift) - max(0.0, beat.start_s - shift) >= 1 / note.fps
    ]
    marks = [second - shift for second in note.boundaries_s if 0 < second - shift < end]
    clip = _fitted(frames[start : start + count], size)
    return _shot(rng, clip, note.source, beats, marks, before, note.fps)


def _fitted(frames: Pixels, size: tuple[int, int]) -> Pixels:
    """Frames that fill `size` (width, height)."""
    width, height = size
    rows, columns = frames.shape[1:3]
    scale = max(width / columns, height / rows)
    wide, high = max(width, round(scale * columns)), max(height, round(scale * rows))
    left, top = (wide - width) // 2, (high - height) // 2
    whole = [cv2.resize(frame, (wide, high), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack([frame[top : top + height, left : left + width] for frame in whole]).astype(np.uint8)


def _shot(
    rng: np.random.Generator,
    clip: Pixels,
    kind: str,
    beats: Sequence[ClipBeat],
    marks_s: Sequence[float],
    before: int,
    fps: int = FPS,
) -> TrainingShot:
    """A clip's window from slot `before` on, with anchors drawn where its motions and words begin and end."""
    total = slot_count(len(clip))
    marks = {snap_frame(second, fps) // STRIDE for second in marks_s}
    anchors = draw_anchors(rng, total, [mark for mark in sorted(marks) if 0 < mark < total - 1])
    return _guided(rng, clip, anchors, kind, beats, before, fps)


def _guided(
    rng: np.random.Generator,
    clip: Pixels,
    anchors: list[ShotAnchor],
    kind: str,
    beats: Sequence[ClipBeat],
    before: int,
    fps: int = FPS,
) -> TrainingShot:
    """The window from slot `before` on, with the previz that anchors on the clip and the told beats lead to."""
    total = slot_count(len(clip))
    said = told(rng, beats)
    pinned = [
        PrevizAnchor(clip[STRIDE * a.slot : STRIDE * a.slot + frames_of_slots(a.slots)], STRIDE * a.slot, str(a.slot))
        for a in anchors
    ]
    moves = [
        PrevizBeat(round(beat.start_s * fps), round(beat.stop_s * fps), beat.camera or spoken_camera(beat.prompt))
        for beat in said
    ]
    start, height, width = STRIDE * before, *clip.shape[1:3]
    guide, sure = Previz(pinned, moves, len(clip), (width, height), fps).window(start, len(clip))
    spans = [(beat, beat.start_s * fps / STRIDE - before, beat.stop_s * fps / STRIDE - before) for beat in said]
    return TrainingShot(
        truth=clip[start:],
        previz=guide,
        confidence=(255 * sure + 0.5).astype(np.uint8),
        anchors=_in_window(anchors, before),
        tail=OVERLAP if before else 0,
        kind=kind,
        beats=tuple(
            ShotBeat(max(0.0, low), min(high, float(total - before)), beat.prompt, beat.camera)
            for beat, low, high in spans
            if high > 0
        ),
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
        "beats": [asdict(beat) | {"camera": beat.camera and beat.camera.model_dump()} for beat in shot.beats],
    }
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        pixels = {name: getattr(shot, name) for name in PIXELS}
        np.savez(file, note=np.array(json.dumps(note)), **pixels)
    temporary.rename(path)


def load_shot(path: Path) -> TrainingShot:
    """Read a shot written by `save_shot`."""
    with np.load(path) as file:
        note = json.loads(str(file["note"]))
        note["anchors"] = tuple(ShotAnchor(**anchor) for anchor in note["anchors"])
        note["beats"] = tuple(
            ShotBeat(**beat | {"camera": beat["camera"] and Camera.model_validate(beat["camera"])})
            for beat in note["beats"]
        )
        pixels = {name: file[name] for name in PIXELS}
        return TrainingShot(**pixels, **note)


def draw_shots(
    folder: Path,
    mixture: ClipMixture,
    count: int,
    large: int,
    seed: int = 0,
    report: Callable[[int], None] = lambda _: None,
    store: ClipStore | None = None,
    size: tuple[int, int] | None = None,
    strangers: float = 0.0,
) -> list[Path]:
    """Draw shots 0..count-1 into `folder`, the last `large` of them at draft size; those that exist are kept.

    With a `store` about a quarter are windows of its clips. `size` (width, height): one size for all instead.
    `strangers`: share of windows between scenes that have nothing in common.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:06d}.npz" for index in range(count)]
    stored = (store, store.rows()) if store is not None else None
    for index, path in enumerate(paths):
        sizes = (size,) if size else LARGE_SIZES if index >= count - large else SMALL_SIZES
        if not path.exists():
            save_shot(draw_shot(seed, index, mixture, sizes[index % len(sizes)], 0, stored, strangers), path)
        report(index + 1)
    return paths
