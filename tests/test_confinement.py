"""The process that decodes foreign bytes: what it cannot do, whatever the bytes make it try."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dreamontage.schemas import limits
from dreamontage.server.media.child import ask
from dreamontage.server.media.confinement import landlock_version

EMPTY_NETWORK = "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x50000000) != 0)"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have the limits alone")
def test_the_child_reads_no_other_file_writes_none_starts_nothing_and_reaches_nobody(tmp_path: Path) -> None:
    if landlock_version(ctypes.CDLL(None)) < 1:
        pytest.skip("this kernel has no Landlock")
    network = subprocess.run([sys.executable, "-c", EMPTY_NETWORK]).returncode != 0  # containers may forbid it
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        attempt = {"read": str(secret), "write": str(tmp_path / "new"), "connect": listening.getsockname()}
        (ways_out,), fault, _ = ask("escape", attempt)
    assert fault is None
    assert ways_out == {"files": False, "writing": False, "programs": False, "network": network}
    assert not (tmp_path / "new").exists()


CONFINED = "from dreamontage.server.media.confinement import allow_time, confine; confine(1000, []); allow_time();"


def confined(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CONFINED + script], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("bytearray(5 * 2**30)", "MemoryError"),
        ("import os; [os.dup(0) for _ in range(300)]", "Too many open files"),
    ],
)
def test_memory_and_descriptors_are_bounded(script: str, words: str) -> None:
    assert words in confined(script).stderr


def test_output_beyond_what_is_granted_is_not_written(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    script = f"import os; print(os.write({descriptor}, b'x' * 5000)); os.write({descriptor}, b'x')"
    done = subprocess.run(
        [sys.executable, "-c", CONFINED + script], pass_fds=[descriptor], capture_output=True, text=True, timeout=20
    )
    os.close(descriptor)
    assert "File too large" in done.stderr and (tmp_path / "out").stat().st_size == 1000


def test_processor_and_wall_time_are_bounded() -> None:
    script = (
        "import resource, signal; print(resource.getrlimit(resource.RLIMIT_CPU)[0], signal.getitimer(0)[0] > 0)"
    )
    seconds, timer = confined(script).stdout.split()
    assert int(seconds) <= limits.PROBE_TIMEOUT_S + 3 and timer == "True"
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY  # ours is as it was
    assert confined("signal = __import__('signal'); signal.setitimer(0, 0.05); signal.pause()").returncode == -14
