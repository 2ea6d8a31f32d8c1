"""Things that move: a textured ball, a box in perspective, a cut-out of a picture, a figure of capsules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.training.data.camera import cut_out, view_of
from dreamontage.generator.training.data.pictures import Picture, Pixels
from dreamontage.generator.training.data.planes import Camera3, Plane, look
from dreamontage.generator.training.data.procedural import palette

Kind = Literal["ball", "box", "cut_out", "figure"]
Mask = NDArray[np.float32]
Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Where an actor is: its centre in pixels, its angle in radians (clockwise; a box's about the vertical axis), the
    phase of its step in radians and how far it crouches, 0..1."""

    x: float
    y: float
    angle: float = 0.0
    phase: float = 0.0
    crouch: float = 0.0


@dataclass(frozen=True)
class Actor:
    """A thing of about 2 x `radius` pixels, with its skin [S,S,3] and colours [4,3] in 0..255."""

    kind: Kind
    radius: float
    skin: Pixels
    colours: NDArray[np.float32]
    shape: NDArray[np.uint8] = field(repr=False)

    def paint(self, image: Pixels, pose: Pose) -> tuple[Pixels, Mask]:
        """The image [H,W,3] with the actor in it, and the share [H,W] of each pixel that it covers."""
        match self.kind:
            case "box":
                layer, mask = self._box(image, pose)
            case "figure":
                layer, mask = self._figure(image, pose)
            case _:
                layer, mask = self._disc(image, pose)
        share = mask[..., None]
        return (image + share * (layer - image.astype(np.float32)) + 0.5).clip(0, 255).astype(np.uint8), mask

    def _disc(self, image: Pixels, pose: Pose) -> tuple[Mask, Mask]:
        """A flat skin, turned; a ball is lit from the upper left however it rolls."""
        height, width = image.shape[:2]
        side = len(self.skin)
        scale = 2 * self.radius / side
        cos, sin = scale * np.cos(pose.angle), scale * np.sin(pose.angle)
        middle = (side - 1) / 2
        matrix = np.array(
            [[cos, -sin, pose.x - middle * (cos - sin)], [sin, cos, pose.y - middle * (sin + cos)]]
        )
        flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        layer = cv2.warpAffine(self.skin, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        mask = np.asarray(cv2.warpAffine(self.shape, matrix, (width, height), flags=flags) / 255, np.float32)
        lit = np.asarray(layer, np.float32)
        if self.kind == "ball":
            ys, xs = np.indices((height, width)).astype(np.float32)
            dx, dy = (xs - pose.x) / self.radius, (ys - pose.y) / self.radius
            depth = np.sqrt((1 - dx * dx - dy * dy).clip(0, 1))
            light = (-0.45 * dx - 0.55 * dy + 0.7 * depth).clip(0, 1)
            lit = lit * (0.35 + 0.75 * light)[..., None] + 90 * (light[..., None] ** 24)
        return lit.astype(np.float32), mask

    def _box(self, image: Pixels, pose: Pose) -> tuple[Mask, Mask]:
        """A cube that turns about its vertical axis, seen a little from above."""
        height, width = image.shape[:2]
        half = 0.8 * self.radius / width
        focal = 2.0
        centre = np.array([(pose.x - (width - 1) / 2) / width, (pose.y - (height - 1) / 2) / width, focal])
        tilt = cv2.Rodrigues(np.array([0.45, 0, 0]))[0]
        spin = tilt @ cv2.Rodrigues(np.array([0, pose.angle, 0]))[0]
        planes, solid = [], []
        blank = Picture("white", "view", (np.full((2, 2, 3), 255, np.uint8),))
        for number, turn in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (-1, 0)]):
            face = cv2.Rodrigues(np.array([turn[0] * np.pi / 2, 0, 0]))[0]
            face = spin @ cv2.Rodrigues(np.array([0, turn[1] * np.pi / 2, 0]))[0] @ face
            normal = face @ [0, 0, -1.0]
            if normal @ (centre + half * normal) >= 0:
                continue
            light = 0.35 + 0.65 * max(0.0, float(normal @ [-0.4, -0.75, -0.53]))
            tint = 0.5 * self.colours[number % 4] + 0.5 * self.skin.astype(np.float32)
            skin = Picture("face", "view", ((tint * light).clip(0, 255).astype(np.uint8),))
            corner, across, down = face @ [-half, -half, -half], face @ [2 * half, 0, 0], face @ [0, 2 * half, 0]
            planes.append(Plane(centre + corner, across, down, skin))
            solid.append(Plane(centre + corner, across, down, blank))
        layer = look(planes, Camera3(focal), height, width, image)
        mask = look(solid, Camera3(focal), height, width)[..., 0].astype(np.float32) / 255
        return np.asarray(layer, np.float32), np.asarray(mask, np.float32)

    def _figure(self, image: Pixels, pose: Pose) -> tuple[Mask, Mask]:
        """Head, trunk, arms and legs; the step swings them, a crouch bends the knees."""
        unit = self.radius
        hip = np.array([pose.x, pose.y + 0.1 * unit + 0.25 * unit * pose.crouch])
        neck = hip + unit * np.array([0.05 + 0.2 * pose.crouch, -0.5 + 0.05 * pose.crouch])
        head = neck + unit * np.array([0.05, -0.2])
        lines: list[tuple[list[Point], float, int, float]] = []
        for side, shade in ((-1, 0.6), (1, 1.0)):  # the far side first, darker
            swing = side * 0.75 * np.sin(pose.phase)
            knee = hip + 0.42 * unit * _down(swing + 1.0 * pose.crouch)
            bent = 0.35 + 0.5 * max(0.0, side * np.cos(pose.phase)) if pose.phase else 0.05
            foot = knee + 0.42 * unit * _down(swing - bent - 0.9 * pose.crouch)
            elbow = neck + 0.3 * unit * _down(-swing - 0.6 * pose.crouch)
            hand = elbow + 0.28 * unit * _down(-swing + 0.5 + 0.8 * pose.crouch)
            leg = ([_at(hip), _at(knee), _at(foot)], 0.17, 1, shade)
            arm = ([_at(neck), _at(elbow), _at(hand)], 0.12, 0, shade)
            trunk = [([_at(hip), _at(neck)], 0.3, 0, 0.9), ([_at(head), _at(head)], 0.32, 2, 1.0)]
            lines += [leg, arm, *trunk] if side < 0 else [leg, arm]
        layer, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
        for points, thick, colour, shade in lines:
            dots = [np.round(np.array(points) * 16).astype(np.int32)]
            ink = tuple(float(c) * shade for c in self.colours[colour])
            cv2.polylines(layer, dots, False, ink, max(1, round(thick * unit)), cv2.LINE_AA, 4)
            cv2.polylines(mask, dots, False, 255, max(1, round(thick * unit)), cv2.LINE_AA, 4)
        return np.asarray(layer, np.float32), np.asarray(mask / 255, np.float32)


