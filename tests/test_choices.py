"""Alternatives of a segment, and choosing among takes: the next render then only decodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from agent import Agent, text
from desk import Desk, frames_of, three_stills
from mcp import Client

from dreamontage.generator.takes import Takes
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.report import TakeChoice, Video, VideoSegment
from dreamontage.server.app import build_server
from dreamontage.server.store import Studio

OVERLAP = 3


def chosen(*takes: VideoSegment) -> list[TakeChoice]:
    return [
        TakeChoice(id=number, montage_id="m_1", quality="draft", video_id="v", segment=take, actor="ada", at=0)
        for number, take in enumerate(takes, 1)
    ]


def shown(video: Video) -> list[str]:
    return [take.fingerprint for take in video.segments]


@pytest.fixture
def no_denoising(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no window may be denoised."""

    def denoised(*_: Any) -> NoReturn:
        raise AssertionError("a window was denoised")

    monkeypatch.setattr("dreamontage.generator.sar.sample_segment", denoised)


def test_alternatives_of_every_segment_are_kept_with_their_videos_and_reports(desk: Desk) -> None:
    body = three_stills(desk)
    video = desk.render(body, takes=3)
    assert [v.id for v in video.alternatives] == [f"{video.id}-2", f"{video.id}-3"]
    assert all(v.alternative_of == video.id and Path(v.path).is_file() for v in video.alternatives)
    assert len(video.segments) > 2
    for index, first in enumerate(video.segments):
        own, *others = (v.segments[index] for v in (video, *video.alternatives))
        assert len({own.fingerprint, *(o.fingerprint for o in others)}) == 3
        assert len({own.seed, *(o.seed for o in others)}) == 3
        assert {o.tail for o in others} == {own.tail} and {o.recipe for o in others} == {own.recipe}
        if index + 1 < len(video.segments) and video.segments[index + 1].seam == "carried":
            assert {o.end for o in others} == {own.end}, "so that what follows fits any of them"
        takes = [Takes(desk.folder / "takes").load(t.fingerprint) for t in (first, *others)]
        assert all(take is not None for take in takes)
        assert not (takes[0][0] == takes[1][0]).all()  # type: ignore[index]
    films = [frames_of(v) for v in (video, *video.alternatives)]
    assert all(len(film) == video.report.frames for film in films)
    assert [s.fingerprint for s in video.alternatives[0].report.segments] == shown(video.alternatives[0])
    done = desk.steps[-1]
    assert (done.stage, done.segments_done) == ("done", 3 * len(video.segments))
    assert [p.done for p in desk.steps] == sorted(p.done for p in desk.steps)
    assert desk.render(body).sha256 == video.sha256, "alternatives do not change what is delivered"


def test_a_chosen_alternative_is_decoded_and_nothing_is_denoised(
    desk: Desk, request: pytest.FixtureRequest
) -> None:
    body = three_stills(desk)
    video = desk.render(body, takes=2)
    (other,) = video.alternatives
    request.getfixturevalue("no_denoising")
    mixed = desk.render(body, base=video, choices=chosen(other.segments[1]))
    assert shown(mixed) == [shown(video)[0], shown(other)[1], *shown(video)[2:]]
    assert all(part.reused for part in mixed.report.segments)
    assert mixed.last_choice == 1 and desk.render(body, base=mixed).last_choice == 1
    whole = desk.render(body, base=video, choices=chosen(*other.segments))
    assert whole.sha256 == other.sha256
    back = desk.render(body, base=whole, choices=chosen(*other.segments, *video.segments))
    assert back.sha256 == video.sha256, "the last choice counts"


def test_several_takes_of_a_part_keep_what_is_there_and_what_follows(desk: Desk) -> None:
    body = three_stills(desk)
    video = desk.render(body)
    middle = video.report.segments[1].start_s + 0.01
    again = desk.render(body, base=video, from_s=middle, to_s=middle + 0.1, takes=2)
    assert again.sha256 == video.sha256
    (other,) = again.alternatives
    assert [a == b for a, b in zip(shown(other), shown(video), strict=True)] == [
        index != 1 for index in range(len(video.segments))
    ]
    seeded = desk.render(body, base=video, from_s=middle, to_s=middle + 0.1, takes=2, seed=9)
    assert len({shown(v)[1] for v in (video, other, seeded, *seeded.alternatives)}) == 4


