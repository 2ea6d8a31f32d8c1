"""A device's lock: one worker at a time, and a stalled one loses its place.

The OS lock on worker-DEVICE.lock vanishes with the process that holds it, however that ends. A process that is stopped
or stuck keeps it, so the lock is a lease as well: its holder touches the file every few seconds, and once that has not
happened for the studio's `stale_after_s`, a successor puts a new file, locked by itself, in the place of the old one.
The stalled holder then locks a file that nobody looks at; what it still writes when it wakes up is refused by its
attempt's number (StaleAttempt), and it claims nothing more (DeviceLost). It is killed only if it stalled inside a
transaction: the database's lock cannot be taken from it in any other way.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from .store import Studio

log = logging.getLogger(__name__)


def take_device(studio: Studio, device: str) -> int | None:
    """The descriptor that holds a device's lock; None while another worker holds it and is alive."""
    path = studio.folder / f"worker-{device}.lock"
    while (descriptor := _locked(path)) is not None:
        if _names(path, descriptor):
            keep_device(descriptor)
            return descriptor
        os.close(descriptor)  # replaced between opening and locking: look again
    guard = _locked(path.with_suffix(".next"))
    if guard is None:  # another successor is at it
        return None
    try:
        if not _stalled(path, studio.stale_after_s):
            return None
        successor = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = _locked(successor)
        os.replace(successor, path)
        return descriptor
    finally:
        os.close(guard)


def keep_device(descriptor: int) -> None:
    """Show that the holder of a device's lock is alive."""
    os.utime(descriptor)


def end_stalled(studio: Studio, device: str) -> None:
    """Kill the workers of a device that were silent for `stale_after_s` and are still processes of this machine."""
    for worker in studio.workers(limit=100):
        silent = time.time() - worker.heartbeat_at > studio.stale_after_s
        if worker.device == device and silent and not worker.gone and _works_on(worker.pid, studio.folder):
            log.warning("worker %s stalled inside a transaction and is killed", worker.id)
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)


def command_of(pid: int) -> str:
    """The command line of a living process, empty for none: a number alone may be another process's by now."""
    if Path("/proc/self").exists():
        with suppress(OSError):  # a process that waits to be reaped has no command line any more
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    shown = subprocess.run(["ps", "-o", "stat=,command=", "-p", str(pid)], capture_output=True, text=True).stdout
    return "" if shown.startswith("Z") else shown


def _works_on(pid: int, folder: Path) -> bool:
    return pid != os.getpid() and str(folder) in command_of(pid)


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _stalled(path: Path, after_s: float) -> bool:
    return time.time() - path.stat().st_mtime > after_s
