"""The fuzz command: the same seed makes the same files, none of them gets anywhere, and it would notice if one did."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from dreamontage.server import fuzz
from dreamontage.server.media.mutations import mutated, samples
from dreamontage.server.store import Studio


def test_the_same_seed_makes_the_same_files() -> None:
    made = [mutated(random.Random(f"7/{number}")) for number in range(40)]
    assert made == [mutated(random.Random(f"7/{number}")) for number in range(40)]
    assert len({data for _, data in made}) > 35
    assert len(samples()) == 15


def test_spoiled_and_luring_files_get_nowhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert fuzz.run(120, 1, tmp_path / "kept") == 0
    told = capsys.readouterr().out
    assert "Nothing went wrong." in told and "refused" in told and "taken in" in told
    assert not (tmp_path / "kept").exists()


def test_a_way_out_would_be_noticed(tmp_path: Path) -> None:
    with Studio(tmp_path / "studio", tmp_path / "out") as studio, socket.create_server(("127.0.0.1", 0)) as ear:
        ear.setblocking(False)
        assert list(fuzz.escapes(tmp_path, studio, ear)) == []
        (tmp_path / "strange").write_text("x")
        (studio.folder / "blobs" / "b").write_bytes(b"..." + fuzz.SECRET)
        with socket.create_connection(ear.getsockname()):
            told = list(fuzz.escapes(tmp_path, studio, ear))
    assert told == ["a connection was made", "a file was written: strange", "another file was read"]
