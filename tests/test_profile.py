"""Profiles: named ladders of switches, and switches of one's own on top."""

from __future__ import annotations

import pytest
from diffusers.models.attention_dispatch import AttentionBackendName

from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.profile import ATTENTION, PLAIN, PROFILES, Switches, ladder


def test_every_profile_is_a_ladder_that_ends_at_what_takes_least_memory() -> None:
    for name, rungs in PROFILES.items():
        assert ladder(name) == rungs
        assert rungs[-1].offload == "group"


def test_switches_of_ones_own_hold_on_every_rung_and_equal_rungs_are_one() -> None:
    assert ladder("auto, offload=none, storage=full, tiling=off") == (PLAIN,)
    assert {rung.cache for rung in ladder("fast,cache=0.1,compile=off")} == {0.1}


def test_auto_and_quality_begin_with_what_changes_no_latents() -> None:
    for name in ("auto", "quality"):
        assert ladder(name)[0].mark == ""
    assert Switches(offload="group").mark == ""
    assert Switches(offload="group", storage="fp8").mark == "storage=fp8"


def test_attention_backends_are_those_of_diffusers() -> None:
    assert sorted(ATTENTION) == sorted(name.value for name in AttentionBackendName)


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ("turbo", "auto, quality, fast, low-memory"),
        ("fast,speed=9", "NAME=VALUE; names: offload"),
        ("fast,attention=sagee", "no attention backend is called 'sagee'.*sage, "),
        ("fast,cache=2", "less than or equal to 1"),
        ("auto,storage=fp4", "'full' or 'fp8'"),
    ],
)
def test_an_unknown_profile_or_switch_is_refused_with_what_there_is(profile: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        ladder(profile)
