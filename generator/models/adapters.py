"""LoRAs on a loaded model, by name and weight: files in its `loras/` folder, loaded when they are first asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from safetensors import safe_open

from dreamontage.generator.models.catalogue import LOW
from dreamontage.generator.models.switching import put_lora
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.models import lora_name, lora_weight

ORIGINAL = "diffusion_model."
"""Prefix that diffusers' readers know a LoRA in the weights' original layout by; some files leave it out."""
Stamp = tuple[tuple[int, int], ...]
"""When the files of a LoRA were written, and their sizes in bytes."""


class Adapters:
    """The LoRAs of one model. With two experts a LoRA goes on the high-noise one, but for its `NAME.low.safetensors`
    and what its file says is the other's: few-step LoRAs have a part for each, arbitrary-frame LoRAs and those that
    `train adapt` makes are trained on the first alone. Needs peft."""

    parts: tuple[str, str] = ("transformer", "transformer_2")
    """Prefixes of a LoRA's weights that belong to the first network, as those without one do, and to the second."""

    def __init__(self, folder: Path, networks: Sequence[Any], reader: Any = WanLoraLoaderMixin) -> None:
        """`reader`: diffusers' class that knows the layouts of this family's LoRA files."""
        self.folder, self.networks, self.reader = folder, list(networks), reader
        self._on: dict[str, tuple[Stamp, list[Any]]] = {}
        self._used: tuple[tuple[str, Stamp], ...] | None = ()  # None: not known, since something could not be loaded

    def use(self, loras: Sequence[str]) -> None:
        """Switch on exactly these ("name" or "name:0.8"), all others off. Raises InvalidInput."""
        wanted = tuple((lora, self._stamp(lora_name(lora))) for lora in loras)
        if wanted == self._used:
            return
        self._used = None
        for lora, stamp in wanted:
            self._put(lora_name(lora), stamp)
        for network in self.networks:
            here = [lora for lora in loras if network in self._on[lora_name(lora)][1]]
            if here:
                network.set_adapters([lora_name(lora) for lora in here], [lora_weight(lora) for lora in here])
                network.enable_lora()
            else:
                network.disable_lora()
        self._used = wanted

    def _put(self, name: str, stamp: Stamp) -> None:
        """Load a LoRA, unless it is on its networks as its files are now: a take is named by what is in them."""
        if name in self._on and self._on[name][0] == stamp:
            return
        for network in self.networks:
            if name in getattr(network, "peft_config", {}):
                network.delete_adapters(name)
        self._on[name] = stamp, self._load(name)

    def _stamp(self, name: str) -> Stamp:
        states = [file.stat() for file in self._files(name) if file.is_file()]
        return tuple((state.st_mtime_ns, state.st_size) for state in states)

    def _files(self, name: str) -> list[Path]:
        """Its file, and the one for the low-noise expert."""
        return [self.folder / f"{name}{part}.safetensors" for part in ("", LOW)]

    def _load(self, name: str) -> list[Any]:
        """Load one from its file; the networks that it is on."""
        file, low = self._files(name)
        if not file.is_file():
            raise InvalidInput(
                f"the LoRA {name} is not installed",
                field="settings.loras",
                next_call=f"put its file at loras/{file.name} in the model's folder",
            )
        high = self._read(file)
        parts = [(high, self.parts[0]), (self._read(low), self.parts[0]) if low.is_file() else (high, self.parts[1])]
        on = []
        for network, ((state, metadata), part) in zip(self.networks, parts, strict=False):
            if any(key.startswith(f"{part}.") for key in state):
                with warnings.catch_warnings():  # several LoRAs on one network are what is meant
                    warnings.filterwarnings("ignore", "Already found a `peft_config`")
                    try:
                        put_lora(network, state, part, name, metadata)
                    except (RuntimeError, ValueError) as error:  # torch's and peft's words for weights of another model
                        raise InvalidInput(
                            f"the LoRA {name} does not fit this model: it was made for another one, or is no LoRA",
                            field="settings.loras",
                            allowed="LoRAs of this model's family and size",
                        ) from error
                on.append(network)
        return on

    def _read(self, file: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """A file's weights under diffusers' names, each with its network's prefix, and what it says of their scale."""
        source: str | dict[str, Any] = str(file)
        with safe_open(file, "pt") as weights:
            if any(key.startswith("blocks.") and ".self_attn." in key for key in weights.keys()):  # noqa: SIM118
                source = {ORIGINAL + key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118
        state, metadata = self.reader.lora_state_dict(source, return_lora_metadata=True)
        named = {key if key.startswith(self.parts) else f"{self.parts[0]}.{key}": value for key, value in state.items()}
        return named, metadata
