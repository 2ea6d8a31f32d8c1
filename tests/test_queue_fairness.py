"""The queue between actors: they take turns, and what one asked for twice is queued once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.server.store import DeviceLost, Studio, new_id


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path / "studio", tmp_path / "out") as opened:
        opened.begin_work("w_1", "cpu", 1)
        yield opened


@pytest.fixture
def montage(studio: Studio) -> Montage:
    return studio.create_montage(Montage(id=new_id("m"), duration_s=2))


def asked(studio: Studio, montage: Montage, actor: str, seed: int = 0) -> Job:
    return studio.enqueue(montage, RenderRequest(seed=seed), None, actor)


def turns(studio: Studio) -> list[tuple[str, int | None]]:
    """Who is served, in order, with the seed of the job."""
    served = []
    while (job := studio.claim("w_1")) is not None:
        served.append((job.actor, job.request.seed))
        studio.fail(job.id, job.attempt, "not drawn")
    return served


def test_an_actor_with_many_jobs_does_not_starve_another(studio: Studio, montage: Montage) -> None:
    for seed in range(5):
        asked(studio, montage, "anna", seed)
    asked(studio, montage, "ben", 0)
    assert turns(studio) == [("anna", 0), ("ben", 0), ("anna", 1), ("anna", 2), ("anna", 3), ("anna", 4)]


def test_actors_are_served_in_turn_and_each_ones_jobs_in_order(studio: Studio, montage: Montage) -> None:
    for actor in ("anna", "ben", "cleo"):
        for seed in range(3):
            asked(studio, montage, actor, seed)
    assert turns(studio) == [(actor, seed) for seed in range(3) for actor in ("anna", "ben", "cleo")]


def test_who_was_never_served_comes_before_who_was(studio: Studio, montage: Montage) -> None:
    asked(studio, montage, "anna")
    assert turns(studio) == [("anna", 0)]
    asked(studio, montage, "anna", 1)
    asked(studio, montage, "newcomer")
    assert turns(studio) == [("newcomer", 0), ("anna", 1)]


def test_an_abandoned_job_is_taken_up_before_anybodys_turn(studio: Studio, montage: Montage) -> None:
    begun = asked(studio, montage, "anna")
    claimed = studio.claim("w_1")
    assert claimed is not None and claimed.id == begun.id
    asked(studio, montage, "ben")
    studio.begin_work("w_2", "cpu", 2)  # w_1 was killed, or stalled
    taken = studio.claim("w_2")
    assert taken is not None and (taken.id, taken.attempt) == (begun.id, 2)


def test_a_worker_that_lost_its_device_claims_nothing(studio: Studio, montage: Montage) -> None:
    asked(studio, montage, "anna")
    studio.begin_work("w_2", "cpu", 2)
    with pytest.raises(DeviceLost):
        studio.claim("w_1")
    assert studio.claim("w_2") is not None
    with pytest.raises(DeviceLost):  # nor does it take back what its successor renders
        studio.claim("w_1")
    assert studio.jobs()[0].state == "running"


def test_the_same_request_is_one_job_for_its_actor_and_another_for_others(studio: Studio, montage: Montage) -> None:
    mine = asked(studio, montage, "anna")
    assert asked(studio, montage, "anna") == mine
    other = asked(studio, montage, "ben")
    assert (other.actor, mine.actor) == ("ben", "anna") and other.id != mine.id
    assert studio.claim("w_1") is not None
    assert asked(studio, montage, "anna").id == mine.id  # also while it runs
    studio.cancel(mine.id)
    assert asked(studio, montage, "anna").id != mine.id


def test_a_job_is_queued_only_together_with_what_is_kept_beside_it(studio: Studio, montage: Montage) -> None:
    kept: list[str] = []
    job = studio.enqueue(montage, RenderRequest(), None, then=lambda _, queued: kept.append(queued.id))
    again = studio.enqueue(montage, RenderRequest(), None, then=lambda _, queued: kept.append(queued.id))
    assert kept == [job.id, again.id] and job == again

    def refuse(*_: object) -> None:
        raise RuntimeError("another call with the same key was faster")

    with pytest.raises(RuntimeError):
        studio.enqueue(montage, RenderRequest(seed=1), None, then=refuse)
    assert [queued.id for queued in studio.jobs()] == [job.id]
