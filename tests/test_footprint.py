"""What a model takes of a device, from the geometry that its card holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dreamontage.generator.footprint import CODERS, footprint, parameters, weights_gb
from dreamontage.generator.models import catalogue
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches

CARDS = {name: card for name, card in catalogue.fetchable().items() if card.network is not None}
PUBLISHED = {
    "wan21-fun-inp-1.3b": 1.56, "wan21-i2v-14b": 16.4, "wan22-i2v-a14b": 14.3, "wan21-vace-1.3b": 2.15,
    "wan21-vace-14b": 17.3, "wan22-ti2v-5b": 5.0, "ltx-video-2b": 1.92, "ltx-2-19b": 18.9,
}  # fmt: skip
"""Parameters of a transformer in billions, as counted on the published checkpoints' configurations."""


def standard(card: ModelCard) -> tuple[int, int]:
    """The model's own large size."""
    return card.sizes["standard"]["16:9"]


def test_every_model_that_can_be_fetched_says_its_geometry() -> None:
    assert set(CARDS) == set(catalogue.fetchable()) and catalogue.card("nano").network is None


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_the_geometry_gives_the_published_number_of_parameters(name: str, billions: float) -> None:
    network = CARDS[name].network
    assert network is not None
    assert parameters(network) / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize("name", CARDS)
def test_more_slots_and_pixels_take_more_memory_and_more_work(name: str) -> None:
    card = CARDS[name]
    width, height = standard(card)
    whole = footprint(card, (width, height), card.window, PLAIN)
    shorter = footprint(card, (width, height), card.window // 2, PLAIN)
    smaller = footprint(card, card.sizes["draft"]["16:9"], card.window, PLAIN)
    for less in (shorter, smaller):
        assert less.step_gb < whole.step_gb and less.encode_gb < whole.encode_gb
        assert less.step_tflop < whole.step_tflop / 2 * 1.3
    assert smaller.deliver_gb < whole.deliver_gb and shorter.deliver_gb == whole.deliver_gb


@pytest.mark.parametrize("name", CARDS)
def test_what_a_switch_takes_off_the_device_waits_in_the_machine(name: str) -> None:
    card, size = CARDS[name], standard(CARDS[name])
    plain = footprint(card, size, card.window, PLAIN)
    offloaded = footprint(card, size, card.window, Switches(offload="group"))
    tiled = footprint(card, size, card.window, Switches(tiling=True))
    network = card.network
    assert network is not None
    assert offloaded.memory_gb < plain.memory_gb and offloaded.host_gb - plain.host_gb > weights_gb(network, PLAIN)
    assert offloaded.fetched_gb == pytest.approx(weights_gb(network, PLAIN) / network.experts)
    assert tiled.deliver_gb < plain.deliver_gb and tiled.host_gb >= plain.host_gb
    assert (tiled.step_gb, offloaded.step_tflop) == (plain.step_gb, plain.step_tflop)
    for smaller in (Switches(storage="fp8"), Switches(quantise="int8"), Switches(quantise="int4")):
        assert footprint(card, size, card.window, smaller).text_gb < plain.text_gb


def test_a_decoding_stream_in_tiles_still_keeps_every_tile_somewhere() -> None:
    card = CARDS["wan22-ti2v-5b"]
    size, coder = standard(card), CODERS["wan-2.2"]
    waiting = footprint(card, size, card.window, Switches(tiling=True)).host_gb
    assert waiting > (2 * coder.decode_state + coder.encode_state) * size[0] * size[1] / 1e9


def test_guidance_is_a_second_pass_of_the_same_work() -> None:
    card = CARDS["wan21-fun-inp-1.3b"]
    alone = card.model_copy(update={"defaults": card.defaults.model_copy(update={"guidance": 1.0})})
    guided, once = (footprint(one, standard(card), card.window, PLAIN) for one in (card, alone))
    assert guided.step_tflop == 2 * once.step_tflop and guided.memory_gb == once.memory_gb


def test_estimates_need_no_torch() -> None:
    code = "import sys, dreamontage.generator.footprint; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"
