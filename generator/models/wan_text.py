"""Prompts of Wan-layout models: timed words of a window as one sentence with times, read by UMT5."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dreamontage.generator.models.switching import reader_under
from dreamontage.generator.models.vocabulary import TimedWord, timed_words
from dreamontage.generator.timeline import STRIDE
from dreamontage.schemas.montage import Camera

TEXT_TOKENS = 512
"""Wan's transformers expect exactly this many text tokens, zeros after the text's own."""


def spoken(words: Sequence[TimedWord], fps: int, stride: int = STRIDE) -> str:
    """A window's words as text: "From 0 to 1.5 s: pan left. From 1.5 to 2.7 s: forest." No words give no text."""
    parts = []
    for (start, end), group in groupby(words, key=lambda word: (word.start, word.end)):
        first, last = (f"{slot * stride / fps:.1f}".removesuffix(".0") for slot in (start, end))
        parts.append(f"From {first} to {last} s: {' '.join(word.word.replace('_', ' ') for word in group)}.")
    return " ".join(parts)


class Said(Protocol):
    """Words and a typed move that hold from `start` to `stop`, in slots of the window."""

    @property
    def start(self) -> float: ...
    @property
    def stop(self) -> float: ...
    @property
    def prompt(self) -> str: ...
    @property
    def camera(self) -> Camera | None: ...


def phrases(beats: Iterable[Said]) -> tuple[TimedWord, ...]:
    """Beats as timed phrases, their free text kept whole: "a gate opens, dolly in"."""
    said = []
    for beat in beats:
        moves = " ".join(word.word for word in timed_words("", beat.camera, beat.start, beat.stop))
        if text := ", ".join(part for part in (beat.prompt.strip(), moves) if part):
            said.append(TimedWord(text, beat.start, beat.stop))
    return tuple(said)


class WanPrompts(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Timed words -> text embeddings [B,512,text_dim] in float32; zeros where there is no text encoder.

    Every text is encoded once and remembered, so that the encoder, larger than many a transformer, can be let go.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, text_dim: int = 4096, fps: int = 24) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.null = nn.Parameter(torch.zeros(text_dim), requires_grad=False)
        self.tokenizer: Any = None
        self.text_encoder: Any = None
        self.reads_text = False
        self._known: dict[str, Tensor] = {}

    @classmethod
    def of(cls, folder: Path, text_dim: int, device: torch.device, fps: int = 24) -> WanPrompts:
        """With the text encoder and tokenizer of a Wan-layout folder, where it has them; needs transformers."""
        prompts = cls(text_dim, fps)
        if (folder / "text_encoder" / "config.json").is_file() and (folder / "tokenizer").is_dir():
            from transformers import AutoTokenizer, UMT5EncoderModel

            prompts.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
            encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
            prompts.text_encoder, prompts.reads_text = encoder.requires_grad_(False), True
        moved: WanPrompts = prompts.to(device)
        return moved

    def learn(self, windows: Iterable[Sequence[TimedWord]]) -> None:
        """Encode the texts of these windows and the empty one, then let the encoder go: no other text will be asked."""
        for text in sorted({"", *(spoken(window, self.config["fps"]) for window in windows)}):
            self._embedded(text)
        self.tokenizer = self.text_encoder = None

    @torch.no_grad()
    def _embedded(self, text: str) -> Tensor:
        """[m,text_dim], one row a token."""
        if text not in self._known:
            if not self.reads_text:
                rows = self.null.new_zeros(0, self.config["text_dim"])
            else:
                tokens = self.tokenizer(text, max_length=TEXT_TOKENS, truncation=True, return_tensors="pt")
                rows = self.text_encoder.eval()(tokens.input_ids.to(self.null.device)).last_hidden_state[0]
            self._known[text] = rows.float().cpu()
        return self._known[text]

    def forward(self, windows: Sequence[Sequence[TimedWord]]) -> Tensor:
        """Embeddings of B windows' timed words, padded with zeros as Wan was trained."""
        rows = [self._embedded(spoken(window, self.config["fps"])) for window in windows]
        padded = [torch.cat([row, row.new_zeros(TEXT_TOKENS - len(row), row.shape[1])]) for row in rows]
        return torch.stack(padded).to(self.null.device)


class WanTexts:
    """Texts -> embeddings [1,512,width], padded with zeros as Wan was trained; zeros where there is no text encoder.

    Texts are remembered, and the encoder (larger than many a transformer) is loaded only to read new ones.
    """

    encoder, longest = "UMT5EncoderModel", TEXT_TOKENS

    def __init__(
        self, folder: Path, width: int, device: torch.device, dtype: torch.dtype = torch.bfloat16, offload: bool = False
    ) -> None:
        """`offload`: the encoder's layers wait in the machine's memory and are fetched one after the other."""
        self.folder, self.width, self.device, self.dtype, self.offload = folder, width, device, dtype, offload
        self._known: dict[str, Tensor] = {}

    @property
    def reads(self) -> bool:
        """Whether there is a text encoder."""
        return (self.folder / "text_encoder" / "config.json").is_file() and (self.folder / "tokenizer").is_dir()

    @torch.no_grad()
    def learn(self, texts: Iterable[str]) -> None:
        """Read these texts once; the encoder is loaded for them and let go."""
        unknown = sorted({" ".join(text.split()) for text in texts} - self._known.keys())
        if not unknown:
            return
        if not self.reads:
            self._known |= dict.fromkeys(unknown, torch.zeros(0, self.width))
            return
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder / "tokenizer")
        encoder = getattr(transformers, self.encoder).from_pretrained(self.folder / "text_encoder", dtype=self.dtype)
        reader_under(encoder, self.device, self.offload)
        for text in unknown:
            self._known[text] = self._read(tokenizer, encoder, text).cpu()
        del encoder
        if self.offload:
            gc.collect()  # layers under hooks hold themselves

    def _read(self, tokenizer: Any, encoder: Any, text: str) -> Tensor:
        """What the encoder says of a text, one row a token."""
        tokens = tokenizer(text, max_length=self.longest, truncation=True, return_tensors="pt").to(self.device)
        rows: Tensor = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state[0]
        return rows.float()

    def __call__(self, text: str) -> Tensor:
        """The embeddings of a text, read now where it is new."""
        self.learn([text])
        rows = self._known[" ".join(text.split())]
        return torch.cat([rows, rows.new_zeros(TEXT_TOKENS - len(rows), self.width)])[None]
