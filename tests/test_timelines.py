"""A montage as an OpenTimelineIO file: opened by the library as an editor would, changed there, and brought back."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest
import slow_renderer
from agent import Agent
from mcp import Client
from opentimelineio.opentime import RationalTime, TimeRange
from test_soundtrack import tone
from typer.testing import CliRunner

from dreamontage.schemas.errors import MediaRejected, PathRefused
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Estimate
from dreamontage.server import merging
from dreamontage.server.app import build_server
from dreamontage.server.cli import app
from dreamontage.server.context import App
from dreamontage.server.store import Studio, new_id
from dreamontage.server.timeline_export import export_timeline
from dreamontage.server.timeline_import import montage_from_timeline
from dreamontage.server.worker import Worker

pytestmark = pytest.mark.anyio
KEY = "dreamontage"


@pytest.fixture
async def montage(studio: Studio, pictures: list[Path], clip: Path) -> Montage:
    """A still, a trimmed clip between grid lines, a loose still; two beats; sound."""
    (pictures[0].parent / "song.wav").write_bytes(tone(2.0))
    async with Client(build_server(studio, roots=[pictures[0].parent])) as client:
        agent = Agent(client)
        made = await agent.call(
            "plan_montage", brief="A walk", duration_s=7.9, seed=5,
            anchors=[
                {"source": str(pictures[0]), "label": "the start"},
                {"source": str(clip), "second": 3.03, "in_s": 0.5, "out_s": 1.75, "focus": [0.2, 0.5]},
                {"source": str(pictures[1]), "second": 7.9, "strength": 0.6, "fit": "contain"},
            ],
            beats=[
                {"start_s": 0, "end_s": 2.51, "prompt": "slow pan left", "camera": {"move": "whip", "ease": "in"}},
                {"start_s": 3, "end_s": 6, "guide": "loose"},
            ],
        )  # fmt: skip
        await agent.call("update_montage", montage_id=made["montage_id"], audio="song.wav", title="Walk")
    return studio.get_montage(made["montage_id"])


def content(montage: Montage) -> dict[str, Any]:
    """What a montage says, whoever wrote it and whatever it is called."""
    parts = merging.entities_of(montage)
    return {key: {**value, "by": ""} if isinstance(value, dict) and "by" in value else value
            for key, value in parts.items()}  # fmt: skip


def span(start: float, length: float, rate: int = 24) -> TimeRange:
    return TimeRange(RationalTime(start, rate), RationalTime(length, rate))


def opened(path: Path) -> otio.schema.Timeline:
    timeline = otio.adapters.read_from_file(str(path))
    assert isinstance(timeline, otio.schema.Timeline)
    return timeline


def rendered(studio: Studio, montage: Montage) -> str:
    slow_renderer.open_gates(studio, slow_renderer.SEGMENTS)
    studio.enqueue(montage, RenderRequest(), Estimate(segments_to_render=1, seconds=1, low_s=1, high_s=1))
    working = Worker(studio, render=slow_renderer.render, idle_exit_s=0.1)
    thread = threading.Thread(target=working.run)
    thread.start()
    thread.join(30)
    return studio.videos(montage.id)[0].id


async def test_an_editor_finds_anchors_beats_sound_segments_and_takes(
    studio: Studio, montage: Montage, tmp_path: Path
) -> None:
    video_id = rendered(studio, montage)
    file = export_timeline(studio, montage, tmp_path / "edit", copies=True)
    timeline = opened(file)

    assert timeline.name == "Walk"
    assert timeline.duration() == RationalTime(193, 24)
    tracks = {track.name: track for track in timeline.tracks}
    assert [*tracks] == ["Anchors", "Shot", "Sound"]
    clips = list(tracks["Anchors"].find_clips())
    assert [clip.name for clip in clips] == ["the start", "bunny.mp4", "picosdeeuropa.jpg"]
    starts = [tracks["Anchors"].range_of_child(clip).start_time.value for clip in clips]
    assert starts == [0, 72, 188]
    assert clips[1].trimmed_range() == span(12, 29)
    assert [clip.markers[0].color for clip in clips] == ["GREEN", "GREEN", "YELLOW"]
    for clip in timeline.find_clips():
        medium = file.parent / clip.media_reference.target_url
        assert medium.is_file() and not medium.is_symlink()
        digest = hashlib.sha256(medium.read_bytes()).hexdigest()
        assert clip.metadata[KEY]["sha256"] == digest
    beats = timeline.tracks.markers
    assert [beat.comment for beat in beats] == ["slow pan left", ""]
    assert beats[0].marked_range.end_time_exclusive().to_seconds() == pytest.approx(2.51)
    assert timeline.metadata[KEY]["segments"][-1]["end_s"] == pytest.approx(193 / 24, abs=1e-3)
    (shot,) = tracks["Shot"].find_clips()
    assert shot.metadata[KEY]["video_id"] == video_id


@pytest.mark.parametrize("copies", [True, False])
async def test_what_was_exported_comes_back_the_same_even_in_another_studio(
    studio: Studio, montage: Montage, tmp_path: Path, copies: bool
) -> None:
    file = export_timeline(studio, montage, tmp_path / "edit", copies=copies)
    back, notes = montage_from_timeline(App(studio, (tmp_path / "edit",)), file.name)
    assert content(back) == content(montage)
    assert notes == []
    if copies:
        with Studio(tmp_path / "other", tmp_path / "out2") as other:
            again, _ = montage_from_timeline(App(other, (tmp_path / "edit",)), str(file))
            assert content(again) == content(montage)


@pytest.mark.parametrize(("model", "starts"), [("ltx-video-2b", [0, 72, 192]), ("wan21-fun-inp-1.3b", [0, 72, 192])])
async def test_a_model_of_another_grid_is_exported_in_frames_of_its_video_and_comes_back_the_same(
    studio: Studio, montage: Montage, tmp_path: Path, model: str, starts: list[int]
) -> None:
    montage = montage.model_copy(update={"model": model})
    file = export_timeline(studio, montage, tmp_path / "edit", copies=False)
    timeline = opened(file)
    track = timeline.tracks[0]
    found = [track.range_of_child(clip) for clip in track.find_clips()]
    assert [span.start_time for span in found] == [RationalTime(start, 24) for start in starts]
    stride, fps = {"ltx-video-2b": (8, 24), "wan21-fun-inp-1.3b": (4, 16)}[model]
    assert found[0].duration == RationalTime(stride * 24 / fps, 24), "a still is shown as one slot"
    assert (found[1].duration.value - 1) * fps / 24 % stride == 0, "a clip as whole slots"
    back, _ = montage_from_timeline(App(studio, (tmp_path / "edit",)), file.name)
    assert content(back) == content(montage)


async def test_what_an_editor_moved_trimmed_and_wrote_counts(
    studio: Studio, montage: Montage, tmp_path: Path, pictures: list[Path]
) -> None:
    file = export_timeline(studio, montage, tmp_path / "edit", copies=False)
    timeline = opened(file)
    anchors = timeline.tracks[0]
    anchors[1].source_range = span(0, 80)  # the gap before the clip
    (film,) = [clip for clip in anchors.find_clips() if clip.name == "bunny.mp4"]
    film.source_range = span(24, 29)
    timeline.metadata[KEY]["montage"]["model"] = "elsewhere"
    timeline.tracks.markers[0].comment = "fast pan left"
    timeline.tracks.markers[1].marked_range = span(24, 48)
    otio.adapters.write_to_file(timeline, str(file))

    back, notes = montage_from_timeline(App(studio, (tmp_path / "edit",)), file.name)
    assert notes == ['Model "elsewhere" is not known here; another one was taken.'] and back.model != "elsewhere"
    start, moved, end = back.anchors
    assert start.second == 0.0 and start.label == "the start"
    assert (moved.second, moved.in_s, moved.out_s) == pytest.approx((84 / 24, 1.0, 1.0 + 29 / 24))
    assert moved.focus == (0.2, 0.5), "what no editor shows stays"
    assert end.second == pytest.approx(200 / 24) and back.duration_s == pytest.approx(205 / 24)
    assert back.beats[0].prompt == "fast pan left"
    assert (back.beats[1].start_s, back.beats[1].end_s, back.beats[1].guide) == (1.0, 3.0, "loose")


async def test_a_foreign_timeline_becomes_a_montage_for_an_agent_and_goes_back(
    studio: Studio, pictures: list[Path], clip: Path
) -> None:
    """Nested stacks, a camera's clock that starts at an hour, markers without length, and a clip without media."""
    rate, folder = 25, pictures[0].parent

    def cut(name: str, path: str, start: int, length: int, since: int = 0) -> otio.schema.Clip:
        reference = otio.schema.ExternalReference(path, span(since, 75, rate))
        return otio.schema.Clip(name, reference, span(since + start, length, rate))

    inner = otio.schema.Stack("nested", [otio.schema.Track("inner", [cut("film", clip.as_uri(), 25, 40, 90_000)])])
    lost = otio.schema.Clip("lost", None, span(0, 25, rate))
    parts = [cut("first", pictures[0].name, 0, 50), inner, lost, cut("", pictures[1].name, 0, 10)]
    track = otio.schema.Track("V1", parts)
    track.markers.append(otio.schema.Marker("the camera sinks", span(0, 50, rate)))
    track.markers.append(otio.schema.Marker("look", span(5, 0, rate)))
    timeline = otio.schema.Timeline("Cut 3")
    timeline.tracks.append(track)
    otio.adapters.write_to_file(timeline, str(folder / "cut.otio"))

    async with Client(build_server(studio, roots=[folder])) as client:
        agent = Agent(client)
        plan = await agent.call("plan_montage", timeline="cut.otio")
        assert plan["warnings"][0] == "1 clips without a media file were left out."
        made = studio.get_montage(plan["montage_id"])
        assert made.title == "Cut 3" and made.format.fps == 25
        assert [(a.second, a.label) for a in made.anchors] == [(0.0, "first"), (2.0, "film"), (4.6, "")]
        assert (made.anchors[1].in_s, made.anchors[1].out_s) == (1.0, 2.6)
        assert [(b.prompt, b.start_s, b.end_s) for b in made.beats] == [("the camera sinks", 0.0, 2.0)]
        assert "brings its own" in await agent.refused("plan_montage", timeline="cut.otio", brief="more")
        back = await agent.call("get_montage", montage_id=made.id, timeline=True)
        written = Path(back["timeline"])
        for part in opened(written).find_clips():
            assert part.media_reference.target_url.startswith("file:///")
        assert written.is_relative_to(studio.folder), "so that it has a link over HTTP"
        assert "media roots" in await agent.refused("plan_montage", timeline="/etc/hosts.otio")


