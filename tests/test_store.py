"""The studio keeps what many agents and processes write at once, and loses nothing when one of them dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Conflict, InvalidInput, NotFound, StudioFull
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage
from dreamontage.server.quotas import Quotas
from dreamontage.server.store import Studio, new_id


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio(tmp_path / "studio", tmp_path / "out") as opened:
        yield opened


def new_montage(studio: Studio) -> Montage:
    return studio.create_montage(Montage(id=new_id("m"), duration_s=6, brief="A walk by the lake"))


def with_anchor(anchor_id: str, second: float) -> Callable[[Montage], Montage]:
    anchor = Anchor(id=anchor_id, media_id="img_0", second=second)
    return lambda montage: montage.model_copy(update={"anchors": [*montage.anchors, anchor]})


def media_for(data: bytes) -> Media:
    digest = hashlib.sha256(data).hexdigest()
    return Media(
        id=f"img_{digest[:16]}", sha256=digest, kind="still", container="PNG", width=64, height=48, bytes=len(data)
    )


def child(script: str, *arguments: object, **options: object) -> subprocess.Popen[bytes]:
    """A real process that runs `script`."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def ended_well(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()


FORKED = """
import os, sys
from dreamontage.schemas.montage import Montage
from dreamontage.server.store import Studio

def edit(studio, number):
    for _ in range(30):
        studio.edit_montage("m_shared", "count", {}, lambda m: m.model_copy(update={"seed": m.seed + 1}))

def create(studio, number):
    studio.create_montage(Montage(id=f"m_{number}", duration_s=1))

def work(number):
    os.read(start, 1)  # returns at the end of the pipe, in all processes at once
    with Studio(sys.argv[1]) as studio:
        globals()[sys.argv[2]](studio, number)

start, held = os.pipe()
children = []
for number in range(8):
    if (child := os.fork()) == 0:
        os.close(held)
        work(number)
        os._exit(0)  # an exception leaves with 1 and a traceback
    children.append(child)
os.close(held)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
"""


def test_eight_processes_that_read_modify_and_write_lose_nothing_and_see_no_lock(studio: Studio) -> None:
    studio.create_montage(Montage(id="m_shared", duration_s=6))
    ended_well(child(FORKED, studio.folder, "edit"))
    stored = studio.get_montage("m_shared")
    assert (stored.seed, stored.revision) == (240, 241)
    assert [event.revision for event in studio.events(stored.id, limit=1000)] == list(range(1, 242))


def test_eight_processes_that_open_a_new_studio_at_once_all_find_it_ready(tmp_path: Path) -> None:
    ended_well(child(FORKED, tmp_path / "new", "create"))
    with Studio(tmp_path / "new") as studio:
        assert {montage.id for montage in studio.list_montages()} == {f"m_{number}" for number in range(8)}


def test_two_agents_that_add_different_anchors_both_succeed(studio: Studio) -> None:
    montage = new_montage(studio)
    start = threading.Barrier(2)

    def add(anchor_id: str, second: float) -> None:
        seen = studio.get_montage(montage.id)
        start.wait()
        assert seen.anchors == []
        studio.edit_montage(montage.id, "add_anchors", {"id": anchor_id}, with_anchor(anchor_id, second), anchor_id)

    agents = [threading.Thread(target=add, args=pair) for pair in (("a1", 1.0), ("a2", 2.0))]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()
    stored = studio.get_montage(montage.id)
    assert [anchor.second for anchor in stored.anchors] == [1.0, 2.0]
    assert stored.revision == 3
    assert {event.actor for event in studio.changes(montage.id, since_revision=1)} == {"a1", "a2"}


def test_a_change_that_raises_leaves_everything_as_it_was(studio: Studio) -> None:
    montage = new_montage(studio)
    events = studio.events()

    def broken(current: Montage) -> Montage:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        studio.edit_montage(montage.id, "edit", {}, broken)
    with pytest.raises(InvalidInput, match="duration_s"):
        studio.edit_montage(montage.id, "edit", {}, lambda m: m.model_copy(update={"duration_s": -1.0}))
    assert studio.get_montage(montage.id) == montage
    assert studio.events() == events


