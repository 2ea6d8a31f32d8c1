"""Motion subjects: things whose true dynamics are known, before a picture. What a rational motion is can be scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.actors import Actor, Kind, Pose, draw_actor
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.camera import view_of
from dreamontage.generator.training.data.notes import ClipBeat, ClipNote
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.data.timing import beat_of, boundaries

Dynamics = Literal["bounce", "roll", "jump", "rotate", "throw", "walk"]
Positions = NDArray[np.float64]
Played = tuple[list[Pose], list[int]]
"""A pose a frame, and the frames of its events."""
CAST: dict[Dynamics, tuple[Kind, ...]] = {
    "bounce": ("ball", "cut_out"),
    "roll": ("ball",),
    "jump": ("figure", "box"),
    "rotate": ("box",),
    "throw": ("ball", "cut_out"),
    "walk": ("figure",),
}
"""Who moves how."""
WORDS: dict[Dynamics, str] = {
    "bounce": "fall, jump and rise again",
    "roll": "run along and spin, slow to the end",
    "jump": "jump",
    "rotate": "turn steady",
    "throw": "fly, spin and fall",
    "walk": "walk",
}


@dataclass(frozen=True)
class SubjectTruth:
    """What is known of a subject in every frame.

    `centres` [F,2] in pixels (x, y), `angles` [F] in radians, `packed` masks [F,H,ceil(W/8)] (numpy.packbits),
    `frames` [F,H,W,3] as they are and `background` [H,W,3] without it; `events`: frames at which it meets the ground or
    leaves it.
    """

    dynamics: Dynamics
    centres: Positions
    angles: Positions
    packed: NDArray[np.uint8]
    frames: Pixels
    background: Pixels
    events: tuple[int, ...] = ()

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Where the subject is [F,H,W]."""
        return np.unpackbits(self.packed, axis=-1, count=self.background.shape[1]).astype(bool)


def _bounce(rng: np.random.Generator, frames: int, width: int, height: int, radius: float) -> Played:
    """Falls under gravity, comes back with a part of its speed; spins as it goes."""
    ground, gravity = height - radius * 1.05, rng.uniform(0.006, 0.016) * height
    keep, sign = rng.uniform(0.7, 0.92), rng.choice([-1, 1])
    x0, reach = (0.15, 0.7) if sign > 0 else (0.85, -0.7)
    speed = reach * rng.uniform(0.5, 1) * width / (frames - 1)
    start = radius + rng.uniform(0, 0.2) * height
    poses, hits = list[Pose](), list[int]()
    landed, lift, height0 = 0.0, 0.0, start  # since `landed`: y = height0 + lift t + gravity t²/2
    for frame in range(frames):
        time = frame - landed
        y = height0 + lift * time + gravity * time * time / 2
        while y > ground:
            fall = np.sqrt(lift * lift + 2 * gravity * max(0.0, ground - height0))
            landed += (fall - lift) / gravity
            height0, lift = ground, -keep * fall
            hits.append(round(landed))
            time = frame - landed
            y = min(ground, height0 + lift * time + gravity * time * time / 2) if fall > 0.3 else ground
            if fall <= 0.3:
                break
        x = x0 * width + speed * frame
        poses.append(Pose(x, y, speed * frame / radius))
    return poses, hits


def _roll(rng: np.random.Generator, frames: int, width: int, height: int, radius: float) -> Played:
    """Rolls along the ground without slipping, slowed by friction."""
    sign, slow = rng.choice([-1, 1]), rng.uniform(0, 0.95)
    reach, t = rng.uniform(0.45, 0.75) * width, np.linspace(0, 1, frames)
    way = reach * (t - slow * t * t / 2) / (1 - slow / 2)
    start = 0.12 * width if sign > 0 else 0.88 * width
    y = height - radius * 1.05 - rng.uniform(0, 0.2) * height
    return [Pose(start + sign * s, y, sign * s / radius) for s in way], []


def _jump(rng: np.random.Generator, frames: int, width: int, height: int, radius: float) -> Played:
    """Crouches, leaves the ground on a parabola, lands and gives way."""
    ground = height - radius * 1.1
    off, land = int(frames * rng.uniform(0.15, 0.3)), int(frames * rng.uniform(0.68, 0.85))
    peak = min(rng.uniform(0.25, 0.5) * height, ground - radius)
    sign = rng.choice([-1, 1])
    reach = rng.uniform(0.2, 0.6) * width
    poses = []
    for frame in range(frames):
        air = np.clip((frame - off) / (land - off), 0, 1)
        before = np.sin(np.pi * np.clip(frame / off, 0, 1)) if frame < off else 0.0
        after = np.sin(np.pi * np.clip((frame - land) / max(1, frames - 1 - land), 0, 1)) if frame > land else 0.0
        y = ground - 4 * peak * air * (1 - air)
        crouch = float(max(before, after, 0.4 * np.sin(np.pi * air)))
        poses.append(Pose(width / 2 + sign * reach * (air - 0.5), y, 0.0, 0.0, crouch))
    return poses, [off, land]


