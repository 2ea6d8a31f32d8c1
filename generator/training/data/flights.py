"""Flights through the levels of Freedoom, steered by the depth buffer (PyPI `vizdoom==1.3.2`, which brings both WADs).

Importing this module needs vizdoom; `sources.py` checks for it. Rendered at 640x480 without a display, then shrunk.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import vizdoom
from numpy.typing import NDArray

from dreamontage.generator.training.data.notes import ClipBeat, ClipNote
from dreamontage.generator.training.data.pictures import Pixels
from dreamontage.generator.training.data.store import NoClip

LICENCE = "Freedoom levels, BSD-3-Clause; vizdoom 1.3.2, MIT"
FPS = 24
WORDS = "fast flight through dark rooms and corridors"
LENGTHS = (33, 41, 49, 57, 65)
LEVELS = tuple(("freedoom2.wad", f"map{n:02}") for n in range(1, 33)) + tuple(
    ("freedoom1.wad", f"E{e}M{m}") for e in range(1, 5) for m in range(1, 10)
)
WARM_UP, WARM_UP_TICS = (4, 50), 3
"""Steps flown before the clip begins, so that clips of one level begin in many places, and frames of each."""
COLUMNS = 16
CLEARANCE, OPEN = 9.0, 55.0
"""Depth (0..255 as the engine gives it) at which the flight turns away, and at which it goes at full speed."""
MEDIAN_DEPTH, LOWEST_DEPTH = 12.0, 6.0
"""A clip is drawn again if half of its frames' median depths are below the first, or any below the second."""
ATTEMPTS = 12
FULL_SPEED, FULL_TURN = 34.0, 4.0
"""The engine's units of thrust (50 is a run) and degrees, a frame."""
BRIGHT, MOST_GAIN, DARKEST = 80.0, 2.2, 40.0
"""Mean level that a dark clip is exposed to, by how much at most, and the level below which it is drawn again."""


@lru_cache(maxsize=1)
def _game() -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_640X480)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    for switch in ("hud", "weapon", "crosshair", "messages", "screen_flashes", "decals", "particles"):
        getattr(game, f"set_render_{switch}")(False)
    game.set_available_buttons(
        [
            vizdoom.Button.MOVE_FORWARD_BACKWARD_DELTA,
            vizdoom.Button.MOVE_LEFT_RIGHT_DELTA,
            vizdoom.Button.TURN_LEFT_RIGHT_DELTA,
            vizdoom.Button.USE,
        ]
    )
    game.set_episode_timeout(0)
    game.set_doom_skill(2)
    return game


@contextlib.contextmanager
def _level(wad: str, level: str, seed: int) -> Iterator[vizdoom.DoomGame]:
    """A started game that no one can end; another level of the same engine needs a new start."""
    game = _game()
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / wad))
    game.set_doom_map(level)
    game.set_seed(seed)
    game.set_game_args("+sv_cheats 1 +movebob 0 +stillbob 0 +viz_nocheat 0")
    with tempfile.TemporaryDirectory() as scratch:  # the engine leaves its settings where it was started
        with contextlib.chdir(scratch):
            game.init()
        try:
            game.send_game_command("god")
            yield game
        finally:
            game.close()


