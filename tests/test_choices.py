"""Alternatives of a segment, and choosing among takes: the next render then only decodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from agent import Agent, text
from desk import Desk, frames_of, three_stills
from mcp import Client
from tiny_model import CARD, clip, tiny_shot

from dreamontage.generator.fingerprint import Decision, decide
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.takes import Takes
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import Progress, RenderRequest
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.report import TakeChoice, Video, VideoSegment
from dreamontage.server.app import build_server
from dreamontage.server.store import Studio

SECONDS = (0.0, 3.0, 6.0)


def short(desk: Desk, seconds: tuple[float, ...] = SECONDS) -> Montage:
    """Three segments, each continuing from the one before."""
    return three_stills(desk, seconds).model_copy(update={"duration_s": 7.0})


class Made(NamedTuple):
    """A montage rendered once with three takes of every segment."""

    desk: Desk
    body: Montage
    video: Video
    steps: list[Progress]

    def decided(
        self, body: Montage | None = None, choices: Sequence[VideoSegment] = (), base: Video | None = None, **asked: Any
    ) -> list[Decision]:
        """What a render would do now."""
        body = body or self.body
        plan = plan_montage(body, self.desk.media, CARD, "draft")
        request = RenderRequest(quality="draft", **asked)
        return decide(plan, body, self.desk.media, CARD, request, base or self.video, choices=choices)


@pytest.fixture(scope="module")
def made(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMONTAGE_MODELS", str(tiny_models))
        desk = Desk(tmp_path_factory.mktemp("desk"), tiny_models / "tiny")
        body = short(desk)
        video = desk.render(body, takes=3)
        yield Made(desk, body, video, desk.steps)


@pytest.fixture
def no_denoising(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no window may be denoised."""

    def denoised(*_: Any) -> NoReturn:
        raise AssertionError("a window was denoised")

    monkeypatch.setattr("dreamontage.generator.sar.sample_segment", denoised)


def chosen(*takes: VideoSegment) -> list[TakeChoice]:
    return [
        TakeChoice(id=number, montage_id="m_1", quality="draft", video_id="v", segment=take, actor="ada", at=0)
        for number, take in enumerate(takes, 1)
    ]


def shown(video: Video) -> list[str]:
    return [take.fingerprint for take in video.segments]


def kept(decisions: Sequence[Decision]) -> list[str | None]:
    return [decision.take for decision in decisions]


def test_alternatives_of_every_segment_are_kept_with_their_videos_and_reports(made: Made) -> None:
    video = made.video
    assert [v.id for v in video.alternatives] == [f"{video.id}-2", f"{video.id}-3"]
    assert [s.seam for s in video.segments] == ["start", "carried", "carried"]
    for other in video.alternatives:
        assert other.alternative_of == video.id
        assert len(frames_of(other)) == other.report.frames == video.report.frames
        assert [part.fingerprint for part in other.report.segments] == shown(other)
    takes = Takes(made.desk.folder / "takes")
    for index, own in enumerate(video.segments):
        others = [v.segments[index] for v in video.alternatives]
        assert len({take.fingerprint for take in (own, *others)}) == len({take.seed for take in (own, *others)}) == 3
        assert {o.tail for o in others} == {own.tail} and {o.recipe for o in others} == {own.recipe}
        latents = [found[0] for take in (own, *others) if (found := takes.load(take.fingerprint)) is not None]
        assert len(latents) == 3 and not (latents[0] == latents[1]).all() and not (latents[1] == latents[2]).all()


def test_alternatives_end_alike_where_something_continues_from_them_so_that_any_of_them_fits(made: Made) -> None:
    for index, own in enumerate(made.video.segments):
        ends = {v.segments[index].end for v in (made.video, *made.video.alternatives)}
        following = made.video.segments[index + 1 :]
        assert ends == {following[0].tail} if following else len(ends) == 3
        assert own.end in ends


def test_progress_of_several_takes_counts_all_of_them_and_never_goes_back(made: Made) -> None:
    last = made.steps[-1]
    assert (last.stage, last.segments_done, last.segments_total) == ("done", 9, 9)
    assert [p.done for p in made.steps] == sorted(p.done for p in made.steps)


def test_chosen_alternatives_are_decoded_and_nothing_is_denoised(made: Made, no_denoising: None) -> None:
    other = made.video.alternatives[0]
    mixed = made.desk.render(made.body, base=made.video, choices=chosen(other.segments[1]))
    assert shown(mixed) == [shown(made.video)[0], shown(other)[1], shown(made.video)[2]]
    assert all(part.reused for part in mixed.report.segments) and mixed.last_choice == 1
    whole = made.desk.render(made.body, base=mixed, choices=chosen(*other.segments))
    assert whole.sha256 == other.sha256


def test_the_last_choice_of_a_segment_counts(made: Made) -> None:
    one, two = made.video.alternatives
    assert kept(made.decided(choices=[one.segments[1], two.segments[1]]))[1] == shown(two)[1]
    assert kept(made.decided(choices=[one.segments[1], made.video.segments[1]])) == shown(made.video)


