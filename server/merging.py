"""A montage as a set of entities, and everything that follows: patches, replay, conflicts, undo and merge.

Entities are the anchors (`anchor:a1`), the beats (`beat:b1`) and the settings (`duration_s`, `brief` and so on), each a
JSON value. A patch says of each entity what was there and what is there now; None is "nothing". All functions are pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from dreamontage.schemas.montage import Montage

Entities = Mapping[str, Any]
Patch = dict[str, tuple[Any, Any]]
Settle = Literal["keep", "take"]

_KINDS = {"anchor": "anchors", "beat": "beats"}
_IDENTITY = ("id", "revision")
_OWN = ("title", "archived")
"""What a branch has for itself: never brought back by a merge."""
_TIMES = {"anchor": ("second",), "beat": ("start_s", "end_s")}


def entities(body: Mapping[str, Any]) -> dict[str, Any]:
    """The entities of a montage's JSON body."""
    found = {key: value for key, value in body.items() if key not in (*_IDENTITY, *_KINDS.values())}
    for kind, several in _KINDS.items():
        found |= {f"{kind}:{item['id']}": item for item in body[several]}
    return found


def entities_of(montage: Montage) -> dict[str, Any]:
    """The entities of a montage."""
    return entities(montage.model_dump(mode="json"))


def assembled(montage_id: str, revision: int, parts: Entities) -> Montage:
    """The montage with these entities, in the one order there is: by time, then by number. Raises ValidationError."""
    body: dict[str, Any] = {key: value for key, value in parts.items() if ":" not in key}
    for kind, several in _KINDS.items():
        items = [value for key, value in parts.items() if key.startswith(f"{kind}:")]
        body[several] = sorted(items, key=lambda item: (item[_TIMES[kind][0]], _natural(item["id"])))
    return Montage.model_validate({**body, "id": montage_id, "revision": revision})


def diff(before: Entities, after: Entities) -> Patch:
    """What leads from one set of entities to another; equal means the same JSON, byte for byte."""
    keys = [*before, *(key for key in after if key not in before)]
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if not _same(*pair)}


def applied(parts: Entities, patch: Patch) -> dict[str, Any]:
    """The entities after a patch."""
    changed = {**parts, **{key: after for key, (_, after) in patch.items()}}
    return {key: value for key, value in changed.items() if value is not None}


def replay(montage_id: str, patches: Iterable[tuple[int, Patch]]) -> Montage:
    """The montage that its (revision, patch) pairs lead to, from nothing, oldest first."""
    parts: dict[str, Any] = {}
    newest = 0
    for revision, patch in patches:
        parts, newest = applied(parts, patch), revision
    return assembled(montage_id, newest, parts)


def reverted(parts: Entities, patches: Iterable[Patch]) -> tuple[dict[str, Any], list[str]]:
    """The entities without what `patches` (the newest first) did, and those that something else changed since."""
    undone = dict(parts)
    blocked: list[str] = []
    for patch in patches:
        blocked += [key for key, (_, after) in patch.items() if not _same(undone.get(key), after)]
        undone = applied(undone, {key: (after, before) for key, (before, after) in patch.items()})
    return undone, list(dict.fromkeys(blocked))


@dataclass(frozen=True)
class Clash:
    """An entity that two sides changed differently since their common base."""

    key: str
    base: Any
    ours: Any
    theirs: Any


def merged(
    base: Entities,
    ours: Entities,
    theirs: Entities,
    settled: Mapping[str, Settle],
    wanted: Callable[[str, Any], bool] = lambda key, value: True,
) -> tuple[dict[str, Any], list[Clash]]:
    """Ours with what they changed since the base, and what both changed differently and nobody settled.

    `settled` says by key whether ours is kept or theirs taken. `wanted` narrows what is brought over: it is asked about
    an entity with every value that it had.
    """
    result, clashes = dict(ours), []
    for key, (before, after) in diff(base, theirs).items():
        mine = ours.get(key)
        if key in _OWN or not any(wanted(key, value) for value in (before, after, mine) if value is not None):
            continue
        if _same(mine, after):
            continue
        choice = "take" if _same(mine, before) else settled.get(key)
        if choice is None:
            clashes.append(Clash(key, before, mine, after))
        elif choice == "take":
            result = applied(result, {key: (mine, after)})
    return result, clashes


def stamped(before: Entities, after: Entities, actor: str) -> dict[str, Any]:
    """The entities with `by` on every anchor and beat that is new or differs in more than its times."""

    def signed(key: str, value: Any) -> Any:
        kind = key.partition(":")[0]
        if kind not in _KINDS:
            return value
        known = before.get(key)
        aside = {*_TIMES[kind], "by"}
        words = [{name: part for name, part in (side or {}).items() if name not in aside} for side in (known, value)]
        return {**value, "by": known["by"] if known is not None and _same(*words) else actor}

    return {key: signed(key, value) for key, value in after.items()}


def renumbered(before: Entities, after: Entities, used: Mapping[str, int]) -> dict[str, Any]:
    """The entities with fresh ids for new anchors and beats whose number was used before, in this montage or its kin.

    `used`: the highest number ever given, by kind.
    """
    result: dict[str, Any] = {}
    for kind, highest in used.items():
        fresh = count(max([highest, *numbers(after, kind)]) + 1)
        for key, value in after.items():
            if not key.startswith(f"{kind}:"):
                continue
            if key not in before and (number := _number(key)) is not None and number <= highest:
                value = {**value, "id": f"{kind[0]}{next(fresh)}"}
            result[f"{kind}:{value['id']}"] = value
    return {key: value for key, value in after.items() if key.partition(":")[0] not in used} | result


def numbers(parts: Entities, kind: str) -> list[int]:
    """The numbers in the ids of the anchors or beats."""
    found = (_number(key) for key in parts if key.startswith(f"{kind}:"))
    return [number for number in found if number is not None]


def within(from_s: float, to_s: float) -> Callable[[str, Any], bool]:
    """Whether an anchor or beat touches an interval of the timeline; settings never do."""

    def asked(key: str, value: Any) -> bool:
        kind = key.partition(":")[0]
        if kind not in _KINDS:
            return False
        times = [value[name] for name in _TIMES[kind]]
        return bool(times[0] <= to_s and times[-1] >= from_s)

    return asked


def named(keys: Collection[str]) -> list[str]:
    """Entities as agents know them: a1, b2, duration_s."""
    return [key.partition(":")[2] or key for key in keys]


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _natural(name: str) -> tuple[int, str]:
    found = re.search(r"\d+$", name)
    return (int(found.group()) if found else 0, name)


def _number(key: str) -> int | None:
    found = re.fullmatch(r"(?:anchor:a|beat:b)(\d{1,9})", key)
    return int(found.group(1)) if found else None
