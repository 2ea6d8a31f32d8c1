"""A device's lock: one worker at a time, and a stalled one loses its place.

The OS lock on worker-DEVICE.lock vanishes with the process that holds it, however that ends. A process that is stopped
or stuck keeps it, so the lock is a lease as well: its holder touches the file every few seconds, and once that has not
happened for the studio's `stale_after_s`, a successor puts a new file, locked by itself, in the place of the old one.
The stalled holder then locks a file that nobody looks at; what it still writes when it wakes up is refused by its
attempt's number (StaleAttempt), and it claims nothing more (DeviceLost).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

from .store import Studio


def take_device(studio: Studio, device: str) -> int | None:
    """The descriptor that holds a device's lock; None while another worker holds it and is alive."""
    path = studio.folder / f"worker-{device}.lock"
    while (descriptor := _locked(path)) is not None:
        if _names(path, descriptor):
            keep_device(descriptor)
            return descriptor
        os.close(descriptor)  # replaced between opening and locking: look again
    if not _stalled(path, studio.stale_after_s):
        return None
    with studio.db.write():  # one successor at a time; whoever comes second finds a fresh file
        if not _stalled(path, studio.stale_after_s):
            return None
        successor = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = _locked(successor)
        os.replace(successor, path)
        return descriptor


def keep_device(descriptor: int) -> None:
    """Show that the holder of a device's lock is alive."""
    os.utime(descriptor)


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
