"""A virtual camera over still pictures: clips with known motion.

Every function returns uint8 [F,H,W,3] RGB and a `Shot` that says how the camera moved. A view is the 3x3 matrix that
takes output pixels (x, y, 1) to pixels of the picture's full size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.pictures import Picture, Pixels, pyramid
from dreamontage.schemas.montage import Camera

Matrices = NDArray[np.float64]
MOVES = ("hold", "pan", "tilt", "zoom", "dolly", "roll", "orbit", "push_through", "whip")
PACE_FRAMES = 33
"""Amounts are meant for about this many frames; shorter clips move less."""


@dataclass(frozen=True)
class Shot:
    """How a clip was taken: amounts in view widths, zoom factors or degrees, as in a montage's camera."""

    kind: str
    """camera, world or layers"""
    move: str
    direction: str
    amount: float
    ease: str
    views: Matrices
    """[F,3,3], output pixels to picture (or canvas) pixels"""


def eased(ease: str, count: int) -> NDArray[np.float64]:
    """Progress [count] from 0 to 1."""
    t = np.linspace(0, 1, count)
    match ease:
        case "in":
            return t * t
        case "out":
            return 1 - (1 - t) ** 2
        case "in_out":
            return t * t * (3 - 2 * t)
        case _:
            return t


def random_ease(rng: np.random.Generator) -> str:
    """An easing, mostly linear or in_out."""
    return str(rng.choice(["linear", "in", "out", "in_out"], p=[0.4, 0.15, 0.15, 0.3]))


def similarity(height: int, width: int, centre: NDArray[np.float64], scale: float, roll: float) -> Matrices:
    """The view [3,3] of an output of height x width around `centre`, `scale` picture pixels each, rolled in radians."""
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    matrix = np.array([[cos, -sin, centre[0]], [sin, cos, centre[1]], [0, 0, 1]])
    return np.asarray(matrix @ np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1.0]]))


def perspective(height: int, width: int, yaw: float, pitch: float) -> Matrices:
    """The homography [3,3] of a camera turned by `yaw` and `pitch` radians, focal length one output width."""
    focal, cx, cy = float(width), (width - 1) / 2, (height - 1) / 2
    turn, _ = cv2.Rodrigues(np.array([pitch, yaw, 0.0]))
    lens = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    return np.asarray(lens @ turn @ np.linalg.inv(lens))


def render_views(picture: Picture, views: Matrices, height: int, width: int) -> Pixels:
    """Look at `picture` through each view: [F,H,W,3]; beyond the border the picture is mirrored."""
    return np.stack([_look(picture, view, height, width) for view in views])


def _look(picture: Picture, view: Matrices, height: int, width: int) -> Pixels:
    scale = float(np.sqrt(abs(np.linalg.det(view[:2, :2]))))
    level = min(max(0, int(np.floor(np.log2(max(scale, 1e-6)) + 0.35))), len(picture.levels) - 1)
    shrink = 0.5**level
    matrix = np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]]) @ view
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size, border = (width, height), cv2.BORDER_REFLECT_101
    source = picture.levels[level]
    if np.allclose(matrix[2, :2], 0):
        frame = cv2.warpAffine(source, matrix[:2], size, flags=flags, borderMode=border)
    else:
        frame = cv2.warpPerspective(source, matrix, size, flags=flags, borderMode=border)
    return np.asarray(frame, np.uint8)


@dataclass(frozen=True)
class _Path:
    """Centre in view widths, log zoom, roll, yaw and pitch in radians, at the end of a move that starts at zero."""

    x: float = 0.0
    y: float = 0.0
    zoom: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0