def test_several_takes_of_a_part_keep_what_is_there_and_what_follows(made: Made) -> None:
    middle = made.video.report.segments[1].start_s + 0.01
    part = {"from_s": middle, "to_s": middle + 0.1}
    more = made.decided(takes=4, **part)
    assert kept(more) == shown(made.video) and [len(d.others) for d in more] == [0, 3, 0]
    assert more[1].others[:2] == tuple(v.segments[1].seed for v in made.video.alternatives), "derived: the same"
    seeded = made.decided(takes=2, seed=9, **part)
    assert [d.action for d in seeded] == ["reuse", "render", "reuse"] and seeded[1].held_take == shown(made.video)[1]
    assert len({seeded[1].seed, *seeded[1].others, *more[1].others, more[1].seed}) == 6


def test_what_a_clip_fixes_whole_has_no_alternatives() -> None:
    shot, media = tiny_shot([(clip(3, 49), 0.0)], 12.0)
    request = RenderRequest(quality="draft", takes=2)
    decisions = decide(shot.plan, shot.montage, media, CARD, request, None, weights="w")
    inside = [d.segment.stop <= shot.plan.anchors[0].last_slot + 1 for d in decisions]
    assert set(inside) == {True, False} and [not d.others for d in decisions] == inside


def test_a_part_that_is_rendered_anew_takes_the_place_of_a_choice(made: Made) -> None:
    choice = made.video.alternatives[0].segments[1]
    middle = made.video.report.segments[1].start_s + 0.01
    decisions = made.decided(choices=[choice], from_s=middle, to_s=middle + 0.1, seed=9)
    assert [d.action for d in decisions] == ["reuse", "render", "reuse"]


def test_a_choice_outlives_edits_elsewhere_and_ends_with_its_own_content(made: Made) -> None:
    choices = [made.video.alternatives[0].segments[0]]
    later = made.decided(made.body.model_copy(update={"seed": 99, "revision": 2}), choices)
    assert kept(later) == [choices[0].fingerprint, *shown(made.video)[1:]]
    anchors = [Anchor(id="a0", media_id=made.desk.still(30), second=0.0), *made.body.anchors[1:]]
    changed = made.decided(made.body.model_copy(update={"anchors": anchors}), choices)
    assert changed[0].action == "render" and changed[0].seed != choices[0].seed


def test_a_chosen_take_that_no_longer_fits_is_rendered_on_with_its_seed(made: Made) -> None:
    stray = made.video.alternatives[0].segments[2].model_copy(update={"tail": "another"})
    decisions = made.decided(choices=[stray])
    assert [d.action for d in decisions] == ["reuse", "reuse", "render"] and decisions[2].seed == stray.seed


def test_a_choice_made_while_a_render_runs_counts_for_the_next_one(made: Made, studio: Studio) -> None:
    body = studio.create_montage(made.body)

    def stored(name: str, last_choice: int = 0) -> Video:
        video = made.video.model_copy(update={"id": name, "last_choice": last_choice, "alternatives": []})
        return studio.add_video(video)

    other = made.video.alternatives[0].model_copy(update={"id": "v1-2", "alternative_of": "v1"})
    first = made.video.model_copy(update={"id": "v1", "alternatives": [other]})
    studio.add_video(first)
    assert studio.base(body.id, "draft") == (first.model_copy(update={"alternatives": []}), [])
    take = other.segments[1]
    (choice,) = studio.choose(body.id, "draft", [(take, "v1-2")], "ada")
    second = stored("v2")  # begun before the choice
    assert studio.base(body.id, "draft") == (second, [choice])
    third = stored("v3", choice.id)
    assert studio.base(body.id, "draft") == (third, []) and studio.base(body.id, "standard") == (None, [])
    assert [v.id for v in studio.videos(body.id)] == ["v3", "v2", "v1"], "alternatives are no versions of their own"
    assert [v.id for v in studio.alternatives_of("v1")] == ["v1-2"]
    assert studio.find_take(take.take_id).video.id == "v1-2"


@pytest.fixture
async def agent(studio: Studio, pictures: list[Path], worker: None) -> AsyncIterator[Agent]:
    async with Client(build_server(studio, roots=[pictures[0].parent])) as client:
        yield Agent(client)


async def planned(agent: Agent, pictures: list[Path], model: str) -> str:
    anchors = [{"source": path.name, "second": at} for path, at in zip(pictures, SECONDS, strict=False)]
    plan = await agent.call("plan_montage", anchors=anchors, duration_s=7, model=model, fps=8)
    return str(plan["montage_id"])