def test_a_part_that_is_rendered_anew_takes_the_place_of_a_choice(desk: Desk) -> None:
    body = three_stills(desk)
    video = desk.render(body, takes=2)
    choices = chosen(video.alternatives[0].segments[1])
    middle = video.report.segments[1].start_s + 0.01
    rolled = desk.render(body, base=video, choices=choices, from_s=middle, to_s=middle + 0.1, seed=9)
    assert shown(rolled)[1] not in (shown(video)[1], choices[0].segment.fingerprint)
    assert [p.reused for p in rolled.report.segments].count(False) == 1
    after = desk.render(body, base=rolled)
    assert shown(after) == shown(rolled)


def test_a_choice_outlives_edits_elsewhere_and_ends_with_its_own_content(desk: Desk) -> None:
    body = three_stills(desk, (0.0, 4.0, 6.0, 8.0))
    video = desk.render(body, takes=2)
    choices = chosen(video.alternatives[0].segments[0])
    moved = three_stills(desk, (0.0, 4.0, 6.0, 9.0)).model_copy(update={"revision": 2})
    later = desk.render(moved, base=video, choices=choices)
    assert shown(later)[0] == choices[0].segment.fingerprint
    anchors = [Anchor(id="a0", media_id=desk.still(30), second=0.0), *body.anchors[1:]]
    changed = desk.render(body.model_copy(update={"anchors": anchors}), base=video, choices=choices)
    assert shown(changed)[0] not in (shown(video)[0], shown(later)[0])


def test_a_choice_made_while_a_render_runs_counts_for_the_next_one(desk: Desk, studio: Studio) -> None:
    body = studio.create_montage(three_stills(desk))
    first = desk.render(body, takes=2)
    studio.add_video(first)
    take = first.alternatives[0].segments[1]
    base, choices = studio.base(body.id, "draft")
    assert base is not None and (base.id, choices) == (first.id, [])
    studio.choose(body.id, "draft", [(take, f"{first.id}-2")], "ada")
    studio.add_video(desk.render(body, base=base, choices=choices))  # it began before the choice
    base, choices = studio.base(body.id, "draft")
    assert base is not None and [c.segment.fingerprint for c in choices] == [take.fingerprint]
    with_it = desk.render(body, base=base, choices=choices)
    studio.add_video(with_it)
    assert shown(with_it)[1] == take.fingerprint
    assert studio.base(body.id, "draft")[1] == [] and studio.base(body.id, "standard") == (None, [])
    assert [v.id for v in studio.videos(body.id)] == ["v3", "v2", "v1"], "alternatives are no versions of their own"
    assert [v.id for v in studio.alternatives_of("v1")] == ["v1-2"]
    assert studio.find_take(take.take_id).video.id == "v3"


@pytest.fixture
async def agent(studio: Studio, pictures: list[Path], worker: None) -> AsyncIterator[Agent]:
    async with Client(build_server(studio, roots=[pictures[0].parent])) as client:
        yield Agent(client)


async def planned(agent: Agent, pictures: list[Path], model: str) -> str:
    names = [path.name for path in pictures[:3]]
    plan = await agent.call("plan_montage", anchors=names, duration_s=8, model=model, fps=8)
    return str(plan["montage_id"])


