"""Scripted camera ways through a row of rooms, as poses [x, y, z, yaw, pitch] in metres and radians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.camera import eased, random_ease
from dreamontage.generator.training.data.notes import ClipBeat
from dreamontage.schemas.montage import Camera

Poses = NDArray[np.float64]
MOVES = ("dolly_in", "dolly_out", "track", "crane", "pan", "tilt", "orbit", "push_through", "hold")
SHARES = (0.2, 0.08, 0.18, 0.06, 0.16, 0.06, 0.1, 0.14, 0.02)
TWO_LEGS_FROM = 49
"""Frames below which a clip holds a single move."""


@dataclass(frozen=True)
class Shape:
    """Rooms (min_x, max_x, min_z, max_z), middle [x, z] of the door after each room but the last, and the lens."""

    rooms: Sequence[Any]
    doors: Sequence[NDArray[np.float64]]
    fov_y_deg: float
    aspect: float

    @property
    def fov_x(self) -> float:
        """Horizontal field of view in radians."""
        return float(2 * np.arctan(self.aspect * np.tan(np.radians(self.fov_y_deg) / 2)))


@dataclass(frozen=True)
class Leg:
    """One move: metres or radians by kind, over frames [start, stop]."""

    move: str
    direction: str
    reach: float
    ease: str
    start: int
    stop: int


def forward(yaw: float) -> NDArray[np.float64]:
    """Unit heading [x, y, z]; yaw grows to the left."""
    return np.array([np.cos(yaw), 0.0, -np.sin(yaw)])


def rightward(yaw: float) -> NDArray[np.float64]:
    """Unit vector [x, y, z] to the right of a heading."""
    return np.array([np.sin(yaw), 0.0, np.cos(yaw)])


def draw_way(rng: np.random.Generator, shape: Shape, count: int) -> tuple[Poses, list[Leg]]:
    """A random way of one or two moves: poses [count, 5]. It may run into things; the caller checks."""
    room = shape.rooms[int(rng.integers(len(shape.rooms)))]
    move = str(rng.choice(MOVES, p=SHARES))
    if move == "push_through":
        start, leg = _through(rng, shape, count)
        return _run(start, leg, shape), [leg]
    place = [rng.uniform(room.min_x + 0.7, room.max_x - 0.7), rng.uniform(1.0, 1.9),
             rng.uniform(room.min_z + 0.7, room.max_z - 0.7)]  # fmt: skip
    to_middle = np.arctan2(-(room.mid_z - place[2]), room.mid_x - place[0])
    start = np.array([*place, to_middle + rng.normal(0, 0.7), rng.normal(-0.03, 0.05)])
    if count < TWO_LEGS_FROM or rng.random() < 0.5:
        leg = _leg(rng, move, 0, count - 1, random_ease(rng))
        return _run(start, leg, shape), [leg]
    turn = int(rng.integers(count // 3, 2 * count // 3))
    first = _leg(rng, move, 0, turn, "in_out")
    second = _leg(rng, str(rng.choice(["dolly_in", "track", "pan", "orbit"])), turn, count - 1, "in_out")
    head = _run(start, first, shape)
    return np.concatenate([head, _run(head[-1], second, shape)[1:]]), [first, second]


def _through(rng: np.random.Generator, shape: Shape, count: int) -> tuple[NDArray[np.float64], Leg]:
    """From inside one room straight through the middle of its door."""
    door = shape.doors[int(rng.integers(len(shape.doors)))]
    yaw = float(rng.choice([0.0, np.pi])) + rng.normal(0, 0.12)
    before = rng.uniform(1.8, 3.2)
    heading = forward(yaw)
    start = np.array([door[0], rng.uniform(1.2, 1.7), door[1]]) - heading * before
    pace = min(1.0, count / 49)
    leg = Leg("push_through", "in", before * pace + rng.uniform(0.8, 1.8), random_ease(rng), 0, count - 1)
    return np.array([*start, yaw, 0.0]), leg


def _leg(rng: np.random.Generator, move: str, start: int, stop: int, ease: str) -> Leg:
    """A move of a size that its frames allow: a brisk walk, or a third of a turn in two seconds."""
    seconds, side = (stop - start) / 24, int(rng.integers(2))
    match move:
        case "dolly_in" | "dolly_out":
            return Leg("dolly", move[6:], rng.uniform(0.7, 1.9) * seconds, ease, start, stop)
        case "track":
            return Leg("dolly", ("left", "right")[side], rng.uniform(0.7, 1.8) * seconds, ease, start, stop)
        case "crane":
            return Leg("dolly", ("up", "down")[side], rng.uniform(0.35, 0.6) * seconds, ease, start, stop)
        case "pan":
            return Leg("pan", ("left", "right")[side], np.radians(rng.uniform(16, 55)) * seconds, ease, start, stop)
        case "tilt":
            return Leg("tilt", ("up", "down")[side], np.radians(rng.uniform(9, 16)) * seconds, ease, start, stop)
        case "orbit":
            return Leg("orbit", ("left", "right")[side], np.radians(rng.uniform(16, 40)) * seconds, ease, start, stop)
        case _:
            return Leg("hold", "", 0.0, ease, start, stop)


def _run(start: NDArray[np.float64], leg: Leg, shape: Shape) -> Poses:
    """Poses of one leg, its first frame `start`."""
    along = leg.reach * eased(leg.ease, leg.stop - leg.start + 1)[:, None]
    sign = -1.0 if leg.direction in ("left", "down", "out") else 1.0
    yaw, poses = float(start[3]), np.repeat(start[None], len(along), axis=0)
    match leg.move, leg.direction:
        case ("dolly", "left" | "right"):
            poses[:, :3] += sign * along * rightward(yaw)
        case ("dolly", "up" | "down"):
            poses[:, 1:2] += sign * along
        case ("dolly" | "push_through", _):
            poses[:, :3] += sign * along * forward(yaw)
        case ("pan", _):
            poses[:, 3:4] -= sign * along
        case ("tilt", _):
            poses[:, 4:5] += sign * along
        case ("orbit", _):
            radius = 2.2
            middle = start[:3] + radius * forward(yaw)
            yaws = yaw + sign * along[:, 0]
            poses[:, :3] = middle - radius * np.stack([forward(y) for y in yaws])
            poses[:, 3] = yaws
    return poses


def leg_beats(legs: Sequence[Leg], shape: Shape, ahead_m: float, fps: int) -> list[ClipBeat]:
    """Typed moves in a montage's units, seen against things `ahead_m` metres away, and words for each."""
    return [
        ClipBeat(
            start_s=leg.start / fps, stop_s=leg.stop / fps, prompt=_words(leg, fps), camera=_camera(leg, shape, ahead_m)
        )
        for leg in legs
    ]


