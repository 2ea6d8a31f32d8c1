"""A loaded model of Wan's networks, autoencoder and text encoder: what Wan's families share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from dreamontage.generator.models.adapters import Adapters
from dreamontage.generator.models.family import Window
from dreamontage.generator.models.flow_run import Experts
from dreamontage.generator.models.switching import coder_under, rests_on, run_under, straight_to
from dreamontage.generator.models.wan_autoencoder import WanAutoencoder
from dreamontage.generator.models.wan_text import WanTexts
from dreamontage.generator.numbers import computes, number_type
from dreamontage.generator.sampling import Sampling
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches

PARTS = "transformer", "transformer_2"
"""Folders of a model's networks: the second expert's is not always there."""


@dataclass
class PromptedFamily(ABC):
    """The parts of a loaded model; a subclass says how its networks are read, and adds `begin`."""

    card: ModelCard
    vae: Any
    experts: Experts
    scheduler: Any
    texts: WanTexts
    adapters: Adapters
    computes: str

    @classmethod
    def load(
        cls, folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype | None = None,
        switches: Switches = PLAIN,
    ) -> Self:  # fmt: skip
        """From a model's folder; the autoencoder stays in float32. Raises InvalidInput."""
        dtype, at = dtype or number_type(device), rests_on(device, switches)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        networks = [
            run_under(cls.read(folder / part, dtype, at), device, switches)
            for part in PARTS
            if (folder / part / "config.json").is_file()
        ]
        return cls(
            card,
            coder_under(WanAutoencoder.from_pretrained(folder / "vae"), device, switches),
            Experts(networks[0], networks[1] if networks[1:] else None, float(index.get("boundary_ratio") or 0.0)),
            UniPCMultistepScheduler.from_pretrained(folder / "scheduler"),
            WanTexts(folder, networks[0].config["text_dim"], device, dtype, switches.offload == "group"),
            Adapters(folder / "loras", networks),
            computes(dtype, switches),
        )

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
        """One network from its folder to a device. Raises InvalidInput where it is none of this family's."""

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        found: torch.device = self.vae.device
        return found

    def learn(self, texts: Sequence[str]) -> None:
        """Encode these prompts, then let the text encoder go."""
        self.texts.learn(texts)

    def told(self, window: Window, sampling: Sampling) -> list[Tensor]:
        """The window's prompt and, where guidance is on, the negative one; the LoRAs that are asked for are on."""
        self.adapters.use(sampling.loras)
        return [self.texts(text) for text in (window.prompt, window.negative)[: 1 + (sampling.guidance > 1)]]


@dataclass
class FlowFamily(PromptedFamily):
    """A model in a folder as diffusers' pipelines save it: VACE, TI2V. A subclass names its network's class."""

    network: ClassVar[type[ModelMixin]]

    @classmethod
    def read(cls, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
        """As diffusers saved it."""
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
        if said != cls.network.__name__:
            raise InvalidInput(
                f"{folder.name}/ of {folder.parent.name} is a {said}",
                field="model",
                allowed=f"a {cls.network.__name__}",
            )
        return cls.network.from_pretrained(folder, torch_dtype=dtype, **straight_to(device))
