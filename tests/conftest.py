"""What many tests need: an empty studio, real pictures and a real clip, and a tiny model of real components."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_model as tiny
from desk import Desk
from media_files import Place

import dreamontage.generator.media
from dreamontage.server.store import Studio

DEMO = Path(next(iter(dreamontage.generator.media.__path__))) / "demo"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    """An empty studio, with an out-dir beside it."""
    with Studio(tmp_path / "studio", tmp_path / "out") as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Five photographs in a folder of their own; the fifth is the first, mirrored."""
    from PIL import Image, ImageOps

    folder = tmp_path / "media"
    folder.mkdir(exist_ok=True)
    names = ["aitzgorri.jpg", "picosdeeuropa.jpg", "sunset.jpg", "seeding.jpg"]
    found = [Path(shutil.copy(DEMO / name, folder / name)) for name in names]
    with Image.open(found[0]) as first:
        ImageOps.mirror(first).save(folder / "mirrored.jpg", quality=85)
    return [*found, folder / "mirrored.jpg"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three seconds of film, 640x360 at 25 fps."""
    folder = tmp_path / "media"
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(DEMO / "bunny.mp4", folder / "bunny.mp4"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A studio, one media root, and a folder that is none."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "elsewhere").mkdir()
    with Studio(tmp_path / "studio", tmp_path / "out") as studio:
        yield Place(studio, tmp_path / "pictures", tmp_path / "elsewhere")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `tiny`."""
    root = tmp_path_factory.mktemp("models")
    tiny.save_tiny(root)
    return root


@pytest.fixture
def tiny_model(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a model with random weights that renders within seconds."""
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tiny_models))
    return "tiny"


@pytest.fixture
def desk(tmp_path: Path, tiny_models: Path, tiny_model: str) -> Desk:
    """A folder to render in with the tiny model, without a studio."""
    return Desk(tmp_path, tiny_models / tiny_model)


@pytest.fixture
def worker(studio: Studio, tiny_model: str) -> Iterator[None]:
    """A real worker on the studio, in a thread; it holds the device's lock, so no process is started."""
    from dreamontage.server.worker import Worker, run_exclusively

    working = Worker(studio)
    started = threading.Event()
    run: Callable[[], None] = working.run

    def announced() -> None:
        started.set()
        run()

    working.run = announced  # type: ignore[method-assign]
    signals = pytest.MonkeyPatch()
    signals.setattr("dreamontage.server.worker.signal.signal", lambda *_: None)  # only the main thread may set them
    thread = threading.Thread(target=run_exclusively, args=(working,))
    thread.start()
    assert started.wait(10)
    yield
    working.stop()
    thread.join()
    signals.undo()
