"""`dreamontage bench estimate`: the estimate of footprint.py against the real classes at their real size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from dreamontage.generator.bench.counting import LiveBytes
from dreamontage.generator.bench.networks import autoencoder_of, network_of, text_encoder_of, told, transformer_of
from dreamontage.generator.bench.phases import deliver
from dreamontage.generator.footprint import (
    CODERS,
    deliver_bytes,
    encode_bytes,
    parameters,
    pass_tflop,
    step_bytes,
    tokens,
)
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN

WITHIN: Final = {"parameters": 0.02, "work": 0.15, "memory": 0.25}
"""How far the estimate may lie above what was counted."""
BELOW: Final = 0.10
"""How far below: what is promised too small fails in mid-render. Parameters keep their own, narrower bound."""


def _attention_work(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_FUSED: Final = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_work}
"""The kernel that attention runs on here, which torch's counter does not know; those of GPUs are counted the same."""


@dataclass(frozen=True)
class Check:
    """One number of the estimate (`said`) beside what was counted, in `unit`."""

    model: str
    what: str
    kind: str
    said: float
    counted: float
    unit: str

    @property
    def ratio(self) -> float:
        """Said over counted."""
        return self.said / self.counted

    @property
    def holds(self) -> bool:
        """Whether the estimate is within its bounds."""
        bound = WITHIN[self.kind]
        return 1 - min(bound, BELOW) <= self.ratio <= 1 + bound


def checks(card: ModelCard, sizes: Sequence[tuple[int, int]]) -> Iterator[Check]:
    """Parameters of every network; work and memory of a pass over the card's window, memory of a window's encoding and
    of delivery, at every size."""
    network = network_of(card)
    with FakeTensorMode(), torch.no_grad():
        transformer, coder = transformer_of(card), autoencoder_of(card)
        if "latents_mean" not in coder.config:  # LTX's reads them from its weights when it is loaded
            coder.register_to_config(latents_mean=[0.0], latents_std=[1.0])
        yield Check(card.id, "transformer", "parameters", parameters(network) / 1e9, _billions(transformer), "10⁹")
        yield Check(card.id, "autoencoder", "parameters", CODERS[network.autoencoder].billions, _billions(coder), "10⁹")
        yield Check(
            card.id, "text encoder", "parameters", network.text_billions, _billions(text_encoder_of(card)), "10⁹"
        )
        for size in sizes:
            place = f"{size[0]}x{size[1]}"
            live, work = LiveBytes(_tensors(transformer)), FlopCounterMode(display=False, custom_mapping=_FUSED)
            with work, live:
                transformer(**told(card, size, card.window))
            said = pass_tflop(network, tokens(card, network, size, card.window), card.family)
            yield Check(card.id, f"pass {place}", "work", said, work.get_total_flops() / 1e12, "TFLOP")
            said = step_bytes(card, network, size, card.window, PLAIN) / 1e9
            yield Check(card.id, f"pass {place}", "memory", said, live.peak / 1e9, "GB")
            said = encode_bytes(card, network, size, card.window, PLAIN) / 1e9
            yield Check(card.id, f"encode {place}", "memory", said, encoded(card, coder, size) / 1e9, "GB")
            said = deliver_bytes(card, network, size, PLAIN) / 1e9
            yield Check(card.id, f"deliver {place}", "memory", said, delivered(card, coder, size) / 1e9, "GB")


def encoded(card: ModelCard, coder: Any, size: tuple[int, int]) -> int:
    """Peak bytes of encoding a video as long as the window: grey for Wan, a long clip for LTX."""
    frames = card.stride * (card.window - 1) + 1
    live = LiveBytes(_tensors(coder))
    with live:
        coder.encode(torch.zeros(1, 3, frames, size[1], size[0])).latent_dist.mode()
    return live.peak


def delivered(card: ModelCard, coder: Any, size: tuple[int, int]) -> int:
    """Peak bytes of delivery."""
    live = LiveBytes(_tensors(coder))
    with live:
        deliver(coder, card, network_of(card).out_channels, size)
    return live.peak


def run(cards: Sequence[ModelCard], every: bool) -> int:
    """Print the estimate beside the count at the models' sizes, `every` or the 16:9 ones; 1 if a bound is broken."""
    console = Console()
    table = Table("model", "what", "estimate", "counted", "", "ratio", title="Estimate against the real networks")
    failed = 0
    for card in cards:
        found = [size for sizes in card.sizes.values() for aspect, size in sizes.items() if every or aspect == "16:9"]
        for check in checks(card, found):
            failed += not check.holds
            mark = "" if check.holds else " [red]out of bounds[/]"
            table.add_row(
                check.model, f"{check.what}, {check.kind}", f"{check.said:.3g}", f"{check.counted:.3g}", check.unit,
                f"{check.ratio:.2f}{mark}",
            )  # fmt: skip
    console.print(table)
    bounds = ", ".join(f"{kind} +{bound:.0%}" for kind, bound in WITHIN.items())
    console.print(f"Bounds: {bounds}; below at most {BELOW:.0%}. {failed} of {table.row_count} out of bounds.")
    return int(failed > 0)


def _tensors(model: Any) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _billions(model: Any) -> float:
    return float(sum(parameter.numel() for parameter in model.parameters())) / 1e9
