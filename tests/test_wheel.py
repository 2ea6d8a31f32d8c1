"""The wheel carries everything: code, weights, demo media. Installed alone, it renders."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("server", "generator", "schemas")
RENDER = """
import numpy as np, torch
from dreamontage.generator import DreaMontagePipeline
pipe = DreaMontagePipeline.from_pretrained("nano")
ramp = np.linspace(0, 255, 144 * 256 * 3).reshape(144, 256, 3).astype("uint8")
video = pipe(anchors=[(ramp, 0.0)], duration=0.5, width=256, height=144, generator=torch.Generator().manual_seed(1))
print(len(video.frames[0]), "rendered")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that neither the build folder nor an egg-info of the checkout leaks into the wheel.
    source = out / "source"
    source.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(ROOT / name, source / name) if _same_disk(ROOT, out) else (source / name).write_bytes(
                (ROOT / name).read_bytes()
            )
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def _same_disk(left: Path, right: Path) -> bool:
    return left.stat().st_dev == right.stat().st_dev


def test_the_wheel_holds_every_module_weight_and_medium_of_the_repository(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"dreamontage/{file.relative_to(ROOT).as_posix()}" in packed, file.name


def test_the_wheel_installs_no_top_level_module_but_dreamontage(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dreamontage"}


def test_the_wheel_renders_in_an_environment_that_has_only_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    # Dependencies come through PYTHONPATH, where .pth files (and with them the editable install) are not read.
    path = os.pathsep.join([str(tmp_path / "installed"), sysconfig.get_paths()["purelib"]])
    done = subprocess.run(
        [python, "-c", RENDER],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["13", "rendered"]
