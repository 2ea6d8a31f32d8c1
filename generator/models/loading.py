"""A model of the catalogue, loaded: which adapter a card's family means."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dreamontage.generator.fit import least_gb
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.switching import check_switches
from dreamontage.generator.native import usual_size
from dreamontage.schemas.errors import RenderFailed
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches


def load_model(model: str | Path, device: torch.device | str = "cpu", switches: Switches = PLAIN) -> Any:
    """The `Family` of a model id or folder, on a device, run under these switches.

    Raises NotFound, InvalidInput, RenderFailed.
    """
    folder = model if isinstance(model, Path) else catalogue.weights_folder(model)
    card, device = catalogue.read_card(folder), torch.device(device)
    check_switches(card, switches)
    _require_room(card, device, switches)
    if card.family == "nano":
        from dreamontage.generator.pipeline import DreaMontagePipeline

        return DreaMontagePipeline.from_pretrained(folder).to(device)
    _require_packages(card)
    if card.family == "wan":
        from dreamontage.generator.models.wan import WanFamily

        return WanFamily.load(folder, card, device, switches=switches)
    if card.family == "vace":
        from dreamontage.generator.models.vace import VaceFamily

        return VaceFamily.load(folder, card, device, switches=switches)
    if card.family == "ti2v":
        from dreamontage.generator.models.ti2v import Ti2vFamily

        return Ti2vFamily.load(folder, card, device, switches=switches)
    if card.family == "ltx":
        from dreamontage.generator.models.ltx import LtxFamily

        return LtxFamily.load(folder, card, device, switches=switches)
    if card.family == "ltx2":
        from dreamontage.generator.models.ltx2 import Ltx2Family

        return Ltx2Family.load(folder, card, device, switches=switches)
    raise RenderFailed(
        f"{card.id} is of the family {card.family}, which this version cannot render", next_call="list_models()"
    )


def _require_packages(card: ModelCard) -> None:
    """What models with text encoders take beside diffusers."""
    missing = [name for name in ("accelerate", "peft", "transformers") if find_spec(name) is None]
    if missing:
        raise RenderFailed(
            f"{card.id} needs {', '.join(missing)}, which is not installed here",
            next_call="pip install 'dreamontage[models]'",
        )


def _require_room(card: ModelCard, device: torch.device, switches: Switches) -> None:
    """Refuse a device on which not even a small window at draft size fits, before gigabytes are read."""
    need = least_gb(card, usual_size(card, "draft"), (switches,))
    if not need:
        return
    room = torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else 0.0
    if room < need:
        raise RenderFailed(
            f"{card.id} needs a GPU with {need:.0f} GB; {device} has {room:.0f} GB" if room else
            f"{card.id} needs a GPU with {need:.0f} GB, and the worker runs on {device}",
            next_call="update_montage(model='nano') renders on a CPU; DREAMONTAGE_DEVICES names the devices to use",
        )  # fmt: skip
