"""LoRAs by name: fetched for a model, put on its experts, used with the settings they were made for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from desk import Desk
from diffusers import WanImageToVideoPipeline, WanVACETransformer3DModel
from safetensors.torch import load_file, save_file
from test_wan import CARD, ours, window
from tiny_families import save_tiny_vace
from tiny_wan import save_tiny_wan
from typer.testing import CliRunner

from dreamontage.generator.models import catalogue
from dreamontage.generator.models.adapters import Adapters
from dreamontage.generator.models.family import denoise
from dreamontage.generator.models.loading import load_model
from dreamontage.generator.models.pulling import FolderStore, pull_lora
from dreamontage.generator.models.wan import WanFamily
from dreamontage.generator.sampling import Sampling
from dreamontage.generator.takes import Takes
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput, NotFound
from dreamontage.schemas.models import Lora, RenderSettings, WeightsSource
from dreamontage.schemas.montage import Format, Montage
from dreamontage.server.cli import app

CPU = torch.device("cpu")
FILES = ["few/high_noise_model.safetensors", "few/low_noise_model.safetensors"]
FEW = Lora(
    summary="Two steps.",
    source=WeightsSource(repository="someone/few", revision="main", files=FILES),
    settings=RenderSettings(steps=2, guidance=1.0, shift=5.0),
)
FREE = Lora(
    summary="Pictures anywhere.",
    source=WeightsSource(repository="someone/free", revision="main", files=["free.safetensors"]),
    weight=0.5, must_accept=True, licence="Kind", forbids="no harm",
)  # fmt: skip


def original(seed: int, prefix: str = "diffusion_model.") -> dict[str, torch.Tensor]:
    """A LoRA of rank 4 on the tiny transformer, in the layout that Wan's LoRAs are given out in."""
    random = torch.Generator().manual_seed(seed)
    layers = [f"blocks.{block}.{layer}" for block in range(2) for layer in ("self_attn.q", "cross_attn.v", "ffn.0")]
    shapes = {"down": lambda out: (4, 32), "up": lambda out: (out, 4)}
    state = {
        f"{prefix}{layer}.lora_{side}.weight": 0.3 * torch.randn(shape(48 if "ffn" in layer else 32), generator=random)
        for layer in layers
        for side, shape in shapes.items()
    }
    # Few-step LoRAs shift biases and norms, too; diffusers takes the first and leaves the second.
    biases = {f"{prefix}{layer}.diff_b": torch.full((48 if "ffn" in layer else 32,), 0.01) for layer in layers}
    return state | biases | {f"{prefix}blocks.0.norm3.diff": torch.zeros(32)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories as folders."""
    root = tmp_path_factory.mktemp("shelf")
    for seed, path in enumerate((*(f"few/{file}" for file in FILES), "free/free.safetensors")):
        (root / "someone" / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(original(seed, "" if "free" in path else "diffusion_model."), root / "someone" / path)
    return root


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_wan(tmp_path_factory.mktemp("models") / "a14b", text=True, boundary=0.9, experts=2)
    card = CARD.model_copy(
        update={
            "id": "a14b", "condition": "apart", "fps": 8, "sizes": {"draft": {"16:9": (128, 64)}}, "window": 5,
            "overlap": 2, "shortest": 2, "settings": ["steps", "guidance", "shift", "guide", "t0", "loras"],
            "known_loras": {"few": FEW, "free": FREE},
            "defaults": RenderSettings(steps=3, guidance=2.0, shift=4.0, guide="off"),
        }
    )  # fmt: skip
    (folder / "card.json").write_text(card.model_dump_json(exclude={"available"}))
    return folder


@pytest.fixture
def a14b(experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, installed; no LoRA beside it yet."""
    shutil.copytree(experts, tmp_path / "models" / "a14b")
    monkeypatch.setenv("DREAMONTAGE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / "a14b"


def test_a_lora_of_two_files_is_fetched_by_name_and_is_one(a14b: Path, shelf: Path) -> None:
    card = catalogue.card("a14b")
    with pytest.raises(InvalidInput, match=r"not on this machine.*dreamontage pull a14b --lora few"):
        card.check({"loras": ["few:0.9"]})
    told: list[tuple[str, int, int]] = []
    half = a14b / "loras" / ".few.part" / FILES[0]
    half.parent.mkdir(parents=True)
    half.write_bytes((shelf / "someone" / "few" / FILES[0]).read_bytes()[:500])
    path = pull_lora(card, "few", FolderStore(shelf), lambda *one: told.append(one))
    assert path == pull_lora(card, "few", FolderStore(shelf), lambda *one: pytest.fail("fetched twice"))
    assert sorted(file.name for file in path.parent.iterdir()) == ["few.low.safetensors", "few.safetensors"]
    for file, there in zip(FILES, ("few", "few.low"), strict=True):
        assert (path.parent / f"{there}.safetensors").read_bytes() == (shelf / "someone/few" / file).read_bytes()
    assert told[-1][1] == told[-1][2] == sum(file.stat().st_size for file in path.parent.iterdir())
    card = catalogue.card("a14b")
    assert card.loras == ["few"]
    card.check({"loras": ["few:0.9"]})
    assert catalogue.lora_hash("a14b", "few").count("+") == 1


def test_a_loras_licence_is_asked_for_and_the_command_line_fetches_it(a14b: Path, shelf: Path) -> None:
    card = catalogue.card("a14b")
    with pytest.raises(InvalidInput, match=r"Kind: no harm.*--lora free --accept"):
        pull_lora(card, "free", FolderStore(shelf), lambda *one: None)
    with pytest.raises(NotFound, match=r"few, free"):
        pull_lora(card, "fewer", FolderStore(shelf), lambda *one: None)
    shown = CliRunner().invoke(app, ["models"])
    assert "dreamontage pull a14b --lora free" in " ".join(shown.output.split())
    far = CliRunner().invoke(app, ["pull", "wan22-i2v-a14b", "--lora", "lightning", "--from", str(shelf)])
    assert far.exit_code == 1 and "dreamontage pull wan22-i2v-a14b fetches them" in " ".join(far.output.split())


def test_a_loras_own_settings_stand_where_none_are_named(a14b: Path) -> None:
    card = catalogue.card("a14b")
    few = card.resolve(RenderSettings(loras=["few"]))
    assert (few.steps, few.guidance, few.shift, few.loras) == (2, 1.0, 5.0, ["few"])
    named = card.resolve(RenderSettings(loras=["free", "few:0.8"], steps=7))
    assert (named.steps, named.guidance, named.loras) == (7, 1.0, ["free:0.5", "few:0.8"])
    plain = card.resolve(RenderSettings())
    assert (plain.steps, plain.guidance, plain.loras) == (3, 2.0, None)
    assert card.resolve(RenderSettings(loras=["mine"])).loras == ["mine"]


def test_each_expert_gets_its_part_as_in_diffusers_own_pipeline(a14b: Path, shelf: Path) -> None:
    pull_lora(catalogue.card("a14b"), "few", FolderStore(shelf), lambda *one: None)
    family = WanFamily.load(a14b, CARD, CPU, torch.float32)
    plain = ours(family, True, 1.0, 5.0)
    sampling = Sampling(steps=4, shift=5.0, loras=("few",))
    mine = denoise(family.begin(window(True), sampling, torch.Generator().manual_seed(7))).latents
    pipe: Any = WanImageToVideoPipeline.from_pretrained(a14b, dtype=torch.float32)
    pipe.load_lora_weights(str(shelf / "someone/few" / FILES[0]), adapter_name="few")
    pipe.load_lora_weights(str(shelf / "someone/few" / FILES[1]), adapter_name="few", load_into_transformer_2=True)
    high, low = (dict(network.named_parameters()) for network in (pipe.transformer, pipe.transformer_2))
    for network, theirs in ((family.experts.high, high), (family.experts.low, low)):
        own = {name: value for name, value in network.named_parameters() if "lora" in name}
        assert len(own) == 18 and all(torch.equal(value, theirs[name]) for name, value in own.items())
    assert (mine - plain).abs().max() > 1e-3
    # The same in the layout without a prefix, on the first expert alone.
    assert "blocks.0.self_attn.q.lora_down.weight" in load_file(shelf / "someone/free/free.safetensors")
    pull_lora(catalogue.card("a14b"), "free", FolderStore(shelf), lambda *one: None, accepted=True)
    family.adapters.use(["free:0.5"])
    assert "free" in family.experts.high.peft_config and "free" not in family.experts.low.peft_config


def test_loras_on_a_loaded_model_are_what_their_files_hold_now_and_nothing_is_left_of_a_refusal(a14b: Path) -> None:
    def made(family: WanFamily, *loras: str) -> torch.Tensor:
        sampling = Sampling(steps=2, shift=5.0, loras=loras)
        return denoise(family.begin(window(True), sampling, torch.Generator().manual_seed(7))).latents

    (a14b / "loras").mkdir()
    save_file(original(1), a14b / "loras" / "mine.safetensors")
    family = WanFamily.load(a14b, CARD, CPU, torch.float32)
    plain = made(family)
    with pytest.raises(InvalidInput, match="the LoRA other is not installed"):
        made(family, "mine", "other")
    assert torch.equal(made(family), plain)
    first = made(family, "mine")
    save_file(original(2), a14b / "loras" / "mine.safetensors")
    second = made(family, "mine")
    assert not torch.equal(first, second)
    assert torch.equal(second, made(WanFamily.load(a14b, CARD, CPU, torch.float32), "mine"))


@pytest.mark.parametrize("stranger", ["another size", "other layers"])
def test_a_lora_of_another_model_is_refused_with_a_sentence_and_leaves_nothing(a14b: Path, stranger: str) -> None:
    state = original(3)
    if stranger == "another size":
        state = {key: torch.cat([value, value]) if "up" in key else value for key, value in state.items()}
    else:
        state = {f"transformer.te.{side}.weight": torch.zeros(4, 4) for side in ("lora_A", "lora_B")}
    (a14b / "loras").mkdir()
    save_file(state, a14b / "loras" / "stranger.safetensors")
    adapters = WanFamily.load(a14b, CARD, CPU, torch.float32).adapters
    with pytest.raises(InvalidInput, match="the LoRA stranger does not fit this model"):
        adapters.use(["stranger"])
    adapters.use([])


def test_a_text_to_video_lora_goes_on_the_main_blocks_of_a_vace_model(a14b: Path, shelf: Path, tmp_path: Path) -> None:
    network = WanVACETransformer3DModel.from_pretrained(save_tiny_vace(tmp_path / "vace") / "transformer")
    pull_lora(catalogue.card("a14b"), "few", FolderStore(shelf), lambda *one: None)
    Adapters(a14b / "loras", [network]).use(["few"])
    on = {name.split(".")[0] for name, _ in network.named_parameters() if "lora" in name}
    assert on == {"blocks"}


def test_a_render_with_a_few_step_lora_takes_its_steps_and_says_so_in_its_takes(
    a14b: Path, shelf: Path, tmp_path: Path
) -> None:
    pull_lora(catalogue.card("a14b"), "few", FolderStore(shelf), lambda *one: None)
    desk = Desk(tmp_path, a14b)
    montage = Montage(
        id="m_few", model="a14b", duration_s=1, format=Format(width=256, height=144, fps=8),
        anchors=[Anchor(id=f"a{n}", media_id=desk.still(n), second=n) for n in (0, 1)],
    )  # fmt: skip
    family = load_model("a14b")
    plain = desk.render(montage, load=lambda name: family)
    few = desk.render(montage, load=lambda name: family, settings=RenderSettings(loras=["few"]))
    assert plain.segments[0].fingerprint != few.segments[0].fingerprint
    found = Takes(desk.folder / "takes").load(few.segments[0].fingerprint)
    assert found is not None
    kept = RenderSettings.model_validate(found[1]["settings"])
    assert (kept.steps, kept.guidance, kept.shift, kept.loras) == (2, 1.0, 5.0, ["few"])
    assert few.segments[0].settings == RenderSettings(loras=["few"])
