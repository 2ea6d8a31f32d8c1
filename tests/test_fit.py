"""How a model fits a GPU, what a job pins of it, and estimates that are checked and learn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import slow_renderer
from agent import Agent
from desk import Desk, frames_of, install, three_stills
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client

from dreamontage.generator import machine
from dreamontage.generator.chips import TFLOPS, UNKNOWN, peak_tflops
from dreamontage.generator.estimating import Pace, Work, estimate
from dreamontage.generator.fit import USABLE, fit, fitted
from dreamontage.generator.footprint import footprint
from dreamontage.generator.measuring.notes import unforeseen
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.switching import usable
from dreamontage.generator.native import usual_size
from dreamontage.generator.planner import plan_montage
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.job import Job, RenderRequest
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Montage, Quality
from dreamontage.schemas.profile import PLAIN, PROFILES, Switches, ladder
from dreamontage.schemas.report import EstimateReport, Video
from dreamontage.server import cli
from dreamontage.server.app import build_server
from dreamontage.server.store import Studio

LARGE = sorted(catalogue.fetchable())
QUALITIES: tuple[Quality, ...] = ("draft", "standard")
models = st.sampled_from([catalogue.fetchable()[name] for name in LARGE])
sizes = st.sampled_from([(256, 144), (512, 288), (848, 480), (1280, 704)])
rooms = st.floats(0, 200)
profiles = st.sampled_from([*PROFILES, "fast,quantise=int8", "auto,offload=none"])
hosts = st.sampled_from([16.0, 64.0, 1000.0])


@given(models, sizes, rooms, profiles, hosts)
def test_a_window_never_exceeds_the_cards_or_the_room(
    card: ModelCard, size: tuple[int, int], room: float, profile: str, host: float
) -> None:
    found = fit(card, size, room, profile, host)
    assert found.memory_gb is not None and found.note
    if not found.fits:
        assert (found.switches, found.window) == (None, None)
        return
    assert found.switches in usable(card, ladder(profile)) and found.window is not None
    assert card.overlap + card.shortest <= found.window <= card.window
    taken = footprint(card, size, found.window, found.switches)
    assert found.memory_gb == taken.memory_gb <= USABLE * room and taken.host_gb <= USABLE * host
    if found.window < card.window:
        assert f"windows of {found.window} slots instead of {card.window}" in found.note
        larger = footprint(card, size, found.window + 1, found.switches).memory_gb
        assert (
            larger > USABLE * room
            and found.switches
            == [
                r
                for r in usable(card, ladder(profile))
                if footprint(card, size, card.window, r).host_gb <= USABLE * host
            ][-1]
        ), "only the last rung gives up slots, and no more than it must"


@given(models, sizes, st.tuples(rooms, rooms).map(sorted), profiles)
def test_more_room_never_gives_less(card: ModelCard, size: tuple[int, int], two: list[float], profile: str) -> None:
    less, more = (fit(card, size, room, profile) for room in two)
    if not less.fits:
        return
    assert less.switches is not None and more.switches is not None
    assert (less.window or 0) <= (more.window or 0)
    rungs = usable(card, ladder(profile))
    assert rungs.index(more.switches) <= rungs.index(less.switches)


@given(models, sizes, profiles)
def test_with_room_enough_a_model_is_run_as_its_card_says(card: ModelCard, size: tuple[int, int], profile: str) -> None:
    found = fit(card, size, 10_000.0, profile)
    assert (found.switches, found.window) == (usable(card, ladder(profile))[0], card.window)
    assert fitted(card, found) == card


@given(rooms, profiles, hosts)
def test_a_model_that_needs_no_gpu_is_left_alone(room: float, profile: str, host: float) -> None:
    nano = catalogue.card("nano")
    found = fit(nano, (512, 288), room, profile, host)
    assert found.fits and (found.switches, found.window, found.memory_gb, found.note) == (None, None, None, "")
    assert fitted(nano, found) is nano


def test_what_is_lacking_is_said_with_the_profile_that_would_do() -> None:
    ti2v = catalogue.fetchable()["wan22-ti2v-5b"]
    found = fit(ti2v, usual_size(ti2v, "standard"), 25.8, "quality")
    assert not found.fits and "the GPU here has 26 GB" in found.note and "--profile low-memory" in found.note
    small = fit(catalogue.fetchable()["wan22-i2v-a14b"], (512, 288), 25.8, host_gb=16.0)
    assert not small.fits and "which has 16 GB" in small.note, "offloaded weights need the machine's memory"
    with pytest.raises(InvalidInput, match="no profile"):
        fit(ti2v, (640, 352), 24.0, "quickest")


def test_a_gpus_peak_is_known_by_its_name() -> None:
    told = ["NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA A10G", "NVIDIA GeForce RTX 4090", "NVIDIA RTX A4000"]
    known = ["H100 PCIe", "A100", "A10", "RTX 4090"]
    assert [peak_tflops(name) for name in told] == [*(TFLOPS[name] for name in known), UNKNOWN]


def test_a_plan_under_a_smaller_window_keeps_to_it_and_costs_what_its_windows_take(desk: Desk) -> None:
    card = catalogue.fetchable()["ltx-video-2b"]
    size = usual_size(card, "standard")
    found = fit(card, size, 11.0)
    body = three_stills(desk).model_copy(update={"model": card.id, "duration_s": 20.0})
    wide, narrow = (plan_montage(body, desk.media, own, "standard") for own in (card, fitted(card, found)))
    assert found.window is not None and found.window < card.window
    assert max(s.stop - s.window_start for s in narrow.segments) <= found.window
    assert len(narrow.segments) > len(wide.segments)

    def cost(switches: Switches, correction: float = 1.0, tflops: float = 100.0, **settings: Any) -> float:
        works = [Work.of(segment, card, RenderSettings(**settings)) for segment in narrow.segments]
        return estimate(narrow, Pace(card, "standard", size, switches, tflops, correction), works).seconds

    plain, unguided, delivery = cost(PLAIN), cost(PLAIN, guidance=1.0), narrow.slots * card.speed["standard_deliver"]
    assert plain - delivery == pytest.approx(2 * (unguided - delivery), rel=0.01), "guidance doubles every step"
    assert cost(Switches(offload="group"), tflops=1e4) > 2 * cost(PLAIN, tflops=1e4), "what is fetched takes its time"
    assert cost(PLAIN, 1.5) == pytest.approx(1.5 * plain, rel=0.01)


def test_takes_of_another_window_are_never_mixed_in(desk: Desk) -> None:
    body = three_stills(desk, (0.0, 2.0, 5.0)).model_copy(update={"duration_s": 5.0})
    whole = desk.render(body)
    small = desk.render(body, base=whole, window=7)
    assert len(small.segments) > len(whole.segments)
    assert all(s.stop - s.window_start <= 7 for s in small.segments)
    assert not any(s.reused for s in small.report.segments)
    assert {s.fingerprint for s in small.segments}.isdisjoint(s.fingerprint for s in whole.segments)
    assert all(a.stop == b.start for a, b in pairwise(small.segments))
    again = desk.render(body, base=small)
    assert all(s.reused for s in again.report.segments) and again.sha256 == whole.sha256
    assert (frames_of(again) == frames_of(whole)).all() and again.report.estimate is None


def test_a_report_tells_the_estimate_beside_what_was_measured(desk: Desk) -> None:
    report = desk.render(three_stills(desk, (0.0, 2.0, 5.0)).model_copy(update={"duration_s": 5.0}), takes=2).report
    checked = report.estimate
    assert checked is not None and checked.profile == "auto" and checked.memory_gb is None
    assert [time.start_s for time in checked.segments] == [s.start_s for s in report.segments]
    assert all(time.measured_s > 0 and time.estimate_s > 0 for time in checked.segments)
    denoised = sum(time.measured_s for time in checked.segments)
    assert denoised == pytest.approx(report.timing.denoise_s, abs=0.01)
    assert checked.measured_s == pytest.approx(report.timing.denoise_s + report.timing.decode_s, abs=0.01)
    assert checked.measured_gb == pytest.approx(report.peak_memory_bytes / 1e9, abs=0.01)


def checked(seconds: float, measured_s: float, correction: float = 1.0, **more: Any) -> EstimateReport:
    """A checked estimate, of a profile and memory where they are named."""
    return EstimateReport(
        **{"profile": "auto", "memory_gb": None, "measured_gb": 1.0, "segments": [], **more}, seconds=seconds,
        low_s=0.6 * seconds, high_s=1.8 * seconds, correction=correction, measured_s=measured_s,
    )  # fmt: skip


def test_only_an_estimate_that_was_wrong_is_noted() -> None:
    assert unforeseen(checked(100, 150, memory_gb=20.0, measured_gb=22.0), 12.0) == []
    assert unforeseen(checked(1, 9), 12.0) == [], "seconds do not matter"
    (slow,) = unforeseen(checked(100, 200), 12.0)
    assert "took 200 s; 60 to 180 s had been estimated" in slow.what and slow.severity == "info"
    (large,) = unforeseen(checked(100, 100, memory_gb=20.0, measured_gb=23.5), 12.0)
    assert "23.5 GB of GPU memory; 20.0 GB" in large.what and "--profile low-memory" in large.suggestion


def test_estimates_learn_from_the_last_videos_of_the_same_kind(studio: Studio) -> None:
    def finished(number: int, told: EstimateReport | None, quality: Quality = "draft") -> None:
        report = slow_renderer.blank_report(2.0).model_copy(update={"estimate": told})
        studio.add_video(Video(
            id=f"v_{number}", montage_id="m_1", revision=1, quality=quality, path="", sheet="", report=report, bytes=1,
            sha256="",
        ))  # fmt: skip

    studio.create_montage(Montage(id="m_1", duration_s=2.0, model="nano"))
    assert studio.lesson("nano", "draft", "auto") == 1.0
    kinds: list[tuple[EstimateReport | None, Quality]] = [
        (checked(100, 5000), "draft"),  # pushed out by five later ones
        *[(checked(100, 100 * ratio), "draft") for ratio in (1.0, 2.0, 3.0, 9.0)],
        (checked(300, 600, correction=2.0), "draft"),  # what was learned is not learned twice: 4, not 2
        (None, "draft"),
        (checked(100, 700), "standard"),
        (checked(100, 800, profile="fast"), "draft"),
    ]
    for number, (told, quality) in enumerate(kinds):
        finished(number, told, quality)
    assert studio.lesson("nano", "draft", "auto") == 3.0
    assert studio.lesson("nano", "standard", "auto") == 7.0 and studio.lesson("nano", "draft", "fast") == 8.0
    assert studio.lesson("other", "draft", "auto") == 1.0


@pytest.fixture
def nobody_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is started for what is queued."""
    for module in ("app", "tools.render"):
        monkeypatch.setattr(f"dreamontage.server.{module}.ensure_worker", lambda studio: False)


