"""Models under switches: what is exact gives the same bytes, what is not stays near and is named in every take."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from desk import Desk
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from safetensors.torch import save_file
from tiny_families import save_tiny_ltx, save_tiny_ti2v, save_tiny_vace
from tiny_model import picture
from tiny_wan import save_tiny_wan
from torch import Tensor

from dreamontage.generator.conditioning.encoding import encode_video, pixels_to_tensor
from dreamontage.generator.decoding import StreamingDecoder, StreamingEncoder
from dreamontage.generator.engines.engine import execute
from dreamontage.generator.engines.job import SegmentJob
from dreamontage.generator.models import loading, wan_text
from dreamontage.generator.models.delivering import load_deliverer
from dreamontage.generator.models.family import Pin, Window, denoise
from dreamontage.generator.models.loading import load_model
from dreamontage.generator.models.ltx import LtxFamily
from dreamontage.generator.models.switching import check_switches, reader_under, usable
from dreamontage.generator.models.ti2v import Ti2vFamily
from dreamontage.generator.models.vace import VaceFamily
from dreamontage.generator.models.wan import WanFamily
from dreamontage.generator.pipeline import NANO
from dreamontage.generator.sampling import Sampling
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput, RenderFailed
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Format, Montage
from dreamontage.schemas.profile import PLAIN, PROFILES, Switches, ladder

CPU = torch.device("cpu")
SIDE = 64


def save_two_experts(folder: Path) -> Path:
    """As Wan2.2-I2V-A14B, with a text encoder."""
    return save_tiny_wan(folder, text=True, boundary=0.9, experts=2)


FAMILIES: dict[str, tuple[Any, Callable[[Path], Path], int]] = {
    "wan": (WanFamily, save_two_experts, 8),
    "ti2v": (Ti2vFamily, save_tiny_ti2v, 16),
    "vace": (VaceFamily, save_tiny_vace, 8),
    "ltx": (LtxFamily, save_tiny_ltx, 32),
}
NEAR: dict[str, tuple[Switches, float]] = {
    "fp8": (Switches(storage="fp8"), 0.02),
    "int8": (Switches(quantise="int8"), 0.003),
    "attention": (Switches(attention="_native_math"), 1e-5),
    "tiles": (Switches(tiling=True), 0.0),
}
"""Switches that change numbers, and by how much of the latents' mean magnitude at most on random weights. A picture
that is smaller than a tile is the same in tiles."""


def card(family: str) -> ModelCard:
    return NANO.model_copy(update={"id": family, "family": family, "empty_condition": "grey", "condition": "padded"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp("models") / name) for name, (_, save, _) in FAMILIES.items()}


def under(folders: dict[str, Path], family: str, switches: Switches) -> Any:
    return FAMILIES[family][0].load(folders[family], card(family), CPU, torch.float32, switches)


def made(family: Any, *loras: str, guidance: float = 2.0) -> Tensor:
    """A window that begins with a picture, in four steps."""
    side = SIDE // FAMILIES[family.card.family][2]
    pins = [Pin(0, pixels_to_tensor(picture(1, (SIDE, SIDE))[None]))]
    window = Window(3, side, side, 16, pins, prompt="pan left forest", negative="forest")
    sampling = Sampling(steps=4, guidance=guidance, shift=3.0, loras=loras)
    family.learn([window.prompt, window.negative])
    return denoise(family.begin(window, sampling, torch.Generator().manual_seed(7))).own


def away(found: Tensor, plain: Tensor) -> float:
    assert found.isfinite().all()
    return float((found - plain).abs().mean() / plain.abs().mean())


def networks(family: Any) -> list[Any]:
    if family.card.family == "ltx":
        return [family.network]
    return [network for network in (family.experts.high, family.experts.low) if network is not None]


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, Tensor]:
    """What every family makes without switches."""
    return {name: made(under(folders, name, PLAIN)) for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_group_offload_gives_the_same_bytes_and_the_same_takes(
    folders: dict[str, Path], plain: dict[str, Tensor], name: str
) -> None:
    offloaded = under(folders, name, Switches(offload="group"))
    assert torch.equal(made(offloaded), plain[name])
    assert (offloaded.device, offloaded.computes) == (CPU, "torch.float32")


def test_a_text_encoder_that_was_offloaded_is_let_go_when_it_has_read(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers: list[weakref.ref[Any]] = []

    def watched(encoder: Any, device: torch.device, offload: bool) -> None:
        layers.extend(map(weakref.ref, encoder.modules()))
        reader_under(encoder, device, offload)

    monkeypatch.setattr(wan_text, "reader_under", watched)
    under(folders, "wan", Switches(offload="group")).learn(["forest"])
    assert layers and not any(layer() for layer in layers)


@pytest.mark.parametrize("switch", NEAR)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_switch_that_changes_numbers_stays_near_and_its_takes_are_others(
    folders: dict[str, Path], plain: dict[str, Tensor], name: str, switch: str
) -> None:
    switches, most = NEAR[switch]
    if switches.quantise != "none":
        pytest.importorskip("torchao", reason="quantisation is torchao's")
    family = under(folders, name, switches)
    far = away(made(family), plain[name])
    assert far <= most and (far > 0) == (switch in ("fp8", "int8", "attention"))
    assert {network.dtype for network in networks(family)} == {torch.float32}, "what it computes in, however it lies"
    assert family.computes == f"torch.float32 {switches.mark}" != "torch.float32 "


@pytest.mark.parametrize("name", ["wan", "ti2v", "ltx"])
def test_the_cache_leaves_out_blocks_that_would_say_the_same_and_forgets_with_the_window(
    folders: dict[str, Path], plain: dict[str, Tensor], name: str
) -> None:
    def counted(switches: Switches) -> tuple[Any, int, Tensor]:
        family, calls = under(folders, name, switches), 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        for network in networks(family):
            list(getattr(network, "transformer_blocks", None) or network.blocks)[-1].attn1.register_forward_hook(count)
        found = made(family)
        return family, calls, found

    _, all_of_them, same = counted(Switches(cache=1e-6))
    assert torch.equal(same, plain[name]) and all_of_them == 8
    family, some, near = counted(Switches(cache=0.5))
    assert some < all_of_them and 0 < away(near, plain[name]) < 0.1
    assert torch.equal(made(family), near), "nothing of the window before is left"
    _, fetched, same = counted(Switches(cache=0.5, offload="group"))
    assert torch.equal(same, near) and fetched == some


@pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated")
@pytest.mark.parametrize(
    "switches",
    [Switches(offload="group"), Switches(offload="group", storage="fp8"), Switches(offload="group", quantise="int8")],
    ids=["group", "fp8", "int8"],
)
def test_loras_come_and_go_on_an_offloaded_network_as_on_a_plain_one(
    folders: dict[str, Path], tmp_path: Path, switches: Switches
) -> None:
    if switches.quantise != "none":
        pytest.importorskip("torchao", reason="quantisation is torchao's")
    own = {"wan": shutil.copytree(folders["wan"], tmp_path / "wan")}
    weights = {
        f"transformer.blocks.0.ffn.net.2.lora_{side}.weight": torch.full(shape, 0.3)
        for side, shape in (("A", (4, 48)), ("B", (32, 4)))
    }
    (own["wan"] / "loras").mkdir()
    save_file(weights, own["wan"] / "loras" / "few.safetensors")
    expected = made(under(own, "wan", PLAIN), "few:0.5")
    family = under(own, "wan", switches)
    before, found, after = made(family), made(family, "few:0.5"), made(family)
    assert torch.equal(before, after) and away(found, expected) <= (0.01 if switches.mark else 0) < away(found, before)
    adapters = [value for key, value in family.experts.high.named_parameters() if ".lora_" in key]
    assert len(adapters) == 2 and all(torch.equal(value, torch.full_like(value, 0.3)) for value in adapters)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_give_the_same_to_rounding(folders: dict[str, Path]) -> None:
    expected = made(under(folders, "ti2v", PLAIN), guidance=1.0)
    assert away(made(under(folders, "ti2v", Switches(compile=True)), guidance=1.0), expected) < 1e-5


def test_an_attention_backend_stays_with_its_network(folders: dict[str, Path]) -> None:
    before = _AttentionBackendRegistry.get_active_backend()[0]
    family = under(folders, "wan", Switches(attention="_native_math"))
    backends = {block.attn1.processor._attention_backend for block in family.experts.high.blocks}
    assert backends == {AttentionBackendName._NATIVE_MATH}
    assert _AttentionBackendRegistry.get_active_backend()[0] == before


REFUSED = {
    "a small model's": ("nano", Switches(offload="group"), "runs as it is"),
    "two ways to lie": ("wan", Switches(storage="fp8", quantise="int8"), "both say"),
    "8 bits in compiled blocks": ("wan", Switches(storage="fp8", compile=True), "compiled anew"),
    "VACE's cache": ("vace", Switches(cache=0.05), "between its blocks"),
    "LTX-2's cache": ("ltx2", Switches(cache=0.05), "sound"),
    "no such backend": ("wan", Switches(attention="fast"), "no attention backend is called 'fast'"),
    "a backend without its package": ("wan", Switches(attention="xformers"), "not to be had here"),
    "4 bits on a CPU": ("wan", Switches(quantise="int4"), "NVIDIA"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_or_a_machine_cannot_have_is_refused_in_a_sentence(folders: dict[str, Path], case: str) -> None:
    family, switches, words = REFUSED[case]
    with pytest.raises(InvalidInput, match=words) as refusal:
        check_switches(card(family), switches)
        under(folders, family, switches)
    assert refusal.value.field == "profile" and (refusal.value.allowed or refusal.value.next_call)


def test_a_profile_gives_a_model_what_it_can_have_of_it() -> None:
    assert usable(card("wan"), ladder("fast")) == ladder("fast")
    assert usable(card("vace"), ladder("fast")) == (Switches(compile=True), Switches(offload="group"))
    small = [rung.model_copy(update={"quantise": "int8", "storage": "full"}) for rung in PROFILES["auto"]]
    assert usable(card("ti2v"), ladder("auto,quantise=int8")) == tuple(dict.fromkeys(small)), "not in 8 bits twice"
    for name in PROFILES:
        for family in ("wan", "ti2v", "vace", "ltx", "ltx2"):
            for switches in usable(card(family), ladder(f"{name},compile=on")):
                check_switches(card(family), switches)


@pytest.mark.parametrize(("name", "tile", "step"), [("wan", 32, 24), ("ti2v", 32, 16)])
def test_an_autoencoder_in_tiles_is_the_same_slot_by_slot_as_whole(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, tile: int, step: int
) -> None:
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(folders[name].parent))
    (folders[name] / "card.json").write_text(card(name).model_dump_json(exclude={"available"}))
    deliverer = load_deliverer(name, switches=Switches(tiling=True))
    vae, video = deliverer.vae, torch.rand(9, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    untiled = encode_video(vae, video.transpose(0, 1))
    vae.enable_tiling(tile, tile, step, step)
    whole = encode_video(vae, video.transpose(0, 1))
    stream = StreamingEncoder(vae)
    assert torch.equal(torch.cat([stream.next(video[:5]), stream.next(video[5:])], dim=1), whole)
    assert not torch.equal(whole, untiled)
    shape = (1, -1, 1, 1, 1)
    raw = whole[None] * torch.tensor(vae.config.latents_std).view(shape)
    with torch.no_grad():
        frames = vae.decode(raw + torch.tensor(vae.config.latents_mean).view(shape)).sample[0].transpose(0, 1)
    assert torch.equal(torch.cat(list(StreamingDecoder(vae).slots(whole))), frames)


def test_a_model_says_which_packages_it_lacks(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders["vace"], tmp_path / "vace")
    (folder / "card.json").write_text(card("vace").model_dump_json(exclude={"available"}))
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "transformers" else name)
    with pytest.raises(RenderFailed, match=r"vace needs transformers.*dreamontage\[models\]"):
        load_model(folder)


def test_a_renderer_under_other_switches_refuses_a_job(folders: dict[str, Path]) -> None:
    job = SegmentJob.of("ti2v", Window(3, 4, 4, 16), Sampling(2), 1, 0, "torch.float32")
    with pytest.raises(RenderFailed, match=r"ti2v in torch.float32, .* has ti2v in torch.float32 storage=fp8"):
        execute(under(folders, "ti2v", Switches(storage="fp8")), job)


def test_a_job_that_goes_on_under_other_switches_mixes_no_takes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folders["wan"], tmp_path / "models" / "wan")
    own = card("wan").model_copy(
        update={
            "fps": 8, "sizes": {"draft": {"16:9": (64, 32)}}, "window": 5, "overlap": 2, "shortest": 2,
            "settings": ["steps", "guidance", "shift", "guide", "t0"],
            "defaults": RenderSettings(steps=1, guidance=1.0, shift=3.0, guide="off"),
        }
    )  # fmt: skip
    (tmp_path / "models" / "wan" / "card.json").write_text(own.model_dump_json(exclude={"available"}))
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path / "models"))
    desk = Desk(tmp_path, tmp_path / "models" / "wan")
    anchors = [Anchor(id="a", media_id=desk.still(1), second=0)]
    shape = Format(width=256, height=144, fps=8)
    montage = Montage(id="m_1", format=shape, duration_s=3, model="wan", seed=3, anchors=anchors)

    def reused(switches: Switches) -> list[bool]:
        video = desk.render(montage, load=lambda name: load_model(name, "cpu", switches))
        return [segment.reused for segment in video.report.segments]

    assert reused(PLAIN) == [False, False]
    assert reused(Switches(storage="fp8")) == [False, False]
    assert reused(Switches(offload="group")) == [True, True], "of the plain takes: offload is exact"
