"""Answers that fit a model's window: opaque cursors for lists, and what is still too long is cut and says so."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput

Cursor = Annotated[str, Field(max_length=200, description="From `more` of an earlier answer.")]
ResponseFormat = Literal["concise", "detailed"]


def cursor_of(what: str, *position: str | float) -> str:
    """The opaque place after `position` in the list `what`."""
    return base64.urlsafe_b64encode(json.dumps([what, *position]).encode()).decode().rstrip("=")


def position_of(cursor: str, what: str, *kinds: type) -> list[Any]:
    """The position in a cursor of the list `what`. Raises InvalidInput."""
    position: list[Any]
    try:
        named, *position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError):
        named, position = None, []
    if named != what or len(position) != len(kinds) or not all(map(isinstance, position, kinds)):
        raise InvalidInput(
            "this is no cursor of this list", field="cursor", allowed="what `more` names, or nothing to begin"
        )
    return position


def fitting(sizes: Sequence[int], budget: int) -> int:
    """How many of the first items fit a budget of characters; at least one."""
    left = budget
    for count, size in enumerate(sizes):
        left -= size
        if left < 0:
            return max(1, count)
    return len(sizes)


def size_of(value: Any) -> int:
    """Characters of a value as JSON, one for every byte of UTF-8."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def fitted(text: str, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """An answer within `limits.MAX_ANSWER_CHARS`: its longest lists lose their ends, its text its own.

    What was cut stands under `cut` (how many items of which list), and in the text with the call that pages through it.
    """
    whole = text
    text = _shortened(text, limits.MAX_TEXT_CHARS)
    cut: dict[str, int] = {}
    while len(text.encode()) + size_of(data) > limits.MAX_ANSWER_CHARS:
        _, name, longest = max(_lists(data), key=lambda found: found[0])
        lost = len(longest) - len(longest) // 2
        del longest[-lost:]
        cut[name] = cut.get(name, 0) + lost
    if cut:
        data["cut"] = cut
        rest = f" Next: get_montage(montage_id={data['montage_id']!r}) pages." if "montage_id" in data else ""
        told = ", ".join(f"{count} of {name}" for name, count in cut.items())
        text += f"\nCut to stay short: {told}.{rest}"
    elif text != whole:
        text += " (cut; the rest is in the structured content)"
    return text, data


def _shortened(text: str, most: int) -> str:
    return text if len(text.encode()) <= most else text.encode()[:most].decode(errors="ignore") + "…"


def _lists(value: Any, name: str = "answer") -> Iterator[tuple[int, str, list[Any]]]:
    """Every list inside a value, with its size and name."""
    if isinstance(value, list):
        if value:
            yield size_of(value), name, value
        for item in value:
            yield from _lists(item, name)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lists(item, key)
