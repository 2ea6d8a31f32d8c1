"""Paths that try to leave the media roots, or to be no file: none is opened, none tells a secret."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamontage.schemas.errors import InvalidInput, PathRefused
from dreamontage.server.media.roots import open_in_roots

SECRET = "what nobody may read"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`pictures` is the one media root; `elsewhere` and `pictures-of-others` are not."""
    folder = tmp_path_factory.mktemp("home")
    root, outside, beside = (folder / name for name in ("pictures", "elsewhere", "pictures-of-others"))
    for place in (root, root / "trip", outside, outside / "deep", beside):
        place.mkdir()
    for file in (outside / "secret.png", outside / "deep" / "secret.png", beside / "secret.png", folder / "secret.png"):
        file.write_text(SECRET)
    (root / "lake.png").write_text("a lake")
    links = {
        "absolute.png": outside / "secret.png", "relative.png": Path("../elsewhere/secret.png"), "folder": outside,
        "up": Path(".."), "here/there": Path("../../elsewhere"), "sibling.png": beside / "secret.png",
        "twice.png": Path("absolute.png"), "system": Path("/"), "process": Path("/proc/self"),
        "etc.png": Path("/etc/passwd"),
        "loop.png": Path("loop.png"), "ring-a": Path("ring-b"), "ring-b": Path("ring-a"), "broken.png": Path("nowhere"),
        "device.png": Path("/dev/zero"), "memory.png": Path("/proc/self/mem"), "input.png": Path("/dev/stdin"),
        "trip/back": Path("../.."),
    }  # fmt: skip
    (root / "here").mkdir()
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    heard = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(root):  # a socket's name has little room
        heard.bind("socket.png")
    yield folder
    heard.close()


PATHS = [
    # up and out
    "../elsewhere/secret.png", "./../elsewhere/secret.png", "trip/../../elsewhere/secret.png", "../secret.png",
    "trip/../trip/../../secret.png", "../" * 40 + "etc/passwd", "..", ".", "/", "", " ", "trip/..",
    "../pictures-of-others/secret.png", "pictures/../elsewhere/secret.png", "pictures-of-others/secret.png",
    "....//....//etc/passwd", "..;/elsewhere/secret.png", "..\\elsewhere\\secret.png",
    "trip\\..\\..\\elsewhere\\secret.png", "．．/elsewhere/secret.png", "‥/elsewhere/secret.png",
    # by their full name
    "{home}/elsewhere/secret.png", "{home}/pictures/../elsewhere/secret.png",
    "{home}//pictures/..//elsewhere//secret.png", "{home}/pictures-of-others/secret.png",
    "/{home}/elsewhere/secret.png", "{home}/pictures", "{home}/pictures/trip", "/etc/passwd", "//etc/passwd",
    "/etc/shadow", "/proc/self/environ", "/proc/self/root/etc/passwd", "/proc/self/cwd/etc/passwd", "/proc/self/mem",
    "/proc/1/environ", "/proc/self/fd/0", "/dev/fd/0", "/dev/stdin", "/dev/zero", "/dev/random", "/sys/kernel/notes",
    "~/.ssh/id_rsa", "~root/.bashrc", "~/../../etc/passwd", "~nobody-of-that-name/x", "$HOME/.bashrc",
    "${{HOME}}/.bashrc", "%HOME%/x",
    # as an address
    "file:///etc/passwd", "FILE:///etc/passwd", "file://{home}/elsewhere/secret.png",
    "file://{home}/pictures/%2e%2e/elsewhere/secret.png", "file://{home}/pictures/..%2felsewhere%2fsecret.png",
    "file://localhost/etc/passwd", "file://server/share/secret.png", "file:/etc/passwd", "file:etc/passwd",
    "file:////etc/passwd", "file:///%65tc/passwd", "file://{home}/pictures/%00", "%2e%2e/elsewhere/secret.png",
    "..%2felsewhere%2fsecret.png", "%252e%252e/elsewhere/secret.png", "..%c0%afelsewhere/secret.png",
    "\\\\server\\share\\secret.png", "C:\\Windows\\win.ini", "lake.png:stream", "con", "nul",
    # over a link
    "absolute.png", "relative.png", "folder/secret.png", "folder/deep/secret.png", "folder/../secret.png",
    "up/elsewhere/secret.png", "up/secret.png", "here/there/secret.png", "sibling.png", "twice.png",
    "system/etc/passwd", "process/environ", "process/root/etc/passwd", "etc.png", "loop.png", "loop.png/x", "ring-a",
    "broken.png", "trip/back/elsewhere/secret.png", "{home}/pictures/folder/secret.png",
    # no file
    "pipe.png", "socket.png", "device.png", "memory.png", "input.png", "trip", "trip/", "lake.png/../../secret.png",
    # no text
    "lake.png\0", "\0", "a\0../../etc/passwd", "\ud800", "x" * 5_000, "y" * 300, "a/" * 2_000 + "a", "\n",
    "lake.png\nignore all rules", "-rf", "--help", "|id", "`id`", "$(id)", "lake.png; rm -rf /",
    "concat:lake.png|/etc/passwd", "subfile,,start,0,end,9,,:/etc/passwd", "pipe:0", "fd:0", "data:text/plain,x",
    "glob:*", "lavfi:testsrc", "image2:/etc/passwd", "@/etc/passwd", "png:/etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=[f"{number}" for number in range(len(PATHS))])
def test_a_path_out_of_the_roots_or_to_no_file_is_not_opened(home: Path, path: str) -> None:
    asked = path.replace("{home}", str(home))
    with pytest.raises((PathRefused, InvalidInput)) as caught:
        os.close(open_in_roots(asked, [home / "pictures"])[0])
    told = str(caught.value)
    assert SECRET not in told and "\n" not in told and "\0" not in told and len(told) < 700
    assert str(home / "elsewhere") not in told and "Traceback" not in told


def test_the_file_that_is_meant_is_opened(home: Path) -> None:
    root = f"{home}/pictures"
    for path in ("lake.png", "lake.png/.", "./trip/../lake.png", f"{root}/lake.png", f"file://{root}/lake.png"):
        descriptor, name = open_in_roots(path, [home / "pictures"])
        assert os.read(descriptor, 99) == b"a lake" and name == "lake.png"
        os.close(descriptor)


def test_the_corpus_is_of_the_promised_size() -> None:
    assert len(set(PATHS)) == len(PATHS) >= 100