def test_an_edit_on_an_outdated_revision_is_told_what_changed_since(studio: Studio) -> None:
    montage = new_montage(studio)
    studio.edit_montage(montage.id, "add_anchors", {"id": "a7"}, with_anchor("a7", 1), actor="ada")


    def moved(current: Montage) -> Montage:
        return current.model_copy(update={"anchors": [a.model_copy(update={"second": 3.0}) for a in current.anchors]})

    with pytest.raises(Conflict, match=r"ada changed a7 in revision 2, .*\"second\": 1") as conflict:
        studio.edit_montage(montage.id, "update_anchors", {}, moved, if_revision=1)
    assert conflict.value.next_call and montage.id in conflict.value.next_call
    assert studio.edit_montage(montage.id, "add_anchors", {}, with_anchor("a8", 2), if_revision=1).revision == 3
    assert studio.edit_montage(montage.id, "update_anchors", {}, moved, if_revision=3).revision == 4


def test_an_edit_that_changes_nothing_makes_no_revision(studio: Studio) -> None:
    montage = new_montage(studio)
    assert studio.edit_montage(montage.id, "edit", {}, lambda m: m) == montage
    assert len(studio.events(montage.id)) == 1


def test_every_revision_can_still_be_read(studio: Studio) -> None:
    montage = new_montage(studio)
    studio.edit_montage(montage.id, "add_anchors", {}, with_anchor("a1", 1))
    assert studio.get_montage(montage.id, 1) == montage
    assert [anchor.id for anchor in studio.get_montage(montage.id, 2).anchors] == ["a1"]
    with pytest.raises(NotFound, match="1 to 2"):
        studio.get_montage(montage.id, 3)


def test_the_montage_edited_last_is_listed_first(studio: Studio) -> None:
    first, second = new_montage(studio), new_montage(studio)
    assert [montage.id for montage in studio.list_montages()] == [second.id, first.id]
    studio.edit_montage(first.id, "add_anchors", {}, with_anchor("a1", 1))
    assert [montage.id for montage in studio.list_montages(limit=1)] == [first.id]
    after = (studio.edited_at(first.id), first.id)
    assert [montage.id for montage in studio.list_montages(after=after)] == [second.id]


def test_an_unknown_id_is_answered_with_the_nearest_one_and_the_list_call(studio: Studio) -> None:
    montage = new_montage(studio)
    misspelt = montage.id[:-1] + "x"
    with pytest.raises(NotFound, match=f"near: {montage.id}.*list_montages"):
        studio.get_montage(misspelt)
    with pytest.raises(NotFound, match=f"near: {montage.id}"):
        studio.edit_montage(misspelt, "edit", {}, lambda m: m)
    for call in (studio.media, studio.job, studio.video, studio.cancel, studio.blob_path):
        with pytest.raises(NotFound, match="none exists yet"):
            call("nothing")


def test_a_full_database_changes_nothing_and_says_so(studio: Studio) -> None:
    montage = new_montage(studio)
    with studio.db.read() as connection:  # the same connection serves the edits below
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 4}")

    def longer(current: Montage) -> Montage:
        return current.model_copy(update={"brief": f"{current.revision:1000}"})

    with pytest.raises(StudioFull, match="nothing was changed"):
        for _ in range(100):
            montage = studio.edit_montage(montage.id, "edit", {}, longer)
    assert montage.revision > 1
    assert studio.get_montage(montage.id) == montage