HOSTILE = {
    "text": b"hello",
    "another document": b'{"OTIO_SCHEMA": "Clip.2", "name": "x"}',
    "an unknown schema": b'{"OTIO_SCHEMA": "Bomb.1"}',
    "depth": b'{"OTIO_SCHEMA": "Timeline.1", "tracks": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "modest depth": b'{"OTIO_SCHEMA": "Timeline.1", "metadata": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}",
    "tracks that are none": b'{"OTIO_SCHEMA": "Timeline.1", "tracks": 5}',
    "size": b" " * (17 * 2**20),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_timeline_is_refused_in_one_sentence(studio: Studio, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.otio").write_bytes(HOSTILE[name])
    with pytest.raises(MediaRejected) as caught:
        montage_from_timeline(App(studio, (tmp_path,)), "a.otio")
    assert caught.value.field == "timeline" and "'a.otio'" in str(caught.value) and len(str(caught.value)) < 400


def test_a_timeline_opens_no_file_outside_the_roots(studio: Studio, tmp_path: Path, pictures: list[Path]) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    for url in (str(pictures[0]), pictures[0].as_uri(), "../media/aitzgorri.jpg", "file:///etc/passwd"):
        track = otio.schema.Track("V1", [otio.schema.Clip("a", otio.schema.ExternalReference(
            url, span(0, 48)))])  # fmt: skip
        timeline = otio.schema.Timeline("a")
        timeline.tracks.append(track)
        text = json.loads(timeline.to_json_string())
        (inside / "a.otio").write_text(json.dumps(text))
        with pytest.raises(PathRefused):
            montage_from_timeline(App(studio, (inside,)), "a.otio")


async def test_the_command_line_exports_and_imports(studio: Studio, montage: Montage, tmp_path: Path) -> None:
    place = ["--studio", str(studio.folder)]
    exported = CliRunner().invoke(app, ["export", montage.id, "--out", str(tmp_path / "edit"), *place])
    assert exported.exit_code == 0, exported.output
    imported = CliRunner().invoke(app, ["import", exported.output.strip(), *place])
    assert imported.exit_code == 0, imported.output
    found = studio.get_montage(imported.output.split()[0])
    assert found.id != montage.id and content(found) == content(montage)


async def test_an_empty_montage_is_a_timeline_too(studio: Studio, tmp_path: Path) -> None:
    empty = studio.create_montage(Montage(id=new_id("m"), duration_s=2.0, brief="empty"))
    assert opened(export_timeline(studio, empty, tmp_path, copies=True)).duration() == RationalTime(49, 24)
