"""Memory of this process, resident and on GPUs: the peak since a job began."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_elsewhere = 0


def reset_peak_memory() -> None:
    """Start new peaks at the present sizes, resident where the system can (Linux); call it when a job begins."""
    global _elsewhere
    _elsewhere = 0
    if _CLEAR.exists():
        _CLEAR.write_text("5")
    for device in _gpus_in_use():
        sys.modules["torch"].cuda.reset_peak_memory_stats(device)


def peak_memory_bytes() -> int:
    """Peak resident bytes since `reset_peak_memory`, or of the whole process where the system cannot reset it."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def gpu_peak_bytes() -> int:
    """Peak of what tensors held on a GPU since `reset_peak_memory`, the largest of all GPUs, in this process and in
    those that render for it; 0 where none is in use."""
    here = [int(sys.modules["torch"].cuda.max_memory_allocated(device)) for device in _gpus_in_use()]
    return max([_elsewhere, *here])


def rendered_elsewhere(peak: int) -> None:
    """Count the peak in bytes of a GPU that another process renders on for this one."""
    global _elsewhere
    _elsewhere = max(_elsewhere, peak)


def give_back_memory() -> None:
    """Free what nothing needs any more, and give GPUs back what torch keeps of it."""
    gc.collect()  # a model under hooks holds itself
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _gpus_in_use() -> range:
    """The GPUs, where this process has used any; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return range(torch.cuda.device_count() if torch is not None and torch.cuda.is_initialized() else 0)