def _down(angle: float) -> NDArray[np.float64]:
    """The unit vector that hangs down, swung forwards (to the right) by `angle`."""
    return np.array([np.sin(angle), np.cos(angle)])


def _at(point: NDArray[np.float64]) -> Point:
    return float(point[0]), float(point[1])


def draw_actor(rng: np.random.Generator, kind: Kind, picture: Picture, radius: float) -> Actor:
    """An actor with a skin from a picture, in colours that stand out of it."""
    side = max(16, 2 * round(2 * radius))
    skin = view_of(rng, picture, side, side)
    if kind == "ball":
        shape = np.zeros((side, side), np.uint8)
        cv2.circle(shape, (8 * (side - 1), 8 * (side - 1)), 8 * (side - 3), 255, -1, cv2.LINE_AA, 4)
        sectors = skin.astype(np.float32)
        angles = np.arctan2(*(np.indices((side, side)) - (side - 1) / 2))
        stripes = np.sin(angles * int(rng.integers(1, 4))) > 0  # so that its rolling is seen
        sectors[stripes] = 0.4 * sectors[stripes] + 0.6 * 255 * palette(rng, 1)[0]
        skin = sectors.astype(np.uint8)
    else:
        shape = cut_out(rng, side)
    return Actor(kind, radius, skin, 255 * palette(rng, 4), shape)
