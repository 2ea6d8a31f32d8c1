"""render(): a montage of real files in, a video and its takes out; resuming, reusing, holding, cancelling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_model import clip, picture, save_tiny

from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.render import RenderTask, render
from dreamontage.generator.takes import Takes
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Cancelled
from dreamontage.schemas.job import Progress, RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Beat, Format, Montage
from dreamontage.schemas.report import Video

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
        self, montage: Montage, base: Video | None = None, cancel_at: int | None = None, **request: object
    ) -> Video:
        self.steps = []
        self.count += 1

        def on_progress(progress: Progress) -> None:
            self.steps.append(progress)
            if cancel_at is not None and len(self.steps) == cancel_at:
                raise Cancelled("the job was cancelled")

        out = self.folder / f"v{self.count}"
        out.mkdir()
        asked = RenderRequest(**{"quality": "draft", **request})  # type: ignore[arg-type]
        task = RenderTask(montage, self.media, self.blobs, asked, base, self.folder / "takes", out, out.name)
        return render(task, self.load, on_progress)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture
def desk(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(model.parent))
    return Desk(tmp_path, model)


def three_stills(desk: Desk, seconds: tuple[float, ...] = (0.0, 4.0, 8.0)) -> Montage:
    anchors = [Anchor(id=f"a{i}", media_id=desk.still(i + 1), second=s) for i, s in enumerate(seconds)]
    return Montage(id="m_1", format=FORMAT, duration_s=10.0, model="tiny", seed=3, anchors=anchors)


def frames_of(video: Video) -> NDArray[np.uint8]:
    with av.open(video.path) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_a_montage_of_stills_and_a_clip_becomes_a_video_that_decodes_as_reported(desk: Desk) -> None:
    body = three_stills(desk).model_copy(update={"beats": [Beat(start_s=0, end_s=3, prompt="slow pan left")]})
    film = Anchor(id="film", media_id=desk.film(9, 17), second=5.0)
    body = body.model_copy(update={"anchors": [*body.anchors[:2], film, body.anchors[2]]})
    video = desk.render(body)
    frames = frames_of(video)
    assert frames.shape == (video.report.frames, 144, 256, 3)
    assert video.report.frames == 81
    assert len(video.segments) == len(video.report.segments) > 2
    assert video.segments[0].seam == "start"
    assert all(Takes(desk.folder / "takes").has(s.fingerprint) for s in video.segments)
    assert Path(video.sheet).stat().st_size > 1000
    stages = [p.stage for p in desk.steps]
    assert stages == sorted(stages, key=["loading", "denoising", "decoding", "done"].index)
    done = [p.done / p.total for p in desk.steps if p.stage in ("denoising", "decoding", "done")]
    assert done[-1] == pytest.approx(1, abs=0.01)
    assert desk.steps[-1].seconds_left == 0


def test_the_same_request_gives_the_same_bytes_and_other_seeds_do_not(desk: Desk) -> None:
    body = three_stills(desk)
    first, again = desk.render(body), desk.render(body)
    assert first.sha256 == again.sha256
    assert [s.reused for s in again.report.segments] == [True] * len(again.segments)
    other = desk.render(body.model_copy(update={"seed": 4}))
    assert [s.fingerprint for s in other.segments] != [s.fingerprint for s in first.segments]


def test_a_cancelled_render_keeps_its_takes_and_resumes_with_them(desk: Desk) -> None:
    body = three_stills(desk)
    with pytest.raises(Cancelled):
        desk.render(body, cancel_at=9)
    kept = {path.stem for path in (desk.folder / "takes").glob("*.safetensors")}
    assert len(kept) > 0
    assert not list((desk.folder / "v1").iterdir())
    resumed = desk.render(body)
    assert {s.fingerprint for s, r in zip(resumed.segments, resumed.report.segments, strict=True) if r.reused} == kept
    fresh = Desk(desk.folder / "elsewhere", desk.model)
    fresh.folder.mkdir()
    assert fresh.render(three_stills(fresh)).sha256 == resumed.sha256


def test_a_damaged_take_is_rendered_again(desk: Desk) -> None:
    body = three_stills(desk)
    video = desk.render(body)
    path = desk.folder / "takes" / f"{video.segments[1].fingerprint}.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    again = desk.render(body, base=video)
    assert [s.reused for s in again.report.segments].count(False) == 1
    assert again.sha256 == video.sha256


def test_invariant_10_a_re_rolled_part_leaves_every_later_take_and_its_held_end_untouched(desk: Desk) -> None:
    body = three_stills(desk)
    video = desk.render(body)
    middle = video.report.segments[1].start_s + 0.01
    rolled = desk.render(body, base=video, from_s=middle, to_s=middle + 0.1, seed=11)
    changed = [i for i, s in enumerate(rolled.segments) if s.fingerprint != video.segments[i].fingerprint]
    assert len(changed) == 1
    (index,) = changed
    assert 0 < index < len(video.segments) - 1
    takes = Takes(desk.folder / "takes")
    new, old = (takes.load(v.segments[index].fingerprint) for v in (rolled, video))
    assert new is not None and old is not None
    assert (new[0][:, -3:] == old[0][:, -3:]).all()
    assert not (new[0][:, :-3] == old[0][:, :-3]).all()
    assert rolled.segments[index + 1].tail == video.segments[index + 1].tail


def test_moving_a_still_renders_only_what_it_touches(desk: Desk) -> None:
    video = desk.render(three_stills(desk, (0.0, 4.0, 6.0, 8.0)))
    body = three_stills(desk, (0.0, 4.0, 6.0, 9.0)).model_copy(update={"revision": 2})
    again = desk.render(body, base=video)
    reused = [s.reused for s in again.report.segments]
    before = [s for s in again.report.segments if s.end_s <= 4.5]
    assert before and all(s.reused for s in before)
    assert False in reused
    assert again.revision == 2


def test_a_previz_needs_no_model(desk: Desk) -> None:
    video = desk.render(three_stills(desk), quality="previz")
    assert desk.pipe is None
    assert video.segments == []
    assert frames_of(video).shape[0] == video.report.frames


def test_rendering_imports_torch_only_with_a_model() -> None:
    code = "import sys, dreamontage.generator.render; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