def _draw_path(rng: np.random.Generator, move: str, pace: float) -> tuple[_Path, str, float]:
    """A path for a named move, its direction word and its amount."""
    sign = float(rng.choice([-1, 1]))
    drift = rng.normal(0, 0.06, 2) * pace
    if move == "pan":
        amount = rng.uniform(0.1, 0.85) * pace
        return _Path(sign * amount, drift[1], drift[0]), "right" if sign > 0 else "left", amount
    if move == "whip":
        amount = rng.uniform(0.9, 1.8) * pace
        return _Path(sign * amount), "right" if sign > 0 else "left", amount
    if move == "tilt":
        amount = rng.uniform(0.1, 0.6) * pace
        return _Path(drift[0], sign * amount), "down" if sign > 0 else "up", amount
    if move in ("zoom", "dolly", "push_through"):
        reach = rng.uniform(0.1, 0.5) * pace * (1.8 if move == "push_through" else 1.0)
        sign = 1.0 if move == "push_through" else sign
        side = drift * (2.0 if move == "dolly" else 0.3)
        return _Path(side[0], side[1], -sign * reach), "in" if sign > 0 else "out", float(np.exp(reach))
    if move == "roll":
        amount = rng.uniform(4, 40) * pace
        return _Path(drift[0], drift[1], roll=sign * np.radians(amount)), "cw" if sign > 0 else "ccw", amount
    if move == "orbit":
        amount = rng.uniform(5, 25) * pace
        turn = sign * np.radians(amount)
        return _Path(0.5 * sign * pace * rng.uniform(0.1, 0.5), yaw=-turn), "right" if sign > 0 else "left", amount
    return _Path(), "in", 0.0


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


def camera_shot(
    rng: np.random.Generator, picture_size: tuple[int, int], frames: int, height: int, width: int, move: str = ""
) -> Shot:
    """Draw a camera way over a picture of `picture_size` (height, width) that mostly stays inside it.

    `move` is one of MOVES, or empty: a random one.
    """
    move = move or str(rng.choice(MOVES, p=[0.06, 0.2, 0.12, 0.16, 0.14, 0.1, 0.1, 0.06, 0.06]))
    ease = random_ease(rng)
    pace = min(1.0, frames / PACE_FRAMES * rng.choice([1, 1, 1.6]))
    path, direction, amount = _draw_path(rng, move, pace)
    fits = min(picture_size[0] / height, picture_size[1] / width)
    scale = float(np.exp(rng.uniform(np.log(min(0.7, 0.6 * fits)), np.log(max(0.75, 0.9 * fits)))))
    scale = min(scale, fits / max(1.0, float(np.exp(path.zoom))))
    reach = np.array([path.x, path.y]) * width * scale
    room = np.array(picture_size[::-1]) / 2 - np.array([width, height]) * scale / 2
    middle = np.array(picture_size[::-1]) / 2 + rng.uniform(-1, 1, 2) * np.maximum(0, room - abs(reach) / 2)
    tilt = rng.normal(0, 0.05) if rng.random() < 0.5 else 0.0
    views = []
    for s in eased(ease, frames):
        zoomed, rolled = scale * float(np.exp(path.zoom * s)), tilt + path.roll * (s - 0.5)
        view = similarity(height, width, middle + reach * (s - 0.5), zoomed, rolled)
        if path.yaw or path.pitch:
            view = view @ perspective(height, width, path.yaw * (s - 0.5), path.pitch * (s - 0.5))
            view = view / view[2, 2]
        views.append(view)
    return Shot("camera", move, direction, amount, ease, np.stack(views))


def camera_clip(
    rng: np.random.Generator, picture: Picture, frames: int, height: int, width: int, move: str = ""
) -> tuple[Pixels, Shot]:
    """One picture under a moving camera."""
    shot = camera_shot(rng, picture.size, frames, height, width, move)
    return render_views(picture, shot.views, height, width), shot


def view_of(rng: np.random.Generator, picture: Picture, height: int, width: int) -> Pixels:
    """A still view [H,W,3] of a picture that fills height x width."""
    shot = camera_shot(rng, picture.size, 1, height, width, "hold")
    view: Pixels = render_views(picture, shot.views, height, width)[0]
    return view


