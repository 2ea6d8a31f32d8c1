"""Intermediate conditioning: what is given to the transformer about the frames it must pass through."""

from dreamontage.generator.conditioning.clip import ClipCondition
from dreamontage.generator.conditioning.guide import GuideCondition
from dreamontage.generator.conditioning.held_end import HeldEndCondition
from dreamontage.generator.conditioning.still import StillCondition
from dreamontage.generator.conditioning.tail import TailCondition
from dreamontage.generator.conditioning.window import Assembled, Condition, assemble

__all__ = [
    "Assembled",
    "ClipCondition",
    "Condition",
    "GuideCondition",
    "HeldEndCondition",
    "StillCondition",
    "TailCondition",
    "assemble",
]