def test_the_same_bytes_are_the_same_media(studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "lake.png"
    picture.write_bytes(b"water" * 1000)
    media = media_for(picture.read_bytes())
    assert studio.media_by_hash(media.sha256) is None
    assert studio.add_media(media, picture) == media
    assert studio.add_media(media.model_copy(update={"id": "img_other", "name": "copy.png"}), picture) == media
    assert studio.media(media.id) == studio.media_by_hash(media.sha256) == media
    assert studio.blob_path(media.id).read_bytes() == picture.read_bytes()
    assert [event.op for event in studio.events()] == ["add_media"]


def test_a_staged_copy_that_is_not_added_vanishes(studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "lake.png"
    picture.write_bytes(b"water" * 1000)
    with picture.open("rb") as file, studio.stage(file) as staged:
        assert staged.path.read_bytes() == picture.read_bytes()
        assert (staged.sha256, staged.bytes) == (media_for(picture.read_bytes()).sha256, 5000)
    with picture.open("rb") as file, pytest.raises(InvalidInput, match="4999"), studio.stage(file, max_bytes=4999):
        pass
    with pytest.raises(InvalidInput, match="sha256"):
        studio.add_media(media_for(b"something else"), picture)
    assert list((studio.folder / "blobs").iterdir()) == []


FILL_THE_DISK = """
import resource, signal, sys
from pathlib import Path
from dreamontage.schemas.errors import StudioFull
from dreamontage.server.store import Studio
with Studio(sys.argv[1]) as studio:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        with open(sys.argv[2], "rb") as file, studio.stage(file):
            pass
    except StudioFull as error:
        assert "filled up" in str(error)
    else:
        raise AssertionError("the copy fitted")
"""


def test_a_disk_that_fills_up_in_mid_copy_leaves_no_partial_file(studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "large.png"
    picture.write_bytes(b"x" * 50_000)
    ended_well(child(FILL_THE_DISK, studio.folder, picture))
    assert list((studio.folder / "blobs").iterdir()) == []
    assert studio.events() == []


def test_nothing_is_taken_in_below_the_floor_of_free_space(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio, "quotas", Quotas(keep_free_bytes=1 << 60))
    with open(os.devnull, "rb") as file, pytest.raises(StudioFull, match="MiB are free"), studio.stage(file):
        pass


DIE_BETWEEN_FILE_AND_ROW = """
import os, sys
from pathlib import Path
from dreamontage.schemas.media import Media
from dreamontage.server.store import Studio
studio = Studio(sys.argv[1])
studio.db.write = lambda: os._exit(0)
studio.add_media(Media.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
os._exit(1)
"""


def test_a_crash_between_file_and_row_leaves_no_row_without_a_file(studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "lake.png"
    picture.write_bytes(b"water" * 1000)
    media = media_for(picture.read_bytes())
    ended_well(child(DIE_BETWEEN_FILE_AND_ROW, studio.folder, media.model_dump_json(), picture))
    assert [path.name for path in (studio.folder / "blobs").iterdir()] == [media.sha256]
    assert studio.media_by_hash(media.sha256) is None
    assert studio.add_media(media, picture) == media
    assert studio.blob_path(media.id).is_file()


def test_of_many_media_all_are_kept_or_none(studio: Studio, tmp_path: Path) -> None:
    first, second = media_for(b"water"), media_for(b"stone")
    clash = second.model_copy(update={"id": first.id})
    with contextlib.ExitStack() as staged:
        items = []
        for media, data in ((first, b"water"), (clash, b"stone")):
            (tmp_path / "file").write_bytes(data)
            file = staged.enter_context((tmp_path / "file").open("rb"))
            items.append((media, staged.enter_context(studio.stage(file))))
        with pytest.raises(Exception, match="UNIQUE"):
            studio.add_all_media(items)
    assert studio.media_by_hash(first.sha256) is None
    assert studio.events() == []


STAGE_STANDARD_INPUT = """
import sys
from dreamontage.server.store import Studio
with Studio(sys.argv[1]) as studio, studio.stage(sys.stdin.buffer) as staged:
    pass
"""


def test_a_copy_that_was_killed_is_swept_and_what_is_named_stays(studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "lake.png"
    picture.write_bytes(b"water")
    media = studio.add_media(media_for(b"water"), picture)
    killed = child(STAGE_STANDARD_INPUT, studio.folder, stdin=subprocess.PIPE)
    assert killed.stdin is not None
    killed.stdin.write(b"x" * (1 << 17))  # twice what a pipe holds: returns when the copy has begun
    killed.stdin.flush()
    killed.kill()
    killed.communicate()
    blobs = studio.folder / "blobs"
    assert len(list(blobs.iterdir())) == 2
    assert studio.sweep() == 0  # too young: it could still be in the making
    assert studio.sweep(older_than_s=-1) == 1
    assert list(blobs.iterdir()) == [studio.blob_path(media.id)]


def test_the_folder_is_private_and_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMONTAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DREAMONTAGE_OUT", str(tmp_path / "films"))
    with Studio() as studio:
        assert (studio.folder, studio.out) == (tmp_path / "home", tmp_path / "films")
        assert stat.S_IMODE(studio.folder.stat().st_mode) == 0o700
        assert studio.takes.is_dir() and studio.inbox.is_dir()
        assert not studio.out.exists()


def test_a_studio_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="DREAMONTAGE_HOME"):
        Studio(tmp_path / "file" / "studio")
    with Studio(tmp_path / "newer") as studio, studio.db.write() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InvalidInput, match="newer version"):
        Studio(tmp_path / "newer")


def test_the_store_and_the_starter_of_workers_import_no_torch() -> None:
    script = (
        "import sys, dreamontage.server.store, dreamontage.server.worker;"
        "assert not {'torch', 'diffusers', 'mcp', 'sqlite_utils'} & set(sys.modules), sorted(sys.modules)"
    )
    ended_well(child(script))
