"""Camera work: moves one after another, speed ramps, the dolly zoom; and fast things that the camera follows."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.actors import Kind, Pose, draw_actor
from dreamontage.generator.training.data.camera import (
    eased,
    perspective,
    random_ease,
    render_views,
    similarity,
    view_of,
)
from dreamontage.generator.training.data.pictures import Picture, Pixels
from dreamontage.generator.training.data.timing import Made, beat_of, smooth

Path = NDArray[np.float64]
MOVES = ("pan", "tilt", "zoom", "roll", "orbit", "whip")
MOVE_SHARES = (0.28, 0.16, 0.24, 0.12, 0.12, 0.08)
X, Y, ZOOM, ROLL, YAW = range(5)
"""Columns of a path: view widths, view widths, log zoom, radians, radians."""


def _step(rng: np.random.Generator, move: str, tall: float) -> tuple[Path, str, float]:
    """What a move adds to the path [5], its direction and its amount."""
    sign, way = float(rng.choice([-1, 1])), np.zeros(5)
    if move in ("pan", "whip"):
        amount = rng.uniform(0.3, 0.9) if move == "pan" else rng.uniform(1.0, 1.8)
        way[X] = sign * amount
        return way, "right" if sign > 0 else "left", amount
    if move == "tilt":
        amount = rng.uniform(0.3, 0.8)
        way[Y] = sign * amount * tall
        return way, "down" if sign > 0 else "up", amount
    if move == "zoom":
        reach = rng.uniform(0.3, 0.8)
        way[ZOOM] = sign * reach
        return way, "in" if sign > 0 else "out", float(np.exp(reach))
    amount = rng.uniform(12, 50) if move == "roll" else rng.uniform(12, 30)
    if move == "roll":
        way[ROLL] = sign * np.radians(amount)
        return way, "cw" if sign > 0 else "ccw", amount
    way[YAW], way[X] = -sign * np.radians(amount), 0.15 * sign
    return way, "right" if sign > 0 else "left", amount


def _seen_along(picture: Picture, path: Path, height: int, width: int) -> Pixels:
    """The picture along a path [F,5], framed so that the way fits into it where it can."""
    zooms = np.exp(-(path[:, ZOOM] - path[:, ZOOM].min()))
    room = np.array([np.ptp(path[:, X]) + 1, np.ptp(path[:, Y]) * width / height + 1])
    fits = float(min(picture.size[1] / width / room[0], picture.size[0] / height / room[1]))
    scale = max(0.35, 0.9 * fits)
    middle = np.array(picture.size[::-1]) / 2
    centre = (path[:, [X, Y]] - (path[:, [X, Y]].max(0) + path[:, [X, Y]].min(0)) / 2) * width * scale
    views = []
    for row, spot, zoom in zip(path, centre, zooms, strict=True):
        view = similarity(height, width, middle + spot, scale * zoom, row[ROLL])
        if row[YAW]:
            view = view @ perspective(height, width, row[YAW], 0.0)
            view = view / view[2, 2]
        views.append(view)
    return render_views(picture, np.stack(views), height, width)


def _calmed(path: Path, frames: float) -> Path:
    """A path [F,N] smoothed over about so many frames."""
    calm = cv2.GaussianBlur(path, (1, 0), sigmaX=1e-6, sigmaY=frames, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(calm, np.float64)


def moves_clip(rng: np.random.Generator, picture: Picture, frames: int, height: int, width: int) -> Made:
    """One to three moves, each eased, one flowing into the next."""
    count = int(rng.integers(1, 4))
    marks = np.linspace(0, frames - 1, count + 1).astype(int)
    marks[1:-1] += rng.integers(-frames // 12, frames // 12 + 1, count - 1)
    path, beats = np.zeros((frames, 5)), []
    names = [str(name) for name in rng.choice(MOVES, count, replace=False, p=MOVE_SHARES)]
    for name, low, high in zip(names, marks[:-1], marks[1:], strict=True):
        way, direction, amount = _step(rng, name, height / width)
        ease = "in_out" if count > 1 and rng.random() < 0.7 else random_ease(rng)
        path[low : high + 1] += eased(ease, high - low + 1)[:, None] * way
        path[high + 1 :] += way
        pace = amount / (high - low) * frames if name in ("pan", "tilt", "whip") else 0.6
        words = "fast" if pace > 1.2 else "slow" if pace < 0.5 else "smooth"
        beats.append(beat_of(int(low), int(high), words, move=name, direction=direction, amount=amount, ease=ease))
    path = _calmed(path, 1.5)
    return _seen_along(picture, path, height, width), tuple(beats)


def ramp_clip(rng: np.random.Generator, picture: Picture, frames: int, height: int, width: int) -> Made:
    """One long move whose speed rises suddenly and falls again."""
    name = str(rng.choice(["pan", "tilt", "zoom", "orbit", "roll"]))
    way, direction, amount = _step(rng, name, height / width)
    t = np.arange(frames) / (frames - 1)
    low, high = float(rng.uniform(0.2, 0.4)), float(rng.uniform(0.6, 0.8))
    speed = 0.25 + 2.2 * smooth((t - low + 0.06) / 0.12) * smooth((high + 0.06 - t) / 0.12)
    share = np.cumsum(speed) - speed[0]
    share /= share[-1]
    spots = [0, int(low * frames), int(high * frames), frames - 1]
    beats = []
    for start, stop, word in zip(spots[:-1], spots[1:], ("slow", "sudden fast", "slow"), strict=True):
        part = max(0.02, amount * float(share[stop] - share[start]))
        part = float(amount ** (share[stop] - share[start])) if name == "zoom" else part
        beats.append(beat_of(start, stop, word, move=name, direction=direction, amount=part, ease="linear"))
    return _seen_along(picture, share[:, None] * 1.5 * way, height, width), tuple(beats)


def dolly_zoom_clip(
    rng: np.random.Generator, picture: Picture, subject: Picture, frames: int, height: int, width: int
) -> Made:
    """The camera comes closer while the lens widens: the thing in front keeps its size, the world behind recedes."""
    reach, ease = float(rng.uniform(0.4, 0.8)) * rng.choice([-1, 1]), random_ease(rng)
    path = np.zeros((frames, 5))
    path[:, ZOOM] = -reach * eased(ease, frames)
    clip = _seen_along(picture, path, height, width)
    kind: Kind = "figure" if rng.random() < 0.4 else "cut_out"
    actor = draw_actor(rng, kind, subject, 0.3 * min(height, width))
    spot = Pose(width * rng.uniform(0.35, 0.65), height * 0.58)
    made = np.stack([actor.paint(frame, spot)[0] for frame in clip])
    direction = "in" if reach > 0 else "out"
    words = f"zoom {'out' if reach > 0 else 'in'}, close {'person' if kind == 'figure' else ''}".strip()
    return made, (beat_of(0, frames - 1, words, move="dolly", direction=direction, amount=abs(reach), ease=ease),)


def chase_clip(
    rng: np.random.Generator, picture: Picture, skin: Picture, frames: int, height: int, width: int
) -> Made:
    """Something fast, and a camera that keeps up with it: a runner, a ball that bounces, a thing thrown far."""
    sport = str(rng.choice(["run", "bounce", "fly"]))
    kind: Kind = "figure" if sport == "run" else "ball" if rng.random() < 0.7 else "cut_out"
    radius = (0.3 if kind == "figure" else 0.16) * min(height, width)
    actor = draw_actor(rng, kind, skin, radius)
    seconds = frames / 24
    t = np.arange(frames) / (frames - 1)
    speed = 1 + rng.uniform(0, 0.8) * smooth((t - rng.uniform(0.2, 0.5)) / 0.25)  # view widths per second
    x = np.cumsum(speed) / frames * seconds * float(rng.uniform(0.7, 1.3)) * width
    ground, lift, events = height - 1.15 * radius, np.zeros(frames), list[int]()
    if sport == "run":
        at = int(rng.uniform(0.4, 0.6) * frames)
        air = np.clip((np.arange(frames) - at) / (0.2 * frames), 0, 1)
        lift, events = 4 * 0.35 * height * air * (1 - air), [at, min(frames - 1, at + int(0.2 * frames))]
    elif sport == "bounce":
        beat = frames / rng.uniform(2, 4)
        phase = (np.arange(frames) % beat) / beat
        lift, events = 4 * 0.45 * height * phase * (1 - phase), [round(beat), round(2 * beat)]
    else:
        lift = 4 * 1.3 * height * t * (1 - t)
        events = [frames // 2]
    camera_x = _calmed(x[:, None], 4)[:, 0] - width * 0.06 * np.sin(2 * np.pi * t)
    camera_y = -lift * (0.8 if sport == "fly" else 0.25)
    back = view_of(rng, picture, 2 * height, 2 * width)
    shutter = np.linspace(-0.25, 0.25, 5)
    times = np.arange(frames)
    clip = np.empty((frames, height, width, 3), np.uint8)
    flat = Picture("back", "view", (back,))
    for index in range(frames):
        views = []
        for part in shutter:
            far = np.interp(index + part, times, camera_x) * 0.8
            up = np.interp(index + part, times, camera_y) * 0.6 + 0.5 * height
            views.append(np.array([[1, 0, far], [0, 1, up], [0, 0, 1.0]]))
        frame = (render_views(flat, np.stack(views), height, width).mean(0) + 0.5).astype(np.uint8)
        spot = Pose(
            float(x[index] - camera_x[index] + 0.5 * width), float(ground - lift[index] - camera_y[index]),
            float(x[index] / radius), float(x[index] / (1.3 * radius)), float(min(1.0, lift[index] / height) * 0.5),
        )  # fmt: skip
        clip[index] = actor.paint(frame, spot)[0]
    mirror = rng.random() < 0.5
    who = "person " if kind == "figure" else ""
    said = {
        "run": ("run fast", "jump", "run fast"),
        "bounce": ("fast", "jump fast", "jump fast"),
        "fly": ("fly, rise fast", "fall fast"),
    }
    marks = [0, *(event for event in events if 4 < event < frames - 5), frames - 1]
    beats = []
    for low, high, words in zip(marks[:-1], marks[1:], said[sport], strict=False):
        amount = max(0.02, float(camera_x[high] - camera_x[low]) / width * 0.8)
        way = {"direction": "left" if mirror else "right", "amount": amount, "ease": "linear"}
        beats.append(beat_of(low, high, who + words, move="pan", **way))
    return clip[:, :, ::-1] if mirror else clip, tuple(beats)
