"""Takes on disk: the immutable, unfused latents of one segment for one fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
from torch import Tensor

from dreamontage.generator.files import write_whole


class TakeStore(Protocol):
    """Where takes are kept while a shot is rendered."""

    def load(self, fingerprint: str) -> tuple[Tensor, dict[str, Any]] | None:
        """A take's latents [C,n,h,w] and its info; None where there is none."""

    def save(self, fingerprint: str, latents: Tensor, info: Mapping[str, Any]) -> None:
        """Keep a take."""


class Takes:
    """A folder of takes: `<fingerprint>.safetensors` and, written after it, `<fingerprint>.json` with its checksum.

    A take counts only when both are whole; a damaged one is absent and is rendered again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, fingerprint: str) -> bool:
        """Whether a whole take is there."""
        return self._read(fingerprint) is not None

    def load(self, fingerprint: str) -> tuple[Tensor, dict[str, Any]] | None:
        """Latents float32 [C,n,h,w] and the info they were saved with; None if absent or damaged."""
        found = self._read(fingerprint)
        return None if found is None else (safetensors.torch.load(found[0])["latents"], found[1])

    def save(self, fingerprint: str, latents: Tensor, info: Mapping[str, Any]) -> None:
        """Write a take whole or not at all. Raises StudioFull if the disk has no room."""
        content = safetensors.torch.save({"latents": latents.detach().cpu().contiguous()})
        write_whole(self._path(fingerprint, "safetensors"), content)
        sidecar = {"sha256": hashlib.sha256(content).hexdigest(), "info": dict(info)}
        write_whole(self._path(fingerprint, "json"), json.dumps(sidecar, sort_keys=True).encode())

    def _path(self, fingerprint: str, suffix: str) -> Path:
        return self.folder / f"{fingerprint}.{suffix}"

    def _read(self, fingerprint: str) -> tuple[bytes, dict[str, Any]] | None:
        try:
            sidecar = json.loads(self._path(fingerprint, "json").read_bytes())
            content = self._path(fingerprint, "safetensors").read_bytes()
            whole = hashlib.sha256(content).hexdigest() == sidecar["sha256"]
            return (content, sidecar["info"]) if whole else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


class MemoryTakes:
    """Takes that live as long as one call of the pipeline."""

    def __init__(self) -> None:
        self._takes: dict[str, tuple[Tensor, dict[str, Any]]] = {}

    def load(self, fingerprint: str) -> tuple[Tensor, dict[str, Any]] | None:
        """A take saved before, or None."""
        return self._takes.get(fingerprint)

    def save(self, fingerprint: str, latents: Tensor, info: Mapping[str, Any]) -> None:
        """Keep a take in memory."""
        self._takes[fingerprint] = (latents.cpu(), dict(info))
