"""The words nano understands: a small fixed vocabulary for prompts and typed camera moves. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from dreamontage.schemas.montage import DIRECTIONS as FITTING
from dreamontage.schemas.montage import Camera

MOVES: Final = ("hold", "pan", "tilt", "zoom", "dolly", "roll", "orbit", "push_through", "whip")
DIRECTIONS: Final = ("left", "right", "up", "down", "in", "out", "cw", "ccw", "forward", "back")
EASES: Final = ("linear", "ease_in", "ease_out", "ease_in_out")
SPEEDS: Final = ("slow", "fast", "steady", "still", "sudden", "smooth")
SCENES: Final = (
    "sky", "cloud", "sun", "sunset", "sunrise", "night", "day", "dawn", "star", "moon", "rain", "snow", "fog",
    "mist", "light", "shadow",
    "sea", "ocean", "wave", "beach", "lake", "river", "water", "waterfall", "island", "coast", "boat",
    "mountain", "hill", "valley", "rock", "cliff", "desert", "sand", "canyon", "cave",
    "forest", "tree", "leaf", "grass", "flower", "field", "meadow", "garden",
    "city", "street", "house", "building", "tower", "bridge", "road", "wall", "window", "door", "room",
    "corridor", "car", "train",
    "person", "face", "hand", "crowd", "animal", "bird", "cat", "dog", "horse", "fish",
    "red", "orange", "yellow", "green", "blue", "purple", "white", "black", "brown", "grey",
    "warm", "cold", "bright", "dark", "close", "wide", "aerial", "macro",
    "walk", "run", "jump", "fly", "turn", "open", "rise", "fall", "spin", "explode", "melt", "morph",
)  # fmt: skip
WORDS: Final = MOVES + DIRECTIONS + EASES + SPEEDS + SCENES

_ALIASES: Final = {
    "track": "dolly", "truck": "dolly", "push": "dolly", "pull": "dolly", "rotate": "roll", "circle": "orbit",
    "arc": "orbit", "upward": "up", "upwards": "up", "downward": "down", "downwards": "down", "inward": "in",
    "inwards": "in", "outward": "out", "outwards": "out", "leftward": "left", "leftwards": "left",
    "rightward": "right", "rightwards": "right", "clockwise": "cw", "counterclockwise": "ccw", "anticlockwise": "ccw",
    "forwards": "forward", "backward": "back", "backwards": "back", "slowly": "slow", "gentle": "slow",
    "gently": "slow", "quick": "fast", "quickly": "fast", "rapid": "fast", "rapidly": "fast", "static": "still",
    "suddenly": "sudden", "smoothly": "smooth", "gray": "grey", "wood": "forest", "woods": "forest",
    "leaves": "leaf", "foggy": "fog", "misty": "mist", "cloudy": "cloud", "sunny": "sun", "snowy": "snow",
    "people": "person", "man": "person", "woman": "person", "child": "person", "town": "city",
    "running": "run", "spinning": "spin", "panning": "pan",
}  # fmt: skip
_WHOLE_TURNS: Final = 90.0


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word that holds from `start` to `end`, in slots of the window; `amount` is 0 for words of a prompt."""

    word: str
    start: float
    end: float
    amount: float = 0.0


def _known(token: str) -> str | None:
    """The vocabulary's form of a written word: itself, an alias, or its stem."""
    stems = [token, token.removesuffix("s"), token.removesuffix("ing"), token.removesuffix("ing") + "e"]
    stems += [token.removesuffix("ed"), token.removesuffix("d"), token.removesuffix("es")]
    for stem in stems:
        word = _ALIASES.get(stem, stem)
        if word in WORDS:
            return word
    return None


def understood(prompt: str) -> tuple[list[str], list[str]]:
    """Which words of a prompt nano knows (in its own spelling) and which it ignores, both in order, without repeats."""
    known: dict[str, None] = {}
    ignored: dict[str, None] = {}
    text = re.sub(r"push(es|ing)?[ -]through", "push_through", prompt.lower())
    before = ""
    for token in re.findall(r"[^\W\d]+", text):
        word = _known(token)
        if word in ("in", "out") and _known(before) not in MOVES:
            word = None  # "in the forest" is a place, not a direction
        before = token
        (ignored if word is None else known)[token if word is None else word] = None
    return list(known), list(ignored)


def amount_of(camera: Camera) -> float:
    """A typed move's amount on one scale: view widths, log2 of a zoom factor, quarter turns; 0 where none is given."""
    if camera.amount is None:
        return 0.0
    if camera.move in ("zoom", "push_through"):
        return math.log2(camera.amount)
    return camera.amount / _WHOLE_TURNS if camera.move in ("roll", "orbit") else camera.amount


def timed_words(prompt: str, camera: Camera | None, start: float, end: float) -> list[TimedWord]:
    """One timed word per (beat, word): the typed move first, then the prompt's known words."""
    words = []
    if camera is not None:
        amount = amount_of(camera)
        typed = [camera.move, *([camera.direction] if camera.direction else [])]
        ease = "linear" if camera.ease == "linear" else f"ease_{camera.ease}"
        words += [TimedWord(word, start, end, amount) for word in (*typed, ease)]
    return words + [TimedWord(word, start, end) for word in understood(prompt)[0]]


def spoken_camera(prompt: str) -> Camera | None:
    """The camera move a prompt names with a direction that fits it, as in "slow pan left" or "push in"; else None.

    "Push through" needs no direction; every other move without one is taken for a word about the scene.
    """
    words = [{"forward": "in", "back": "out"}.get(word, word) for word in understood(prompt)[0]]
    for move in (word for word in words if word in MOVES):
        direction = next((word for word in words if word in FITTING[move]), None)
        if direction or move == "push_through":
            return Camera.model_validate({"move": move, "direction": direction})
    return None
