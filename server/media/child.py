"""The confined child process in which foreign bytes are decoded, and the one way to ask it.

The child has no network where the kernel lets it give that up, bounded memory, processor time and output, and gets
open descriptors of stored files only. A decoder that crashes or hangs ends the child, never the server.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError, MediaRejected

_KEPT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "LANG", "TMPDIR")
"""Environment variables that the child gets; no token or key is among them."""
_NEW_USER_AND_NETWORK: Final = 0x10000000 | 0x40000000


class Outcome(NamedTuple):
    """What the child answered: one reply per finished item, and the fault that ended it early, if any."""

    replies: list[dict[str, Any]]
    fault: MediaRejected | None


def ask(
    task: str,
    arguments: dict[str, Any],
    files: Sequence[int] = (),
    output: int | None = None,
    output_bytes: int = 0,
    items: int = 1,
) -> Outcome:
    """Run one task in a child and wait for it; call it from a worker thread.

    `files`: descriptors the child reads. `output`: descriptor of a file it may write up to `output_bytes` to. Each of
    the `items` may take limits.PROBE_TIMEOUT_S. Raises DreamontageError if the child itself cannot run.
    """
    request = {"task": task, "arguments": arguments, "files": list(files), "output": output, "room": output_bytes}
    process = subprocess.Popen(
        [sys.executable, "-B", "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[*files, *([] if output is None else [output])],
        env={name: os.environ[name] for name in _KEPT if name in os.environ} | {"OMP_NUM_THREADS": "1"},
    )
    with process:
        try:
            said, complaints = process.communicate(json.dumps(request).encode(), limits.PROBE_TIMEOUT_S * items)
        except subprocess.TimeoutExpired:
            process.kill()
            said, complaints = process.communicate()
    return _outcome(said, complaints, process.returncode)


def _outcome(said: bytes, complaints: bytes, status: int) -> Outcome:
    lines = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    replies = [line["reply"] for line in lines if "reply" in line]
    for line in lines:
        if "fault" in line:
            return Outcome(replies, MediaRejected(**line["fault"]))
    if status < 0:
        return Outcome(replies, MediaRejected(**_beyond_limits()))
    if status > 0:
        last = complaints.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise DreamontageError(f"the media reader cannot run ({last[0][:200]})", next_call="run `dreamontage doctor`")
    return Outcome(replies, None)


def _beyond_limits() -> dict[str, str]:
    return {
        "problem": f"takes more than {limits.PROBE_TIMEOUT_S:g} s or {limits.PROBE_MEMORY_BYTES // 2**30} GiB to read",
        "allowed": "an intact picture or clip of ordinary size",
        "next_call": "export it again, smaller or as PNG or MP4, then add_media again",
    }


def main() -> None:
    """Entry point of the child: one request on standard input, one JSON line per reply on standard output."""
    request = json.loads(sys.stdin.buffer.read())
    _confine(request["room"])
    run = _tasks()[request["task"]]
    try:
        for reply in run(request["arguments"], request["files"], request["output"]):
            print(json.dumps({"reply": reply}), flush=True)
    except DreamontageError as error:
        fault = {"problem": error.problem, "allowed": error.allowed, "next_call": error.next_call}
        print(json.dumps({"fault": fault}), flush=True)
    except MemoryError:
        print(json.dumps({"fault": _beyond_limits()}), flush=True)
    except Exception as error:  # whatever a decoder makes of hostile bytes is the file's fault, told in one sentence
        fault = {
            "problem": f"is damaged and cannot be decoded ({type(error).__name__})",
            "allowed": "a complete picture or clip",
            "next_call": "export it again, then add_media again",
        }
        print(json.dumps({"fault": fault}), flush=True)


def _confine(room: int) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, limits.PROBE_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, room),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a system that knows no such limit, or has a lower one
            resource.setrlimit(limit, (value, value))
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(_NEW_USER_AND_NETWORK)


def _allow_time() -> None:
    """Grant the next item its share of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.PROBE_TIMEOUT_S) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


Task = Callable[[dict[str, Any], list[int], Any], Iterator[dict[str, Any]]]


def _tasks() -> dict[str, Task]:
    import av

    av.logging.set_level(av.logging.PANIC)
    return {"probe": _probe, "frame": _frame, "piece": _piece, "thumbnails": _thumbnails, "pictures": _pictures}


def _probe(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.probe import probe

    for descriptor in files:
        _allow_time()
        with open(descriptor, "rb") as file:
            yield asdict(probe(file))


def _frame(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.excerpt import write_frame

    _allow_time()
    with open(output, "wb", closefd=False) as file:
        write_frame(Path(arguments["video"]), tuple(arguments["size"]), arguments["fps"], arguments["index"], file)
    yield {}


def _piece(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.excerpt import write_piece

    _allow_time()
    with open(output, "wb", closefd=False) as file:
        write_piece(Path(arguments["video"]), arguments["fps"], arguments["first"], arguments["stop"], file)
    yield {}


def _thumbnails(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.drawing import draw

    _allow_time()
    with open(output, "wb", closefd=False) as file:
        file.write(draw(arguments["tiles"], _allow_time))
    yield {}


def _pictures(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.drawing import small

    for tile in arguments["tiles"]:
        _allow_time()
        yield {"jpeg": base64.b64encode(small(tile)).decode()}


if __name__ == "__main__":
    main()
