"""Rendered galleries: rooms with doors, portraits and moving props before a scripted camera (`miniworld==2.1.0`).

Importing this module needs miniworld, and pyglet below 2 with OpenGL; `sources.py` checks for both. Without a display
EGL is used; under `xvfb-run` rendering is about twice as fast.
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyglet
from numpy.typing import NDArray

if not os.environ.get("DISPLAY"):  # before anything of miniworld is imported
    pyglet.options["headless"] = True

from miniworld.entity import ImageFrame, MeshEnt
from miniworld.math import intersect_circle_segs
from miniworld.miniworld import MiniWorldEnv
from miniworld.opengl import Texture
from miniworld.params import DEFAULT_PARAMS
from miniworld.utils import get_subdir_path
from pyglet import gl

from dreamontage.generator.training.data.camera import eased
from dreamontage.generator.training.data.gallery_ways import Leg, Shape, draw_way, leg_beats
from dreamontage.generator.training.data.notes import ClipNote
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.data.procedural import paint

LICENCE = "miniworld 2.1.0, Apache-2.0; painted pictures, free"
FPS = 24
LENGTHS = (33, 41, 49, 57, 65)
PAINTINGS = 32
"""Painted canvases that hang on walls or cover them, besides the package's own textures."""
WALLS = ("brick_wall", "cinder_blocks", "concrete", "drywall", "marble", "rock", "stucco", "wood", "wood_planks")
FLOORS = ("floor_tiles_bw", "wood", "wood_planks", "marble", "concrete", "asphalt", "grass", "rock")
CEILINGS = ("ceiling_tiles", "concrete_tiles", "concrete", "drywall", "wood_planks")
PROPS = {
    "duckie": 0.7, "barrel": 0.9, "cone": 0.7, "office_chair": 1.0, "office_desk": 0.8, "medkit": 0.45, "potion": 0.6,
    "barrier": 0.9, "tree": 1.9, "tree_pine": 2.0, "ball_red": 0.6, "ball_blue": 0.6, "ball_yellow": 0.6,
    "key_yellow": 0.5,
}  # fmt: skip
"""Mesh and usual height in metres."""
PROPS_PER_ROOM, PLACE_TRIES = 5, 40
"""A prop that fits nowhere in so many tries is left out."""
NEAR_M, NEAR_SHARE, MEDIAN_M = 0.9, 0.25, 1.5
"""A view is refused if more than this share of it is nearer than NEAR_M, or half of it nearer than MEDIAN_M."""
WALL_ROOM_M, PROP_ROOM_M = 0.5, 0.7
WAYS_PER_WORLD = 60


@dataclass
class Mover:
    """A prop and what it does: spin, slide, bounce or circle between two frames."""

    prop: Any
    kind: str
    start: int
    stop: int
    ease: str
    reach: NDArray[np.float64]
    turns: float

    def place(self, frame: int, home: NDArray[np.float64], heading: float) -> None:
        """Put the prop where it is at `frame`."""
        part = np.clip((frame - self.start) / max(1, self.stop - self.start), 0, 1)
        s = float(np.interp(part, np.linspace(0, 1, 65), eased(self.ease, 65)))
        turn = 2 * np.pi * self.turns * s
        offset = np.zeros(3)
        match self.kind:
            case "slide":
                offset = self.reach * s
            case "bounce":
                offset[1] = abs(self.reach[1]) * abs(np.sin(turn))
            case "circle":
                radius = float(np.hypot(self.reach[0], self.reach[2])) / 2
                offset = radius * np.array([np.cos(turn) - 1, 0, np.sin(turn)])
        self.prop.pos = home + offset
        self.prop.dir = heading + (turn if self.kind in ("spin", "slide", "circle") else 0.0)


