"""Hostile files: what must be refused is, what is taken in does no harm, and the process that reads them lives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attack_media as corpus
import pytest

from dreamontage.schemas import limits
from dreamontage.server.media.child import ask
from dreamontage.server.media.ingest import take_in_all
from dreamontage.server.store import Studio

ALL = corpus.REFUSED | corpus.HARMLESS


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the confined child makes of every file, fifty at a time."""
    folder, found = tmp_path_factory.mktemp("hostile"), {}
    waiting = list(ALL)
    while waiting:
        with ExitStack() as opened:
            batch = {name: folder / str(number) for number, name in enumerate(waiting[:50])}
            for name, path in batch.items():
                path.write_bytes(ALL[name])
            files = [opened.enter_context(path.open("rb+")).fileno() for path in batch.values()]
            arguments = {"paths": [str(path) for path in batch.values()]}
            replies, _, ended = ask("judge", arguments, files, output_bytes=2**24, items=len(files))
        done = [*(reply["outcome"] for reply in replies), *([f"ended by signal {ended}"] if ended else [])]
        assert done
        found |= dict(zip(batch, done, strict=False))
        waiting = waiting[len(done) :]
    return found


@pytest.mark.parametrize("name", corpus.REFUSED)
def test_a_hostile_file_is_refused(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name].startswith("refused"), outcomes[name]


@pytest.mark.parametrize("name", corpus.HARMLESS)
def test_an_odd_file_does_no_harm(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "taken in"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Studio, dict[str, Path]]]:
    """A studio that has taken in every odd file, and what is stored of each."""
    folder = tmp_path_factory.mktemp("odd")
    with Studio(folder / "studio", folder / "out") as studio:
        for number, data in enumerate(corpus.HARMLESS.values()):
            (folder / str(number)).write_bytes(data)
        media = take_in_all(studio, [str(number) for number in range(len(corpus.HARMLESS))], [folder])
        yield studio, {name: studio.blob_path(item.id) for name, item in zip(corpus.HARMLESS, media, strict=True)}


@pytest.mark.parametrize("words", [b"run rm", b"rm -r", b"<script>", b"PK\x05\x06", b"\x7fELF", b"program!", b"hello"])
def test_what_rides_along_is_not_stored(stored: tuple[Studio, dict[str, Path]], words: bytes) -> None:
    assert any(words in data for data in corpus.HARMLESS.values())
    assert not any(words in path.read_bytes() for path in stored[1].values())


def test_the_corpus_is_of_the_promised_size_and_small() -> None:
    assert len(ALL) >= 200
    assert sum(map(len, ALL.values())) < 16 * 2**20 < limits.MAX_IMAGE_BYTES
