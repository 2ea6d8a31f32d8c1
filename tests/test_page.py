"""The page: to look at for who may read, alive while a job runs, deaf to what montages say; seen by a real browser."""

from __future__ import annotations

import base64
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import slow_renderer
from PIL import Image
from serving import served

from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.montage import Beat, Camera, Montage
from dreamontage.server.http import http_app
from dreamontage.server.media.ingest import take_in_all
from dreamontage.server.page import invitation as invitations
from dreamontage.server.page.invitation import Invitation
from dreamontage.server.page.routes import FILES
from dreamontage.server.store import Studio, new_id
from dreamontage.server.worker import Worker

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "a-token-for-tests-only"
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
NASTY = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
WAIT_MS = 40_000


@pytest.fixture
def montage(studio: Studio, pictures: list[Path], clip: Path) -> Montage:
    """Two stills and a clip with two beats, one second and a half long; its words are markup."""
    media = take_in_all(studio, [str(path) for path in (pictures[2], clip, pictures[3])], (clip.parent,), "files")
    anchors = [
        Anchor(id="a1", media_id=media[0].id, second=0, label=NASTY[:80], by="ada"),
        Anchor(id="a2", media_id=media[1].id, second=0.5, in_s=1, out_s=1.3),
        Anchor(id="a3", media_id=media[2].id, second=1.5, label="Dandelions"),
    ]
    beats = [
        Beat(id="b1", start_s=0, end_s=0.5, prompt="slow pan left", camera=Camera(move="pan", direction="left")),
        Beat(id="b2", start_s=0.8, end_s=1.5, prompt=NASTY),
    ]
    made = Montage(id=new_id("m"), brief=NASTY, duration_s=1.5, anchors=anchors, beats=beats)
    return studio.create_montage(made)


@pytest.fixture
def invitation(studio: Studio) -> Invitation:
    return Invitation(studio)


@pytest.fixture
def url(studio: Studio, invitation: Invitation) -> Iterator[str]:
    with served(http_app(studio, TOKEN, invitation=invitation)) as address:
        yield address