@pytest.mark.anyio
async def test_an_agent_renders_alternatives_chooses_one_and_the_next_render_only_decodes(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str, request: pytest.FixtureRequest
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    queued = await agent.call("render_segments", montage_id=montage, takes=2)
    assert queued["outlook"]["alternatives"] == queued["outlook"]["segments_to_render"] > 1
    first = await agent.finished(queued["job_id"])
    assert any(call.startswith("view_video(video_ids=") for call in first["next"])
    (other,) = first["alternatives"]
    take = other["takes"][1]
    assert agent.last is not None and take["take_id"] in text(agent.last)
    request.getfixturevalue("no_denoising")
    choice = await agent.call("choose_take", montage_id=montage, take_ids=[take["take_id"]])
    assert "only decodes" in text(agent.last) and choice["outlook"]["segments_to_render"] == 0
    assert choice["chosen"][0]["start_s"] == take["start_s"]
    second = await agent.rendered(montage)
    assert (second["segments_rendered"], second["file"]["sha256"] == first["file"]["sha256"]) == (0, False)
    assert studio.video(second["video_id"]).segments[1].take_id == take["take_id"]
    await agent.call("choose_take", montage_id=montage, video_id=first["video_id"])
    third = await agent.rendered(montage)
    assert third["file"]["sha256"] == first["file"]["sha256"], "takes of an earlier video can be chosen back"


@pytest.mark.anyio
async def test_takes_and_intervals_of_a_fork_can_be_chosen_into_the_original(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str, request: pytest.FixtureRequest
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    first = await agent.rendered(montage)
    fork = studio.fork_montage(montage, None, "another try").id
    again = await agent.call("render_segments", montage_id=fork)
    assert again["outlook"]["segments_to_render"] == 0, "a fork shares the takes of its source"
    await agent.finished(again["job_id"])
    at_s = studio.video(first["video_id"]).report.segments[1].start_s
    rolled = await agent.rendered(fork, from_s=at_s + 0.01, seed=7, after="follow")
    request.getfixturevalue("no_denoising")
    alone = studio.video(rolled["video_id"]).segments[2].take_id
    refusal = await agent.refused("choose_take", montage_id=montage, take_ids=[alone])
    assert "continues from" in refusal and f"'{alone}']" in refusal
    call = {"montage_id": montage, "video_id": rolled["video_id"], "from_s": at_s + 0.01}
    choice = await agent.call("choose_take", **call)
    assert len(choice["chosen"]) == rolled["segments_rendered"] and choice["outlook"]["segments_to_render"] == 0
    final = await agent.rendered(montage)
    assert final["file"]["sha256"] == rolled["file"]["sha256"]


@pytest.mark.anyio
async def test_what_cannot_be_chosen_is_refused_with_the_way_out(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    previz = await agent.rendered(montage, quality="previz")
    assert "no takes" in await agent.refused("choose_take", montage_id=montage, video_id=previz["video_id"])
    assert "one of the two" in await agent.refused("choose_take", montage_id=montage)
    unknown = await agent.refused("choose_take", montage_id=montage, take_ids=["t_" + "0" * 16])
    assert "no video shows a take" in unknown and "view_video" in unknown
    assert "take_ids" in await agent.refused("choose_take", montage_id=montage, take_ids=["../etc"])
    video = studio.video((await agent.rendered(montage))["video_id"])
    await agent.call("update_anchors", montage_id=montage, anchors=[{"id": "a1", "source": pictures[4].name}])
    refusal = await agent.refused("choose_take", montage_id=montage, take_ids=[video.segments[0].take_id])
    assert "same anchors" in refusal and "get_montage" in refusal
    gone = video.segments[-1]
    (studio.takes / f"{gone.fingerprint}.json").unlink()
    refusal = await agent.refused("choose_take", montage_id=montage, take_ids=[gone.take_id])
    assert "cleaned up" in refusal and "render_segments" in refusal
    assert studio.base(montage, "draft")[1] == []


@pytest.mark.anyio
async def test_a_render_that_would_take_too_long_is_refused_with_its_estimate(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    refusal = await agent.refused("render_segments", montage_id=montage, takes=4, max_minutes=0.01)
    assert "minutes" in refusal and "nothing was queued" in refusal and "fewer takes" in refusal
    assert "no takes" in await agent.refused("render_segments", montage_id=montage, takes=2, quality="previz")
    assert studio.jobs(montage) == []
    allowed = float(refusal.rsplit("max_minutes=", 1)[1].rstrip("."))
    job = await agent.call("render_segments", montage_id=montage, takes=4, max_minutes=allowed)
    assert studio.job(job["job_id"]).request == RenderRequest(quality="draft", takes=4)
    await agent.call("cancel_job", job_id=job["job_id"])


def test_takes_end_where_the_next_one_begins(desk: Desk) -> None:
    video = desk.render(three_stills(desk))
    for one, following in zip(video.segments, video.segments[1:], strict=False):
        assert following.seam != "carried" or following.tail == one.end
    takes = Takes(desk.folder / "takes")
    latents = [takes.load(take.fingerprint) for take in video.segments]
    assert all(found is not None and np.isfinite(found[0][:, -OVERLAP:].numpy()).all() for found in latents)
