"""nano's prompt encoder: one token per (beat, word), placed in time. So timed prompts reach the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dreamontage.generator.models.vocabulary import WORDS, TimedWord


class PromptTokens(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Timed words -> tokens [B,capacity,text_dim]: embedding(word) + MLP(sinusoids of start, end and amount).

    Every window gets exactly `capacity` tokens: its words, in order, then copies of one learned null token (words
    beyond the capacity are dropped). No words at all are the unconditional prompt of classifier-free guidance.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, text_dim: int = 64, capacity: int = 32, waves: int = 8, words: Sequence[str] = WORDS
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.index = {word: number for number, word in enumerate(words)}
        self.embedding = nn.Embedding(len(words), text_dim)
        self.place = nn.Sequential(nn.Linear(3 * 2 * waves, 2 * text_dim), nn.SiLU(), nn.Linear(2 * text_dim, text_dim))
        self.null = nn.Parameter(torch.randn(text_dim) * 0.02)
        nn.init.normal_(self.embedding.weight, std=0.5)

    def _waves(self, values: Tensor) -> Tensor:
        """Sinusoids [N, 3*2*waves] of values [N,3], with periods from 1 to 2^(waves-1) slots."""
        periods = 2.0 ** torch.arange(self.config["waves"], device=values.device)
        angles = 2 * torch.pi * values[..., None] / periods
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)

    def forward(self, windows: Sequence[Sequence[TimedWord]]) -> Tensor:
        """Tokens [B,capacity,text_dim] of B windows' timed words; unknown words are ignored."""
        capacity, rows = self.config["capacity"], []
        for window in windows:
            words = [word for word in window if word.word in self.index][:capacity]
            row = self.null.expand(capacity - len(words), -1)
            if words:
                device = self.null.device
                numbers = torch.tensor([self.index[word.word] for word in words], device=device)
                places = torch.tensor([(word.start, word.end, word.amount) for word in words], device=device)
                row = torch.cat([self.embedding(numbers) + self.place(self._waves(places)), row])
            rows.append(row)
        return torch.stack(rows)
