"""The confined child process in which foreign bytes are decoded, and the one way to ask it.

The child gets open descriptors of stored files, bounded memory, time and output, and gives up the network and all other
files where the kernel lets it. A decoder that crashes or hangs ends the child, never the server.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

from dreamontage.schemas import limits
from dreamontage.schemas.errors import DreamontageError, MediaRejected
from dreamontage.server.media.confinement import allow_time, confine

_KEPT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "LANG", "TMPDIR")
"""Environment variables that the child gets; no token or key is among them."""


class Outcome(NamedTuple):
    """What the child answered: one reply per finished item, the fault that ended it early, and the signal, if any."""

    replies: list[dict[str, Any]]
    fault: MediaRejected | None
    signal: int = 0


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
        return Outcome(replies, MediaRejected(**_beyond_limits()), -status)
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
    run, arguments = _tasks()[request["task"]], request["arguments"]
    named = [arguments["video"]] if "video" in arguments else [tile["path"] for tile in arguments.get("tiles", [])]
    confine(request["room"], named + arguments.get("paths", []))
    try:
        for reply in run(arguments, request["files"], request["output"]):
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


Task = Callable[[dict[str, Any], list[int], Any], Iterator[dict[str, Any]]]


def _tasks() -> dict[str, Task]:
    import av

    av.logging.set_level(av.logging.PANIC)
    return {
        "probe": _probe, "frame": _frame, "piece": _piece, "thumbnails": _thumbnails, "pictures": _pictures,
        "timeline": _timeline, "rows": _rows, "judge": _judge, "escape": _escape,
    }  # fmt: skip


def _probe(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    for descriptor in files:
        allow_time()
        yield _cleaned_and_probed(descriptor)


def _cleaned_and_probed(descriptor: int) -> dict[str, Any]:
    from dreamontage.server.media.magic import HEAD_BYTES, container_of
    from dreamontage.server.media.metadata import remove_metadata
    from dreamontage.server.media.probe import probe
    from dreamontage.server.media.sounds import is_sound, keep_sound

    with open(descriptor, "rb+") as file:
        container = container_of(file.read(HEAD_BYTES))
        if is_sound(file, container):
            return asdict(keep_sound(file, container))
        remove_metadata(file, container)
        file.seek(0)
        return asdict(probe(file))


def _judge(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    """What becomes of each file, for `dreamontage fuzz`; what is taken in is also decoded as a render would."""
    from dreamontage.generator.frames import load_clip, load_still
    from dreamontage.generator.soundtrack import Soundtrack

    for descriptor, path in zip(files, arguments["paths"], strict=True):
        allow_time()
        try:
            found = _cleaned_and_probed(descriptor)
        except DreamontageError:
            yield {"outcome": "refused"}
            continue
        except Exception as error:  # as in main: the file's fault
            yield {"outcome": f"refused as damaged ({type(error).__name__})"}
            continue
        try:
            if found["kind"] == "sound":
                list(Soundtrack(Path(path), found["container"], found["duration_s"]).pieces())
            elif found["kind"] == "still":
                load_still(Path(path), found["container"], (64, 48))
            else:
                load_clip(Path(path), found["container"], size=(64, 48), max_frames=33)
            yield {"outcome": "taken in"}
        except Exception as error:
            yield {"outcome": f"taken in, but not decoded ({type(error).__name__}: {error})"[:200]}


def _frame(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.excerpt import write_frame

    allow_time()
    with open(output, "wb", closefd=False) as file:
        write_frame(Path(arguments["video"]), tuple(arguments["size"]), arguments["fps"], arguments["index"], file)
    yield {}


def _piece(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.excerpt import write_piece

    allow_time()
    with open(output, "wb", closefd=False) as file:
        write_piece(Path(arguments["video"]), arguments["fps"], arguments["first"], arguments["stop"], file)
    yield {}


def _rows(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.generator.rows import Row, draw_rows

    rows = [Row.of(row) for row in arguments["rows"]]
    with open(output, "wb", closefd=False) as file:
        file.write(draw_rows(rows, arguments["aspect"], before_each=allow_time))
    yield {}


def _timeline(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.timeline import read_timeline

    allow_time()
    with open(files[0], "rb", closefd=False) as file:
        yield read_timeline(file)


def _thumbnails(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.drawing import draw

    allow_time()
    with open(output, "wb", closefd=False) as file:
        file.write(draw(arguments["tiles"], allow_time))
    yield {}


def _pictures(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    from dreamontage.server.media.drawing import small

    for tile in arguments["tiles"]:
        allow_time()
        yield {"jpeg": base64.b64encode(small(tile)).decode()}


def _escape(arguments: dict[str, Any], files: list[int], output: Any) -> Iterator[dict[str, Any]]:
    """Which ways out are open, by trying them: whether this system closes them differs."""
    yield {
        "files": _works(lambda: open(arguments["read"], "rb").close()),
        "writing": _works(lambda: open(arguments["write"], "wb").close()),
        "programs": _works(lambda: subprocess.run([sys.executable, "-c", ""], check=True)),
        "network": _works(lambda: socket.create_connection(arguments["connect"], 1).close())
        or _works(lambda: socket.socket(type=socket.SOCK_DGRAM).connect(("192.0.2.1", 9))),
    }


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
