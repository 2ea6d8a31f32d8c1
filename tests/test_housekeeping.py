"""Housekeeping: what nothing names goes in time, what is named stays, and a check finds what is broken."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dreamontage.schemas import limits
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import Video
from dreamontage.server import rehearsal
from dreamontage.server.checking import Fault, check
from dreamontage.server.drill import small_picture
from dreamontage.server.housekeeping import collect, disk_bytes, leftovers, superseded_videos, unpinned_media
from dreamontage.server.quotas import usage
from dreamontage.server.store import Studio, new_id
from dreamontage.server.studio_cli import app
from dreamontage.server.worker import Worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "STEP_S", 0)


def rendered(studio: Studio) -> Video:
    """A finished video with its takes, made by the renderer of the drill."""
    anchors = [Anchor(id="a1", media_id=small_picture(studio, 1).id, second=0)]
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=4, anchors=anchors))
    job = studio.enqueue(montage, RenderRequest(seed=len(studio.jobs())), None, "anna")
    Worker(studio, render=rehearsal.rehearse, idle_exit_s=0).run()
    return studio.video(studio.job(job.id).video_id or "")


def take(studio: Studio, name: str, days: float) -> list[Path]:
    """A take that no video names, last written some days ago."""
    paths = [studio.takes / f"{name}.{end}" for end in ("safetensors", "json")]
    for path in paths:
        path.write_bytes(b"latents")
        aged(path, days)
    return paths


def aged(path: Path, days: float) -> None:
    at = time.time() - days * 86_400
    os.utime(path, (at, at))


def test_old_takes_go_unless_a_video_or_a_choice_names_them(studio: Studio) -> None:
    video = rendered(studio)
    for path in studio.takes.iterdir():
        aged(path, 400)
    old, young, chosen = take(studio, "1" * 64, 8), take(studio, "2" * 64, 6), take(studio, "3" * 64, 8)
    choice = json.dumps({"segment": {"fingerprint": "3" * 64}})
    with studio.db.write() as connection:
        connection.execute(
            "INSERT INTO choice (montage_id, quality, body) VALUES (?, 'draft', ?)", (video.montage_id, choice)
        )
    assert {leftover.path for leftover in leftovers(studio)} == {*old, studio.takes / rehearsal.LEDGER}
    collect(studio)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in young + chosen)
    assert not [fault for fault in check(studio) if fault.what.startswith("take")]


def test_old_previews_and_what_crashes_left_go_and_fresh_ones_stay(studio: Studio) -> None:
    names = ["previews/m_1-r1", "videos/v_lost", "previews/m_2-r1", "videos/v_new"]
    folders = [studio.folder / name for name in names]
    for folder, days in zip(folders, (2, 2, 0.5, 0.5), strict=True):
        folder.mkdir(parents=True)
        (folder / "sheet.jpg").write_bytes(b"x" * 1000)
        aged(folder, days)
    assert sorted(leftover.path.name for leftover in leftovers(studio)) == ["m_1-r1", "v_lost"]
    assert [leftover.bytes for leftover in collect(studio)] == [1000, 1000]
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert collect(studio) == []


def test_an_idle_worker_collects(studio: Studio) -> None:
    old = take(studio, "1" * 64, 8)
    Worker(studio, idle_exit_s=0).run()
    assert not old[0].exists()


def test_the_disk_of_a_finished_job_is_what_its_files_take(studio: Studio) -> None:
    video = rendered(studio)
    folder = Path(video.path).parent
    takes = [path for path in studio.takes.iterdir() if path.name != rehearsal.LEDGER]
    files = [*folder.iterdir(), Path(video.delivered or ""), *takes]
    assert len(takes) == 2 * rehearsal.SEGMENTS
    size = sum(path.stat().st_size for path in files)
    with studio.db.read() as connection:
        media = connection.execute("SELECT sum(bytes) FROM media").fetchone()[0]
        assert usage(connection, "disk_bytes", "anna") == size
        assert usage(connection, "disk_bytes") == size + media
    assert disk_bytes(video, studio.takes) == size


def test_media_that_no_revision_pins_can_go_after_a_day(studio: Studio) -> None:
    montage = studio.get_montage(rendered(studio).montage_id)
    pinned, unpinned = montage.anchors[0].media_id, small_picture(studio, 2).id
    blob = studio.blob_path(unpinned)
    assert unpinned_media(studio) == []
    with studio.db.write() as connection:
        connection.execute("UPDATE media SET added_at = added_at - ?", (2 * limits.PREVIEW_KEPT_S,))
    studio.edit_montage(montage.id, "remove_anchors", {}, lambda m: m.model_copy(update={"anchors": []}))
    assert unpinned_media(studio) == [unpinned]  # the other one belongs to an earlier revision
    said = CliRunner().invoke(app, ["clean", "--media", "--studio", str(studio.folder)]).output
    assert unpinned in said and "--yes" in said and blob.exists()
    CliRunner().invoke(app, ["clean", "--media", "--yes", "--studio", str(studio.folder)])
    assert not blob.exists() and studio.blob_path(pinned).exists()
    assert list(check(studio)) == []
    assert small_picture(studio, 2).id == unpinned and blob.exists()  # and it may come back


def test_videos_that_have_a_newer_one_can_go_and_their_takes_after_them(studio: Studio) -> None:
    first = rendered(studio)
    montage = studio.get_montage(first.montage_id)
    old, new = (studio.enqueue(montage, RenderRequest(seed=seed), None, "anna") for seed in (7, 8))
    Worker(studio, render=rehearsal.rehearse, idle_exit_s=0).run()
    chosen = studio.video(studio.job(old.id).video_id or "")
    studio.choose(montage.id, "draft", [(chosen.segments[0], chosen.id)])
    assert superseded_videos(studio, 1) == []
    command = ["clean", "--superseded", "0", "--studio", str(studio.folder)]
    assert first.id in CliRunner().invoke(app, command).output and Path(first.path).exists()
    for path in studio.takes.iterdir():
        aged(path, 8)
    CliRunner().invoke(app, [*command, "--yes"])
    assert not Path(first.path).exists() and Path(chosen.path).exists()
    assert [video.id for video in studio.videos()] == [studio.job(new.id).video_id, chosen.id]
    assert len([path for path in studio.takes.iterdir() if path.suffix == ".json"]) == 2 * rehearsal.SEGMENTS
    assert "removed" in (studio.jobs()[-1].error or "") and list(check(studio)) == []


def test_clean_says_what_would_go_and_removes_it_only_when_told(studio: Studio) -> None:
    old = take(studio, "1" * 64, 8)
    run = CliRunner().invoke(app, ["clean", "--studio", str(studio.folder)])
    assert run.exit_code == 0 and "2 could go" in run.output and "--yes" in run.output
    assert old[0].exists()
    run = CliRunner().invoke(app, ["clean", "--yes", "--studio", str(studio.folder)])
    assert "2 removed" in run.output and not old[0].exists()
    assert "nothing to remove" in CliRunner().invoke(app, ["clean", "--studio", str(studio.folder)]).output


def test_check_finds_every_broken_file_and_reference(studio: Studio) -> None:
    video = rendered(studio)
    assert list(check(studio)) == []
    run = CliRunner().invoke(app, ["check", "--studio", str(studio.folder)])
    assert (run.exit_code, run.output.splitlines()[-1]) == (0, "Everything is whole.")
    media = studio.get_montage(video.montage_id).anchors[0].media_id
    studio.blob_path(media).write_bytes(b"other bytes")
    Path(video.path).unlink()
    Path(video.sheet).unlink()
    first, second = [segment.fingerprint for segment in video.segments[:2]]
    (studio.takes / f"{first}.json").unlink()
    (studio.takes / f"{second}.safetensors").write_bytes(b"torn")
    with studio.db.write() as connection:
        connection.execute("UPDATE revision SET body = replace(body, ?, 'img_unknown')", (media,))
        connection.execute("UPDATE job SET revision = 9")
        connection.execute("DELETE FROM event WHERE revision = 1")
    digest = hashlib.sha256(b"other bytes").hexdigest()
    (job,) = studio.jobs()
    again = "; the next render that needs it makes it again"
    assert [fault for fault in check(studio) if fault.severity == "problem"] == [
        Fault("problem", f"revisions without their event: {video.montage_id} revision 1"),
        Fault("problem", f"anchors whose media is unknown: {video.montage_id} img_unknown"),
        Fault("problem", f"jobs of unknown revisions: {job.id}"),
        Fault("problem", f"{video.montage_id} is not what its event log tells"),
        Fault("problem", f"media {media}: its file has sha256 {digest[:16]}…, not {studio.media(media).sha256[:16]}…"),
        Fault("problem", f"video {video.id}: its file is missing"),
        Fault("problem", f"video {video.id}: sheet.jpg is missing"),
    ]
    notes = sorted(fault.what for fault in check(studio) if fault.severity == "note")
    assert [note.endswith(again) for note in notes] == [True, True]
    run = CliRunner().invoke(app, ["check", "--studio", str(studio.folder)])
    assert run.exit_code == 1 and "7 problems, 2 notes." in run.output


def test_show_tells_how_much_everybody_holds(studio: Studio) -> None:
    rendered(studio)
    output = CliRunner().invoke(app, ["show", "--studio", str(studio.folder)], env={"COLUMNS": "200"}).output
    assert "anna" in output and "1 of 2,000" not in output.split("anna")[1].splitlines()[0]
    assert f"of {limits.MAX_MONTAGES:,}" in output and "stay free" in output
