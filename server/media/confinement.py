"""What a process that decodes foreign bytes gives up: memory, time, files, programs and the network.

Resource limits hold on every POSIX system. Files, programs and TCP are closed by Landlock (Linux 5.13 and newer,
https://docs.kernel.org/userspace-api/landlock.html), the whole network by an empty network namespace where the kernel
grants one. A system that knows neither still has the limits, and code that opens nothing by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import dreamontage.generator
import dreamontage.schemas
from dreamontage.schemas import limits

_NEW_USER_AND_NETWORK: Final = 0x10000000 | 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture since Linux 5.13
_NO_NEW_PRIVILEGES: Final = 38
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""(version of Landlock, number of file rights it knows)."""
_LIBRARIES: Final = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc/self", "/dev/null", "/dev/urandom")


def confine(writable_bytes: int, readable: Iterable[str]) -> None:
    """Give up what decoding does not need; descriptors that are open stay usable. There is no way back.

    `writable_bytes`: bound on any file written. `readable`: files that may still be opened, beside Python's own code.
    """
    for limit, value in (
        (resource.RLIMIT_AS, limits.PROBE_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, writable_bytes),
        (resource.RLIMIT_NOFILE, limits.PROBE_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a system that knows no such limit, or has a lower one
            resource.setrlimit(limit, (value, value))
    if sys.platform == "linux":
        kernel = ctypes.CDLL(None)
        kernel.unshare(_NEW_USER_AND_NETWORK)
        _close_files(kernel, [*readable, *_code()])


def allow_time() -> None:
    """Grant the next item its share of processor and of wall time; beyond it the process ends."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.PROBE_TIMEOUT_S) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
    signal.setitimer(signal.ITIMER_REAL, limits.PROBE_TIMEOUT_S + 1)


def landlock_version(kernel: ctypes.CDLL) -> int:
    """Which version of Landlock the kernel has; below 1 for none."""
    version: int = kernel.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return version


def _code() -> Iterator[str]:
    """Where imports and shared libraries come from, links in them followed."""
    packages = (dreamontage.generator.__file__, dreamontage.schemas.__file__, __file__)
    yield from (*_LIBRARIES, *sys.path, sys.prefix, sys.base_prefix)
    for file in filter(None, packages):
        yield from (os.path.dirname(file), os.path.dirname(os.path.realpath(file)))


def _close_files(kernel: ctypes.CDLL, readable: Iterable[str]) -> None:
    """Deny every file, program and TCP connection but reading of these files and folders, as far as it is possible."""
    version = landlock_version(kernel)
    if version < 1:
        return
    files = (1 << max(count for since, count in _RIGHTS if version >= since)) - 1
    attributes = struct.pack("=QQ", files, 0b11 if version >= 4 else 0)[: 16 if version >= 4 else 8]
    rules = kernel.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return
    for place in readable:
        with contextlib.suppress(OSError):
            descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
            allowed = _READ_FILE | _READ_FOLDER if os.path.isdir(place) else _READ_FILE
            kernel.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", allowed, descriptor), 0)
            os.close(descriptor)
    kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    kernel.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)