@pytest.fixture
def reader(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no browser here; on Debian: apt-get install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    unconfined = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox cannot be set up by root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--disable-gpu", *unconfined])
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A tab that must not complain: no script error, no violation of the page's own policy, no failed load.

    It is closed before the server at `url`, which it asks every second.
    """
    complaints: list[str] = []
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(WAIT_MS)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield tab
    tab.close()
    expected = "401 (Unauthorized)"  # the answer to a wrong token
    assert [complaint for complaint in complaints if expected not in complaint] == []


def until(true: Callable[[], Any], what: str) -> None:
    """Wait until something is true of a page, which may not evaluate strings by itself."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not true():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.05)


def test_the_pages_files_are_open_and_forbid_everything_they_do_not_need(url: str) -> None:
    with httpx2.Client(base_url=url) as stranger:
        for path in FILES:
            answer = stranger.get(path)
            assert answer.status_code == 200, path
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in str(policy) and policy["require-trusted-types-for"] == "'script'"
            assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", ""), "nothing comes from afar"
            assert stranger.post(path).status_code == 401


def test_a_studio_is_shown_to_those_who_may_read_it_only(url: str, montage: Montage, studio: Studio) -> None:
    addresses = [f"/page/api/montages{rest}" for rest in ("", f"/{montage.id}", f"/{montage.id}/pulse")]
    with httpx2.Client(base_url=url) as client:
        for address in [*addresses, f"/page/api/montages/{montage.id}/thumbnails"]:
            assert client.get(address).status_code == 401
            assert client.get(address, headers={"Authorization": "Bearer wrong"}).status_code == 401
        late = studio.add_token("late", {"read"}, expires_at=time.time() - 1)
        looking = studio.add_token("looker", {"read"})
        for token, status in ((late, 401), (looking, 200)):
            for address in addresses:
                answer = client.get(address, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == status
                assert status == 401 or answer.headers["cache-control"] == "no-store"


def test_what_is_shown_is_what_is_stored_and_planned(reader: httpx2.Client, montage: Montage, studio: Studio) -> None:
    (line,) = reader.get("/page/api/montages").json()["montages"]
    assert (line["id"], line["anchors"], line["revision"]) == (montage.id, 3, 1)
    view = reader.get(f"/page/api/montages/{montage.id}").json()
    assert [(a["id"], a["kind"]) for a in view["plan"]["anchors"]] == [("a1", "still"), ("a2", "clip"), ("a3", "still")]
    clip = view["plan"]["anchors"][1]
    assert clip["start_s"] == 0.5 and clip["end_s"] == pytest.approx(0.5 + 4 / 24)
    assert view["plan"]["segments"][0]["start_s"] == 0
    assert view["plan"]["segments"][-1]["end_s"] == pytest.approx(view["plan"]["duration_s"])
    assert view["beats"][0]["camera"] == "pan left" and view["video"] is None and view["jobs"] == []
    assert [change["revision"] for change in view["changes"]] == [1]
    painted = studio.create_montage(montage.model_copy(update={"id": new_id("m"), "model": "wan22-ti2v-5b"}))
    sizes = [reader.get(f"/page/api/montages/{m.id}").json()["montage"]["size"] for m in (montage, painted)]
    assert sizes == ["512x288", "1280x704"], "the size of the video, which may be its model's own"
    missing = reader.get("/page/api/montages/m_000000000000")
    assert missing.status_code == 404 and montage.id in missing.json()["error"]


def test_every_medium_gets_a_small_picture_drawn_once(reader: httpx2.Client, montage: Montage, studio: Studio) -> None:
    address = f"/page/api/montages/{montage.id}/thumbnails"
    drawn = reader.get(address).json()["thumbnails"]
    assert set(drawn) == {anchor.media_id for anchor in montage.anchors}
    for picture in drawn.values():
        kind, _, data = picture.partition(",")
        assert kind == "data:image/jpeg;base64" and len(data) < 40_000
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (224, 126)
    for anchor in montage.anchors:
        studio.blob_path(anchor.media_id).unlink()
    assert reader.get(address).json()["thumbnails"] == drawn, "kept, so that no file is decoded twice"


def test_an_invitation_is_worth_one_look(
    url: str, invitation: Invitation, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _, code = invitation.link(url).partition("#code=")
    with httpx2.Client(base_url=address) as client:
        for wrong in ("", "x" * 32, code[:-1], "é" * 90, "x" * 1_000):
            assert client.post("/page/session", content=wrong).status_code in (403, 413)
        token = client.post("/page/session", content=code).json()["token"]
        assert client.post("/page/session", content=code).status_code == 403, "it opens once"
        who = studio.actor_of_token(token)
        assert who is not None and who.scopes == {"read"}
        (stored,) = (known for known in studio.tokens() if known.actor == who.name)
        assert stored.expires_at is not None and stored.expires_at - time.time() <= 12 * 3600
    late = Invitation(studio)
    now = time.monotonic() + invitations.CODE_TTL_S + 1
    monkeypatch.setattr(invitations, "time", SimpleNamespace(monotonic=lambda: now))  # the server's own clock runs on
    assert late.redeem(late.link("").partition("#code=")[2]) is None


def test_a_browser_shows_the_montage_plays_its_video_and_takes_words_as_words(
    page: Page, url: str, invitation: Invitation, studio: Studio, montage: Montage, tmp_path: Path
) -> None:
    studio.enqueue(montage, RenderRequest(quality="previz"), None)
    Worker(studio, idle_exit_s=0).run()
    page.goto(invitation.link(url))
    page.wait_for_selector("#report figure")
    assert page.url == f"{url}/", "the code is gone from the address"
    assert page.title() == "Dreamontage" and page.locator("#studio script, #studio img").count() == 0
    assert page.locator("#name").inner_text() == NASTY[:80]
    assert page.locator("#timeline .anchor").count() == 3
    assert page.locator("#timeline .anchor image").count() == 3
    assert page.locator("#timeline .beat-bar").count() == 2
    assert page.locator("#timeline .segment").count() >= 1
    assert page.locator("#report figure").count() == 4
    assert "on time" in page.locator("#report").inner_text()
    until(lambda: page.evaluate("document.getElementById('video').currentTime") > 0.2, "the video plays")
    page.evaluate("document.getElementById('video').pause()")
    ruler, head = page.locator("#timeline svg"), page.locator("#timeline .head")
    box = ruler.bounding_box()
    assert box is not None

    def at() -> tuple[float, float]:
        shown = page.evaluate("document.getElementById('video').currentTime"), head.get_attribute("x1")
        return round(shown[0], 1), round(float(shown[1] or 0), -2)

    for x, second in ((0, 0.0), (500, 0.8)):  # of 37 frames at 24 fps, on a drawing 1000 wide
        ruler.click(position={"x": x / 1000 * box["width"] + 1, "y": 5})
        until(partial(lambda wanted: at() == wanted, (second, x)), "a click seeks, and the playhead follows")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as seen:
        assert len(seen.convert("RGB").getcolors(seen.width * seen.height) or []) > 5_000, "pictures are on it"


def test_a_browser_follows_a_job_and_the_edits_of_others(
    page: Page, url: str, studio: Studio, montage: Montage
) -> None:
    page.goto(url)
    page.locator("#token").fill("wrong")
    page.locator("#door button").click()
    page.wait_for_selector("#door:visible >> text=not valid")
    page.locator("#token").fill(TOKEN)
    page.locator("#door button").click()
    page.wait_for_selector("#timeline .anchor")
    job = studio.enqueue(montage, RenderRequest(), None)
    working = threading.Thread(target=Worker(studio, render=slow_renderer.render, idle_exit_s=0).run)
    working.start()
    try:
        for done in range(1, slow_renderer.SEGMENTS):
            slow_renderer.open_gates(studio, done)
            page.wait_for_selector(f"#jobs [data-id={job.id}] progress[value='{done}']")
        studio.edit_montage(
            montage.id, "edit", {}, lambda m: m.model_copy(update={"anchors": m.anchors[:2], "title": "Shorter"}), "bob"
        )
        page.wait_for_selector("#name >> text=Shorter")
        assert page.locator("#timeline .anchor").count() == 2
        assert "bob, revision 2: " in page.locator("#changes").inner_text()
    finally:
        slow_renderer.open_gates(studio, slow_renderer.SEGMENTS)
        working.join()
    page.wait_for_selector(f"#jobs [data-id={job.id}].done")
    page.wait_for_selector("#age >> text=draft of revision 1; the montage is at revision 2 by now.")
    page.locator("#leave").click()
    page.wait_for_selector("#door:visible")
    assert page.evaluate("sessionStorage.length") == 0
