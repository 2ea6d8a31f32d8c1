"""Fetching a model, or a LoRA for one: from the hub, or from a folder with the same repositories. Imports no torch.

What is fetched gathers in a hidden folder and becomes a model when it is whole: an interrupted pull goes on where it
stopped, and no half model is ever seen.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from dreamontage.generator.files import write_whole
from dreamontage.generator.models import catalogue
from dreamontage.schemas.errors import DreamontageError, InvalidInput, NotFound, StudioFull
from dreamontage.schemas.models import Lora, ModelCard, WeightsSource

SPARE = 2**30
"""Bytes of disk that stay free."""

OnBytes = Callable[[str, int, int], None]
"""Told (file, bytes done of all, bytes in all) while a model is fetched."""


@dataclass(frozen=True)
class Remote:
    """One file of a source: its path in the repository, its size in bytes, its sha256 where the source tells it."""

    path: str
    bytes: int
    sha256: str | None = None


class Store(Protocol):
    """Where repositories lie."""

    def files(self, source: WeightsSource) -> list[Remote]:
        """All files of a repository at its revision. Raises DreamontageError."""
        ...

    def fetch(self, source: WeightsSource, file: Remote, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        """Bring one file under `folder` and tell of bytes done; continues a file that is there in part."""
        ...


class FolderStore:
    """Repositories as folders `owner/name` under one folder: a mounted disk, or what another machine fetched."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self, source: WeightsSource) -> list[Remote]:
        """The files of the repository's folder."""
        folder = self.root / source.repository
        if not folder.is_dir():
            raise NotFound(f"{source.repository} is not in {self.root.name}", field="--from")
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return [Remote(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]

    def fetch(self, source: WeightsSource, file: Remote, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        """Copy, going on where an earlier copy stopped."""
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with (self.root / source.repository / file.path).open("rb") as reader, target.open("ab") as writer:
            reader.seek(writer.tell())
            while piece := reader.read(2**20):
                writer.write(piece)
                on_bytes(writer.tell())
        return target


class HubStore:
    """The Hugging Face hub, or a server that speaks like it (`endpoint`, else HF_ENDPOINT)."""

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = endpoint or os.environ.get("HF_ENDPOINT") or None

    def files(self, source: WeightsSource) -> list[Remote]:
        """The files of a repository at its commit, with the hashes of the large ones."""
        from huggingface_hub import HfApi

        with _hub_errors(source):
            info = HfApi(endpoint=self.endpoint).model_info(
                source.repository, revision=source.revision, files_metadata=True
            )
        return [
            Remote(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        ]

    def fetch(self, source: WeightsSource, file: Remote, folder: Path, on_bytes: Callable[[int], None]) -> Path:
        """Download; huggingface_hub keeps what it has of a file and goes on from there."""
        from huggingface_hub import hf_hub_download
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        class Bar(tqdm):  # type: ignore[misc]
            """Tells of bytes instead of drawing."""

            def __init__(self, *args: object, **kwargs: object) -> None:
                super().__init__(*args, **{**kwargs, "disable": False, "file": io.StringIO()})

            def update(self, n: float | None = 1) -> Any:
                shown = super().update(n)
                on_bytes(int(self.n))
                return shown

        with _hub_errors(source):
            return Path(
                hf_hub_download(
                    source.repository, file.path, revision=source.revision, local_dir=folder, endpoint=self.endpoint,
                    tqdm_class=Bar,
                )
            )  # fmt: skip


@contextmanager
def _hub_errors(source: WeightsSource) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    # The base error of the HTTP client that huggingface_hub was built with: httpx, or its successor.
    client = [base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception) and base.__name__ == "HTTPError"]
    broken: tuple[type[Exception], ...] = (OSError, *client)
    try:
        yield
    except GatedRepoError as error:
        raise DreamontageError(
            f"{source.repository} is given out only to those who accepted its licence on the hub",
            next_call=f"accept it at https://huggingface.co/{source.repository}, then `hf auth login`",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise DreamontageError(
            f"the hub answered {status} for {source.repository} at {source.revision[:12]}",
            next_call="the same command goes on where this one stopped",
        ) from error
    except broken as error:
        raise DreamontageError(
            f"the connection broke while {source.repository} was fetched ({type(error).__name__})",
            next_call="the same command goes on where this one stopped",
        ) from error


def pull(
    card: ModelCard, store: Store, on_bytes: OnBytes, accepted: bool = False, folder: Path | None = None
) -> Path:
    """Fetch a model into `folder` (default: the models' folder) and return where it is; at once where it is there.

    Raises InvalidInput where its licence has to be accepted first, NotFound where a source lacks a file, StudioFull
    where the disk has no room, DreamontageError where the connection broke (the next pull goes on from there).
    """
    root = folder or catalogue.models_folder()
    target, partial = root / card.id, root / f".{card.id}.part"
    if (target / catalogue.CARD).is_file():
        return target
    if not card.sources:
        raise InvalidInput(f"{card.id} is not fetched from anywhere", field="model", next_call="dreamontage models")
    if card.must_accept and not accepted:
        raise _to_accept(card.title, card, catalogue.pull_command(card.id))
    _gather(card.id, store, card.sources, partial, on_bytes)
    _complete(partial, card)
    partial.rename(target)
    return target


def pull_lora(card: ModelCard, name: str, store: Store, on_bytes: OnBytes, accepted: bool = False) -> Path:
    """Fetch a LoRA into the `loras/` of an installed model and return where it is; at once where it is there.

    Raises NotFound where the model is not here or knows no such LoRA, and what `pull` raises.
    """
    target, low = catalogue.lora_files(card.id, name)
    if target.is_file():
        return target
    if name not in card.known_loras:
        raise NotFound(
            f"{card.id} knows no LoRA called {name!r} to fetch", field="--lora",
            allowed=", ".join(card.known_loras) or "none",
            next_call=f"a file of your own is used by its name at loras/{target.name} in the model's folder",
        )  # fmt: skip
    lora = card.known_loras[name]
    if lora.must_accept and not accepted:
        raise _to_accept(f"The LoRA {name}", lora, catalogue.pull_command(card.id, name))
    partial = target.parent / f".{name}.part"
    _gather(f"the LoRA {name}", store, [lora.source], partial, on_bytes)
    # Seen from the moment its own file is there: the low-noise expert's part comes first.
    for file, path in reversed([*zip(lora.source.files, (target, low), strict=False)]):
        (partial / file).rename(path)
    shutil.rmtree(partial)
    return target


def _to_accept(what: str, terms: ModelCard | Lora, command: str) -> InvalidInput:
    return InvalidInput(
        f"{what} is under {terms.licence}: {terms.forbids}",
        field="licence",
        allowed=f"read {terms.licence_url}, then accept it",
        next_call=f"{command} --accept",
    )


def _gather(what: str, store: Store, sources: Sequence[WeightsSource], partial: Path, on_bytes: OnBytes) -> None:
    """Bring the files of these sources into a folder, going on with what is there. Raises StudioFull and others."""
    wanted = [(source, _chosen(store, source)) for source in sources]
    total = sum(file.bytes for _, files in wanted for file in files)
    partial.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    if (free := shutil.disk_usage(partial).free) < total - there + SPARE:
        raise StudioFull(
            f"{what} takes {total / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free",
            allowed=f"{(total - there + SPARE) / 1e9:.1f} GB free at {partial.parent.name}",
            next_call="free some space, or name another disk's folder in DREAMONTAGE_MODELS",
        )
    done = 0
    for source, files in wanted:
        for file in files:
            _fetch(store, source, file, partial / source.into, _counted(on_bytes, file, done, total))
            done += file.bytes
            on_bytes(file.path, done, total)
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # huggingface_hub's notes on what it has
    for source in sources:
        shutil.rmtree(partial / source.into / ".cache", ignore_errors=True)


def _chosen(store: Store, source: WeightsSource) -> list[Remote]:
    """The files of a source that its patterns name; every pattern has to find some."""
    files = store.files(source)
    missing = [one for one in source.files if not any(fnmatch(file.path, one) for file in files)]
    if missing:
        raise NotFound(
            f"{source.repository} at {source.revision[:12]} has no {', '.join(missing)}", field="model",
            next_call="pip install --upgrade dreamontage: a newer catalogue may know where it went",
        )  # fmt: skip
    return [file for file in files if any(fnmatch(file.path, one) for one in source.files)]


def _counted(on_bytes: OnBytes, file: Remote, done: int, total: int) -> Callable[[int], None]:
    return lambda own: on_bytes(file.path, done + own, total)


def _fetch(
    store: Store, source: WeightsSource, file: Remote, folder: Path, on_bytes: Callable[[int], None]
) -> None:
    """One file, checked by its size and hash; a whole one from an earlier pull is taken as it is."""
    path = folder / file.path
    if path.is_file() and path.stat().st_size == file.bytes:
        return
    path = store.fetch(source, file, folder, on_bytes)
    wrong = path.stat().st_size != file.bytes
    if not wrong and file.sha256 is not None:
        with path.open("rb") as content:
            wrong = hashlib.file_digest(content, "sha256").hexdigest() != file.sha256
    if wrong:
        path.unlink()
        raise DreamontageError(f"{file.path} came damaged", next_call="the same command fetches it again")


def _complete(folder: Path, card: ModelCard) -> None:
    """The card beside the weights: what makes the folder a model."""
    text = card.model_dump_json(indent=2, exclude={"available"}, exclude_defaults=True)
    write_whole(folder / catalogue.CARD, text.encode() + b"\n")
