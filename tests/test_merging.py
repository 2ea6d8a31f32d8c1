"""The event log is the truth: patches replay, revert and merge as pure functions, and bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Conflict, InvalidInput
from dreamontage.schemas.montage import Beat, Format, Montage
from dreamontage.server import merging
from dreamontage.server.store import Studio, new_id

Change = Callable[[Montage], Montage]
SECONDS = st.floats(0, 600, allow_nan=False)
WORDS = st.text(max_size=12)


def with_items(montage: Montage, kind: str, items: dict[str, Any]) -> Montage:
    return montage.model_copy(update={kind: list(items.values())})


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Any change of a montage: an anchor or beat added, changed or removed, or a setting."""
    kind = draw(st.sampled_from(["anchors", "beats", "settings"]))
    second, words, number = draw(SECONDS), draw(WORDS), draw(st.integers(1, 6))
    drop = draw(st.booleans())

    def anchors(montage: Montage) -> Montage:
        items = {anchor.id: anchor for anchor in montage.anchors}
        name = f"a{number}"
        if drop and items.pop(name, None):
            return with_items(montage, kind, items)
        items[name] = Anchor(id=name, media_id="img_1", second=second, label=words)
        return with_items(montage, kind, items)

    def beats(montage: Montage) -> Montage:
        items = {beat.id: beat for beat in montage.beats}
        name = f"b{number}"
        if drop and items.pop(name, None):
            return with_items(montage, kind, items)
        items[name] = Beat(id=name, start_s=second / 2, end_s=second / 2 + 1, prompt=words)
        return with_items(montage, kind, items)

    fields = st.fixed_dictionaries(
        {},
        optional={
            "title": WORDS, "brief": WORDS, "duration_s": st.floats(0.2, 600), "seed": st.integers(0, 2**63 - 1),
            "format": st.sampled_from([Format(), Format(width=288, height=512), Format(fps=30)]),
        },
    )  # fmt: skip
    told = draw(fields)
    return {"anchors": anchors, "beats": beats, "settings": lambda m: m.model_copy(update=told)}[kind]


def built(*steps: Change) -> dict[str, Any]:
    montage = Montage(id="m_1", duration_s=6)
    for step in steps:
        montage = step(montage)
    return merging.entities_of(montage)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(changes(), st.sampled_from(["ada", "bob"]), st.booleans()), max_size=12))
def test_replaying_the_event_log_gives_the_montage_bit_for_bit(
    studio: Studio, edits: list[tuple[Change, str, bool]]
) -> None:
    first = studio.create_montage(Montage(id=new_id("m"), duration_s=6), "ada")
    for change, actor, as_is in edits:
        studio.edit_montage(first.id, "edit", {}, change, actor, as_is=as_is)
    fork = studio.fork_montage(first.id, None, "a branch", "bob")
    for montage_id in (first.id, fork.id):
        stored = studio.get_montage(montage_id)
        assert studio.replay(montage_id).model_dump_json() == stored.model_dump_json()
        history = [(event.revision or 0, event.patch) for event in studio.changes(montage_id, 0)]
        for revision in range(1, stored.revision + 1):
            told = merging.replay(montage_id, history[:revision])
            assert told.model_dump_json() == studio.get_montage(montage_id, revision).model_dump_json()


@given(st.lists(changes(), max_size=6), st.lists(changes(), max_size=6))
def test_a_patch_leads_there_and_back(one: list[Change], other: list[Change]) -> None:
    before, after = built(*one), built(*other)
    patch = merging.diff(before, after)
    assert merging.diff(merging.applied(before, patch), after) == {}
    undone, blocked = merging.reverted(after, [patch])
    assert (merging.diff(undone, before), blocked) == ({}, [])
    assert json.loads(json.dumps(patch)) == {key: list(pair) for key, pair in patch.items()}


@given(*[st.lists(changes(), max_size=5)] * 3)
def test_what_only_one_side_changed_merges_and_nothing_of_ours_is_lost(
    start: list[Change], mine: list[Change], yours: list[Change]
) -> None:
    base, ours, theirs = built(*start), built(*start, *mine), built(*start, *yours)
    result, clashes = merging.merged(base, ours, theirs, {})
    mine_changed, yours_changed = merging.diff(base, ours), merging.diff(base, theirs)
    for key in mine_changed:
        assert result.get(key) == ours.get(key)
    for key in yours_changed.keys() - mine_changed.keys() - {"title"}:
        assert result.get(key) == theirs.get(key)
    assert {clash.key for clash in clashes} == {
        key for key in (mine_changed.keys() & yours_changed.keys()) - {"title"} if ours.get(key) != theirs.get(key)
    }


