"""Snapshots: what clients see, kept as files that a review shows when it changes.

UPDATE_SNAPSHOTS=1 python -m pytest tests/test_contract.py writes them anew.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "snapshots"
_IDS = re.compile(r"\b([a-z])_[0-9a-f]{12}\b")
_ESTIMATES = {"seconds", "seconds_left", "check_again_in_s", "needs_gpu_gb"}
_SPANS = (
    (re.compile(r"\b(about|in) \d[\d.]* s\b"), r"\1 N s"),
    (re.compile(r"\bwith \d+ GB\b"), "with N GB"),
    (re.compile(r"\b(\d+ (s|min|h|d) ago|just now)"), "AGO"),
    (re.compile(r"cursor='[\w-]+'"), "cursor='...'"),
)


class Steady:
    """Answers without what differs from run to run: random ids become numbers, places and estimates words."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._ids: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        """The value with steady parts only."""
        if isinstance(value, dict):
            return {key: "N" if key in _ESTIMATES else self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, str):
            return value
        text = _IDS.sub(self._numbered, value.replace(self._place, "PLACE"))
        for pattern, word in _SPANS:
            text = pattern.sub(word, text)
        return text

    def _numbered(self, found: re.Match[str]) -> str:
        kind = found[1]
        known = sum(number.startswith(f"{kind}_") for number in self._ids.values())
        return self._ids.setdefault(found[0], f"{kind}_{known + 1}")


def check_snapshots(kind: str, found: dict[str, Any]) -> None:
    """Compare with the files of one kind, or write them; a file that nothing stands for any more counts, too."""
    folder = FOLDER / kind
    if os.environ.get("UPDATE_SNAPSHOTS"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.json"):
            path.unlink()
        for name, value in found.items():
            (folder / f"{name}.json").write_text(_written(value))
        return
    kept = {path.stem: path.read_text() for path in folder.glob("*.json")}
    now = {name: _written(value) for name, value in found.items()}
    changes = [
        line
        for name in sorted(kept.keys() | now.keys())
        for line in difflib.unified_diff(
            kept.get(name, "").splitlines(),
            now.get(name, "").splitlines(),
            f"{name} as kept",
            f"{name} now",
            "",
            "",
            1,
            "",
        )
    ]
    assert not changes, "\n".join([*changes[:80], "If that is meant: UPDATE_SNAPSHOTS=1, and show it in the review."])


def _written(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
