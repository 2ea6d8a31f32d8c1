"""Prompts of LTX-2: every layer of a Gemma read by two connectors, one for the picture and one for the sound."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from torch import Tensor

LONGEST = 1024
"""Tokens that a prompt is padded to; the connectors put what they learned where there is no word."""


class Ltx2Text(NamedTuple):
    """A prompt as the transformer takes it: [1,1024,width] for the video and for the sound, and which tokens count."""

    video: Tensor
    audio: Tensor
    mask: Tensor


class Ltx2Texts:
    """Texts -> what the transformer is told, as diffusers' pipelines make it.

    What Gemma says of a text is remembered, without padding; Gemma, half as large as the transformer, is loaded only to
    read new ones. The connectors stay, because LoRAs change them.
    """

    def __init__(self, folder: Path, connectors: LTX2TextConnectors) -> None:
        self.folder, self.connectors = folder, connectors
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def learn(self, texts: Iterable[str]) -> None:
        """Read these texts once; Gemma is loaded for them, in the connectors' number type, and let go."""
        unknown = sorted({" ".join(text.split()) for text in texts} - self._known.keys())
        if not unknown:
            return
        import transformers

        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(self.folder / "tokenizer", padding_side="left")
        config = json.loads((self.folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        stock: Any = getattr(transformers, config["architectures"][0])
        encoder = stock.from_pretrained(self.folder / "text_encoder", dtype=self.connectors.dtype)
        encoder.train(False).to(self.connectors.device)
        for text in unknown:
            tokens = tokenizer(
                text, padding="max_length", max_length=LONGEST, truncation=True, return_tensors="pt"
            ).to(self.connectors.device)  # fmt: skip
            said = encoder(tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True)
            words = tokens.attention_mask[0].bool()
            self._known[text] = torch.stack([layer[0, words] for layer in said.hidden_states], dim=-1).cpu()

    @torch.no_grad()
    def __call__(self, text: str) -> Ltx2Text:
        """What the transformer is told of a text, read now where it is new."""
        self.learn([text])
        words = self._known[" ".join(text.split())].to(self.connectors.device)
        padded = words.new_zeros(1, LONGEST, *words.shape[1:])
        mask = torch.zeros(1, LONGEST, dtype=torch.int64, device=words.device)
        padded[0, LONGEST - len(words) :], mask[0, LONGEST - len(words) :] = words, 1
        return Ltx2Text(*self.connectors(padded, mask, padding_side="left"))
