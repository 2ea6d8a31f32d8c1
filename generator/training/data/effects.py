"""Effects that grow over a clip: light, weather, time of day, water, ice, things that fall apart. Nothing jumps.

An effect is made once per clip and then called as effect(frame float32 [H,W,3], s, t) with its progress s in 0..1 and
the time t in seconds; at s = 0 it returns the frame as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.camera import camera_shot, render_views, view_of
from dreamontage.generator.training.data.pictures import Picture, Pixels
from dreamontage.generator.training.data.procedural import spectrum_noise
from dreamontage.generator.training.data.timing import Made, beat_of, inner_span, smooth
from dreamontage.schemas.limits import DEFAULT_FPS

Floats = NDArray[np.float32]
Effect = Callable[[Floats, float, float], Floats]
Maker = Callable[[np.random.Generator, int, int, Pixels], Effect]


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates x and y [H,W] in view widths from the middle."""
    ys, xs = np.indices((height, width))
    across, down = (xs - (width - 1) / 2) / width, (ys - (height - 1) / 2) / width
    return across.astype(np.float32), down.astype(np.float32)


def _bent(frame: Floats, dx: Floats, dy: Floats) -> Floats:
    """The frame seen through displacements in pixels."""
    ys, xs = np.indices(frame.shape[:2]).astype(np.float32)
    maps = (xs + dx).astype(np.float32), (ys + dy).astype(np.float32)
    return np.asarray(cv2.remap(frame, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.float32)


def light_sweep(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """A beam of light crosses the view."""
    xs, ys = _grid(height, width)
    turn, wide, gain = rng.uniform(-0.6, 0.6), rng.uniform(0.08, 0.2), rng.uniform(0.6, 1.4)
    along = xs * np.cos(turn) + ys * np.sin(turn)
    warm = np.array([1.0, 0.93, 0.8], np.float32)
    reach = 0.6 + 3 * wide

    def effect(frame: Floats, s: float, t: float) -> Floats:
        band = gain * np.exp(-(((along - reach * (2 * s - 1)) / wide) ** 2))[..., None] * warm
        return np.asarray(frame * (1 + band) + 22 * band, np.float32)

    return effect


def fog(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """Fog drifts in and thickens."""
    noise = spectrum_noise(rng, height, 2 * width, 1.7)
    noise = np.concatenate([noise, noise[:, ::-1]], axis=1)
    grey, most, speed = rng.uniform(170, 235), rng.uniform(0.55, 0.9), rng.uniform(0.05, 0.2) * width

    def effect(frame: Floats, s: float, t: float) -> Floats:
        matrix = np.array([[1, 0, -speed * t], [0, 1, 0.0]])
        drift = cv2.warpAffine(noise, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        share = (most * s * (0.65 + 0.35 * np.tanh(drift))).clip(0, 1)[..., None]
        return np.asarray(frame + share * (grey - frame), np.float32)

    return effect


def nightfall(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """Day turns into night; what is bright keeps some of its light."""
    tint = np.array([0.16, 0.22, 0.42], np.float32) * np.float32(rng.uniform(0.8, 1.2))

    def effect(frame: Floats, s: float, t: float) -> Floats:
        light = frame.mean(axis=-1, keepdims=True)
        lamps = smooth((light - 190) / 50) * 0.7
        night = light * tint * 1.3 + 0.12 * frame + lamps * frame * np.array([1.0, 0.8, 0.45], np.float32)
        return np.asarray(frame + s * (night - frame), np.float32)

    return effect


def sundown(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """The light grows warm, from one side."""
    xs, ys = _grid(height, width)
    side = rng.normal(0, 1, 2)
    glow = smooth(0.5 + (xs * side[0] + ys * side[1]) / np.hypot(*side))[..., None]
    gain = np.array([1.35, 0.85, 0.5], np.float32)

    def effect(frame: Floats, s: float, t: float) -> Floats:
        warm = frame * gain * (0.7 + 0.3 * glow) + 60 * glow * np.array([1.0, 0.5, 0.2], np.float32)
        return np.asarray(frame + s * (warm - frame), np.float32)

    return effect


def _falling(rng: np.random.Generator, height: int, width: int, rain: bool) -> Effect:
    count = int(rng.uniform(120, 300))
    start = rng.uniform(0, 1, (count, 2)) * [width * 1.4, height * 1.2]
    near = rng.uniform(0.4, 1.0, count)
    speed = near * height * (2.5 if rain else 0.45)
    wind = rng.normal(0, 0.25) * height
    order = rng.uniform(0, 1, count)

    def effect(frame: Floats, s: float, t: float) -> Floats:
        layer = np.zeros(frame.shape[:2], np.uint8)
        for i in range(count):
            shine = 255 * float(smooth((1.3 * s - order[i]) / 0.3)) * near[i]
            if shine < 1:
                continue
            sway = 0 if rain else 0.02 * height * np.sin(2 * t + 9 * order[i])
            x = (start[i, 0] + wind * near[i] * t + sway) % (width * 1.4) - 0.2 * width
            y = (start[i, 1] + speed[i] * t) % (height * 1.2) - 0.1 * height
            spot = round(16 * x), round(16 * y)
            if rain:
                end = round(16 * (x - wind * near[i] * 0.03)), round(16 * (y - speed[i] * 0.03))
                cv2.line(layer, spot, end, 0.6 * shine, 1, cv2.LINE_AA, 4)
            else:
                cv2.circle(layer, spot, round(16 * near[i] * height / 90), shine, -1, cv2.LINE_AA, 4)
        share = layer[..., None].astype(np.float32) / 255
        dull = frame * (1 - 0.25 * s) + 18 * s
        return np.asarray(dull + share * (235 - dull), np.float32)

    return effect


def snow(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """It begins to snow."""
    return _falling(rng, height, width, rain=False)


def rain(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """It begins to rain."""
    return _falling(rng, height, width, rain=True)


def ripple(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """Rings spread from a spot as on water."""
    xs, ys = _grid(height, width)
    spot = rng.uniform(-0.3, 0.3, 2)
    dx, dy = xs - spot[0], ys - spot[1]
    far = np.hypot(dx, dy) + 1e-4
    length, height_px, speed = rng.uniform(0.06, 0.14), rng.uniform(0.008, 0.02) * width, rng.uniform(5, 10)

    def effect(frame: Floats, s: float, t: float) -> Floats:
        reached = smooth((1.4 * s - far) / 0.2) * height_px * np.sin(2 * np.pi * far / length - speed * t)
        lit = 1 + 0.12 * reached / height_px
        return np.asarray(_bent(frame, reached * dx / far, reached * dy / far) * lit[..., None], np.float32)

    return effect


def frost(rng: np.random.Generator, height: int, width: int, _: Pixels) -> Effect:
    """Ice grows in from the borders."""
    xs, ys = _grid(height, width)
    edge = 1 - np.maximum(np.abs(xs) * 2, np.abs(ys) * 2 * width / height)
    veins = np.abs(spectrum_noise(rng, height, width, 1.0))
    order = edge + 0.12 * spectrum_noise(rng, height, width, 1.4) + 0.06 * veins
    order = (order - order.min()) / (order.max() - order.min())
    ice = 185 + 45 * np.exp(-3 * veins[..., None]) + np.array([-12, 0, 14], np.float32)
    most = rng.uniform(0.7, 1.0)

    def effect(frame: Floats, s: float, t: float) -> Floats:
        share = (0.85 * smooth((1.2 * most * s - order) / 0.15))[..., None]
        return np.asarray(frame + share * (ice - frame), np.float32)

    return effect


def particles(rng: np.random.Generator, height: int, width: int, behind: Pixels) -> Effect:
    """The picture comes apart into flakes that blow away from what lies behind."""
    order = spectrum_noise(rng, height, width, 1.8)
    xs, ys = _grid(height, width)
    turn = rng.uniform(0, 2 * np.pi)
    order = 0.25 * order + 2 * (xs * np.cos(turn) + ys * np.sin(turn))
    order = (order - order.min()) / (order.max() - order.min())
    small = (max(2, width // 5), max(2, height // 5))
    chances = rng.uniform(0, 1, small[::-1]).astype(np.float32)
    flakes = cv2.resize(chances, (width, height), interpolation=cv2.INTER_NEAREST)
    ways = [cv2.resize(rng.normal(0, 1, small[::-1]).astype(np.float32), (width, height)) for _ in range(2)]
    wind = np.array([np.cos(turn), np.sin(turn)]) * 0.3 * width

    def effect(frame: Floats, s: float, t: float) -> Floats:
        gone = (1.6 * s - order).clip(0, 1) / 0.6
        dx, dy = (gone**1.5 * (w + 0.08 * width * noise) for w, noise in zip(wind, ways, strict=True))
        blown = _bent(frame, dx.astype(np.float32), dy.astype(np.float32))
        share = smooth((gone - 0.15 - 0.6 * flakes) / 0.25)[..., None]
        return np.asarray(blown + share * (behind - blown), np.float32)

    return effect


def melt(rng: np.random.Generator, height: int, width: int, behind: Pixels) -> Effect:
    """The picture runs down and uncovers what lies behind."""
    pace = 1 + 0.25 * np.tanh(spectrum_noise(rng, 1, width, 1.3)[0])
    rows = np.arange(height, dtype=np.float32)[:, None] / height

    def effect(frame: Floats, s: float, t: float) -> Floats:
        fallen = ((s * 2.0 * pace[None] - 0.4 * rows).clip(0, None) ** 1.5 * height).astype(np.float32)
        fallen *= np.float32(smooth(s / 0.1))
        ys = np.arange(height, dtype=np.float32)[:, None] - fallen
        run = _bent(frame, np.zeros_like(fallen), np.maximum(-fallen, -np.arange(height, dtype=np.float32)[:, None]))
        share = smooth(-ys / (0.06 * height))[..., None]
        return np.asarray(run + share * (behind - run), np.float32)

    return effect


EFFECTS: dict[str, tuple[Maker, tuple[str, str, str]]] = {
    "light_sweep": (light_sweep, ("still", "bright light", "smooth")),
    "fog": (fog, ("day", "fog and mist rise", "fog")),
    "nightfall": (nightfall, ("day", "slow night", "dark night")),
    "sundown": (sundown, ("day", "sunset", "warm sunset light")),
    "snow": (snow, ("cold", "snow", "snow")),
    "rain": (rain, ("cloudy", "rain", "rain")),
    "ripple": (ripple, ("still water", "waves rise", "waves")),
    "frost": (frost, ("cold", "frost, white snow", "cold white")),
    "particles": (particles, ("still", "explode", "smooth")),
    "melt": (melt, ("still", "melt", "smooth")),
}
"""Every effect with its words before, while and after it grows."""
BACKWARDS = {"nightfall": ("night", "sunrise", "day"), "fog": ("fog", "sun, bright day", "day")}
"""Those that make sense the other way round, with their words then."""


def effect_clip(
    rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int, name: str = ""
) -> Made:
    """An effect (`name`, empty: a random one) over a picture under a slow camera; some uncover the second picture."""
    name = name or str(rng.choice(list(EFFECTS)))
    maker, words = EFFECTS[name]
    move = str(rng.choice(["hold", "pan", "zoom", "tilt"], p=[0.25, 0.25, 0.35, 0.15]))
    shot = camera_shot(rng, first.size, frames, height, width, move)
    calm = shot.views[0] + rng.uniform(0.2, 0.5) * (shot.views - shot.views[0])
    clip = render_views(first, calm, height, width)
    effect = maker(rng, height, width, view_of(rng, second, height, width))
    start, stop, progress = inner_span(rng, frames)
    if name in BACKWARDS and rng.random() < 0.5:
        progress, words = 1 - progress, BACKWARDS[name]
    made = [
        effect(frame.astype(np.float32), float(s), index / DEFAULT_FPS) + 0.5
        for index, (frame, s) in enumerate(zip(clip, progress, strict=True))
    ]
    marks = [(0, start, words[0]), (start, stop, words[1]), (stop, frames - 1, words[2])]
    beats = tuple(beat_of(low, high, said) for low, high, said in marks if high - low >= 4)
    return np.stack(made).clip(0, 255).astype(np.uint8), beats
