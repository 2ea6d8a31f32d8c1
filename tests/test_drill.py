"""The drill and the load test as commands: a few kills, one stall, a few agents; nothing may be lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.server import rehearsal
from dreamontage.server.cli import app
from dreamontage.server.drill import Agent, Drill, Finding, findings
from dreamontage.server.store import Studio, new_id
from dreamontage.server.store.events import record
from dreamontage.server.worker import Worker


def test_nothing_is_lost_when_workers_and_servers_are_killed_and_one_stalls(tmp_path: Path) -> None:
    folder = tmp_path / "studio"
    run = CliRunner().invoke(app, ["drill", "--kills", "4", "--stops", "1", "--agents", "2", "--keep", str(folder)])
    assert run.exit_code == 0, f"{run.output}\n{(folder / 'worker.log').read_text()[-2000:]}"
    assert "Nothing was lost." in run.output
    with Studio(folder) as studio:
        workers = studio.workers(limit=100)
        attempts = [job.attempt for job in studio.jobs(limit=1000)]
    assert len(workers) >= 2 and sum(worker.gone for worker in workers) == len(workers) - 1
    assert max(attempts) >= 2  # something was really interrupted


@pytest.mark.parametrize(("value", "allowed", "right"), [(0, 0, True), (3, None, True), (5, 5, True), (1, 0, False)])
def test_a_finding_is_right_up_to_what_is_allowed(value: int, allowed: int | None, right: bool) -> None:
    assert Finding("jobs lost", value, allowed).right is right


def test_what_is_lost_redone_or_stale_is_counted(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "STEP_S", 0)
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=4))
    job = studio.enqueue(montage, RenderRequest(), None)
    Worker(studio, render=rehearsal.rehearse, idle_exit_s=0).run()
    drill = Drill(studio, 0, 0, [Agent("anna", montage, asked=1)], random.Random(0))
    assert all(finding.right for finding in findings(drill))
    drill.agents[0].asked = 2
    with (studio.takes / rehearsal.LEDGER).open("a") as ledger:
        ledger.write(f"{studio.video(studio.job(job.id).video_id or '').segments[0].fingerprint}\n")
    with studio.db.write() as connection:
        record(connection, "job.done", {"job_id": job.id, "attempt": 0}, actor="worker", montage_id=montage.id)
        connection.execute("DELETE FROM take WHERE ordinal = 0")
    wrong = {finding.what.partition(" (")[0]: finding.value for finding in findings(drill) if not finding.right}
    assert wrong == {
        "jobs lost": 1, "segments redone": 1, "takes missing": 1, "stale writes": 1,
        "problems in the database, its references and files": 1,
    }  # fmt: skip


def test_agents_on_two_servers_lose_no_update_and_meet_no_lock() -> None:
    arguments = ["load", "--agents", "4", "--calls", "6", "--pause", "0", "--most-ms", "60000"]
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.output
    assert "0 updates lost" in run.output and "the SDK's echo" in run.output
