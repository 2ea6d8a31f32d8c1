"""Prompts of LTX-2: every layer of Gemma 3 read by two connectors, one for the picture and one for the sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamontage.generator.models.wan_text import WanTexts


class Ltx2Text(NamedTuple):
    """A prompt as the transformer takes it: [1,1024,width] for the video and for the sound, and which tokens count."""

    video: Tensor
    audio: Tensor
    mask: Tensor


class Ltx2Texts(WanTexts):
    """Texts -> what the transformer is told, as diffusers' pipelines make it.

    What Gemma says of a text is remembered without padding. The connectors, which put what they have learned in the
    place of padding, wait in the machine's memory, because LoRAs change them and so what they make of it.
    """

    encoder, longest = "Gemma3ForConditionalGeneration", 1024

    def __init__(
        self, folder: Path, connectors: Any, device: torch.device, dtype: torch.dtype, offload: bool = False
    ) -> None:
        width = connectors.config["caption_channels"] * connectors.config["text_proj_in_factor"]
        super().__init__(folder, width, device, dtype, offload)
        self.connectors = connectors

    def _read(self, tokenizer: Any, encoder: Any, text: str) -> Tensor:
        """What every layer says of every token, [m,width·layers]."""
        tokenizer.padding_side = "left"
        tokens = tokenizer(
            text, padding="max_length", max_length=self.longest, truncation=True, return_tensors="pt"
        ).to(self.device)  # fmt: skip
        said = encoder(tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True)
        words = tokens.attention_mask[0].bool()
        return torch.stack([layer[0, words] for layer in said.hidden_states], dim=-1).flatten(1)

    @torch.no_grad()
    def __call__(self, text: str) -> Any:
        """The `Ltx2Text` of a text, read now where it is new."""
        self.learn([text])
        words = self._known[" ".join(text.split())].to(self.device, self.dtype)
        padded = words.new_zeros(1, self.longest, self.width)
        mask = torch.zeros(1, self.longest, dtype=torch.int64, device=self.device)
        start = self.longest - len(words)
        padded[0, start:], mask[0, start:] = words, 1
        found = Ltx2Text(*self.connectors.to(self.device)(padded, mask, padding_side="left"))
        self.connectors.to("cpu")
        return found
