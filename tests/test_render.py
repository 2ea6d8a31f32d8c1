"""render(): a montage of real files in, a video and its takes out; resuming, reusing, holding, cancelling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk, frames_of, three_stills

from dreamontage.generator.takes import Takes
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Cancelled
from dreamontage.schemas.montage import Beat


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
