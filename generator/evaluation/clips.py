"""Held-out pictures and the clips that a virtual camera takes of them; the same for every run."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.training.data.camera import eased, layered_clip, render_views, similarity
from dreamontage.generator.training.data.pictures import Picture, Source, load_pictures
from dreamontage.schemas.errors import NotFound

GAP = 16
"""Frames between two anchors."""
PINNED = (0, GAP, 2 * GAP)
FPS = 24
EASES = ("linear", "in", "out", "in_out")
TEST = (
    "eiffel-1.png", "church.jpg", "parks.png", "rocks2-l.png", "lab-scene.png", "flowers1.png", "notre-dame.png",
    "street.png", "building2-1.png", "flowers5.png",
)  # fmt: skip
"""Photographs of PyPI `mvtb-data==1.6.1`, reserved for this test."""
DEMO = Path(__file__).parents[1] / "media" / "demo"


@dataclass(frozen=True)
class HeldOut:
    """A clip [33,H,W,3] whose frames 0, 16 and 32 are pinned."""

    name: str
    ease: str
    frames: Frames

    @property
    def pinned(self) -> dict[int, Frames]:
        """The given frames."""
        return {frame: self.frames[frame] for frame in PINNED}

    @property
    def between(self) -> list[int]:
        """The frames that are not given."""
        return [frame for frame in range(len(self.frames)) if frame not in PINNED]


def test_pictures() -> list[Picture]:
    """The ten test photographs. Raises NotFound, naming the package, where it is not installed."""
    spec = importlib.util.find_spec("mvtbdata")
    places = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    paths = [place / "images" / name for place in places[:1] for name in TEST]
    missing = [path.name for path in paths if not path.is_file()]
    if not paths or missing:
        raise NotFound(
            f"the test photographs of mvtb-data are not here {missing or ''}".strip(),
            next_call="pip install 'dreamontage[evaluate]'",
        )
    return load_pictures(Source(path, "own", "evaluation only") for path in paths)


def validation_pictures() -> list[Picture]:
    """The demo's photographs: never trained on, and not part of the test; settings are chosen on them."""
    return load_pictures(Source(path, "own", "evaluation only") for path in sorted(DEMO.glob("*.jpg")))


def similarity_clip(picture: Picture, seed: int, width: int = 256, height: int = 144) -> HeldOut:
    """33 frames of an eased pan, zoom and roll inside a picture: up to half a view and e^±.35 over the clip."""
    rng = np.random.default_rng([seed, 11])
    frames = 2 * GAP + 1
    fits = min(picture.size[0] / height, picture.size[1] / width)
    turn, way = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.5)
    zoom, roll = rng.uniform(-0.35, 0.35), rng.uniform(-0.15, 0.15)
    scale = fits * rng.uniform(0.45, 0.6)
    reach = way * width * scale * np.array([np.cos(turn), 0.5 * np.sin(turn)])
    view = scale * np.exp(abs(zoom) / 2) * np.array([width, height])
    room = (np.array(picture.size[::-1]) - view - abs(reach)) / 2
    middle = np.array(picture.size[::-1]) / 2 + rng.uniform(-1, 1, 2) * np.maximum(0, room)
    ease = EASES[seed % len(EASES)]
    views = [
        similarity(height, width, middle + reach * (s - 0.5), scale * float(np.exp(zoom * (s - 0.5))), roll * (s - 0.5))
        for s in eased(ease, frames)
    ]
    return HeldOut(picture.name, ease, render_views(picture, np.stack(views), height, width))


def test_clips() -> list[HeldOut]:
    """Ten clips, one for each test photograph."""
    return [similarity_clip(picture, index) for index, picture in enumerate(test_pictures())]


def layered_held_out(
    ground: Picture, sprites: list[Picture], seed: int, width: int = 256, height: int = 144
) -> HeldOut:
    """33 frames with parallax and things that move by themselves, which a solved camera cannot follow."""
    frames, shot = layered_clip(np.random.default_rng([seed, 12]), ground, sprites, 2 * GAP + 1, height, width)
    return HeldOut(f"{ground.name}, layered", shot.ease, frames)


def validation_clips(count: int = 4) -> list[HeldOut]:
    """Clips of the demo's photographs, with other motions than the test's: `count` similarity, as many layered ones."""
    pictures = validation_pictures()
    around = [pictures[index % len(pictures)] for index in range(count + 2)]
    plain = [similarity_clip(around[index], 100 + index) for index in range(count)]
    return plain + [layered_held_out(around[i], around[i + 1 : i + 3], 100 + i) for i in range(count)]
