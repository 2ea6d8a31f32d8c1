"""Logs say which montage and job they are about, in server and worker, and nobody's words can forge a line."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent import Agent
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.server.logs import FORM_VARIABLE, LEVEL_VARIABLE, JsonLines, Readable, about, configure
from dreamontage.server.store import Studio, new_id

SLOW_WORKER = Path(__file__).with_name("slow_renderer.py")


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger, put back as it was; no form or level in the environment."""
    for variable in (FORM_VARIABLE, LEVEL_VARIABLE):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    root, package = logging.getLogger(), logging.getLogger("dreamontage")
    kept, levels = root.handlers[:], (root.level, package.level)
    root.handlers[:] = []
    yield root
    root.handlers[:] = kept
    root.setLevel(levels[0])
    package.setLevel(levels[1])


def written(form: logging.Formatter, message: str, **fields: str) -> str:
    record = logging.LogRecord("dreamontage.server.worker", logging.INFO, "", 0, message, (), None)
    record.created = 1_700_000_000.5
    with about(**fields):
        return form.format(record)


def test_a_record_says_what_it_is_about_in_both_forms() -> None:
    line = written(Readable(), "attempt 1 begins", montage_id="m_1", job_id="j_1")
    assert line == "2023-11-14T22:13:20.500Z info worker: attempt 1 begins (montage_id=m_1 job_id=j_1)"
    assert json.loads(written(JsonLines(), "attempt 1 begins", montage_id="m_1", job_id="j_1")) == {
        "at": "2023-11-14T22:13:20.500Z",
        "level": "info",
        "logger": "dreamontage.server.worker",
        "message": "attempt 1 begins",
        "montage_id": "m_1",
        "job_id": "j_1",
    }


def test_nobody_can_forge_a_line_or_colour_the_terminal() -> None:
    nasty = "title\n2023-11-14T22:13:20.500Z error: forged\x1b[2J\r\u2028end"
    for form in (Readable(), JsonLines()):
        line = written(form, nasty, montage_id="m_1\nforged")
        assert len(line.splitlines()) == 1 and "\x1b" not in line, line


def test_form_and_level_come_from_the_environment(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json")
    assert os.environ[FORM_VARIABLE] == "json", "workers that this process starts write the same form"
    logging.getLogger("dreamontage.server").info("seen")
    logging.getLogger("a.library").info("not seen")
    assert json.loads(capsys.readouterr().err)["message"] == "seen"
    monkeypatch.setenv(LEVEL_VARIABLE, "error")
    configure()
    logging.getLogger("dreamontage.server").warning("not seen")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(LEVEL_VARIABLE, "loud")
    with pytest.raises(InvalidInput, match=r"DREAMONTAGE_LOG_LEVEL.*debug, info"):
        configure()


@pytest.mark.anyio
async def test_one_montage_can_be_followed_through_server_and_worker(
    tmp_path: Path, pictures: list[Path], studio: Studio
) -> None:
    environment = {**os.environ, "DREAMONTAGE_HOME": str(studio.folder), "DREAMONTAGE_ACTOR": "ada"}
    server = StdioServerParameters(
        command=sys.executable, args=["-P", "-m", "dreamontage.server.cli", "serve", "--log", "json"],
        env=environment, cwd=pictures[0].parent,
    )  # fmt: skip
    with (tmp_path / "stderr").open("w+") as stderr:
        async with Client(stdio_client(server, errlog=stderr)) as client:
            agent = Agent(client)
            plan = await agent.call("plan_montage", anchors=["sunset.jpg", "seeding.jpg"], brief="a secret")
            await agent.refused("remove_anchors", montage_id=plan["montage_id"], ids=["a9"])
        stderr.seek(0)
        told = [json.loads(line) for line in stderr.read().splitlines()]
    calls = [line for line in told if line["logger"] == "dreamontage.server.logs"]
    assert [(line["tool"], line["message"].split()[0]) for line in calls] == [
        ("plan_montage", "answered"),
        ("remove_anchors", "refused"),
    ]
    assert {(line["actor"], line["montage_id"]) for line in calls} == {("ada", plan["montage_id"])}
    assert "a secret" not in json.dumps(told)


def test_a_workers_lines_name_montage_and_job(studio: Studio) -> None:
    montage = studio.create_montage(Montage(id=new_id("m"), duration_s=2, brief="refuses"))
    job = studio.enqueue(montage, RenderRequest(), None)
    subprocess.run(
        [sys.executable, SLOW_WORKER, studio.folder, "0"], env={**os.environ, FORM_VARIABLE: "json"}, check=True,
        stderr=(log := (studio.folder / "worker.log").open("wb")), timeout=60,
    )  # fmt: skip
    log.close()
    told = [json.loads(line) for line in (studio.folder / "worker.log").read_text().splitlines()]
    assert [line["message"].split(":")[0] for line in told] == ["attempt 1 begins", "failed", "attempt 1 ends"]
    assert {(line["montage_id"], line["job_id"]) for line in told} == {(montage.id, job.id)}
