"""The models on this machine: cards and weight folders. Imports no torch.

A model is a diffusers pipeline folder with a `card.json` (`ModelCard`): those shipped under `weights/`, and those in
the folders that the environment variable DREAMONTAGE_MODELS lists (separated like PATH). Where two are called the
same, the first listed folder's counts, and a listed one before the shipped one.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from dreamontage.schemas.errors import NotFound
from dreamontage.schemas.models import ModelCard

SHIPPED = Path(__file__).parents[1] / "weights"
CARD = "card.json"
INDEX = "model_index.json"


def cards() -> dict[str, ModelCard]:
    """Every model with a card, by id; `available` says whether its weights are there."""
    return {model_id: read_card(folder) for model_id, folder in sorted(_folders().items())}


def card(model_id: str) -> ModelCard:
    """The card of one model. Raises NotFound naming those there are."""
    return read_card(weights_folder(model_id))


def weights_folder(model_id: str) -> Path:
    """The pipeline folder of one model. Raises NotFound naming those there are."""
    folders = _folders()
    if model_id not in folders:
        raise NotFound(
            f"no model is called {model_id!r}",
            field="model",
            allowed=", ".join(sorted(folders)) or "none is installed",
            next_call="list_models()",
        )
    return folders[model_id]


def read_card(folder: Path) -> ModelCard:
    """The card in a pipeline folder; `available` is set from what the folder holds."""
    found = ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    return found.model_copy(update={"available": (folder / INDEX).exists()})


def weights_hash(model_id: str) -> str:
    """sha256 over a model's weights and configurations: what its takes depend on."""
    return folder_hash(weights_folder(model_id))


def folder_hash(folder: Path) -> str:
    """sha256 over the component files of a pipeline folder, read once per change."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix in (".safetensors", ".json"))
    digest = hashlib.sha256()
    for path in files:
        state = path.stat()
        digest.update(f"{path.relative_to(folder)}:{_file_hash(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders() -> dict[str, Path]:
    extra = [Path(root) for root in os.environ.get("DREAMONTAGE_MODELS", "").split(os.pathsep) if root]
    # The last of a name stays in the dict.
    roots = [SHIPPED, *reversed(extra)]
    return {file.parent.name: file.parent for root in roots for file in sorted(root.glob(f"*/{CARD}"))}
