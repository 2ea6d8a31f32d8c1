"""Ways from one picture to another without a cut: every frame follows from the one before by a motion.

Each function takes (rng, first, second, frames, height, width) and returns uint8 [F,H,W,3] and its timed words. Frame 0
shows the first picture alone, the last frame the second alone.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.camera import (
    Matrices,
    camera_shot,
    eased,
    random_ease,
    render_views,
    similarity,
    view_of,
    world_canvas,
)
from dreamontage.generator.training.data.pictures import Picture, Pixels, pyramid
from dreamontage.generator.training.data.procedural import spectrum_noise
from dreamontage.generator.training.data.spaces import box, door, room
from dreamontage.generator.training.data.timing import Made, Progress, beat_of, inner_span, mixed, smooth

Transition = Callable[[np.random.Generator, Picture, Picture, int, int, int], Made]


def seen_through(picture: Picture, view: Matrices, height: int, width: int) -> Pixels:
    """One frame [H,W,3] of a picture."""
    frame: Pixels = render_views(picture, view[None], height, width)[0]
    return frame


def _flat(pixels: Pixels, name: str = "view") -> Picture:
    return Picture(name, "view", pyramid(pixels))


def _framing(rng: np.random.Generator, picture: Picture, height: int, width: int) -> Matrices:
    """A still view of a picture as a matrix [3,3]."""
    view: Matrices = camera_shot(rng, picture.size, 1, height, width, "hold").views[0]
    return view


def _zoomed(height: int, width: int, centre: Progress, scale: float) -> Matrices:
    """Output pixels -> pixels of the unmoved view, `scale` of its pixels each, around `centre` (x, y)."""
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = centre - scale * middle
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])


def _joined(one: Pixels, two: Pixels, direction: str, extra: int) -> Pixels:
    """Two views on one canvas, `extra` pixels apart; between them lies what mirrors go on with, and a soft seam."""
    axis = 1 if direction in ("left", "right") else 0
    length, cut = one.shape[axis], (slice(None),) * axis
    head, end = (*cut, slice(0, extra)), (*cut, slice(length - extra, length))
    if direction in ("right", "down"):
        one = np.concatenate([one, np.flip(one, axis)[head]], axis)
        two = np.concatenate([np.flip(two, axis)[end], two], axis)
    else:
        one = np.concatenate([np.flip(one, axis)[end], one], axis)
        two = np.concatenate([two, np.flip(two, axis)[head]], axis)
    return world_canvas(one, two, direction, (extra + 0.5) / (length + extra))


def travel(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """Both pictures on one canvas with a soft seam; the camera pans or tilts over, swaying a little."""
    direction = str(rng.choice(["left", "right", "up", "down"], p=[0.35, 0.35, 0.15, 0.15]))
    along = direction in ("left", "right")
    one, two = (view_of(rng, picture, height, width) for picture in (first, second))
    length = width if along else height
    canvas = _flat(_joined(one, two, direction, int(rng.uniform(0.15, 0.5) * length)))
    reach = canvas.size[1 if along else 0] - length
    ease, lean = random_ease(rng), rng.normal(0, 0.06)
    views = []
    for s in eased(ease, frames):
        place = reach * (1 - s if direction in ("left", "up") else s)
        centre = np.array([(width - 1) / 2, (height - 1) / 2]) + place * np.array([along, not along])
        views.append(similarity(height, width, centre, 1 - 0.15 * np.sin(np.pi * s), lean * np.sin(np.pi * s)))
    clip = render_views(canvas, np.stack(views), height, width)
    move = "pan" if along else "tilt"
    return clip, (beat_of(0, frames - 1, "", move=move, direction=direction, amount=reach / length, ease=ease),)


def push_through(
    rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int
) -> Made:
    """Fly into a spot of the first picture, where the second opens; or backwards out of the first."""
    outwards = rng.random() < 0.35
    if outwards:
        first, second = second, first
    ease, factor = random_ease(rng), float(rng.uniform(2.5, 5))
    views = [_framing(rng, picture, height, width) for picture in (first, second)]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    spot = middle + rng.uniform(-0.22, 0.22, 2) * [width, height]
    power, soft = float(rng.choice([2, 4, 8])), float(rng.uniform(0.12, 0.4))
    ys, xs = np.indices((height, width)).astype(np.float32)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(eased(ease, frames)):
        scale = factor**-s
        centre = middle + (spot - middle) * (1 - scale) / (1 - 1 / factor)
        way = _zoomed(height, width, centre, scale)
        nested = np.array([*np.column_stack([factor * np.eye(2), middle - factor * spot]), [0, 0, 1]])
        inner = nested @ way
        far = np.abs((inner[0, 0] * xs + inner[0, 2] - middle[0]) / (width / 2)) ** power
        far += np.abs((inner[1, 1] * ys + inner[1, 2] - middle[1]) / (height / 2)) ** power
        opening = 2.6 * float(smooth(s / 0.6))
        share = smooth((opening - far ** (1 / power)) / (soft * max(opening, 1e-6)))
        outer = seen_through(first, views[0] @ way, height, width)
        clip[index] = mixed(outer, seen_through(second, views[1] @ inner, height, width), share)
    place = str(rng.choice(["window", "door", "cave", "cloud", ""]))
    said = f"through the {place}" if place else "smooth"
    if not outwards:
        camera = {"direction": "in", "amount": factor, "ease": ease}
        return clip, (beat_of(0, frames - 1, said, move="push_through", **camera),)
    camera = {"direction": "out", "amount": factor, "ease": {"in": "out", "out": "in"}.get(ease, ease)}
    return clip[::-1], (beat_of(0, frames - 1, said, move="push_through", **camera),)


def whip(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """The camera flings round to the second picture; the shutter is open while it does."""
    direction = str(rng.choice(["left", "right", "up", "down"], p=[0.4, 0.4, 0.1, 0.1]))
    axis = 1 if direction in ("left", "right") else 0
    one, two = (view_of(rng, picture, height, width) for picture in (first, second))
    length = (height, width)[axis]
    canvas = _flat(_joined(one, two, direction, int(rng.uniform(0.2, 0.9) * length)))
    reach = canvas.size[axis] - length
    start, stop = sorted(int(x * (frames - 1)) for x in (rng.uniform(0, 0.18), rng.uniform(0.82, 1.0)))
    shutter, fine = float(rng.uniform(0.7, 1.0)), 16

    def place(time: NDArray[np.float64]) -> NDArray[np.float64]:
        s = smooth((time - start) / max(1, stop - start)) * reach
        return reach - s if direction in ("left", "up") else s

    clip = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        exposed = shutter * (np.arange(fine) / fine - 0.5) * (start < index < stop)
        spots = place(index + exposed)
        moved = abs(spots[-1] - spots[0])
        spots = spots[:: max(1, int(fine / max(1, moved)))]
        views = np.stack([np.array([[1, 0, x * axis], [0, 1, x * (1 - axis)], [0, 0, 1.0]]) for x in spots])
        clip[index] = render_views(canvas, views, height, width).mean(0) + 0.5
    widths = reach / length
    return clip, (beat_of(start, stop, "fast", move="whip", direction=direction, amount=widths, ease="in_out"),)


def occluder(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """Something large passes close before the camera and leaves the second picture behind it."""
    mirror = rng.random() < 0.5
    drift = rng.uniform(0.05, 0.25) * width
    views = [_framing(rng, picture, height, width) for picture in (first, second)]
    body = int(rng.uniform(0.45, 1.0) * width)
    face = np.asarray(cv2.resize(view_of(rng, first, height, height), (width + body, height)), np.float32)
    face = cv2.GaussianBlur(face, (0, 0), height / 40) * np.float32(rng.uniform(0.35, 0.85))
    rows = np.arange(height)[:, None]
    waves = [spectrum_noise(rng, 1, 2 * height, 1.6)[0, :height, None] * height * 0.04 for _ in range(2)]
    margin = max(float(np.abs(wave).max()) for wave in waves) + 0.15 * width
    ease = random_ease(rng)
    progress = eased(ease, frames)
    columns = np.arange(width)[None] + 0 * rows
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(progress):
        front = -margin + s * (width + body + 2 * margin)
        speed = abs(progress[min(index + 1, frames - 1)] - progress[max(index - 1, 0)]) / 2 * (width + body)
        blur = max(1.5, 0.6 * speed)
        ahead = smooth((front + waves[0] - columns) / blur + 0.5)
        behind = smooth((front - body + waves[1] - columns) / blur + 0.5)
        shifts = [np.array([[1, 0, -drift * (s - end)], [0, 1, 0], [0, 0, 1]]) for end in (0, 1)]
        old, new = (
            seen_through(picture, view @ shift, height, width)
            for picture, view, shift in zip((first, second), views, shifts, strict=True)
        )
        texture = cv2.warpAffine(
            face, np.array([[1, 0, front - body], [0, 1, 0]]), (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
        clip[index] = mixed(mixed(old, texture.astype(np.uint8), ahead), new, behind)
    if mirror:
        clip = clip[:, :, ::-1]
    thing = str(rng.choice(["wall", "tree", "person", "car", "train", "rock", "tower"]))
    camera = {"direction": "right" if mirror else "left", "amount": drift / width, "ease": ease}
    return clip, (beat_of(0, frames - 1, f"past a {thing} close by", move="dolly", **camera),)


def match_zoom(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """Zoom far into the first picture, or out; the second takes over in patches and goes on with the same zoom."""
    outwards = rng.random() < 0.4
    ease, reach = random_ease(rng), float(rng.uniform(np.log(1.6), np.log(3)))
    views = [_framing(rng, picture, height, width) for picture in (first, second)]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    pattern = spectrum_noise(rng, height, width, 1.5)
    ys, xs = np.indices((height, width)).astype(np.float32)
    far = np.hypot((xs - middle[0]) / width, (ys - middle[1]) / width) * 1.6 + 0.12 * pattern
    progress = eased(ease, frames)
    sign = 1 if outwards else -1
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(progress):
        spread = reach * (progress[min(index + 1, frames - 1)] - progress[max(index - 1, 0)]) / 4
        sights = []
        for picture, view, end in zip((first, second), views, (0, 1), strict=True):
            scales = np.exp(sign * (reach * (s - end) + spread * np.linspace(-1, 1, 5)[:: 1 if 0 < s < 1 else 5]))
            ways = np.stack([view @ _zoomed(height, width, middle, float(scale)) for scale in scales])
            sights.append((render_views(picture, ways, height, width).mean(0) + 0.5).astype(np.uint8))
        share = smooth((s - 0.12) * 3 - 1.3 * far) * smooth(s / 0.2)
        clip[index] = mixed(sights[0], sights[1], np.maximum(share, smooth((s - 0.5) / 0.45)))
    camera = {"direction": "out" if outwards else "in", "amount": float(np.exp(reach)), "ease": ease}
    return clip, (beat_of(0, frames - 1, "morph", move="zoom", **camera),)


def spin(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """The view spins faster and faster and comes to rest on the second picture."""
    start, stop, _ = inner_span(rng, frames)
    degrees, sign = float(rng.uniform(120, 300)), int(rng.choice([-1, 1]))
    views = [_framing(rng, picture, height, width) for picture in (first, second)]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    away = np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1]])
    pattern = spectrum_noise(rng, height, width, 1.6)
    shutter = np.linspace(-0.35, 0.35, 12)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        exposed = smooth((index + shutter * (start < index < stop) - start) / max(1, stop - start))
        s, sights = float(exposed.mean()), []
        for picture, view, end in zip((first, second), views, (0, 1), strict=True):
            ways = []
            for part in np.unique(exposed):
                angle = np.radians(sign * degrees * (part - end))
                turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
                ways.append(view @ np.linalg.inv(away) @ turn @ away)
            sights.append((render_views(picture, np.stack(ways), height, width).mean(0) + 0.5).astype(np.uint8))
        clip[index] = mixed(sights[0], sights[1], smooth((s - 0.3) / 0.4 + (2 * s * (1 - s)) * 0.25 * pattern))
    camera = {"direction": "cw" if sign > 0 else "ccw", "amount": degrees, "ease": "in_out"}
    return clip, (beat_of(start, stop, "spin fast", move="roll", **camera),)


def morph(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """The second picture flows out of a spot; what it reaches swells, bends and becomes it."""
    start, stop, progress = inner_span(rng, frames)
    one, two = (view_of(rng, picture, height, width) for picture in (first, second))
    ys, xs = np.indices((height, width)).astype(np.float32)
    spot = rng.uniform(0.2, 0.8, 2) * [width, height]
    far = np.hypot((xs - spot[0]) / width, (ys - spot[1]) / width)
    order = far / far.max() + 0.12 * spectrum_noise(rng, height, width, 1.7)
    order = (order - order.min()) / (order.max() - order.min())
    bend = [0.09 * width * spectrum_noise(rng, height, width, 2.0) for _ in range(2)]
    soft, reach = 0.1, 0.3
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(progress):
        front = s * (1 + soft + 2 * reach) - reach
        near = np.exp(-(((order - front) / reach) ** 2)) * smooth(min(s, 1 - s) / 0.15)
        dx, dy = (np.asarray(near * part, np.float32) for part in bend)
        border = cv2.BORDER_REFLECT_101
        old = np.asarray(cv2.remap(one, xs + dx, ys + dy, cv2.INTER_LINEAR, borderMode=border), np.uint8)
        new = np.asarray(cv2.remap(two, xs - dx, ys - dy, cv2.INTER_LINEAR, borderMode=border), np.uint8)
        clip[index] = mixed(old, new, smooth((front - order) / soft) if 0 < s < 1 else np.full(order.shape, float(s)))
    return clip, (beat_of(start, stop, str(rng.choice(["melt", "morph", "slow morph", "smooth morph"]))),)


TRANSITIONS: dict[str, tuple[Transition, float]] = {
    "travel": (travel, 0.1),
    "push_through": (push_through, 0.18),
    "whip": (whip, 0.12),
    "occluder": (occluder, 0.14),
    "match_zoom": (match_zoom, 0.08),
    "box": (box, 0.1),
    "room": (room, 0.1),
    "door": (door, 0.08),
    "spin": (spin, 0.04),
    "morph": (morph, 0.06),
}
"""Every way and its share."""
LEAST_FRAMES = 29
"""Frames below which a way is so fast that it looks like a cut."""


def transition_clip(
    rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int
) -> Made:
    """A random way between two pictures."""
    makers = [maker for maker, _ in TRANSITIONS.values()]
    shares = np.array([share for _, share in TRANSITIONS.values()])
    return makers[int(rng.choice(len(makers), p=shares / shares.sum()))](rng, first, second, frames, height, width)
