"""The catalogue of models: what can be fetched, fetching it, and what model=auto takes."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from agent import Agent
from desk import install
from mcp import Client

from dreamontage.generator import machine
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.pulling import FolderStore, HubStore, pull
from dreamontage.schemas.errors import DreamontageError, InvalidInput, StudioFull
from dreamontage.schemas.models import WeightsSource
from dreamontage.server.app import build_server
from dreamontage.server.store import Studio

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = {
    "model_index.json": b"{}",
    "transformer/config.json": b'{"_class_name": "WanTransformer3DModel"}',
    "transformer/weights.safetensors": bytes(range(256)) * 4096,
    "vae/config.json": b"{}",
    "README.md": b"not wanted",
}
CARD = catalogue.fetchable()["wan22-i2v-a14b"].model_copy(
    update={
        "id": "far",
        "sources": [
            WeightsSource(repository="some/one", revision=COMMIT, files=["model_index.json", "transformer/*", "vae/*"])
        ],
    }
)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching files needs; `broken` cuts the next download short."""

    broken = False
    served: list[tuple[str, str | None]]
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None: ...

    def _head(self, path: str, size: int, status: int = 200, **more: str) -> None:
        self.send_response(status)
        content = CONTENT[path]
        for name, value in {
            "Content-Length": str(size), "X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes", **more,
        }.items():  # fmt: skip
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_HEAD(self) -> None:
        path = self.path.partition(f"/resolve/{COMMIT}/")[2]
        self._head(path, len(CONTENT[path]))

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/some/one"):
            files = [
                {"rfilename": path, "size": len(content), "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1,
                } if path.endswith(".safetensors") else None}
                for path, content in CONTENT.items()
            ]  # fmt: skip
            body = json.dumps({"id": "some/one", "sha": COMMIT, "siblings": files}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        path = self.path.partition(f"/resolve/{COMMIT}/")[2]
        asked = self.headers.get("Range")
        type(self).served.append((path, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        content = CONTENT[path][start:]
        span = f"bytes {start}-{len(CONTENT[path]) - 1}/{len(CONTENT[path])}"
        self._head(path, len(content), 206 if asked else 200, **({"Content_Range": span} if asked else {}))
        if Hub.broken and len(content) > 100_000:
            Hub.broken = False
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[HubStore]:
    Hub.broken, Hub.served = False, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield HubStore(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_fetched_from_the_hub_whole_with_its_card_and_nothing_else(hub: HubStore, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = pull(CARD, hub, lambda *told: seen.append(told), folder=tmp_path)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(CONTENT) - {"README.md"} | {"card.json"}
    assert all((folder / path).read_bytes() == CONTENT[path] for path in found - {"card.json"})
    assert catalogue.read_card(folder) == CARD.model_copy(update={"available": True})
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen) and seen[-1][1] == seen[-1][2]
    served = len(Hub.served)
    assert pull(CARD, hub, lambda *told: None, folder=tmp_path) == folder and len(Hub.served) == served


def test_a_pull_that_broke_leaves_no_model_and_goes_on_from_there(hub: HubStore, tmp_path: Path) -> None:
    root = tmp_path / "store" / "some" / "one"
    for path, content in CONTENT.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    large = "transformer/weights.safetensors"
    half = tmp_path / "models" / ".far.part" / large
    half.parent.mkdir(parents=True)
    half.write_bytes(CONTENT[large][:300_000])
    folder = pull(CARD, FolderStore(tmp_path / "store"), lambda *told: None, folder=tmp_path / "models")
    assert (folder / large).read_bytes() == CONTENT[large]
    Hub.broken = True
    folder = pull(CARD, hub, lambda *told: None, folder=tmp_path / "others")
    assert (folder / large).read_bytes() == CONTENT[large]
    assert len([path for path, _ in Hub.served if path == large]) == 2


def test_damaged_files_are_refused_and_fetched_again(
    hub: HubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "transformer/weights.safetensors"
    true = hashlib.sha256(CONTENT[name]).hexdigest()
    listed = [
        file if file.path != name else type(file)(name, file.bytes, "0" * 64) for file in hub.files(CARD.sources[0])
    ]
    assert {file.sha256 for file in hub.files(CARD.sources[0])} == {None, true}
    with monkeypatch.context() as patch:
        patch.setattr(HubStore, "files", lambda self, source: listed)
        with pytest.raises(DreamontageError, match="damaged"):
            pull(CARD, hub, lambda *told: None, folder=tmp_path)
    assert not (tmp_path / "far").exists()
    assert (pull(CARD, hub, lambda *told: None, folder=tmp_path) / name).read_bytes() == CONTENT[name]


def test_a_licence_that_must_be_accepted_and_a_full_disk_stop_a_pull_before_it_begins(
    hub: HubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = CARD.model_copy(update={"must_accept": True, "forbids": "no use above 10 M$ revenue"})
    with pytest.raises(InvalidInput, match="10 M") as refused:
        pull(strict, hub, lambda *told: None, folder=tmp_path)
    assert "--accept" in str(refused.value)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(StudioFull, match="disk"):
        pull(strict, hub, lambda *told: None, accepted=True, folder=tmp_path)
    assert Hub.served == []


def test_auto_takes_the_best_installed_model_that_fits_and_names_a_better_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path))
    monkeypatch.setattr(machine, "host_memory_gb", lambda: 128.0)

    def chosen(*gpus: float) -> tuple[str, str]:
        monkeypatch.setattr(catalogue, "gpus", lambda: gpus)
        card, note = machine.choose()
        return card.id, note

    assert chosen() == ("nano", "")
    here, note = chosen(25.8)
    assert here == "nano" and "dreamontage pull wan22-i2v-a14b" in note and "(group offload, slower)" in note
    monkeypatch.setenv(machine.PROFILE, "quality,offload=none")
    here, note = chosen(40.0)
    assert here == "nano" and "dreamontage pull wan22-ti2v-5b" in note, "what fits is a question of the profile"
    install(tmp_path, catalogue.fetchable()["wan21-fun-inp-1.3b"])
    here, note = chosen(17.5)
    assert (here, note) == ("wan21-fun-inp-1.3b", "")
    here, note = chosen(141.0)
    assert here == "wan21-fun-inp-1.3b" and "dreamontage pull wan22-i2v-a14b" in note
    assert chosen()[0] == "nano"


def test_a_studio_without_a_gpu_plans_for_the_gpus_of_the_ray_cluster_that_it_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path))
    monkeypatch.setattr(catalogue, "_driver", lambda: ())
    install(tmp_path, catalogue.fetchable()["wan22-i2v-a14b"])
    monkeypatch.setenv("DREAMONTAGE_CLUSTER_GPU", "80 NVIDIA H100")
    assert machine.choose()[0].id == "nano", "nothing is rendered on a cluster"
    monkeypatch.setenv("DREAMONTAGE_DEVICES", "ray-1,ray-2")
    assert (catalogue.gpu_memory_gb(), catalogue.gpu_names()) == (80.0, ("NVIDIA H100",))
    assert machine.choose()[0].id == "wan22-i2v-a14b"
    assert machine.tflops() == machine.SHARE * 989
    monkeypatch.setenv("DREAMONTAGE_CLUSTER_GPU", "0")
    assert machine.choose()[0].id == "nano"
    monkeypatch.setenv("DREAMONTAGE_CLUSTER_GPU", "eighty")
    with pytest.raises(InvalidInput, match=r"'eighty' is no memory.*80 H100"):
        machine.choose()
    monkeypatch.delenv("DREAMONTAGE_CLUSTER_GPU")
    monkeypatch.setattr(catalogue, "_driver", lambda: ((141.0, "NVIDIA H200"),))
    assert catalogue.gpu_memory_gb() == 141.0, "the nodes are taken to be like this machine"


def test_every_model_of_the_catalogue_and_its_loras_names_a_revision_a_licence_and_what_it_needs() -> None:
    for card in catalogue.fetchable().values():
        assert card.licence and card.licence_url and card.network and card.fps and card.summary
        assert card.window - card.overlap >= 2 * card.shortest
        sources = [*card.sources, *(lora.source for lora in card.known_loras.values())]
        assert all(len(source.revision) == 40 or source.revision == "main" for source in sources)
        assert all(len(lora.source.files) <= 2 and lora.licence_url for lora in card.known_loras.values())
        assert all(lora.forbids or not lora.must_accept for lora in card.known_loras.values())
        assert all(set(card.sizes[quality]) == {"16:9", "9:16", "1:1"} for quality in ("draft", "standard"))
        assert all(w % 16 == h % 16 == 0 for sizes in card.sizes.values() for w, h in sizes.values())
        card.check(card.defaults.model_dump(exclude_none=True))


def test_without_a_connection_one_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(DreamontageError, match=r"connection broke.*goes on") as broken:
        pull(CARD, HubStore("http://127.0.0.1:9"), lambda *told: None, folder=tmp_path)
    assert "Traceback" not in str(broken.value)


@pytest.mark.anyio
async def test_an_agent_plans_with_a_model_that_is_not_here_and_learns_what_it_takes(
    studio: Studio, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(catalogue, "gpus", lambda: ())
    async with Client(build_server(studio, roots=[tmp_path / "media"])) as client:
        agent, sources = Agent(client), [str(path) for path in pictures[:2]]
        plan = await agent.call("plan_montage", anchors=sources, duration_s=4, model="wan21-fun-inp-1.3b")
        assert plan["model"] == "wan21-fun-inp-1.3b" and (plan["size"], plan["fps"]) == ("512x288", 24)
        told = " ".join(plan["warnings"])
        assert "dreamontage pull wan21-fun-inp-1.3b" in told and "16 GB" in told
        assert "The video is 512x288, the size of its model." in told and "renders at 16 fps" in told
        assert (await agent.call("plan_montage", anchors=sources, duration_s=4))["model"] == "nano"
        models = {model["id"]: model for model in (await agent.call("list_models"))["models"]}
        assert models["wan21-fun-inp-1.3b"]["get"] == "dreamontage pull wan21-fun-inp-1.3b"
        assert models["nano"]["available"] and models["nano"]["get"] == ""