def _rotate(rng: np.random.Generator, frames: int, width: int, height: int, radius: float) -> Played:
    """Turns about its vertical axis at a constant speed, drifting a little."""
    turn = rng.choice([-1, 1]) * np.radians(rng.uniform(80, 260))
    start = np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.4, 0.6) * height])
    drift, phase = rng.normal(0, 0.08, 2) * [width, height], rng.uniform(0, np.pi)
    spots = start + np.linspace(-0.5, 0.5, frames)[:, None] * drift
    return [Pose(float(x), float(y), phase + turn * i / (frames - 1)) for i, (x, y) in enumerate(spots)], []


def _throw(rng: np.random.Generator, frames: int, width: int, height: int, radius: float) -> Played:
    """Flies on a parabola and tumbles."""
    t, sign = np.linspace(0, 1, frames), rng.choice([-1, 1])
    xs = width / 2 + sign * rng.uniform(0.5, 0.75) * width * (t - 0.5)
    low, peak = rng.uniform(0.65, 0.8) * height, rng.uniform(0.3, 0.5) * height
    ys = low - 4 * peak * t * (1 - t)
    spin = sign * rng.uniform(1, 7)
    return [Pose(float(x), float(y), float(spin * s)) for x, y, s in zip(xs, ys, t, strict=True)], []


def _walk(rng: np.random.Generator, frames: int, width: int, height: int, radius: float) -> Played:
    """Walks along, a step every half turn of the phase; the hips rise and fall with it."""
    stride = rng.uniform(1.0, 1.5) * radius
    reach = rng.uniform(0.4, 0.7) * width
    xs = 0.5 * width + np.linspace(-0.5, 0.5, frames) * reach
    y = height - radius * 1.15
    phases = xs / stride * np.pi + rng.uniform(0, np.pi)
    return [
        Pose(float(x), float(y - 0.04 * radius * abs(np.cos(phase))), 0.0, float(phase))
        for x, phase in zip(xs, phases, strict=True)
    ], []


MOTIONS = {"bounce": _bounce, "roll": _roll, "jump": _jump, "rotate": _rotate, "throw": _throw, "walk": _walk}


def _beats(dynamics: Dynamics, actor: Actor, events: list[int], frames: int) -> tuple[ClipBeat, ...]:
    """One to three timed intervals: between the events, or the whole."""
    who = "person" if actor.kind == "figure" else ""
    inner = [event for event in events if 2 < event < frames - 3][:2]
    if dynamics == "bounce" and inner:
        said = ["fall", "jump and rise", "jump and fall"]
    elif dynamics == "jump":
        said = ["still", "jump and fly", "still"]
    else:
        inner, said = [], [WORDS[dynamics]]
    marks = [0, *inner, frames - 1]
    pieces = zip(marks[:-1], marks[1:], said, strict=False)
    return tuple(beat_of(start, stop, f"{who} {words}".strip()) for start, stop, words in pieces)


def subject_clip(
    rng: np.random.Generator, mixture: ClipMixture, step: int, frames: int, height: int, width: int
) -> tuple[Pixels, tuple[ClipBeat, ...], SubjectTruth]:
    """A subject before a still picture: frames [F,H,W,3], timed words, and what is true of it."""
    dynamics: Dynamics = list(CAST)[int(rng.integers(len(CAST)))]
    kinds = CAST[dynamics]
    kind = kinds[int(rng.integers(len(kinds)))]
    radius = float(rng.uniform(0.14, 0.22) * min(height, width))
    radius *= 1.7 if kind == "figure" else 1.0
    background = view_of(rng, mixture.picture(rng, step), height, width)
    actor = draw_actor(rng, kind, mixture.picture(rng, step), radius)
    poses, events = MOTIONS[dynamics](rng, frames, width, height, radius)
    mirror = rng.random() < 0.5
    painted = [actor.paint(background, pose) for pose in poses]
    clip, masks = np.stack([frame for frame, _ in painted]), np.stack([mask > 0.5 for _, mask in painted])
    centres, angles = np.array([(pose.x, pose.y) for pose in poses]), np.array([pose.angle for pose in poses])
    if mirror:
        clip, masks, background = clip[:, :, ::-1], masks[..., ::-1], background[:, ::-1]
        centres, angles = centres * [-1, 1] + [width - 1, 0], -angles
    truth = SubjectTruth(dynamics, centres, angles, np.packbits(masks, axis=-1), clip, background, tuple(events))
    return clip, _beats(dynamics, actor, events, frames), truth


def clip(seed: int, mixture: ClipMixture, size: tuple[int, int]) -> tuple[Pixels, ClipNote, SubjectTruth]:
    """Subject clip number `seed` at size (width, height): 33 to 65 frames."""
    rng = np.random.default_rng([seed, 0x5B])
    width, height = size
    frames = int(rng.choice([33, 41, 49, 65]))
    made, beats, truth = subject_clip(rng, mixture, seed, frames, height, width)
    note = ClipNote(
        source="subjects", licence="own work", seed=seed, category="subject", frames=frames, width=width,
        height=height, beats=beats, boundaries_s=boundaries(beats),
    )  # fmt: skip
    return made, note, truth
