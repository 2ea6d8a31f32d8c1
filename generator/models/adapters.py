"""LoRAs on a loaded model, by name and weight: files in its `loras/` folder, loaded when they are first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.models import lora_name, lora_weight

LOW = "transformer_2."
"""Prefix of the weights in a LoRA that belong to the low-noise expert; all others belong to the first."""


class Adapters:
    """The LoRAs of one model. With two experts a LoRA goes on the high-noise one, but for what its file says is the
    other's: arbitrary-frame LoRAs and those that `train adapt` makes are trained there. Needs peft."""

    def __init__(self, folder: Path, networks: Sequence[Any], reader: Any = WanLoraLoaderMixin) -> None:
        """`reader`: diffusers' class that knows the layouts of this family's LoRA files."""
        self.folder, self.networks, self.reader = folder, list(networks), reader
        self._on: dict[str, list[Any]] = {}
        self._used: tuple[str, ...] = ()

    def use(self, loras: Sequence[str]) -> None:
        """Switch on exactly these ("name" or "name:0.8"), all others off. Raises InvalidInput."""
        wanted = tuple(loras)
        if wanted == self._used:
            return
        for name in map(lora_name, wanted):
            if name not in self._on:
                self._on[name] = self._load(name)
        for network in self.networks:
            here = [lora for lora in wanted if network in self._on[lora_name(lora)]]
            if here:
                network.set_adapters([lora_name(lora) for lora in here], [lora_weight(lora) for lora in here])
                network.enable_lora()
            elif any(network in networks for networks in self._on.values()):
                network.disable_lora()
        self._used = wanted

    def _load(self, name: str) -> list[Any]:
        """Load one from its file; the networks that it is on."""
        file = self.folder / f"{name}.safetensors"
        if not file.is_file():
            raise InvalidInput(
                f"the LoRA {name} is not installed",
                field="settings.loras",
                next_call=f"put its file at loras/{file.name} in the model's folder",
            )
        state = self.reader.lora_state_dict(str(file))
        low = {key.removeprefix(LOW): value for key, value in state.items() if key.startswith(LOW)}
        high = {key.removeprefix("transformer."): value for key, value in state.items() if not key.startswith(LOW)}
        on = []
        for network, own in zip(self.networks, (high, low), strict=False):
            if own:
                network.load_lora_adapter(own, prefix=None, adapter_name=name)
                on.append(network)
        return on