@given(*[st.lists(changes(), max_size=5)] * 3, st.sampled_from(["keep", "take"]))
def test_a_settled_conflict_is_no_conflict(
    start: list[Change], mine: list[Change], yours: list[Change], choice: merging.Settle
) -> None:
    base, ours, theirs = built(*start), built(*start, *mine), built(*start, *yours)
    _, clashes = merging.merged(base, ours, theirs, {})
    result, left = merging.merged(base, ours, theirs, {clash.key: choice for clash in clashes})
    assert left == []
    for clash in clashes:
        assert result.get(clash.key) == (clash.ours if choice == "keep" else clash.theirs)


def test_only_what_lies_in_the_interval_is_brought_over() -> None:
    def anchor(name: str, second: float) -> Change:
        pinned = Anchor(id=name, media_id="img_1", second=second)
        return lambda m: m.model_copy(update={"anchors": [*(a for a in m.anchors if a.id != name), pinned]})

    base = built(anchor("a1", 1), anchor("a2", 9))
    theirs = built(anchor("a1", 2), anchor("a2", 8), anchor("a3", 3), lambda m: m.model_copy(update={"brief": "x"}))
    result, _ = merging.merged(base, base, theirs, {}, merging.within(0, 5))
    assert {key: value["second"] for key, value in result.items() if ":" in key} == {
        "anchor:a1": 2, "anchor:a2": 9, "anchor:a3": 3,
    }  # fmt: skip
    assert result["brief"] == ""


def test_numbers_are_never_used_again_in_a_montage_and_its_forks(studio: Studio) -> None:
    def added(name: str, second: float) -> Change:
        pinned = Anchor(id=name, media_id="img_1", second=second)
        return lambda m: m.model_copy(update={"anchors": [*m.anchors, pinned]})

    first = studio.create_montage(Montage(id=new_id("m"), duration_s=6))
    studio.edit_montage(first.id, "add", {}, added("a1", 1))
    fork = studio.fork_montage(first.id, None, "")
    assert [a.id for a in studio.edit_montage(fork.id, "add", {}, added("a2", 2)).anchors] == ["a1", "a2"]
    assert [a.id for a in studio.edit_montage(first.id, "add", {}, added("a2", 3)).anchors] == ["a1", "a3"]
    studio.edit_montage(first.id, "remove", {}, lambda m: m.model_copy(update={"anchors": m.anchors[:1]}))
    assert [a.id for a in studio.edit_montage(first.id, "add", {}, added("a2", 3)).anchors] == ["a1", "a4"]


def test_the_author_stays_when_somebody_else_only_moves_it(studio: Studio) -> None:
    pinned = Anchor(id="a1", media_id="img_1", second=1, label="lake")
    first = studio.create_montage(Montage(id=new_id("m"), duration_s=6, anchors=[pinned]), "ada")
    assert [a.by for a in first.anchors] == ["ada"]

    def now(**fields: Any) -> Change:
        return lambda m: m.model_copy(update={"anchors": [a.model_copy(update=fields) for a in m.anchors]})

    assert [a.by for a in studio.edit_montage(first.id, "move", {}, now(second=2.0), "bob").anchors] == ["ada"]
    assert [a.by for a in studio.edit_montage(first.id, "say", {}, now(label="sea"), "bob").anchors] == ["bob"]
    assert [a.by for a in studio.edit_montage(first.id, "lie", {}, now(by="ada"), "bob").anchors] == ["bob"]


def test_a_montage_that_was_put_away_is_not_listed_and_not_edited_until_it_is_restored(studio: Studio) -> None:
    first = studio.create_montage(Montage(id=new_id("m"), duration_s=6))

    def archive(away: bool) -> None:
        studio.edit_montage(first.id, "update_montage", {}, lambda m: m.model_copy(update={"archived": away}))

    archive(True)
    assert studio.list_montages() == [] and [m.id for m in studio.list_montages(archived=True)] == [first.id]
    with pytest.raises(Conflict, match=r"put away.*archive=False"):
        studio.edit_montage(first.id, "edit", {}, lambda m: m.model_copy(update={"seed": 3}))
    archive(False)
    assert [m.id for m in studio.list_montages()] == [first.id]


def test_a_revision_that_is_not_there_yet_is_named(studio: Studio) -> None:
    first = studio.create_montage(Montage(id=new_id("m"), duration_s=6))
    with pytest.raises(InvalidInput, match="no revision 9 yet"):
        studio.edit_montage(first.id, "edit", {}, lambda m: m.model_copy(update={"seed": 3}), if_revision=9)
