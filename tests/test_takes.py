"""Takes: whole or absent, verbatim, immutable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreamontage.generator.takes import Takes


@pytest.fixture
def takes(tmp_path: Path) -> Takes:
    return Takes(tmp_path / "takes")


LATENTS = torch.randn(16, 5, 2, 3, generator=torch.Generator().manual_seed(0))


def test_a_take_comes_back_bit_for_bit_with_its_info(takes: Takes) -> None:
    assert not takes.has("f")
    assert takes.load("f") is None
    takes.save("f", LATENTS, {"tail": "t", "drift": [[0.5]]})
    assert takes.has("f")
    found = takes.load("f")
    assert found is not None
    assert torch.equal(found[0], LATENTS)
    assert found[1] == {"tail": "t", "drift": [[0.5]]}
    assert {path.suffix for path in takes.folder.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("damage", ["cut", "flip", "no latents", "no sidecar", "bad sidecar", "other sidecar"])
def test_a_damaged_take_is_absent(takes: Takes, damage: str) -> None:
    takes.save("f", LATENTS, {})
    latents, sidecar = takes.folder / "f.safetensors", takes.folder / "f.json"
    content = bytearray(latents.read_bytes())
    if damage == "cut":
        latents.write_bytes(content[:-4])
    elif damage == "flip":
        content[-3] ^= 1
        latents.write_bytes(content)
    elif damage == "no latents":
        latents.unlink()
    elif damage == "no sidecar":
        sidecar.unlink()
    else:
        sidecar.write_text("[]" if damage == "other sidecar" else "{")
    assert not takes.has("f")
    assert takes.load("f") is None
    takes.save("f", LATENTS, {})
    assert takes.has("f")
