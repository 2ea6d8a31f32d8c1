"""`dreamontage simulate`: the real queue under a stated fleet agrees with queueing theory and shares fairly."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest

from dreamontage.server.simulation import Fleet, Seen, run, simulate, studio_in_memory

FLEET = Fleet(
    agents=100, studios=1, devices=1, montages_per_hour=0.6, renders=1, segments=1, segment_s=30, delivery_s=0,
    device_hour=2, hours=6,
)  # fmt: skip


def seen_by(fleet: Fleet) -> Seen:
    seen = Seen()
    with studio_in_memory() as studio:
        simulate(fleet, studio, 1, seen)
    return seen


def test_the_mean_wait_of_one_device_is_the_one_that_theory_gives() -> None:
    seen = seen_by(replace(FLEET, hours=24))
    assert FLEET.load == pytest.approx(0.5)
    theory = FLEET.load * FLEET.segment_s / (2 * (1 - FLEET.load))  # Pollaczek-Khinchine, constant service
    assert fmean(seen.waits) == pytest.approx(theory, rel=0.15)
    assert seen.busy_s / (24 * 3600) == pytest.approx(FLEET.load, rel=0.1)
    assert len(seen.waits) + seen.waiting == seen.asked


def test_agents_that_ask_in_bursts_make_themselves_wait_and_not_the_others() -> None:
    seen = seen_by(replace(FLEET, heavy=0.05, burst=20))
    assert fmean(seen.heavy_waits) > 4 * fmean(seen.waits)


def test_a_million_agents_are_told_by_a_few_studios_and_too_few_devices_are_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fleet = replace(FLEET, agents=1_000_000, studios=10_000, hours=0.5, montages_per_hour=2.0)
    assert run(fleet, 1, 0) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "1,000,000 agents" in told and "1 of 10,000 studios" in told
    assert "20,000.00 an hour" in told
    assert "queues grow without end. At least 2 are needed." in told
