"""Endless painted worlds: pictures made from a random generator alone, free of any licence."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.pictures import Picture, Pixels, pyramid

Floats = NDArray[np.float32]
Painter = Callable[[np.random.Generator, int, int], Floats]


def spectrum_noise(rng: np.random.Generator, height: int, width: int, slope: float, stretch: float = 1.0) -> Floats:
    """Noise [height, width] whose amplitude falls as frequency^-slope (1 = photographs), mean 0 and deviation 1."""
    fy = np.fft.fftfreq(height)[:, None] * stretch
    fx = np.fft.rfftfreq(width)[None, :]
    radius = np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    wave = np.fft.rfft2(rng.standard_normal((height, width))) * radius**-slope
    noise: Floats = np.fft.irfft2(wave, s=(height, width)).astype(np.float32)
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)


def palette(rng: np.random.Generator, count: int) -> Floats:
    """Harmonic colours [count, 3] in 0..1: few hues, mostly muted, all lightnesses."""
    hues = (rng.uniform(0, 180) + rng.choice([0, 12, 90, 150], count) + rng.normal(0, 8, count)) % 180
    hsv = np.stack([hues, 255 * rng.beta(1.6, 2.2, count), 255 * rng.beta(1.6, 1.3, count)], axis=-1)
    rgb = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    return np.asarray(rgb, np.float32) / np.float32(255)


def natural_texture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Clouds, rock, water: noise of a natural spectrum pushed through a colour map."""
    noise = spectrum_noise(rng, height, width, rng.uniform(0.8, 1.9), float(rng.choice([1, 1, 1, 3, 8])))
    stops = np.sort(rng.uniform(-2, 2, 5)).astype(np.float32)
    colours = palette(rng, 5)
    image = np.stack([np.interp(noise, stops, colours[:, c]) for c in range(3)], axis=-1)
    grain = spectrum_noise(rng, height, width, rng.uniform(0.2, 1.0))[..., None] * rng.uniform(0, 0.1)
    return (image + grain).astype(np.float32)


def gradient(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A smooth field between four corner colours, as in skies and walls."""
    corners = palette(rng, 4).reshape(2, 2, 3)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Occluding discs, boxes and polygons of power-law sizes with shaded, textured faces (Lee, Mumford, Huang 2001)."""
    image = gradient(rng, height, width)
    texture = spectrum_noise(rng, height, width, rng.uniform(0.6, 1.4))[..., None]
    colours = palette(rng, 24)
    largest, smallest = min(height, width) * 0.35, 4.0
    for _ in range(int(rng.integers(80, 400))):
        radius = smallest / max(rng.uniform(), smallest / largest) ** 0.8
        centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        corners = int(rng.choice([3, 4, 4, 5, 7, 24, 24]))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 2 * np.pi, 24)
        aspect = np.array([1.0, rng.uniform(0.3, 1)])
        outline = centre + radius * aspect * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        _shape(rng, image, texture, outline, colours[int(rng.integers(24))])
    return image


def _shape(rng: np.random.Generator, image: Floats, texture: Floats, outline: NDArray[np.float64], ink: Floats) -> None:
    """Fill `outline` [N,2] in place with a shaded, textured face."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(outline.min(0)).astype(int) - 1, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(outline.max(0)).astype(int) + 2, low + 1, [width, height])
    box = np.s_[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    points = np.round((outline - low) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, 4)
    rows, columns = mask.shape
    slope = rng.normal(0, 0.15, 2)
    light = np.linspace(-1, 1, rows)[:, None] * slope[0] + np.linspace(-1, 1, columns)[None] * slope[1]
    face = ink + light[..., None] + texture[box] * rng.choice([0, 0.02, 0.05, 0.12])
    alpha = mask[..., None].astype(np.float32) / 255
    image[box] += alpha * (face - image[box])


def lettering(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Words, lines and rings over another ground: the sharp strokes of signs and drawings."""
    ground = (gradient if rng.random() < 0.5 else natural_texture)(rng, height, width)
    image = (ground.clip(0, 1) * 255).astype(np.uint8)  # OpenCV writes text on bytes only
    colours = palette(rng, 12)
    letters = np.array(list("ABCDEFGHKLMNPRSTUVWXYZabcdeghikmnorstuvwz0123456789"))
    for index in range(int(rng.integers(8, 40))):
        ink = tuple(255 * float(c) for c in colours[index % 12])
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        thick = int(rng.integers(1, 6))
        match int(rng.integers(3)):
            case 0:
                word = "".join(rng.choice(letters, int(rng.integers(1, 8))))
                face = int(rng.choice([0, 1, 2, 3, 4, 6, 7]))
                cv2.putText(image, word, (x, y), face, rng.uniform(0.5, 4), ink, thick, cv2.LINE_AA)
            case 1:
                end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
                cv2.line(image, (x, y), end, ink, thick, cv2.LINE_AA)
            case _:
                cv2.circle(image, (x, y), int(rng.integers(4, 120)), ink, thick, cv2.LINE_AA)
    return np.asarray(image, np.float32) / np.float32(255)


def lattice(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Tiles, windows, planks: a jittered grid with texture."""
    colours = palette(rng, 6)
    image: Floats = natural_texture(rng, height, width) * np.float32(0.3) + np.float32(0.7) * colours[0]
    step = rng.integers(12, 90, 2)
    gap = int(rng.integers(1, 6))
    for row, y in enumerate(range(0, height, int(step[1]))):
        offset = int(step[0] // 2) * (row % 2) * int(rng.integers(2))
        for x in range(-offset, width, int(step[0])):
            ink = colours[int(rng.integers(1, 6))] + rng.normal(0, 0.05)
            box = np.s_[y + gap : y + int(step[1]), max(0, x + gap) : max(0, x + int(step[0]))]
            image[box] = 0.6 * ink + 0.4 * image[box]
    return image


def landscape(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Layers one before another: a sky, ridges paler with distance, a textured ground."""
    image = gradient(rng, height, width)
    far, near = palette(rng, 2)
    count = int(rng.integers(2, 6))
    columns = np.arange(width)
    for layer in range(count):
        depth = (layer + 1) / count
        ridge = spectrum_noise(rng, 1, width, rng.uniform(1.2, 2.0))[0] * height * 0.06
        top = height * (0.25 + 0.6 * depth * rng.uniform(0.7, 1)) + ridge
        below = np.clip(np.arange(height)[:, None] - top[columns][None], 0, 1)[..., None]
        ground = natural_texture(rng, height, width)
        face = (1 - depth) * far + depth * near + 0.6 * depth * (ground - ground.mean())
        image = image + below * (face - image)
    return np.asarray(image, np.float32)


PAINTERS: tuple[Painter, ...] = (natural_texture, dead_leaves, dead_leaves, lettering, lattice, landscape, landscape)


def paint(seed: int, size: int = 512) -> Picture:
    """A procedural picture that depends on `seed` alone, size x 1.5 size."""
    rng = np.random.default_rng([seed, 0xD4EA])
    painter = PAINTERS[int(rng.integers(len(PAINTERS)))]
    image = painter(rng, size, size * 3 // 2)
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5)), np.float32)
    pixels: Pixels = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return Picture(f"{painter.__name__}-{seed}", "procedural", pyramid(pixels))
