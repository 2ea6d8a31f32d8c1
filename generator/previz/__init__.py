"""Previz: the weightless motion guide between anchors."""

from dreamontage.generator.previz.moves import PrevizBeat
from dreamontage.generator.previz.previz import VERSION, Previz, PrevizAnchor

__all__ = ["VERSION", "Previz", "PrevizAnchor", "PrevizBeat"]