@pytest.mark.anyio
async def test_an_agent_renders_alternatives_chooses_one_and_the_next_render_only_decodes(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str, request: pytest.FixtureRequest
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    queued = await agent.call("render_segments", montage_id=montage, takes=2)
    assert queued["outlook"]["alternatives"] == queued["outlook"]["segments_to_render"] == 3
    first = await agent.finished(queued["job_id"])
    assert any(call.startswith("view_video(video_ids=") for call in first["next"])
    (other,) = first["alternatives"]
    assert Path(other["file"]["path"]).stat().st_size == other["file"]["bytes"]
    take = other["takes"][1]
    assert agent.last is not None and take["take_id"] in text(agent.last)
    own = studio.video(first["video_id"]).segments[1].take_id
    seen = await agent.call("view_video", take_ids=[own, take["take_id"]], frames=3)
    assert [seen["times_s"][0], seen["times_s"][-1]] == [take["start_s"], take["end_s"] - 1 / 8] and agent.pictures()
    assert [[t["take_id"] for t in row["takes"]] for row in seen["rows"]] == [[own], [take["take_id"]]]
    assert f"choose_take(montage_id={montage!r}, take_ids={[take['take_id']]})" in seen["next"]
    request.getfixturevalue("no_denoising")
    choice = await agent.call("choose_take", montage_id=montage, take_ids=[take["take_id"]])
    assert "only decodes" in text(agent.last) and choice["outlook"]["segments_to_render"] == 0
    assert choice["chosen"][0]["start_s"] == take["start_s"]
    second = await agent.rendered(montage)
    assert (second["segments_rendered"], second["file"]["sha256"] == first["file"]["sha256"]) == (0, False)
    assert studio.video(second["video_id"]).segments[1].take_id == take["take_id"]
    back = await agent.call("choose_take", montage_id=montage, take_ids=[own])
    assert back["outlook"]["segments_to_render"] == 0, "takes of an earlier video can be chosen back"
    gone = studio.video(other["video_id"]).segments[2]
    (studio.takes / f"{gone.fingerprint}.json").unlink()
    refusal = await agent.refused("choose_take", montage_id=montage, take_ids=[gone.take_id])
    assert "cleaned up" in refusal and "render_segments" in refusal
    await agent.call("update_anchors", montage_id=montage, anchors=[{"id": "a1", "source": pictures[4].name}])
    refusal = await agent.refused("choose_take", montage_id=montage, video_id=other["video_id"], to_s=1)
    assert "same anchors" in refusal and "get_montage" in refusal


@pytest.mark.anyio
async def test_takes_and_intervals_of_a_fork_can_be_chosen_into_the_original(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str, request: pytest.FixtureRequest
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    first = await agent.rendered(montage)
    fork = studio.fork_montage(montage, None, "another try").id
    at_s = studio.video(first["video_id"]).report.segments[1].start_s
    rolled = await agent.rendered(fork, from_s=at_s + 0.01, seed=7, after="follow")
    assert (rolled["segments_rendered"], rolled["segments_reused"]) == (2, 1), "a fork shares the takes of its source"
    request.getfixturevalue("no_denoising")
    alone = studio.video(rolled["video_id"]).segments[2].take_id
    refusal = await agent.refused("choose_take", montage_id=montage, take_ids=[alone])
    assert "continues from" in refusal and f"'{alone}']" in refusal
    choice = await agent.call("choose_take", montage_id=montage, video_id=rolled["video_id"], from_s=at_s + 0.01)
    assert len(choice["chosen"]) == 2 and choice["outlook"]["segments_to_render"] == 0
    final = await agent.rendered(montage)
    assert final["file"]["sha256"] == rolled["file"]["sha256"]


@pytest.mark.anyio
async def test_what_cannot_be_chosen_or_takes_too_long_is_refused_with_the_way_out(
    agent: Agent, studio: Studio, pictures: list[Path], tiny_model: str
) -> None:
    montage = await planned(agent, pictures, tiny_model)
    assert "one of the two" in await agent.refused("choose_take", montage_id=montage)
    unknown = await agent.refused("choose_take", montage_id=montage, take_ids=["t_" + "0" * 16])
    assert "no video shows a take" in unknown and "view_video" in unknown
    assert "take_ids" in await agent.refused("choose_take", montage_id=montage, take_ids=["../etc"])
    assert "no takes" in await agent.refused("render_segments", montage_id=montage, takes=2, quality="previz")
    refusal = await agent.refused("render_segments", montage_id=montage, takes=4, max_minutes=0.01)
    assert "minutes" in refusal and "nothing was queued" in refusal and "fewer takes" in refusal
    assert studio.jobs(montage) == []
    allowed = float(refusal.rsplit("max_minutes=", 1)[1].rstrip("."))
    job = await agent.call("render_segments", montage_id=montage, takes=4, max_minutes=allowed)
    assert studio.job(job["job_id"]).request == RenderRequest(quality="draft", takes=4)
    await agent.call("cancel_job", job_id=job["job_id"])
    previz = await agent.rendered(montage, quality="previz")
    assert "no takes" in await agent.refused("choose_take", montage_id=montage, video_id=previz["video_id"])
    assert studio.base(montage, "draft")[1] == []