class _Pilot:
    """Turns towards the open side, slows before walls, sways and glances by a will of its own."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.turn = self.speed = self.sway = 0.0
        self.cruise = float(rng.uniform(0.45, 1.0)) * FULL_SPEED
        self.wish, self.glance = 0.0, 0.0
        self.escape = 0
        self.side = 1.0

    def action(self, depth: NDArray[np.uint8]) -> list[float]:
        """Buttons for the next frame, from depth [H,W]."""
        rows = depth[depth.shape[0] * 2 // 5 : depth.shape[0] * 3 // 5].astype(np.float32)
        free = np.percentile(rows.reshape(rows.shape[0], COLUMNS, -1), 20, axis=(0, 2))
        ahead = float(free[COLUMNS // 2 - 2 : COLUMNS // 2 + 2].min())
        if self.rng.random() < 0.03:
            self.wish, self.glance = float(self.rng.normal(0, 0.5)), float(self.rng.normal(0, 0.4))
        places = np.linspace(-1, 1, COLUMNS)
        weights = free**2
        towards = float((places * weights).sum() / max(1e-6, float(weights.sum())))
        if ahead < CLEARANCE and not self.escape:
            self.escape = int(self.rng.integers(12, 30))
            self.side = float(np.sign(towards) or 1.0)
        if self.escape:
            self.escape -= 1
            turn = self.side * FULL_TURN
        else:
            turn = float(np.clip(2.2 * towards + 0.6 * self.wish, -1, 1)) * FULL_TURN
        pace = float(np.clip((ahead - CLEARANCE) / (OPEN - CLEARANCE), 0.0, 1)) * self.cruise
        self.turn += 0.12 * (turn - self.turn)
        self.speed += 0.15 * (pace - self.speed)
        self.sway += 0.1 * (self.glance * self.cruise - self.sway)
        use = 1.0 if ahead < CLEARANCE and self.rng.random() < 0.3 else 0.0
        return [self.speed, self.sway, self.turn, use]


def clip(seed: int, size: tuple[int, int] = (256, 144), frames: int = 0) -> tuple[Pixels, ClipNote]:
    """A flight of `seed` at `size` (width, height): uint8 [F,H,W,3] and its note; flights along walls are drawn again.

    `frames`: 1+4m, or 0: drawn from LENGTHS.
    """
    rng = np.random.default_rng([seed, 0xD00])
    count = frames or int(rng.choice(LENGTHS))
    for _ in range(ATTEMPTS):
        wad, level = LEVELS[int(rng.integers(len(LEVELS)))]
        with _level(wad, level, int(rng.integers(2**31))) as game:
            flown, depths = _fly(rng, game, count, size)
        if len(flown) < count:
            continue
        pictures, medians = exposed(np.stack(flown)), np.array(depths)
        if np.median(medians) >= MEDIAN_DEPTH and medians.min() >= LOWEST_DEPTH and pictures.mean() >= DARKEST:
            break
    else:
        raise NoClip(f"{ATTEMPTS} flights of seed {seed} all ended at a wall or in the dark")
    note = ClipNote(
        source="flights", licence=LICENCE, seed=seed, category="base", fps=FPS, frames=count, width=size[0],
        height=size[1], beats=(ClipBeat(start_s=0, stop_s=(count - 1) / FPS, prompt=WORDS),),
    )  # fmt: skip
    return pictures, note


def exposed(clip: Pixels) -> Pixels:
    """A dark clip [F,H,W,3] brightened as a whole, with a shoulder so that lights keep their colour."""
    gain = float(np.clip(BRIGHT / max(1.0, float(clip.mean())), 1.0, MOST_GAIN))
    levels = np.arange(256) / 255
    table: Pixels = np.round(255 * gain * levels / (1 + (gain - 1) * levels)).astype(np.uint8)
    return np.asarray(table[clip], np.uint8)


def _fly(
    rng: np.random.Generator, game: vizdoom.DoomGame, count: int, size: tuple[int, int]
) -> tuple[list[Pixels], list[float]]:
    """Frames and median depths after a warm-up flight."""
    pilot, shots, depths = _Pilot(rng), list[Pixels](), list[float]()
    for _ in range(int(rng.integers(0, 30))):
        game.make_action([0, 0, 6.0, 0])
    warm_up = int(rng.integers(*WARM_UP))
    for frame in range(-warm_up, count):
        state = game.get_state()
        if state is None or game.is_episode_finished():
            break
        depth = np.asarray(state.depth_buffer, np.uint8)
        action = pilot.action(depth)
        if frame >= 0:
            shots.append(_shrunk(np.asarray(state.screen_buffer, np.uint8), size))
            depths.append(float(np.median(depth)))
        game.make_action(action, 1 if frame >= 0 else WARM_UP_TICS)
    return shots, depths


def _shrunk(screen: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle of a 640x480 screen at the aspect of `size`, shrunk by area."""
    height, width = screen.shape[:2]
    high = min(height, width * size[1] // size[0])
    wide = min(width, height * size[0] // size[1])
    top, left = (height - high) // 2, (width - wide) // 2
    middle = screen[top : top + high, left : left + wide]
    return np.asarray(cv2.resize(middle, size, interpolation=cv2.INTER_AREA), np.uint8)
