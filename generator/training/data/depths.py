"""Space: flights through a corridor, through openings one behind another, and among things at many depths."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.camera import cut_out, eased, random_ease, view_of
from dreamontage.generator.training.data.pictures import Picture, Pixels, pyramid
from dreamontage.generator.training.data.planes import Camera3, Plane, look
from dreamontage.generator.training.data.procedural import spectrum_noise
from dreamontage.generator.training.data.timing import Made, beat_of, smooth

SPREAD = 2.6
"""Size of a picture with an opening in views, as it is seen from afar."""
PIECE = 0.5
"""Length of one piece of a corridor in view widths."""


def corridor(rng: np.random.Generator, pictures: list[Picture], frames: int, height: int, width: int) -> Made:
    """Fly down a corridor of pictures to the picture at its end; the gaze sways."""
    walls = [_tile(rng, picture, 128) for picture in pictures[:4]]
    tall, focal, count = height / width, 0.7, int(rng.integers(5, 10))
    end = Picture("end", "view", pyramid(view_of(rng, pictures[-1], height, width), 24))
    length = PIECE * count
    top, down, deep, across = -tall / 2, np.array([0, tall, 0]), np.array([0, 0, PIECE]), np.array([1.0, 0, 0])
    planes = [Plane(np.array([-0.5, top, length]), across, down, end)]
    for piece in reversed(range(-1, count)):
        z = PIECE * piece
        planes += [
            Plane(np.array([-0.5, top, z]), deep, down, walls[0 if piece % 2 else 1]),
            Plane(np.array([0.5, top, z]), deep, down, walls[1 if piece % 2 else 0]),
            Plane(np.array([-0.5, -top, z]), across, deep, walls[2]),
            Plane(np.array([-0.5, top, z]), across, deep, walls[3]),
        ]
    ease, sway, nod = random_ease(rng), rng.uniform(0, 0.18), rng.uniform(0, 0.08)
    bends, clip = rng.uniform(0, 2 * np.pi, 2), np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(eased(ease, frames)):
        calm = float(smooth((1 - s) / 0.3))  # straight ahead at the end
        yaw, pitch = sway * calm * np.sin(4 * s + bends[0]), nod * calm * np.sin(5 * s + bends[1])
        eye = (0.12 * calm * float(np.sin(3 * s + bends[0])), 0.0, float(s) * (length - focal))
        clip[index] = look(planes, Camera3(focal, eye, (pitch, yaw, 0.0)), height, width, haze=0.12)
    way = float(np.log(length / focal))
    camera = {"direction": "in", "amount": way, "ease": ease}
    return clip, (beat_of(0, frames - 1, "fly through the corridor", move="dolly", **camera),)


def _tile(rng: np.random.Generator, picture: Picture, side: int) -> Picture:
    return Picture(picture.name, "view", pyramid(view_of(rng, picture, side, side), 16))


def openings(rng: np.random.Generator, pictures: list[Picture], frames: int, height: int, width: int) -> Made:
    """Pass through an opening in one picture after another; each shows the next."""
    tall, wide = round(SPREAD * height), round(SPREAD * width)
    views = [view_of(rng, picture, tall, wide) for picture in pictures]
    ys, xs = np.indices((tall, wide)).astype(np.float32)
    dx, dy = (xs - (wide - 1) / 2) / width, (ys - (tall - 1) / 2) / height
    shape, gap = float(rng.choice([2, 4, 10])), float(rng.uniform(1.0, 1.6))
    depths = 1 + gap * np.arange(len(views))
    ease, layers = random_ease(rng), []
    for number, view in enumerate(views):
        edge = (np.abs(dx) ** shape + np.abs(dy) ** shape) ** (1 / shape)
        edge += 0.012 * spectrum_noise(rng, tall, wide, 1.5)
        alpha = smooth((edge - rng.uniform(0.2, 0.3)) / 0.03) if number < len(views) - 1 else np.ones_like(edge)
        layers.append(np.concatenate([view, (255 * alpha[..., None]).astype(np.uint8)], axis=-1))
    clip = np.empty((frames, height, width, 3), np.uint8)
    sway = rng.normal(0, 0.05, 2) * width
    for index, s in enumerate(eased(ease, frames)):
        eye = float(s) * (depths[-1] - 1)
        frame = np.zeros((height, width, 3), np.float32)
        for layer, depth in reversed(list(zip(layers, depths, strict=True))):
            ahead = depth - eye
            if ahead < 0.08:
                continue
            shift = sway * np.sin(np.pi * s) * (1 / ahead - 1)
            frame = _over(frame, layer, 1 / ahead, shift, behind_fades=0.25)
        clip[index] = frame + 0.5
    marks = np.flatnonzero(np.diff(np.floor(eased(ease, frames) * (len(views) - 1) - 1e-9)))
    ends = [0, *(int(mark) for mark in marks[:2]), frames - 1]
    way = {"move": "push_through", "direction": "in", "amount": float(depths[-1]), "ease": "linear"}
    said = ["through the window", "through the door", "forward"]
    pieces = zip(ends[:-1], ends[1:], said, strict=False)
    return clip, tuple(beat_of(low, high, words, **way) for low, high, words in pieces if high - low >= 2)


def _over(
    frame: NDArray[np.float32], layer: Pixels, scale: float, shift: NDArray[np.float64], behind_fades: float = 0.0
) -> NDArray[np.float32]:
    """Put a layer [h,w,4] over the middle of a frame, enlarged by `scale` and moved by `shift` pixels.

    What is farther than depth 1 (scale < 1) goes on beyond its borders, mirrored, and darkens by `behind_fades`.
    """
    height, width = frame.shape[:2]
    rows, columns = layer.shape[:2]
    matrix = np.array([
        [scale, 0, (width - 1) / 2 + shift[0] - scale * (columns - 1) / 2],
        [0, scale, (height - 1) / 2 + shift[1] - scale * (rows - 1) / 2],
    ])  # fmt: skip
    border = cv2.BORDER_REFLECT_101 if behind_fades else cv2.BORDER_CONSTANT
    drawn = cv2.warpAffine(layer, matrix, (width, height), borderMode=border).astype(np.float32)
    light = 1 - behind_fades * min(1.0, max(0.0, 1 - scale))
    share = drawn[..., 3:] / 255
    return np.asarray(frame + share * (light * drawn[..., :3] - frame), np.float32)


def among(rng: np.random.Generator, pictures: list[Picture], frames: int, height: int, width: int) -> Made:
    """Fly forwards (or sideways) among cut-outs at many depths before a far picture."""
    back, ease = view_of(rng, pictures[0], round(1.5 * height), round(1.5 * width)), random_ease(rng)
    sideways = rng.random() < 0.35
    way = float(rng.uniform(0.4, 0.9)) * rng.choice([-1, 1]) if sideways else float(rng.uniform(1.5, 3.0))
    things = []
    for _ in range(int(rng.integers(16, 36))):
        side = int(rng.uniform(0.3, 0.6) * min(height, width))
        face = view_of(rng, pictures[int(rng.integers(1, len(pictures)))], side, side)
        z = float(rng.uniform(0.6, 3.6 if sideways else way + 2))
        spot = rng.uniform(-0.7, 0.7, 2) * [1, height / width] * z
        things.append((z, spot, np.concatenate([face, cut_out(rng, side)[..., None]], axis=-1)))
    things.sort(key=lambda thing: -thing[0])
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(eased(ease, frames)):
        x, z = (way * (s - 0.5), 0.0) if sideways else (0.0, way * float(s))
        far = np.concatenate([back, np.full((*back.shape[:2], 1), 255, np.uint8)], axis=-1)
        frame = np.zeros((height, width, 3), np.float32)
        frame = _over(frame, far, 5.0 / (5.0 - z), np.array([-x * width / 5, 0.0]), behind_fades=1e-6)
        for depth, spot, layer in things:
            ahead = depth - z
            if ahead < 0.12:
                continue
            near = layer if ahead > 0.35 else _faded(layer, float(smooth((ahead - 0.12) / 0.23)))
            frame = _over(frame, near, 1 / ahead, width * (spot - [x, 0]) / ahead)
        clip[index] = frame + 0.5
    words = str(rng.choice(["trees", "leaves", "rocks", "clouds", "stars", "flowers"]))
    if sideways:
        camera = {"direction": "right" if way > 0 else "left", "amount": abs(way) / 2, "ease": ease}
    else:
        camera = {"direction": "in", "amount": float(np.log(5 / (5 - way))), "ease": ease}
    return clip, (beat_of(0, frames - 1, f"fly among {words}", move="dolly", **camera),)


def _faded(layer: Pixels, share: float) -> Pixels:
    """The layer, its cover reduced: what comes very close goes out of focus and is gone."""
    alpha = (layer[..., 3:] * share).astype(np.uint8)
    return np.concatenate([layer[..., :3], alpha], axis=-1)
