"""Resident memory of this process: the peak since a job began."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Start a new peak at the present resident size, where the system can (Linux); call it when a job begins."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_memory_bytes() -> int:
    """Peak resident bytes since `reset_peak_memory`, or of the whole process where the system cannot reset it."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
