"""What a render takes of a device, estimated from the geometry of a model's networks before anything is loaded.

No torch. Weights on a device are bfloat16, the autoencoder is float32, attention is a fused kernel that keeps no square
matrix, and guidance runs its two passes one after the other. `dreamontage bench estimate` holds parameters, work and
memory against the real classes, which compute nothing there but count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dreamontage.schemas.models import ModelCard, Network
from dreamontage.schemas.profile import Switches

CONTEXT_GB: Final = 1.0
"""What the driver's context, the libraries' workspaces and rounding to blocks take beside tensors: an assumption."""
BESIDE: Final = 4
"""Slots of conditions that may stand beside a window as tokens of their own (two clips, four stills): an assumption."""
PREFETCHED: Final = 2
"""Blocks on the device under group offload: one that computes, one that is fetched meanwhile."""
TEXT_LAYER_GB: Final = 2.1
"""The largest layer of an offloaded text encoder, its table of words: 256 384 rows of 4096 numbers."""
BYTES: Final = {"none": 2.0, "int8": 1.05, "int4": 0.6}
"""Of a weight inside the blocks by quantisation, scales included; 8-bit storage takes one. What embeds stays whole."""
PICTURES_GB: Final = 2.5
"""CLIP's vision encoder (ViT-H) in float32, which stays in the machine's memory."""


@dataclass(frozen=True)
class Coder:
    """An autoencoder: parameters in billions, and bytes per pixel of a frame, all multiples of its channels at full
    resolution. `*_state`: what a stream keeps between slots; `*_work`: what the next slot takes beside it;
    `encode_frame`: for every frame of a video that is encoded at once; 0 for Wan's, which streams within.
    `tile`: pixels along the side of a tile, where it works in tiles."""

    billions: float
    decode_state: float
    decode_work: float
    encode_state: float
    encode_work: float
    encode_frame: float
    tile: int


CODERS: Final = {
    "wan-2.1": Coder(0.127, 9.6e3, 18.1e3, 5.8e3, 10.9e3, 0, 256),
    "wan-2.2": Coder(0.705, 7.3e3, 17.5e3, 2.5e3, 5.9e3, 0, 256),
    "ltx-0.9.5": Coder(1.247, 0.2e3, 7.0e3, 2.1e3, 2.6e3, 164, 512),
    "ltx-2": Coder(1.222, 0.2e3, 11.4e3, 2.1e3, 2.6e3, 164, 512),
}
OVERLAP: Final = 1.7
"""How many times tiles cover a picture: they overlap by a quarter of their side, in both directions."""
PER_TOKEN: Final = {"ti2v": 36, "ltx": 32, "ltx2": 56}
"""Families in which every token has a timestep of its own, and so its own six modulations: bytes of each of its
numbers, TI2V's once more in float32, LTX's with rotary positions over the whole width in float32, LTX-2's with five
more modulations towards sound."""


@dataclass(frozen=True)
class Footprint:
    """Gigabytes are 10⁹ bytes. `memory_gb`: of the device at the peak of the phases, which are reading the prompts,
    encoding conditions, a step, and delivery; `host_gb`: what waits in the machine's memory; `fetched_gb`: those
    that every pass fetches from there; `step_tflop`: work of one denoising step with guidance (two passes), in 10¹²
    floating-point operations."""

    text_gb: float
    encode_gb: float
    step_gb: float
    deliver_gb: float
    host_gb: float
    fetched_gb: float
    step_tflop: float

    @property
    def memory_gb(self) -> float:
        """Device memory in GB at the peak of a window and of its delivery."""
        return max(self.text_gb, self.encode_gb, self.step_gb, self.deliver_gb)


def footprint(card: ModelCard, size: tuple[int, int], slots: int, switches: Switches) -> Footprint:
    """What a window of so many slots takes at a size (width, height) in pixels. The card has a `network`."""
    network = card.network
    assert network is not None, f"{card.id} runs on a CPU"
    resident = CONTEXT_GB + CODERS[network.autoencoder].billions * 4
    kept, texts = weights_gb(network, switches), network.text_billions * 2
    at_work = fetched = 0.0
    waiting = parked_bytes(network, size) / 1e9 if switches.tiling else 0.0
    if switches.offload == "group":  # every block, and what embeds, comes for its turn; nothing stays
        blocks = network.layers + network.control_layers
        fetched, waiting = kept / network.experts, kept + max(texts, waiting)
        at_work = fetched * (PREFETCHED / blocks + embedding_parameters(network) / parameters(network))
        kept, texts = 0.0, TEXT_LAYER_GB
    resident += kept
    guided = 1 + ((card.defaults.guidance or 1) > 1)
    return Footprint(
        text_gb=resident + texts,
        encode_gb=resident + encode_bytes(card, network, size, slots, switches) / 1e9,
        step_gb=resident + at_work + step_bytes(card, network, size, slots, switches) / 1e9,
        deliver_gb=resident + deliver_bytes(card, network, size, switches) / 1e9,
        host_gb=waiting + (PICTURES_GB if network.picture_width else 0),
        fetched_gb=fetched,
        step_tflop=guided * pass_tflop(network, tokens(card, network, size, slots), card.family),
    )


def parameters(network: Network) -> float:
    """Parameters of one transformer: self-attention, cross-attention and feed-forward of every block (biases and norms
    are thousandths), and what embeds."""
    width = network.width
    block = (8 + 2 * bool(network.picture_width)) * width**2 + 2 * width * network.ffn
    sound = network.sound_width  # LTX-2's second stream: the same at its own width, and attention both ways
    block += 20 * sound**2 + 4 * sound * width
    control = network.control_layers * (block + width**2)
    return network.layers * block + control + embedding_parameters(network)


def embedding_parameters(network: Network) -> float:
    """Those outside the blocks: they embed time, text, pictures and patches."""
    width, patch = network.width, network.patch**2
    return width * (8 * width + network.text_width + network.picture_width + (network.channels + 16) * patch)


def tokens(card: ModelCard, network: Network, size: tuple[int, int], slots: int) -> int:
    """Tokens of a window, with those of conditions that LTX sets beside it."""
    side = card.scale * network.patch
    return (slots + (BESIDE if card.family.startswith("ltx") else 0)) * (size[0] // side) * (size[1] // side)


def weights_gb(network: Network, switches: Switches) -> float:
    """Of all transformers, wherever they lie."""
    each = 1.0 if switches.storage == "fp8" else BYTES[switches.quantise]
    outside = embedding_parameters(network)
    return network.experts * ((parameters(network) - outside) * each + outside * BYTES["none"]) / 1e9


def pass_tflop(network: Network, tokens: int, family: str) -> float:
    """Work of one pass, in 10¹²: a multiplication and an addition for every weight that a token meets, and for every
    pair of tokens in attention (scores and values)."""
    width, read = network.width, network.text_tokens + (257 if network.picture_width else 0)
    linear = 2 * tokens * (6 * width**2 + 2 * width * network.ffn + 4 * network.sound_width * width)
    linear += 2 * read * 2 * width**2
    block = linear + 4 * tokens * (tokens + read) * width
    control = network.control_layers * (block + 2 * tokens * width**2)
    times = 2 * tokens * 7 * width**2 if family in PER_TOKEN else 0
    return (network.layers * block + control + times) / 1e12


def step_bytes(card: ModelCard, network: Network, size: tuple[int, int], slots: int, switches: Switches) -> float:
    """What a pass keeps at its widest point, inside a block's feed-forward: the wide layer before and after its
    activation or three float32 copies that follow it, and five bfloat16 copies of the tokens."""
    width = network.width
    token = max(4 * network.ffn, 12 * width) + 10 * width
    token += 1024  # rotary positions, float32
    token += 2 * width * network.control_layers  # hints of every control block wait for the main blocks
    token += PER_TOKEN.get(card.family, 0) * width
    if switches.cache:
        token += 8 * width  # two residuals for each of the two passes
    cast = 2 * width * network.ffn if switches.storage == "fp8" else 0  # the layer that is cast for its turn
    return tokens(card, network, size, slots) * token + cast


def encode_bytes(card: ModelCard, network: Network, size: tuple[int, int], slots: int, switches: Switches) -> float:
    """What encoding a video as long as the window takes: Wan's families encode grey of that length, LTX a long clip."""
    coder, frames = CODERS[network.autoencoder], card.stride * (slots - 1) + 1
    work = max(coder.encode_state + coder.encode_work, coder.encode_frame * frames)
    return work * _shown(coder, size, switches) + 12 * frames * size[0] * size[1]


