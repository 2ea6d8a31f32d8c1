"""The command line: starts fast, parses what the help says, writes whole files or none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest
from conftest import DEMO
from pydantic import ValidationError

from dreamontage.schemas.errors import InvalidInput
from dreamontage.server import cli
from dreamontage.server.rendering import FILES, Wish, parse_anchor, parse_beat, render_to_folder
from dreamontage.server.store import Studio


def dreamontage(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dreamontage.server.cli", *arguments]
    environment = {**os.environ, "DREAMONTAGE_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_help_comes_at_once_and_names_every_command(tmp_path: Path) -> None:
    before = os.times()
    shown = dreamontage("--help", home=tmp_path)
    after = os.times()
    assert shown.returncode == 0
    for command in ("serve", "render", "add", "demo", "doctor", "train", "evaluate", "data"):
        assert command in shown.stdout
    assert after.children_user - before.children_user < 1.0, "processor time; the machine may be busy"
    assert not (tmp_path / "studio.db").exists()


@pytest.mark.parametrize(
    ("text", "path", "second", "in_s", "out_s"),
    [
        ("photo.jpg@0", "photo.jpg", 0, 0, None),
        ("clip.mp4@3.0#1-2.5", "clip.mp4", 3, 1, 2.5),
        ("me@home@2x.png@8.25", "me@home@2x.png", 8.25, 0, None),
        ("icon@2x.png", "icon@2x.png", None, 0, None),
        ("C#-minor.mp4@1#0-2", "C#-minor.mp4", 1, 0, 2),
    ],
)
def test_an_anchor_is_split_at_the_last_at_sign_that_a_number_follows(
    text: str, path: str, second: float | None, in_s: float, out_s: float | None
) -> None:
    spec = parse_anchor(text)
    assert spec.source == str(Path(path).absolute())
    assert (spec.second, spec.in_s, spec.out_s) == (second, in_s, out_s)


def test_faulty_anchors_and_beats_are_refused() -> None:
    with pytest.raises(ValidationError, match="second"):
        parse_anchor("photo.jpg@-1")
    assert parse_beat("0-4: slow pan left").prompt == "slow pan left"
    assert parse_beat("1.5 - 4.25: a: b").end_s == 4.25
    with pytest.raises(InvalidInput, match="START-END"):
        parse_beat("slow pan left")


def test_render_writes_a_video_that_decodes_to_what_the_report_says(
    tmp_path: Path, pictures: list[Path], clip: Path, tiny_model: str, studio: Studio, worker: None
) -> None:
    wish = Wish(
        anchors=[f"{pictures[0]}@0", f"{clip}@1.0#1-1.5", str(pictures[1])], beats=["0-1: pan left"], duration_s=2.5,
        model=tiny_model, seed=7, steps=1,
    )  # fmt: skip
    render_to_folder(wish, tmp_path / "result", studio.folder)
    assert sorted(p.name for p in (tmp_path / "result").iterdir()) == sorted(FILES)
    report = json.loads((tmp_path / "result" / "report.json").read_bytes())
    with av.open(str(tmp_path / "result" / "one-shot.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height) == (report["width"], report["height"]) == (256, 144)
        assert sum(1 for _ in video.decode(stream)) == report["frames"] == 61
        assert stream.average_rate == report["fps"] == 24
    assert [a["kind"] for a in report["anchors"]] == ["still", "clip", "still"]
    assert report["seed"] == 7 and len(report["segments"]) >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--anchor", "missing.jpg@0"], ["missing.jpg", "media roots"]),
        (["--anchor", "{picture}@0", "--duration", "0"], ["duration_s", "0.2"]),
        (["--anchor", "{picture}@20", "--duration", "10"], ["beyond the end", "0 to 10"]),
        (["--anchor", "{picture}@0#2-1"], ["out_s 1 must be after in_s 2\n"]),
        (["--anchor", "{picture}@0", "--quality", "best"], ["quality", "draft"]),
        (["--anchor", "{picture}@0", "--beat", "later"], ["--beat", "START-END"]),
        (["--anchor", "{picture}@0", "--profile", "fast,cache=2"], ["profile", "cache=2"]),
    ],
)
def test_a_faulty_command_ends_with_one_sentence_and_no_file(
    tmp_path: Path,
    pictures: list[Path],
    arguments: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [argument.format(picture=pictures[0]) for argument in arguments]
    result, home = tmp_path / "result", tmp_path / "home"
    monkeypatch.setattr(sys, "argv", ["dreamontage", "render", *filled, "--out", str(result), "--studio", str(home)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "Traceback" not in said
    for word in words:
        assert word in said
    assert not result.exists() or not list(result.iterdir())
    with Studio(home) as studio:
        assert studio.list_montages() == [] and studio.jobs() == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, pictures: list[Path]) -> None:
    ended = dreamontage(
        "render", "--anchor", f"{pictures[0]}@0", "--out", str(pictures[1] / "x"), home=tmp_path / "home"
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr and pictures[1].name in ended.stderr


def test_add_takes_files_in_and_prints_their_ids(tmp_path: Path, pictures: list[Path], clip: Path) -> None:
    odd = Path(shutil.copy(pictures[0], tmp_path / "media" / "with space.jpg"))
    added = dreamontage("add", str(odd), str(clip), home=tmp_path / "home")
    assert added.returncode == 0, added.stderr
    assert "img_" in added.stdout and "clip_" in added.stdout
    with Studio(tmp_path / "home") as studio:
        assert studio.media(added.stdout.split(":")[0]).name == "with space.jpg"


def test_every_demo_medium_is_small_and_attributed() -> None:
    media = [file for file in DEMO.iterdir() if file.suffix != ".md"]
    notice = (DEMO / "ATTRIBUTION.md").read_text()
    assert {file.suffix for file in media} == {".jpg", ".mp4"} and len(media) == 5
    assert all(f"`{file.name}`" in notice for file in media)
    assert sum(file.stat().st_size for file in media) < 2.5e6
