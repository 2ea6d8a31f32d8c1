"""Quotas: nobody can fill the studio, the last place is taken once, and a refusal says what leads on."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable

import pytest
from agent import Agent
from mcp import Client

from dreamontage.schemas.errors import DreamontageError, InvalidInput, QuotaExceeded, StudioFull
from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Estimate
from dreamontage.server.app import build_server
from dreamontage.server.drill import small_picture
from dreamontage.server.quotas import FILE_NAME, Quotas, usage
from dreamontage.server.store import Studio, new_id


def cost(size: int) -> Estimate:
    return Estimate(segments_to_render=1, seconds=1, low_s=1, high_s=1, bytes=size)


def make_montage(studio: Studio, actor: str, number: int = 0) -> Montage:
    return studio.create_montage(Montage(id=new_id("m"), duration_s=2), actor)


def add_media(studio: Studio, actor: str, number: int) -> Media:
    path = studio.folder / f"{number}.bin"
    path.write_bytes(bytes([number]) * 1000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    media = Media(
        id=f"img_{digest[:16]}", sha256=digest, kind="still", container="PNG", width=16, height=16, bytes=1000
    )
    return studio.add_media(media, path, actor)


def queue(studio: Studio, actor: str, number: int, size: int = 0) -> Job:
    rows = studio.list_montages(limit=1)
    montage = rows[0] if rows else studio.create_montage(Montage(id=new_id("m"), duration_s=2), "owner")
    return studio.enqueue(montage, RenderRequest(seed=number), cost(size), actor)


@pytest.mark.parametrize(("kind", "add"), [("montages", make_montage), ("media", add_media), ("jobs", queue)])
def test_an_actor_and_the_studio_have_bounds_of_their_own(
    studio: Studio, kind: str, add: Callable[[Studio, str, int], object]
) -> None:
    queue(studio, "owner", 99)
    before = {"montages": 1, "media": 0, "jobs": 1}[kind]
    studio.quotas = Quotas.model_validate({f"{kind}_per_actor": 2, kind: before + 3})
    add(studio, "anna", 1)
    add(studio, "anna", 2)
    with pytest.raises(QuotaExceeded, match=f"{kind}_per_actor: anna has 2 .*Allowed: 2;.*Next: "):
        add(studio, "anna", 3)
    add(studio, "ben", 4)
    with pytest.raises(QuotaExceeded, match=f"{kind}: all actors together have {before + 3}"):
        add(studio, "cleo", 5)
    with studio.db.read() as connection:
        assert usage(connection, kind) == before + 3  # type: ignore[arg-type]
        assert usage(connection, kind, "anna") == 2  # type: ignore[arg-type]


def test_what_is_there_already_is_never_refused(studio: Studio) -> None:
    media, job = add_media(studio, "anna", 1), queue(studio, "anna", 1)
    studio.quotas = Quotas(media_per_actor=1, jobs_per_actor=1)
    assert add_media(studio, "anna", 1) == media
    assert queue(studio, "anna", 1) == job


def test_a_refused_medium_leaves_no_file(studio: Studio) -> None:
    studio.quotas = Quotas(media=0)
    with pytest.raises(QuotaExceeded):
        add_media(studio, "anna", 1)
    assert list((studio.folder / "blobs").iterdir()) == []


def test_the_last_place_is_taken_once(studio: Studio) -> None:
    studio.quotas = Quotas(jobs_per_actor=3)
    montage = make_montage(studio, "anna")
    got: list[object] = []

    def ask(seed: int) -> None:
        try:
            got.append(studio.enqueue(montage, RenderRequest(seed=seed), None, "anna"))
        except QuotaExceeded as refusal:
            got.append(refusal)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, Job) for answer in got) == 3 == len(studio.jobs())


def test_disk_counts_what_the_estimate_says_until_the_job_is_done(studio: Studio) -> None:
    studio.quotas = Quotas(disk_bytes_per_actor=10 * 2**20)
    studio.begin_work("w_1", "cpu", 1)
    first = queue(studio, "anna", 1, 6 * 2**20)
    with pytest.raises(QuotaExceeded, match="disk_bytes_per_actor: anna has 6 MiB of disk, and 6 MiB more"):
        queue(studio, "anna", 2, 6 * 2**20)
    queue(studio, "ben", 2, 6 * 2**20)
    studio.cancel(first.id)
    second = queue(studio, "anna", 3, 6 * 2**20)
    while (job := studio.claim("w_1")) is not None and job.id != second.id:
        studio.fail(job.id, job.attempt, "not drawn")
    with studio.db.read() as connection:
        assert usage(connection, "disk_bytes", "ben") == 0
        assert usage(connection, "disk_bytes", "anna") == 6 * 2**20


def test_the_floor_of_free_space_counts_what_waiting_jobs_will_write(studio: Studio) -> None:
    free = shutil.disk_usage(studio.folder).free
    studio.quotas = Quotas(keep_free_bytes=free // 2, disk_bytes=free * 2, disk_bytes_per_actor=free * 2)
    queue(studio, "anna", 1, free // 3)
    with pytest.raises(StudioFull, match=r"stay free.*Next: "):
        queue(studio, "ben", 2, free // 3)
    assert len(studio.jobs()) == 1


def test_a_studios_own_file_sets_its_quotas(studio: Studio) -> None:
    (studio.folder / FILE_NAME).write_text(json.dumps({"jobs_per_actor": 7}))
    with Studio(studio.folder) as again:
        assert again.quotas == Quotas(jobs_per_actor=7)
    (studio.folder / FILE_NAME).write_text(json.dumps({"jobs_per_actor": -1}))
    with pytest.raises(InvalidInput, match=r"quotas\.json in the studio: jobs_per_actor: .*greater than or equal to 0"):
        Studio(studio.folder)
    (studio.folder / FILE_NAME).write_text("{")
    with pytest.raises(DreamontageError, match=r"quotas\.json"):
        Studio(studio.folder)


@pytest.mark.anyio
async def test_an_agent_reads_which_quota_it_met_and_what_to_do(studio: Studio) -> None:
    studio.quotas = Quotas(jobs_per_actor=0)
    source = {"media_id": small_picture(studio, 1).id}
    async with Client(build_server(studio)) as client:
        agent = Agent(client)
        plan = await agent.call("plan_montage", anchors=[{"source": source}], duration_s=2)
        sentence = await agent.refused("render_segments", montage_id=plan["montage_id"])
    assert "jobs_per_actor" in sentence and "Next: get_job" in sentence
    assert studio.jobs() == []