def _camera(leg: Leg, shape: Shape, ahead_m: float) -> Camera:
    view_m = 2 * ahead_m * np.tan(shape.fov_x / 2)
    near = max(0.25, 1 - leg.reach / ahead_m)
    match leg.move, leg.direction:
        case ("hold", _):
            return Camera(move="hold", direction=None, amount=None, ease="linear")
        case ("pan", _):
            amount = leg.reach / shape.fov_x
        case ("tilt", _):
            amount = leg.reach / np.radians(shape.fov_y_deg)
        case ("orbit", _):
            amount = np.degrees(leg.reach)
        case ("push_through", _):
            amount = 1 / near
        case ("dolly", "in"):
            amount = -np.log(near)
        case ("dolly", "out"):
            amount = np.log(1 + leg.reach / ahead_m)
        case _:
            amount = leg.reach / view_m
    amount = round(max(0.02, float(amount)), 3)
    return Camera.model_validate({"move": leg.move, "direction": leg.direction, "amount": amount, "ease": leg.ease})


def _words(leg: Leg, fps: int) -> str:
    seconds = (leg.stop - leg.start) / fps
    brisk = {"pan": 0.55, "orbit": 0.4, "tilt": 0.16}.get(leg.move, 1.0)
    pace = "fast" if leg.reach / seconds > brisk else "slow"
    match leg.move:
        case "hold":
            return "the camera holds still in a room"
        case "push_through":
            return f"{pace} push through the door into the next room"
        case _:
            return f"{pace} {leg.move} {leg.direction} in a room with pictures on the wall"