def deliver_bytes(card: ModelCard, network: Network, size: tuple[int, int], switches: Switches) -> float:
    """What delivery takes: the shot and its previz are decoded in step, after the previz was encoded by a few slots, so
    that three streams keep their state and one of them works. In tiles only one of one stream is on the device, with
    three times the frames of a chunk, and LTX's encoder, which streams whole."""
    coder, shown = CODERS[network.autoencoder], _shown(CODERS[network.autoencoder], size, switches)
    if switches.tiling:
        whole = 3 * 12 * 4 * card.stride + (coder.encode_state if coder.encode_frame else 0)
        return (coder.decode_state + coder.decode_work) * shown + whole * size[0] * size[1]
    return (2 * coder.decode_state + coder.decode_work + coder.encode_state) * shown


def parked_bytes(network: Network, size: tuple[int, int]) -> float:
    """What the tiles of three streams keep in the machine's memory; LTX's keep nothing."""
    coder = CODERS[network.autoencoder]
    return 0 if coder.encode_frame else OVERLAP * (2 * coder.decode_state + coder.encode_state) * size[0] * size[1]


def _shown(coder: Coder, size: tuple[int, int], switches: Switches) -> int:
    """Pixels that the autoencoder works on at once."""
    width, height = (min(side, coder.tile) if switches.tiling else side for side in size)
    return width * height