@pytest.mark.anyio
@pytest.mark.usefixtures("nobody_works")
async def test_an_agent_learns_what_was_chosen_and_the_job_pins_it(
    studio: Studio, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "gpus", lambda: (11.0,))
    monkeypatch.setattr(machine, "host_memory_gb", lambda: 64.0)
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path / "models"))
    async with Client(build_server(studio, roots=[tmp_path / "media"])) as client:
        agent, sources = Agent(client), [str(path) for path in pictures[:2]]
        plan = await agent.call("plan_montage", anchors=sources, duration_s=20, model="ltx-video-2b")
        assert "model='nano'" in plan["next"][-1], "nothing is offered that would be refused"
        missing = await agent.refused("render_segments", montage_id=plan["montage_id"], quality="standard")
        assert "dreamontage pull ltx-video-2b fetches them. Nothing was queued" in missing
        install(tmp_path / "models", catalogue.fetchable()["ltx-video-2b"])
        queued = await agent.call("render_segments", montage_id=plan["montage_id"], quality="standard")
        assert "group offload, slower" in " ".join(plan["warnings"])
        (note,) = (note for note in queued["notes"] if "fits a GPU" in note)
        job: Job = studio.job(queued["job_id"])
        assert job.request.switches == ladder("auto")[-1] and job.request.profile == "auto"
        assert f"windows of {job.request.window} slots instead of 16" in note and "8 bits" in note
        assert job.estimate is not None and job.estimate.memory_gb is not None and job.estimate.memory_gb < 11.0
        assert len(job.estimate.segment_s) == job.estimate.segments_to_render

        monkeypatch.setenv(machine.PROFILE, "low-memory")
        again = await agent.call("render_segments", montage_id=plan["montage_id"], quality="standard")
        assert again["job_id"] != queued["job_id"]
        assert studio.job(again["job_id"]).request.switches == ladder("low-memory")[0]

        models = {line["id"]: line for line in (await agent.call("list_models"))["models"]}
        assert "in tiles" in models["ltx-video-2b"]["here"] and models["nano"]["here"] == ""


