"""The models on this machine, and those that can be fetched: cards and weight folders. Imports no torch.

A model is a diffusers pipeline folder with a `card.json` (`ModelCard`): those shipped under `weights/`, those in the
folders that the environment variable DREAMONTAGE_MODELS lists (separated like PATH), and those that `dreamontage pull`
put beside the studio. Where two are called the same, the first listed folder's counts, and a listed one before the
shipped one. `catalogue.toml` lists models that can be fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

import platformdirs

from dreamontage.schemas.errors import InvalidInput, NotFound
from dreamontage.schemas.models import ModelCard

SHIPPED = Path(__file__).parents[1] / "weights"
CARD = "card.json"
INDEX = "model_index.json"
LORAS = "loras"
CLUSTER_GPU = "DREAMONTAGE_CLUSTER_GPU"
"""Memory in GB, and name, of the smallest GPU of the Ray cluster that is rendered on: `80 H100`."""
LOW = ".low"
"""Ends the name of the file that is a LoRA's part for the low-noise expert: `NAME.low.safetensors`."""


def cards() -> dict[str, ModelCard]:
    """Every model with a card, by id, those that can be fetched too; `available`: whether its weights are there."""
    return dict(sorted({**fetchable(), **{name: read_card(folder) for name, folder in _folders().items()}}.items()))


def card(model_id: str) -> ModelCard:
    """The card of one model. Raises NotFound naming those there are."""
    folders = _folders()
    if model_id not in folders and model_id in fetchable():
        return fetchable()[model_id]
    return read_card(weights_folder(model_id))


def weights_folder(model_id: str) -> Path:
    """The pipeline folder of one model. Raises NotFound naming those there are."""
    folders = _folders()
    if model_id not in folders:
        known = model_id in fetchable()
        raise NotFound(
            f"the weights of model {model_id} are not on this machine" if known else f"no model is called {model_id!r}",
            field="model",
            allowed=", ".join(sorted(folders)) or "none is installed",
            next_call=f"{pull_command(model_id)} fetches them" if known else "list_models()",
        )
    return folders[model_id]


def read_card(folder: Path) -> ModelCard:
    """The card in a pipeline folder, with the LoRAs beside it and those that the catalogue knows by now.

    `available` is set from what the folder holds.
    """
    found = ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    beside = (file.stem for file in sorted((folder / LORAS).glob("*.safetensors")))
    loras = [*found.loras, *(name for name in beside if not name.endswith(LOW))]
    known = fetchable()[found.id].known_loras if found.id in fetchable() else {}
    return found.model_copy(
        update={
            "available": (folder / INDEX).exists(),
            "loras": list(dict.fromkeys(loras)),
            "known_loras": known | found.known_loras,
        }
    )


@cache
def fetchable() -> dict[str, ModelCard]:
    """The cards of `catalogue.toml`, by id: models that `dreamontage pull` can fetch."""
    listed = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    return {name: ModelCard(id=name, available=False, **fields) for name, fields in listed.items()}


def models_folder() -> Path:
    """Where fetched models go: the first folder of DREAMONTAGE_MODELS, else `models` beside the studio."""
    listed = [root for root in os.environ.get("DREAMONTAGE_MODELS", "").split(os.pathsep) if root]
    return Path(listed[0]) if listed else _beside_studio()


def pull_command(model_id: str, lora: str = "") -> str:
    """What a user types to fetch a model, or a LoRA for it."""
    return f"dreamontage pull {model_id}" + (f" --lora {lora}" if lora else "")


def missing(model_id: str) -> str:
    """What is said of a model that is not installed."""
    return f"The weights of {model_id} are not on this machine; {pull_command(model_id)} fetches them."


def lora_files(model_id: str, name: str) -> list[Path]:
    """Where a LoRA of a model lies, or would: its file, and its part for the low-noise expert."""
    return [weights_folder(model_id) / LORAS / f"{name}{part}.safetensors" for part in ("", LOW)]


def gpu_memory_gb() -> float:
    """Memory in GB of the largest GPU that is rendered on, 0 where there is none or DREAMONTAGE_DEVICES names none."""
    named = os.environ.get("DREAMONTAGE_DEVICES", "")
    return 0.0 if named and "cuda" not in named and "ray" not in named else max(gpus(), default=0.0)


def gpus() -> tuple[float, ...]:
    """Memory in GB of every GPU that can be rendered on. Raises InvalidInput where a cluster's is misspelt."""
    return tuple(memory for memory, _ in _cluster() or _driver())


def gpu_names() -> tuple[str, ...]:
    """What every GPU that can be rendered on is called."""
    return tuple(name for _, name in _cluster() or _driver())


def _cluster() -> tuple[tuple[float, str], ...]:
    """Memory in GB and name of the GPUs of the Ray cluster that is rendered on, as DREAMONTAGE_CLUSTER_GPU says.

    Nothing where it says nothing: a cluster is then taken to be of machines like this one. It is said, not asked for,
    so that plans need neither Ray nor a cluster that answers.
    """
    said = os.environ.get(CLUSTER_GPU, "").split(maxsplit=1)
    if not said or "ray" not in os.environ.get("DREAMONTAGE_DEVICES", ""):
        return ()
    memory, name = said[0], said[1] if len(said) > 1 else ""
    if not re.fullmatch(r"\d+(\.\d+)?", memory):
        raise InvalidInput(
            f"{CLUSTER_GPU}={memory!r} is no memory of a GPU",
            field=CLUSTER_GPU,
            allowed="gigabytes, and the GPU's name for estimates of time: '80 H100'; '0' for a cluster without GPUs",
        )
    return ((float(memory), name),)


@cache
def _driver() -> tuple[tuple[float, str], ...]:
    """Memory in GB and name of every GPU that torch can use, as the driver tells; asked once, without torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None or version("torch").endswith("+cpu"):
        return ()
    command = [tool, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = (line.partition(",") for line in told.split("\n"))
    return tuple((float(memory) * 2**20 / 1e9, name.strip()) for memory, _, name in rows if memory.strip().isdigit())


def weights_hash(model_id: str) -> str:
    """sha256 over a model's weights and configurations: what its takes depend on; "" before they are fetched."""
    if model_id not in _folders() and model_id in fetchable():
        return ""
    return folder_hash(weights_folder(model_id))


def folder_hash(folder: Path) -> str:
    """sha256 over the component files of a pipeline folder, read once per change."""
    files = sorted(
        path
        for path in folder.glob("*/*")
        if path.suffix in (".safetensors", ".json") and path.parent.name != LORAS
    )
    digest = hashlib.sha256()
    for path in files:
        state = path.stat()
        digest.update(f"{path.relative_to(folder)}:{_file_hash(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lora_hash(model_id: str, name: str) -> str:
    """sha256 of a LoRA in a model's folder, "" where it is not there: part of the recipe of a take that uses it."""
    states = [(path, path.stat()) for path in lora_files(model_id, name) if path.is_file()]
    return "+".join(_file_hash(path, state.st_size, state.st_mtime_ns) for path, state in states)


def _beside_studio() -> Path:
    home = os.environ.get("DREAMONTAGE_HOME") or platformdirs.user_data_path("dreamontage")
    return Path(home).expanduser().absolute() / "models"


def _folders() -> dict[str, Path]:
    extra = [Path(root) for root in os.environ.get("DREAMONTAGE_MODELS", "").split(os.pathsep) if root]
    # The last of a name stays in the dict.
    roots = [SHIPPED, _beside_studio(), *reversed(extra)]
    return {file.parent.name: file.parent for root in roots for file in sorted(root.glob(f"*/{CARD}"))}
