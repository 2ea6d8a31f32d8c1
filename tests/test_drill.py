"""The drill and the load test as commands: a few kills, one stall, a few agents; nothing may be lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dreamontage.server.cli import app
from dreamontage.server.drill import Finding
from dreamontage.server.store import Studio


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


def test_agents_on_two_servers_lose_no_update_and_meet_no_lock() -> None:
    arguments = ["load", "--agents", "4", "--calls", "6", "--pause", "0", "--most-ms", "60000"]
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.output
    assert "0 updates lost" in run.output and "the SDK's echo" in run.output