@pytest.mark.anyio
@pytest.mark.usefixtures("nobody_works")
async def test_a_render_that_cannot_fit_is_refused_when_it_is_asked_for(
    studio: Studio, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_driver", lambda: ((25.8, "NVIDIA GeForce RTX 4090"),))
    monkeypatch.setattr(machine, "host_memory_gb", lambda: 64.0)
    monkeypatch.setenv(machine.PROFILE, "quality")
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path / "models"))
    install(tmp_path / "models", catalogue.fetchable()["wan22-ti2v-5b"])
    async with Client(build_server(studio, roots=[tmp_path / "media"])) as client:
        agent, sources = Agent(client), [str(path) for path in pictures[:2]]
        made = await agent.call("plan_montage", anchors=sources, duration_s=6, model="wan22-ti2v-5b")
        asked = {"montage_id": made["montage_id"], "quality": "standard"}
        sentence = await agent.refused("render_segments", **asked)
        for part in ("--profile low-memory it would fit", "Nothing was queued", "draft, which fits", "model='nano'"):
            assert part in sentence
        assert not studio.jobs_wait()
        monkeypatch.setenv("DREAMONTAGE_DEVICES", "ray-1")
        queued = await agent.call("render_segments", **asked)
        assert catalogue.CLUSTER_GPU in " ".join(queued["notes"]), "the nodes may be larger than this machine"
        assert studio.job(queued["job_id"]).request.window is None
        monkeypatch.setenv(catalogue.CLUSTER_GPU, "24 RTX 4090")
        assert "the GPU here has 24 GB" in await agent.refused("render_segments", **asked)
        monkeypatch.setenv("DREAMONTAGE_DEVICES", "cpu")
        asked["quality"] = "draft"
        sentence = await agent.refused("render_segments", **asked)
        assert "there is no GPU here" in sentence and "draft, which fits" not in sentence
        await agent.call("render_segments", montage_id=made["montage_id"], quality="previz")


def test_the_command_line_asks_for_a_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "gpus", lambda: (25.8,))
    monkeypatch.setattr(machine, "host_memory_gb", lambda: 128.0)
    monkeypatch.setenv(machine.PROFILE, "auto")  # and so that it is as it was afterwards
    told = []
    for asked in ("auto", "fast,compile=off"):
        monkeypatch.setattr("sys.argv", ["dreamontage", "models", "--profile", asked])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        told.append(" ".join(capsys.readouterr().out.split()))
    assert "first-block cache" not in told[0] and "wan21-fun-inp-1.3b at 848x480 fits a GPU of 26 GB with" in told[0]
    assert "fits a GPU of 26 GB with the first-block cache at 0.05 and windows of 21 slots" in told[1]


def test_a_job_that_was_queued_before_there_were_profiles_still_reads() -> None:
    old = RenderRequest.model_validate_json('{"quality": "draft", "after": "hold", "takes": 1, "settings": {}}')
    assert (old.profile, old.switches, old.window) == ("auto", None, None)