class Gallery(MiniWorldEnv):  # type: ignore[misc]
    """Two or three rooms in a row; a new one with every `reset(seed=...)`. `doors`: middle [x, z] of each door."""

    def __init__(self, width: int, height: int) -> None:
        params = DEFAULT_PARAMS.copy()
        params.set("light_color", [0.7, 0.7, 0.7], [0.35, 0.35, 0.35], [1.0, 0.95, 0.9])
        params.set("light_ambient", [0.45, 0.45, 0.45], [0.25, 0.25, 0.25], [0.6, 0.6, 0.6])
        params.set("sky_color", [0.6, 0.75, 0.9], [0.35, 0.45, 0.55], [0.85, 0.9, 1.0])
        params.set("light_pos", [0, 2.5, 0], [-4, 1.5, -4], [20, 6, 4])
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how many samples the driver allows
            super().__init__(
                obs_width=width, obs_height=height, window_width=16, window_height=16, params=params, domain_rand=True
            )

    def _gen_world(self) -> None:
        rng, x = self.np_random, 0.0
        self.doors: list[NDArray[np.float64]] = []
        height = float(rng.uniform(2.6, 3.6))
        pairs: list[tuple[Any, Any, float]] = []
        for index in range(int(rng.integers(2, 4))):
            wide, deep = float(rng.uniform(5, 9)), float(rng.uniform(5, 8))
            shift = float(rng.uniform(-0.8, 0.8))
            room = self.add_rect_room(
                min_x=x, max_x=x + wide, min_z=shift - deep / 2, max_z=shift + deep / 2, wall_height=height,
                wall_tex=_surface(rng, WALLS), floor_tex=_surface(rng, FLOORS), ceil_tex=_surface(rng, CEILINGS),
                no_ceiling=bool(rng.random() < 0.15),
            )  # fmt: skip
            if index:
                before = pairs[-1][1] if pairs else self.rooms[0]
                pairs.append((before, room, float(rng.uniform(-0.8, 0.8))))
            x += wide + 0.3
        for first, second, middle in pairs:
            half = float(rng.uniform(0.8, 1.2))
            top = float(rng.uniform(2.1, 2.5))
            self.connect_rooms(first, second, min_z=middle - half, max_z=middle + half, max_y=top)
            self.doors.append(np.array([(first.max_x + second.min_x) / 2, middle]))
        rooms = [pairs[0][0], *(second for _, second, _ in pairs)]
        self.halls = rooms
        for room in rooms:
            self._hang(room)
        self.homes: list[tuple[Any, NDArray[np.float64], float]] = []
        self._gen_static_data()  # the walls that props keep clear of
        for room in rooms:
            self._furnish(room)
        self.place_agent(pos=np.array([rooms[0].mid_x, 0.0, rooms[0].mid_z]), dir=0.0)

    def _hang(self, room: Any) -> None:
        """Pictures on all four walls, clear of the doors."""
        rng = self.np_random
        for along_x, fixed, low, high, heading in (
            (True, room.min_z, room.min_x, room.max_x, -np.pi / 2),
            (True, room.max_z, room.min_x, room.max_x, np.pi / 2),
            (False, room.min_x, room.min_z, room.max_z, 0.0),
            (False, room.max_x, room.min_z, room.max_z, np.pi),
        ):
            place = low + rng.uniform(0.9, 1.5)
            while place < high - 0.9:
                level = rng.uniform(1.4, 1.7)
                spot = np.array([place, level, fixed] if along_x else [fixed, level, place])
                width = float(rng.uniform(0.7, 1.5))
                if along_x or all(abs(place - d[1]) > 1.3 + width / 2 or abs(fixed - d[0]) > 0.5 for d in self.doors):
                    self.entities.append(ImageFrame(spot, heading, _picture(rng), width))
                place += width + rng.uniform(0.3, 1.4)

    def _furnish(self, room: Any) -> None:
        rng = self.np_random
        for _ in range(PROPS_PER_ROOM):
            mesh = str(rng.choice(list(PROPS)))
            prop = MeshEnt(mesh, PROPS[mesh] * float(rng.uniform(0.8, 1.3)), static=False)
            for _ in range(PLACE_TRIES):
                spot = np.array([rng.uniform(room.min_x, room.max_x), 0.0, rng.uniform(room.min_z, room.max_z)])
                if not self.intersect(prop, spot, prop.radius + 0.05):
                    self.place_entity(prop, pos=spot)
                    self.homes.append((prop, spot, float(prop.dir)))
                    break

    def clear(self, place: NDArray[np.float64]) -> bool:
        """Whether a camera at [x, y, z] keeps its distance from walls and props, as they stand."""
        ground = np.array([place[0], 0, place[2]])
        if intersect_circle_segs(ground, WALL_ROOM_M, self.wall_segs):
            return False
        gaps = (np.hypot(*(p.pos - ground)[[0, 2]]) - p.radius for p, _, _ in self.homes)
        return all(gap > PROP_ROOM_M for gap in gaps)

    def look(self, pose: NDArray[np.float64]) -> Pixels:
        """What a camera at `pose` [x, y, z, yaw, pitch] (metres, radians) sees: [H,W,3]."""
        self._stand(pose)
        view: Pixels = self.render_obs()
        return view

    def depth(self, pose: NDArray[np.float64]) -> NDArray[np.float32]:
        """Metres [H,W] from `pose`."""
        self._stand(pose)
        metres: NDArray[np.float32] = self.render_depth()[..., 0]
        return metres

    def _stand(self, pose: NDArray[np.float64]) -> None:
        self.agent.cam_height, self.agent.cam_fwd_disp = float(pose[1]), 0.0
        self.agent.pos = np.array([pose[0], 0.0, pose[2]])
        self.agent.dir, self.agent.cam_pitch = float(pose[3]), float(np.degrees(pose[4]))


