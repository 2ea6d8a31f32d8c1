"""Building training data: the same seed gives the same clips, each says where it comes from, nothing is leaked."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dreamontage.generator.training.data import sources as sourcing
from dreamontage.generator.training.data.build import RATES, BuildRecord, build, places, record_of, size_of
from dreamontage.generator.training.data.filters import judge_clip
from dreamontage.generator.training.data.pictures import Pixels, Source, find_pictures
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.data.sources import (
    RENDERERS,
    RESERVED_FOLDERS,
    ClipSource,
    Renderer,
    World,
    chosen,
    lacking,
    refuse_reserved,
)
from dreamontage.generator.training.data.store import ClipRow, ClipStore, join
from dreamontage.generator.training.data_cli import app
from dreamontage.schemas.errors import Conflict, InvalidInput

SIZE = (64, 48)
FPS = 24
PICTURES = [replace(paint(seed, 96), kind="own") for seed in range(4)]
SHARES = {"pictures": 0.7, "transitions": 0.3}


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def world() -> World:
    return World.of(PICTURES, [], SIZE)


def record(seed: int = 5) -> BuildRecord:
    return record_of("base", seed, SIZE, SHARES, [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ClipRow]]:
    """Five painted clips, drawn in one go."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, build(folder, record(), world().sources(SHARES), 5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_build_goes_on_to_the_same_bytes(whole: tuple[Path, list[ClipRow]], tmp_path: Path) -> None:
    def stop(done: int, dropped: Counter[str]) -> None:
        if done == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        build(tmp_path, record(), world().sources(SHARES), 5, stop)
    with (tmp_path / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"index": 2, "file": "0000')  # the power failed while a row was written
    assert [row.index for row in ClipStore(tmp_path).rows()] == [0, 1]
    build(tmp_path, record(), world().sources(SHARES), 5)
    assert contents(tmp_path) == contents(whole[0])


def test_a_longer_build_keeps_the_clips_it_has(whole: tuple[Path, list[ClipRow]], tmp_path: Path) -> None:
    build(tmp_path, record(), world().sources(SHARES), 2)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    build(tmp_path, record(), world().sources(SHARES), 3)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert ClipStore(tmp_path).rows() == whole[1][:3]


def test_every_row_names_source_licence_seed_and_hash(whole: tuple[Path, list[ClipRow]]) -> None:
    folder, rows = whole
    assert len({row.note.seed for row in rows}) == len(rows)
    for row in rows:
        assert row.note.source and row.note.licence == sourcing.PAINTED
        assert hashlib.sha256((folder / row.file).read_bytes()).hexdigest() == row.sha256
        assert row.note.beats and (row.note.frames - 1) % 4 == 0


def test_the_seed_in_a_row_draws_the_very_clip_again(whole: tuple[Path, list[ClipRow]], tmp_path: Path) -> None:
    row = whole[1][3]
    owner = places(world().sources(SHARES), 5)[3]
    drawn = owner.draw(row.note.seed)
    assert drawn.note == row.note
    assert ClipStore(tmp_path).write(drawn.frames, drawn.note, 3).sha256 == row.sha256


def test_a_stored_clip_reads_back_as_the_pictures_that_were_drawn(whole: tuple[Path, list[ClipRow]]) -> None:
    folder, rows = whole
    frames = ClipStore(folder).load(rows[0])
    drawn = places(world().sources(SHARES), 5)[0].draw(rows[0].note.seed).frames
    assert frames.shape == drawn.shape == (rows[0].note.frames, SIZE[1], SIZE[0], 3)
    assert np.abs(frames.astype(float) - drawn).mean() < 6


def test_a_folder_takes_no_second_build_with_another_seed(whole: tuple[Path, list[ClipRow]]) -> None:
    with pytest.raises(Conflict, match="other seed"):
        build(whole[0], record(seed=6), world().sources(SHARES), 5)


def test_builds_in_subfolders_join_to_one_set(whole: tuple[Path, list[ClipRow]], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(whole[0])
    rows = join(tmp_path)
    assert [row.index for row in ClipStore(tmp_path).rows()] == list(range(10)) and rows[7].file == "b/00002.mp4"
    assert np.array_equal(ClipStore(tmp_path).load(rows[7]), ClipStore(tmp_path).load(rows[2]))


def panned(step: int, frames: int = 33) -> Pixels:
    """A window [72,128] that travels over a painted picture by `step` pixels a frame."""
    scene = np.tile(paint(7, 144).levels[0][:72], (1, 3, 1))
    return np.stack([scene[:, step * f : step * f + 128] for f in range(frames)])


def test_the_filter_keeps_a_strong_move() -> None:
    assert judge_clip(panned(5), FPS).reasons == ()


def test_the_filter_drops_a_frozen_clip() -> None:
    assert judge_clip(panned(0), FPS).reasons == ("small change", "little motion")


def test_the_filter_drops_a_hard_cut() -> None:
    clip = panned(2)
    clip[16:] = 255 - clip[16:, ::-1]
    assert "cut" in judge_clip(clip, FPS).reasons


def test_the_filter_drops_what_comes_back_to_where_it_began() -> None:
    there = panned(5, 17)
    assert judge_clip(np.concatenate([there, there[-2::-1]]), FPS).reasons == ("small change",)


def test_what_the_filter_drops_is_drawn_again_and_counted(whole: tuple[Path, list[ClipRow]], tmp_path: Path) -> None:
    made, kept = world().sources({"pictures": 1.0})[0], whole[1][0].note.seed

    def frozen_first(seed: int) -> sourcing.Drawn:
        drawn = made.draw(kept)
        return drawn if seed % sourcing.SEED_STRIDE >= 2 else sourcing.Drawn(drawn.frames[:1].repeat(5, 0), drawn.note)

    rows = build(tmp_path, record(), [ClipSource("pictures", 1.0, frozen_first)], 1)
    assert rows[0].drawn == 3 and rows[0].dropped == {"small change": 2, "little motion": 2}
    rates = json.loads((tmp_path / RATES).read_text())
    assert rates["drawn"] == 3 and rates["kept"] == 1 and rates["dropped_for"]["little motion"] == 2


def test_sources_follow_their_shares_at_every_length() -> None:
    owners = places(world().sources(SHARES), 40)
    for length in (10, 20, 40):
        assert Counter(owner.name for owner in owners[:length])["pictures"] == round(0.7 * length)


def test_a_missing_package_is_named_in_one_line_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RENDERERS:
        absent = Renderer(RENDERERS[name].module, ("no_such_renderer",), "pip install no-such-renderer")
        monkeypatch.setitem(RENDERERS, name, absent)
    shares, left_out = chosen("base", [])
    assert set(shares) == {"pictures", "transitions"} and len(left_out) == 2
    assert "no_such_renderer not installed" in left_out[0] and "pip install no-such-renderer" in left_out[0]
    with pytest.raises(InvalidInput, match="no_such_renderer not installed"):
        chosen("base", ["flights"])


def test_unknown_sets_sources_and_sizes_say_what_there_is() -> None:
    with pytest.raises(InvalidInput, match="base, sft, subjects"):
        sourcing.set_named("dpo")
    with pytest.raises(InvalidInput, match="expression"):
        chosen("sft", ["flights"])
    for size in ("256", "255x144", "0x0", "ax2"):
        with pytest.raises(InvalidInput, match="256x144"):
            size_of(size)


def test_the_expression_set_holds_its_five_classes_in_turn_and_subjects_know_their_way(tmp_path: Path) -> None:
    small = World.of(PICTURES, [], (64, 36))
    rows = build(tmp_path / "sft", record(), small.sources({"expression": 1.0}), 5)
    assert {row.note.category for row in rows} == {"camera", "effect", "sport", "space", "transition"}
    row = build(tmp_path / "subjects", record(), small.sources({"subjects": 1.0}), 1)[0]
    assert row.truth is not None and len(row.truth["centres"]) == row.note.frames and row.truth["dynamics"]


def test_nothing_reserved_for_evaluation_is_a_training_picture() -> None:
    refuse_reserved(find_pictures())
    demo = sorted(RESERVED_FOLDERS[0].glob("*.jpg"))
    assert demo
    with pytest.raises(InvalidInput, match="reserved for evaluation"):
        refuse_reserved([Source(demo[0], "own", "")])


def test_a_copy_of_a_demo_photograph_is_refused_by_the_command(tmp_path: Path) -> None:
    photograph = sorted(RESERVED_FOLDERS[0].glob("*.jpg"))[0]
    (tmp_path / "mine.jpg").write_bytes(photograph.read_bytes())
    result = CliRunner().invoke(app, ["build", str(tmp_path / "out"), "--pictures", str(tmp_path)])
    assert isinstance(result.exception, InvalidInput) and "mine.jpg" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_pictures_of_mvtb_data_are_refused() -> None:
    mvtbdata = pytest.importorskip("mvtbdata")
    picture = next((Path(mvtbdata.__path__[0]) / "images").glob("*.png"))
    with pytest.raises(InvalidInput, match="reserved for evaluation"):
        refuse_reserved([Source(picture, "own", "")])


def test_the_command_builds_and_shows_a_set(tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    options = ["--count", "2", "--size", "64x48", "--source", "transitions"]
    built = CliRunner().invoke(app, ["build", str(out), *options])
    assert built.exit_code == 0 and "2 clips" in built.output
    shown = CliRunner().invoke(app, ["show", str(out), "--sheet", str(sheet)])
    assert shown.exit_code == 0 and "transitions" in shown.output and sheet.stat().st_size > 1000


@pytest.mark.parametrize("name", list(RENDERERS))
def test_rendered_clips_depend_on_their_seed_alone(name: str) -> None:
    if problem := lacking(name):
        pytest.skip(problem)
    source = World.of([], [], (64, 36)).sources({name: 1.0})[0]
    first, other, again = (source.draw(seed) for seed in (3, 4, 3))
    assert np.array_equal(first.frames, again.frames) and first.note == again.note
    assert first.frames.shape != other.frames.shape or not np.array_equal(first.frames, other.frames)
    assert first.frames.std() > 8
