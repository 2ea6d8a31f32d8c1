"""Two pictures as parts of one space: faces of a box, walls of a room, a door; true perspective throughout.

The same contract as `transitions`: (rng, first, second, frames, height, width) -> frames and timed words.
"""

from __future__ import annotations

import cv2
import numpy as np

from dreamontage.generator.training.data.camera import eased, random_ease, view_of
from dreamontage.generator.training.data.pictures import Picture, Pixels, pyramid
from dreamontage.generator.training.data.planes import Camera3, Plane, Vector, look
from dreamontage.generator.training.data.timing import Made, beat_of, inner_span, smooth

FINE = 1.5
"""Faces are kept at this many times the output's size, as the camera comes closer to some."""


def face_of(rng: np.random.Generator, picture: Picture, height: int, width: int) -> Picture:
    """A still view of a picture as a face of a solid."""
    return Picture(picture.name, "view", pyramid(view_of(rng, picture, int(FINE * height), int(FINE * width)), 24))


def turned_plane(face: Picture, distance: float, turn: float, size: tuple[float, float], upright: bool) -> Plane:
    """A face `distance` before a pivot, turned about it by `turn` radians: about the vertical axis, or if `upright` is
    False about the horizontal one. The pivot is the origin; at 0 the face looks towards -z."""
    across, down = np.array([size[0], 0, 0]), np.array([0, size[1], 0])
    corner = np.array([-size[0] / 2, -size[1] / 2, -distance])
    axis = np.array([0, turn, 0]) if upright else np.array([turn, 0, 0])
    spun = cv2.Rodrigues(axis.astype(np.float64))[0]
    return Plane(spun @ corner, spun @ across, spun @ down, face)


def moved(plane: Plane, by: Vector) -> Plane:
    """The plane, shifted."""
    return Plane(plane.corner + by, plane.across, plane.down, plane.picture, plane.endless)


def box(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """Orbit round a box: the second picture is on its next face."""
    faces = [face_of(rng, picture, height, width) for picture in (first, second)]
    upright = rng.random() < 0.7
    sign = int(rng.choice([-1, 1]))
    ease, focal = random_ease(rng), float(rng.uniform(1.0, 1.8))
    tall = height / width
    half = (1.0 if upright else tall) / 2
    ground = cv2.GaussianBlur(faces[0].levels[-1], (0, 0), 6).astype(np.float32) * 0.35
    backdrop: Pixels = cv2.resize(ground, (width, height)).astype(np.uint8)
    pivot = np.array([0, 0, focal + half])
    lift = rng.uniform(0, 0.25)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(eased(ease, frames)):
        away = pivot + np.array([0, 0, lift * np.sin(np.pi * s)])
        planes = [
            moved(turned_plane(face, half, sign * np.pi / 2 * (s - end), (1.0, tall), upright), away)
            for face, end in zip(faces, (0, 1), strict=True)
        ]
        planes.sort(key=lambda plane: -float((plane.corner + (plane.across + plane.down) / 2)[2]))
        clip[index] = look(planes, Camera3(focal), height, width, backdrop)
    # A face that turns to the left shows the one to its right: the camera circles to the right.
    direction = ("right" if sign > 0 else "left") if upright else ("up" if sign > 0 else "down")
    beat = beat_of(0, frames - 1, "turn", move="orbit", direction=direction, amount=90.0, ease=ease)
    return clip, (beat,)


def room(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """Turn in a room: the second picture is the wall beside the first."""
    faces = [face_of(rng, picture, height, width) for picture in (first, second)]
    right, tall, ease = rng.random() < 0.5, height / width, random_ease(rng)
    down, top = np.array([0, tall, 0]), -tall / 2
    beside = ((0.5, top, 0.5), (0, 0, -1.0)) if right else ((-0.5, top, -0.5), (0, 0, 1.0))
    planes = [Plane(np.array([-0.5, top, 0.5]), np.array([1.0, 0, 0]), down, faces[0])]
    planes.append(Plane(np.array(beside[0]), np.array(beside[1]), down, faces[1]))
    for face, y in ((faces[0], top), (faces[1], -top)):  # ceiling and floor
        dull = cv2.GaussianBlur(face.levels[-1], (0, 0), 4) // 2
        slab = Picture("slab", "view", (np.asarray(dull, np.uint8),))
        planes.append(Plane(np.array([-0.5, y, -0.5]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), slab))
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(eased(ease, frames)):
        yaw = np.pi / 2 * float(s) * (1 if right else -1)
        clip[index] = look(planes, Camera3(0.5, turn=(0.0, yaw, 0.0)), height, width)
    camera = {"direction": "right" if right else "left", "amount": 1.0, "ease": ease}
    return clip, (beat_of(0, frames - 1, "turn in the room to the next wall", move="pan", **camera),)


def door(rng: np.random.Generator, first: Picture, second: Picture, frames: int, height: int, width: int) -> Made:
    """The first picture opens like a door of one leaf or two, or like a page, and the camera goes on to the second."""
    leaves, tall, focal = int(rng.choice([1, 2])), height / width, float(rng.uniform(2.4, 3.6))
    start, stop, progress = inner_span(rng, frames, 0.1)
    full, behind = view_of(rng, first, int(FINE * height), int(FINE * width)), face_of(rng, second, height, width)
    share = 1 / leaves
    columns = full.shape[1] // leaves
    hinges = [-0.5, 0.5][:leaves]
    if leaves == 1 and rng.random() < 0.5:
        hinges = [0.5]
    pieces = [full[:, :columns], full[:, columns:]] if leaves == 2 else [full]
    depth = float(rng.uniform(0.15, 0.6))
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index, s in enumerate(progress):
        far = focal * (1 + depth * (1 - s))
        back = Plane(np.array([-0.5, -tall / 2, far]), np.array([1.0, 0, 0]), np.array([0, tall, 0]), behind, True)
        angle = np.pi / 2 * (s + 0.12 * s * smooth(s))
        planes = [back]
        for hinge, piece in zip(hinges, pieces, strict=True):
            lit = np.asarray(piece * (0.55 + 0.45 * max(0.0, float(np.cos(angle)))), np.uint8)
            out = np.array([np.cos(angle), 0, -np.sin(angle)]) * share  # from the hinge to the free edge
            left = hinge < 0
            across = out if left else np.array([np.cos(angle), 0, np.sin(angle)]) * share
            corner = np.array([hinge, -tall / 2, focal]) if left else np.array([hinge, -tall / 2, focal]) - across
            planes.append(Plane(corner, across, np.array([0, tall, 0]), Picture("leaf", "view", pyramid(lit, 24))))
        clip[index] = look(planes if s < 1 else [back], Camera3(focal), height, width)
    prompt = str(rng.choice(["the door opens", "the window opens", "turn the leaf"] if leaves == 1 else ["doors open"]))
    way = float(np.log1p(depth))
    return clip, (beat_of(start, stop, prompt, move="dolly", direction="in", amount=way, ease="in_out"),)
