"""The examples do what they say."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from dreamontage.server.store import Studio

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def eight_agents() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eight_agents", EXAMPLES / "eight_agents.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_eight_agents_compose_one_shot_and_each_hears_what_concerns_it(
    eight_agents: ModuleType, studio: Studio, tiny_model: str, worker: None
) -> None:
    outcome, transcript = anyio.run(eight_agents.play, studio, tiny_model)
    said = defaultdict(list)
    for line in transcript:
        said[line["agent"], line["tool"]].append(line)

    assert {(line["agent"], line["door"]) for line in transcript} == {
        *((name, "stdio") for name in ("ada", "dan", "eva")),
        *((name, "http") for name in ("ben", "cleo", "finn", "gus", "hana")),
    }
    # Edits of different things at the same revision merge; a repeated call with its key is answered, not repeated.
    final = studio.get_montage(outcome["montage_id"])
    assert {anchor.label: anchor.by for anchor in final.anchors} == {
        "Ridge": "ada", "Peaks": "ben", "Bunny": "cleo", "Evening": "finn",
    }  # fmt: skip
    first, again = said["cleo", "add_anchors"]
    assert first["text"] == again["text"]
    # Who comes second to the same beat is told who was first, and what it says now.
    (refused,) = (line for line in said["eva", "edit_beats"] if line["outcome"] == "refused")
    assert "dan changed b1" in refused["text"] and "pan right" in refused["text"] and "Next: " in refused["text"]
    assert "dan" in said["eva", "get_changes"][0]["text"]
    assert [(beat.by, beat.prompt) for beat in final.beats] == [("dan", "pan right"), ("eva", "push in")]
    # A token says what its agent may do.
    (mine,) = said["hana", "update_montage"]
    assert mine["outcome"] == "refused" and "scope 'edit'" in mine["text"] and final.title != "Mine"
    assert sum(line["outcome"] == "refused" for line in transcript) == 2, "nothing else was refused"
    # The fork shares takes; the merge asks about what both changed, and changes nothing before it is told.
    assert outcome["evening"]["segments_reused"] >= 1 <= outcome["evening"]["segments_rendered"]
    asked, merged = said["ada", "merge_montage"]
    assert "a2" in asked["text"] and "Meadow at noon" in asked["text"] and "nothing was changed" in asked["text"]
    assert merged["arguments"]["settle"] == {"a2": "take"} and merged["outcome"] == "answered"
    # A choice from the fork and a re-roll cost no rendering of what is there.
    assert outcome["rolled"]["segments_rendered"] == outcome["final"]["segments_rendered"] == 0
    assert len(outcome["rolled"]["alternatives"]) == 1
    chosen = said["eva", "choose_take"][0]["arguments"]["take_ids"]
    shown = {segment.take_id for segment in studio.video(outcome["final"]["video_id"]).segments}
    assert set(chosen) <= shown and shown & {
        segment.take_id for segment in studio.video(outcome["evening"]["video_id"]).segments
    }, "the last video shows a take of the fork and the one that was chosen"
    told = "\n".join(outcome["history"])
    assert all(f", {name}: " in told for name in ("ada", "ben", "cleo", "dan", "eva")), told
