"""A desk to render at without a studio: files, takes and videos in a folder, and the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tiny_model import clip, picture

from dreamontage.generator.engines.engine import Engine
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.render import RenderTask, render
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Cancelled
from dreamontage.schemas.job import Progress, RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Format, Montage
from dreamontage.schemas.report import TakeChoice, Video

FORMAT = Format(width=256, height=144, fps=8)


class Desk:
    """A folder with files, takes and videos, and the tiny model."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.media: dict[str, Media] = {}
        self.blobs: dict[str, Path] = {}
        self.pipe: DreaMontagePipeline | None = None
        self.steps: list[Progress] = []
        self.count = 0

    def still(self, seed: int) -> str:
        path = self.folder / f"{seed}.png"
        Image.fromarray(picture(seed, (320, 180))).save(path)
        return self._keep(f"img_{seed}", path, Media(
            id=f"img_{seed}", sha256=f"{seed:064x}", kind="still", container="PNG", width=320, height=180, bytes=1))

    def film(self, seed: int, frames: int) -> str:
        path = self.folder / f"{seed}.mp4"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=8, options={"crf": "4"})
            stream.width, stream.height, stream.pix_fmt = 256, 144, "yuv420p"
            for frame in clip(seed, frames):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            file.mux(stream.encode())
        return self._keep(f"clip_{seed}", path, Media(
            id=f"clip_{seed}", sha256=f"c{seed:063x}", kind="clip", container="mov", width=256, height=144,
            duration_s=frames / 8, fps=8, frames=frames, bytes=1))

    def _keep(self, media_id: str, path: Path, media: Media) -> str:
        self.media[media_id], self.blobs[media_id] = media, path
        return media_id

    def load(self, model_id: str) -> DreaMontagePipeline:
        self.pipe = self.pipe or DreaMontagePipeline.from_pretrained(self.model)
        return self.pipe

    def render(
        self, montage: Montage, base: Video | None = None, cancel_at: int | None = None,
        choices: Sequence[TakeChoice] = (), load: Callable[[str], Any] | None = None,
        engine: Callable[[str], Engine] | None = None, **request: object,
    ) -> Video:  # fmt: skip
        self.steps = []
        self.count += 1

        def on_progress(progress: Progress) -> None:
            self.steps.append(progress)
            if cancel_at is not None and len(self.steps) == cancel_at:
                raise Cancelled("the job was cancelled")

        out = self.folder / f"v{self.count}"
        out.mkdir()
        asked = RenderRequest(**{"quality": "draft", **request})  # type: ignore[arg-type]
        task = RenderTask(
            montage, self.media, self.blobs, asked, base, self.folder / "takes", out, out.name, choices
        )  # fmt: skip
        return render(task, load or self.load, on_progress, engine)


def three_stills(desk: Desk, seconds: tuple[float, ...] = (0.0, 4.0, 8.0)) -> Montage:
    """A shot of 10 s through three stills."""
    anchors = [Anchor(id=f"a{i}", media_id=desk.still(i + 1), second=s) for i, s in enumerate(seconds)]
    return Montage(id="m_1", format=FORMAT, duration_s=10.0, model="tiny", seed=3, anchors=anchors)


def frames_of(video: Video) -> NDArray[np.uint8]:
    """All frames [F,H,W,3] of a delivered video."""
    with av.open(video.path) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def install(folder: Path, card: ModelCard) -> None:
    """Put a model without weights among those that are installed: enough to plan and to queue with."""
    (folder / card.id).mkdir(parents=True)
    (folder / card.id / "card.json").write_text(card.model_dump_json(exclude={"available"}))
    (folder / card.id / "model_index.json").write_text("{}")