def world_canvas(first: Pixels, second: Pixels, direction: str, overlap: float) -> Pixels:
    """Join two views [H,W,3] of one size into one canvas: `second` lies towards `direction`, with a soft seam.

    `overlap` is the seam's share of a view; direction is left, right, up or down.
    """
    along = 1 if direction in ("left", "right") else 0
    a, b = (first, second) if direction in ("right", "down") else (second, first)
    length = a.shape[along]
    seam = int(overlap * length)
    ramp = eased("in_out", seam)
    ramp = ramp[None, :, None] if along else ramp[:, None, None]
    cut = [slice(None)] * 2
    head, tail = [*cut], [*cut]
    head[along], tail[along] = slice(0, length - seam), slice(length - seam, length)
    start, rest = [*cut], [*cut]
    start[along], rest[along] = slice(0, seam), slice(seam, length)
    blend = a[tuple(tail)] * (1 - ramp) + b[tuple(start)] * ramp
    return np.concatenate([a[tuple(head)], blend.astype(np.uint8), b[tuple(rest)]], axis=along)


def world_clip(
    rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int, direction: str = ""
) -> tuple[Pixels, Shot]:
    """Travel over one canvas from one picture to another; left or right is a pan, up or down a tilt."""
    direction = direction or str(rng.choice(["right", "left", "down", "up"], p=[0.35, 0.35, 0.15, 0.15]))
    views_of = [view_of(rng, picture, height, width) for picture in (first, second)]
    canvas = world_canvas(views_of[0], views_of[1], direction, rng.uniform(0.35, 0.7))
    span = np.array([canvas.shape[1] - width, canvas.shape[0] - height], dtype=np.float64)
    ease = random_ease(rng)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    progress = eased(ease, frames)
    if direction in ("left", "up"):
        progress = 1 - progress
    views = np.stack([similarity(height, width, middle + span * s, 1.0, 0.0) for s in progress])
    world = Picture("world", "world", (canvas,))
    move = "pan" if direction in ("left", "right") else "tilt"
    shot = Shot("world", move, direction, float(span.max() / (width if move == "pan" else height)), ease, views)
    return render_views(world, views, height, width), shot


def layered_clip(
    rng: np.random.Generator, ground: Picture, sprites: list[Picture], frames: int, height: int, width: int
) -> tuple[Pixels, Shot]:
    """Parallax: cut-outs of other pictures before a ground, closer ones faster, some with a motion of their own."""
    clip, shot = camera_clip(rng, ground, frames, height, width)
    result = clip.astype(np.float32)
    inverse = np.linalg.inv(shot.views[0])
    for sprite in sprites:
        side = int(rng.uniform(0.25, 0.7) * min(height, width))
        face = view_of(rng, sprite, side, side)
        levels = pyramid(np.concatenate([face, cut_out(rng, side)[..., None]], axis=-1), 24)
        closer = rng.uniform(1.1, 2.2)
        own = rng.normal(0, 0.35, 2) * side * frames / PACE_FRAMES * rng.integers(0, 2)
        place = rng.uniform(0.15, 0.85, 2) * [width, height]
        for index, view in enumerate(shot.views):
            moved = inverse @ view
            shift = (moved @ [place[0], place[1], 1])[:2] / (moved @ [place[0], place[1], 1])[2] - place
            zoom = float(np.sqrt(abs(np.linalg.det(moved[:2, :2])))) ** -closer
            spot = place - closer * shift + own * index / max(1, frames - 1)
            matrix = np.array([[zoom, 0, spot[0] - zoom * side / 2], [0, zoom, spot[1] - zoom * side / 2]])
            layer = cv2.warpAffine(levels[0], matrix, (width, height)).astype(np.float32)
            alpha = layer[..., 3:] / 255
            result[index] += alpha * (layer[..., :3] - result[index])
    return result.astype(np.uint8), Shot("layers", shot.move, shot.direction, shot.amount, shot.ease, shot.views)


def cut_out(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A random blob as an alpha mask [side, side]."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.full(48, 0.38)
    for wave in range(1, 6):
        radius += rng.normal(0, 0.07 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    outline = side * (0.5 + radius.clip(0.1, 0.49)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1))
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask
