"""Licence-clean pictures for training, found in installed packages or named folders, with a manifest of their sources.

Sources: Debian `lomiri-wallpapers-16.04` (its CC-BY-4.0 files but those kept for the demo and for evaluation) and PyPI
`miniworld==2.1.0` (textures and portraits). Any folder of pictures may be added on the command line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

LOMIRI_FOLDER = Path("/usr/share/backgrounds")
LOMIRI_TRAINING = {
    "life_by_Aitzol_Berasategi.jpg": "Aitzol Berasategi, 2018, CC-BY-4.0",
    "friends_by_Aitzol_Berasategi.jpg": "Aitzol Berasategi, 2018, CC-BY-4.0",
    "Wine_by_Jakkub_Mede.jpg": "Jakub Mede, 2018, CC-BY-4.0",
    "Picture_0B_by_freespace.jpg": 'Trevor "Freespace", 2018, CC-BY-4.0',
    "Picture_1A_by_freespace.jpg": 'Trevor "Freespace", 2018, CC-BY-4.0',
    "umang_by_Abhishek_Mudgal.jpg": "Abhishek Mudgal, 2018, CC-BY-4.0",
}
"""The files of lomiri-wallpapers-16.04 to train on. The others are the demo's, or CC-BY-SA."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LARGEST_SIDE = 2048


@dataclass(frozen=True)
class Source:
    """Where one picture comes from."""

    path: Path
    kind: str
    """photo, texture, portrait or own"""
    licence: str


@dataclass(frozen=True)
class Picture:
    """A picture as a pyramid: `levels[0]` full size, each next one half of it, uint8 [H,W,3] RGB."""

    name: str
    kind: str
    levels: tuple[Pixels, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the full size."""
        height, width = self.levels[0].shape[:2]
        return height, width


def pyramid(pixels: Pixels, smallest: int = 48) -> tuple[Pixels, ...]:
    """Halve [H,W,3] by area until a side falls below `smallest`."""
    levels = [np.ascontiguousarray(pixels)]
    while min(levels[-1].shape[:2]) >= 2 * smallest:
        height, width = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.uint8))
    return tuple(levels)


def find_pictures(folders: Sequence[Path] = (), lomiri: Path = LOMIRI_FOLDER) -> list[Source]:
    """List training pictures: the known files of installed packages, then every picture in `folders`.

    A folder that holds the wallpapers by their Debian names contributes only the six files meant for training.
    """
    found = [Source(lomiri / name, "photo", licence) for name, licence in LOMIRI_TRAINING.items()]
    spec = importlib.util.find_spec("miniworld")
    packages = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    for package in packages:
        found += _miniworld(package / "textures")
    for folder in folders:
        if (folder / "portraits").is_dir():
            found += _miniworld(folder)
        elif any((folder / name).is_file() for name in LOMIRI_TRAINING):
            found += [Source(folder / name, "photo", licence) for name, licence in LOMIRI_TRAINING.items()]
        else:
            found += [
                Source(p, "own", "named by the user") for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES
            ]
    unique = {source.path: source for source in found if source.path.is_file()}
    return list(unique.values())


def _miniworld(textures: Path) -> list[Source]:
    licence = "miniworld 2.1.0, Apache-2.0"
    portraits = [Source(p, "portrait", licence) for p in sorted((textures / "portraits").glob("*.png"))]
    return [Source(p, "texture", licence) for p in sorted(textures.glob("*.png"))] + portraits


def load_picture(source: Source) -> Picture | None:
    """Read a picture as RGB, at most 2048 on its longer side; None if it is flat or smaller than 96."""
    pixels = cv2.imread(str(source.path), cv2.IMREAD_COLOR)
    if pixels is None or min(pixels.shape[:2]) < 96 or float(pixels.std()) < 4:
        return None
    scale = min(1.0, LARGEST_SIDE / max(pixels.shape[:2]))
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return Picture(source.path.stem, source.kind, pyramid(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8)))


def load_pictures(sources: Iterable[Source]) -> list[Picture]:
    """Load all readable, non-flat pictures."""
    loaded = (load_picture(source) for source in sources)
    return [picture for picture in loaded if picture is not None]


def write_manifest(sources: Sequence[Source], path: Path, notes: str = "") -> None:
    """Write name, kind, licence and SHA-256 of every source as JSON."""
    rows = []
    for source in sources:
        row = asdict(source) | {"sha256": hashlib.sha256(source.path.read_bytes()).hexdigest()}
        row["path"] = source.path.name
        rows.append(row)
    path.write_text(json.dumps({"notes": notes, "pictures": rows}, indent=1) + "\n")
