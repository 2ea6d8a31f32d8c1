"""A model of which only the autoencoder is loaded: enough to deliver what was rendered elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from dreamontage.generator.models import catalogue
from dreamontage.generator.models.family import Window
from dreamontage.generator.models.switching import coder_under
from dreamontage.generator.numbers import computes, number_type
from dreamontage.generator.sampling import Sampling
from dreamontage.schemas.errors import RenderFailed
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches


@dataclass(frozen=True)
class Deliverer:
    """The `Family` of a model whose segments an engine renders on other devices; here they are decoded."""

    card: ModelCard
    vae: Any
    computes: str

    @property
    def device(self) -> torch.device:
        """Where it decodes."""
        found: torch.device = self.vae.device
        return found

    def learn(self, texts: Sequence[str]) -> None:
        """Prompts are encoded where segments are rendered."""

    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> NoReturn:
        """Raises RenderFailed."""
        raise RenderFailed(f"only the autoencoder of {self.card.id} is loaded here, so nothing can be rendered with it")


def load_deliverer(model_id: str, device: str = "cpu", switches: Switches = PLAIN) -> Deliverer:
    """A model's autoencoder in float32. Raises NotFound."""
    folder = catalogue.weights_folder(model_id)
    kind = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["_class_name"]
    vae: Any
    if kind == "NanoAutoencoder":
        from dreamontage.generator.models.autoencoder import NanoAutoencoder

        vae = NanoAutoencoder.from_pretrained(folder / "vae")
    elif kind == "AutoencoderKLLTX2Video":
        from dreamontage.generator.models.ltx_autoencoder import Ltx2Autoencoder

        vae = Ltx2Autoencoder.from_pretrained(folder / "vae")
    elif "LTX" in kind:
        from dreamontage.generator.models.ltx_autoencoder import LtxAutoencoder

        vae = LtxAutoencoder.from_pretrained(folder / "vae")
    else:
        from dreamontage.generator.models.wan_autoencoder import WanAutoencoder

        vae = WanAutoencoder.from_pretrained(folder / "vae")
    vae = coder_under(vae, torch.device(device), switches)
    return Deliverer(catalogue.card(model_id), vae, computes(number_type(vae.device), switches))
