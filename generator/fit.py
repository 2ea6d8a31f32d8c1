"""How a model fits a GPU: the first switches of a profile, and the largest window, that its memory holds. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dreamontage.generator.footprint import footprint
from dreamontage.generator.models.switching import usable
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import Switches, ladder

USABLE = 0.95
"""Of a device's memory, and of the machine's: fragments and the estimate's own error take the rest."""

LEAST = "low-memory"
"""The profile that takes least."""


@dataclass(frozen=True)
class Fit:
    """What a model is run with on a device. A model that needs no GPU has none of it.

    `switches` and `window` (slots) are None as well where nothing fits; `memory_gb` (10⁹ bytes) is the estimated peak
    of what was chosen, or the least that a GPU would need to have; `note` says it all in a sentence.
    """

    switches: Switches | None = None
    window: int | None = None
    memory_gb: float | None = None
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether the model can be rendered with."""
        return self.memory_gb is None or self.switches is not None


def fit(
    card: ModelCard, size: tuple[int, int], room_gb: float, profile: str = "auto", host_gb: float = math.inf
) -> Fit:
    """What a profile comes to for windows of a size (width, height) on a device with `room_gb`.

    Every rung of the profile's ladder is tried with the card's whole window; where none fits, the last one with the
    largest window that does. `host_gb`: memory of the machine, in which offloaded weights wait. Raises InvalidInput for
    an unknown profile.
    """
    rungs = usable(card, ladder(profile))
    if card.network is None:
        return Fit()
    held = [rung for rung in rungs if footprint(card, size, card.window, rung).host_gb <= USABLE * host_gb]
    tried = [(rung, card.window) for rung in held]
    tried += [(held[-1], slots) for slots in range(card.window - 1, _shortest(card) - 1, -1) if held]
    for switches, slots in tried:
        peak = footprint(card, size, slots, switches).memory_gb
        if peak <= USABLE * room_gb:
            return Fit(switches, slots, peak, _chosen(card, size, switches, slots, peak, room_gb))
    return Fit(memory_gb=least_gb(card, size, rungs), note=_lacking(card, size, room_gb, profile, host_gb))


def fitted(card: ModelCard, fit: Fit | RenderRequest) -> ModelCard:
    """The card with the window that fits, the one that a plan is made with."""
    return card if fit.window is None else card.model_copy(update={"window": fit.window})


def least_gb(card: ModelCard, size: tuple[int, int], rungs: Sequence[Switches]) -> int:
    """Memory in whole GB of the smallest GPU that renders anything of this size; 0 for a model that needs none."""
    if card.network is None:
        return 0
    return math.ceil(min(footprint(card, size, _shortest(card), rung).memory_gb for rung in rungs) / USABLE)


def in_words(switches: Switches) -> list[str]:
    """What is switched on, for people; nothing where nothing is."""
    told = {
        "offload": "weights kept in the machine's memory (group offload, slower)",
        "storage": "weights stored in 8 bits",
        "quantise": f"weights quantised to {switches.quantise}",
        "attention": f"attention by {switches.attention}",
        "cache": f"the first-block cache at {switches.cache:g}",
        "compile": "compiled blocks",
        "tiling": "pictures encoded and decoded in tiles",
    }
    return [told[name] for name in switches.model_dump(exclude_defaults=True)]


def _shortest(card: ModelCard) -> int:
    """The smallest window with which a plan can be made."""
    return card.overlap + card.shortest


def _chosen(card: ModelCard, size: tuple[int, int], switches: Switches, slots: int, peak: float, room_gb: float) -> str:
    windows = f"windows of {slots} slots" + (f" instead of {card.window}" if slots < card.window else "")
    *most, last = [*in_words(switches), windows]
    how = f"{', '.join(most)} and {last}" if most else last
    at = f"{size[0]}x{size[1]}"
    return f"{card.id} at {at} fits a GPU of {room_gb:.0f} GB with {how}; it takes about {peak:.0f} GB of it."


def _lacking(card: ModelCard, size: tuple[int, int], room_gb: float, profile: str, host_gb: float) -> str:
    """What stands in the way, and the profile that would do."""
    rungs = usable(card, ladder(profile))
    whole = footprint(card, size, card.window, rungs[0])
    if host_gb < math.inf and fit(card, size, room_gb, profile).fits:
        waiting = footprint(card, size, card.window, rungs[-1]).host_gb
        lacking = (
            f"To fit a GPU of {room_gb:.0f} GB, {card.id} would keep {waiting:.0f} GB in the machine's memory, which"
            f" has {host_gb:.0f} GB."
        )
    else:
        has = f"the GPU here has {room_gb:.0f} GB" if room_gb else "there is no GPU here"
        lacking = (
            f"A window of {card.id} at {size[0]}x{size[1]} takes about {whole.memory_gb:.0f} GB of GPU memory; small"
            f" windows need a GPU of {least_gb(card, size, rungs)} GB, and {has}."
        )
    helps = profile != LEAST and fit(card, size, room_gb, LEAST, host_gb).fits
    return lacking + (f" With --profile {LEAST} it would fit." if helps else "")
