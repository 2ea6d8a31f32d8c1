"""Photographs reserved for evaluation: those of PyPI `mvtb-data==1.6.1`, and the demo's. Never trained on."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dreamontage.generator.evaluation.clips import DEMO
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.frames import fitted
from dreamontage.generator.training.data.pictures import Picture, Source, load_pictures
from dreamontage.schemas.errors import NotFound

MVTB = (
    "eiffel-1.png", "church.jpg", "parks.png", "rocks2-l.png", "lab-scene.png", "flowers1.png", "notre-dame.png",
    "street.png", "building2-1.png", "flowers5.png", "walls-l.png", "roof.png", "road.png", "butterfly.jpg",
    "flowers4.png", "flowers6.png", "flowers7.png", "castle.png", "tomato_54.png", "image3.jpg", "58060.png",
    "eiffel-2.png", "flowers3.png", "building2-3.png",
)  # fmt: skip


def folder() -> Path:
    """The pictures of mvtb-data. Raises NotFound, naming the package, where it is not installed."""
    spec = importlib.util.find_spec("mvtbdata")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "images").is_dir():
            return Path(place) / "images"
    raise NotFound("the test photographs of mvtb-data are not here", next_call="pip install mvtb-data==1.6.1")


@lru_cache(maxsize=8)
def photograph(name: str, otherwise: str = "") -> Picture:
    """A photograph by its file name, as a pyramid; `otherwise` stands in for a name that is no photograph."""
    path = folder() / (name if name in MVTB else otherwise or name)
    return load_pictures([Source(path, "photo", "evaluation only")])[0]


def stills(size: tuple[int, int], count: int | None = None) -> dict[str, Frames]:
    """Photographs as a user would pin them: whole, cropped to `size`; uint8 [H,W,3] by name, the demo's first."""
    paths = [*sorted(DEMO.glob("*.jpg")), *(folder() / name for name in MVTB)][:count]
    return {path.name: _still(path, size) for path in paths}


@lru_cache(maxsize=64)
def _still(path: Path, size: tuple[int, int]) -> Frames:
    with Image.open(path) as picture:
        return np.asarray(fitted(picture.convert("RGB"), size))