def _surface(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    """A texture of the package, or a painted one."""
    return f"painted/{int(rng.integers(PAINTINGS))}" if rng.random() < 0.3 else str(rng.choice(names))


def _picture(rng: np.random.Generator) -> str:
    names = [name for name in Texture.tex_paths if name.startswith("portraits/")]
    return f"painted/{int(rng.integers(PAINTINGS))}" if rng.random() < 0.35 else str(rng.choice(names))


def _load(name: str) -> Any:
    """A mipmapped OpenGL texture from a file, or of a painted canvas.

    In the package's own way every byte passes through regular expressions: seconds for a picture.
    """
    if name.startswith("painted/"):
        pixels = cv2.cvtColor(paint(int(name.removeprefix("painted/")), 256).levels[0], cv2.COLOR_RGB2RGBA)
    else:
        pixels = cv2.cvtColor(np.asarray(cv2.imread(name, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGBA)
    height, width = pixels.shape[:2]
    upright = np.ascontiguousarray(pixels[::-1]).tobytes()
    texture = pyglet.image.ImageData(width, height, "RGBA", upright).get_texture()
    gl.glBindTexture(gl.GL_TEXTURE_2D, texture.id)
    kinds = (gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, upright)
    gl.glTexImage2D(gl.GL_TEXTURE_2D, 0, gl.GL_RGB, width, height, 0, *kinds)
    gl.glGenerateMipmap(gl.GL_TEXTURE_2D)
    gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MAG_FILTER, gl.GL_LINEAR)
    gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR_MIPMAP_LINEAR)
    return texture


@lru_cache(maxsize=4)
def _gallery(width: int, height: int) -> Gallery:
    """One renderer for each size; OpenGL keeps its textures for the life of the process."""
    folder = Path(get_subdir_path("textures")) / "portraits"
    Texture.load = staticmethod(_load)
    Texture.tex_paths.update({f"portraits/{p.stem}": [str(p)] for p in sorted(folder.glob("*.png"))})
    Texture.tex_paths.update({f"painted/{n}": [f"painted/{n}"] for n in range(PAINTINGS)})
    return Gallery(width, height)


def clip(seed: int, size: tuple[int, int] = (256, 144), frames: int = 0) -> tuple[Pixels, ClipNote]:
    """A flight through the gallery of `seed` at `size` (width, height): uint8 [F,H,W,3] and its note.

    `frames`: 1+4m, or 0: drawn from LENGTHS. The same seed and package give the same way and world.
    """
    rng = np.random.default_rng([seed, 0x6A11])
    world = _gallery(*size)
    count = frames or int(rng.choice(LENGTHS))
    while True:
        world.reset(seed=int(rng.integers(2**31)))
        world.agent.cam_fov_y = float(rng.uniform(42, 62))
        movers = _movers(rng, world, count)
        for _ in range(WAYS_PER_WORLD):
            shape = Shape(world.halls, world.doors, world.agent.cam_fov_y, size[0] / size[1])
            poses, legs = draw_way(rng, shape, count)
            if _passes(world, movers, poses):
                return _filmed(world, movers, poses, legs, seed, size, shape)


def _movers(rng: np.random.Generator, world: Gallery, count: int) -> list[Mover]:
    """Half of the props move."""
    movers = []
    for prop, _, _ in world.homes:
        if rng.random() < 0.5:
            start = int(rng.integers(0, count // 2)) if rng.random() < 0.4 else 0
            stop = int(rng.integers(start + count // 3, count)) if rng.random() < 0.3 else count - 1
            reach = rng.normal(0, 0.7, 3)
            kind = str(rng.choice(["spin", "slide", "bounce", "circle"]))
            turns = float(rng.uniform(0.3, 1.6)) * (1 if rng.random() < 0.5 else -1)
            movers.append(Mover(prop, kind, start, stop, "in_out" if rng.random() < 0.5 else "linear", reach, turns))
    return movers


def _pose_props(world: Gallery, movers: list[Mover], frame: int) -> None:
    homes = {id(prop): (home, heading) for prop, home, heading in world.homes}
    for mover in movers:
        mover.place(frame, *homes[id(mover.prop)])


def _passes(world: Gallery, movers: list[Mover], poses: NDArray[np.float64]) -> bool:
    """Whether the camera stays clear of walls and props, and nothing near fills the view."""
    for frame in range(0, len(poses), 2):
        _pose_props(world, movers, frame)
        if not world.clear(poses[frame, :3]):
            return False
    for frame in np.linspace(0, len(poses) - 1, 5).round().astype(int):
        _pose_props(world, movers, int(frame))
        metres = world.depth(poses[frame])
        if (metres < NEAR_M).mean() > NEAR_SHARE or np.median(metres) < MEDIAN_M:
            return False
    return True


def _filmed(
    world: Gallery, movers: list[Mover], poses: NDArray[np.float64], legs: list[Leg], seed: int, size: tuple[int, int],
    shape: Shape,
) -> tuple[Pixels, ClipNote]:  # fmt: skip
    _pose_props(world, movers, 0)
    ahead = float(np.median(world.depth(poses[0])))
    pictures = []
    for frame, pose in enumerate(poses):
        _pose_props(world, movers, frame)
        pictures.append(world.look(pose).copy())
    beats = leg_beats(legs, shape, ahead, FPS)
    borders = {beat.start_s for beat in beats[1:]} | {f / FPS for m in movers for f in (m.start, m.stop)}
    note = ClipNote(
        source="galleries", licence=LICENCE, seed=seed, category="base", fps=FPS, frames=len(poses), width=size[0],
        height=size[1], beats=tuple(beats),
        boundaries_s=tuple(sorted(round(b, 3) for b in borders if 0 < b < (len(poses) - 1) / FPS)),
    )  # fmt: skip
    return np.stack(pictures), note
