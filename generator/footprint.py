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
BYTES: Final = {"none": 2.0, "int8": 1.05, "int4": 0.6}
"""Of a weight by quantisation, scales included."""
PICTURES_GB: Final = 2.5
"""CLIP's vision encoder (ViT-H) in float32, which stays in the machine's memory."""


@dataclass(frozen=True)
class Coder:
    """An autoencoder: parameters in billions, and bytes per pixel of a frame, all multiples of its channels at full
    resolution. `*_state`: what a stream keeps between slots; `*_work`: what the next slot takes beside it;
    `encode_frame`: for every frame of a video that is encoded at once (Wan's streams within, LTX's does not)."""

    billions: float
    decode_state: float
    decode_work: float
    encode_state: float
    encode_work: float
    encode_frame: float


CODERS: Final = {
    "wan-2.1": Coder(0.127, 9.6e3, 18.1e3, 5.8e3, 10.9e3, 12),
    "wan-2.2": Coder(0.705, 7.3e3, 17.5e3, 2.5e3, 5.9e3, 24),
    "ltx-0.9.5": Coder(1.247, 0.2e3, 7.0e3, 0, 0, 176),
    "ltx-2": Coder(1.247, 0.2e3, 7.0e3, 0, 0, 176),
}
TILE: Final = 256 * 256
"""Pixels of a tile where tiling is on."""
PER_TOKEN: Final = {"ti2v": 36, "ltx": 32, "ltx2": 32}
"""Families in which every token has a timestep of its own, and so its own six modulations: bytes of each of its
numbers, TI2V's once more in float32, LTX's with rotary positions over the whole width in float32."""


@dataclass(frozen=True)
class Footprint:
    """Gigabytes are 10⁹ bytes. `memory_gb`: of the device at the peak of the phases, which are reading the prompts,
    encoding conditions, a step, and delivery; `host_gb`: weights that wait in the machine's memory; `step_tflop`: work
    of one denoising step with guidance, in 10¹² floating-point operations."""

    text_gb: float
    encode_gb: float
    step_gb: float
    deliver_gb: float
    host_gb: float
    step_tflop: float

    @property
    def memory_gb(self) -> float:
        """Device memory in GB at the peak of a window and of its delivery."""
        return max(self.text_gb, self.encode_gb, self.step_gb, self.deliver_gb)


def footprint(card: ModelCard, size: tuple[int, int], slots: int, switches: Switches) -> Footprint:
    """What a window of so many slots takes at a size (width, height) in pixels. The card has a `network`."""
    network = card.network
    assert network is not None, f"{card.id} runs on a CPU"
    weights, waiting = weights_gb(network, switches)
    resident = CONTEXT_GB + weights + CODERS[network.autoencoder].billions * 4
    guided = 1 + ((card.defaults.guidance or 1) > 1)
    return Footprint(
        text_gb=resident + network.text_billions * 2,
        encode_gb=resident + encode_bytes(card, network, size, slots, switches) / 1e9,
        step_gb=resident + step_bytes(card, network, size, slots, switches) / 1e9,
        deliver_gb=resident + deliver_bytes(network, size, switches) / 1e9,
        host_gb=waiting + (PICTURES_GB if network.picture_width else 0),
        step_tflop=guided * pass_tflop(network, tokens(card, network, size, slots), card.family),
    )


def parameters(network: Network) -> float:
    """Parameters of one transformer: self-attention, cross-attention and feed-forward of every block (biases and norms
    are thousandths), then what embeds time, text, pictures and patches."""
    width, pictures = network.width, network.picture_width
    block = (8 + 2 * bool(pictures)) * width**2 + 2 * width * network.ffn
    control = network.control_layers * (block + width**2)
    embeddings = width * (8 * width + network.text_width + pictures + (network.channels + 16) * network.patch**2)
    return network.layers * block + control + embeddings


def tokens(card: ModelCard, network: Network, size: tuple[int, int], slots: int) -> int:
    """Tokens of a window, with those of conditions that LTX sets beside it."""
    side = card.scale * network.patch
    return (slots + (BESIDE if card.family.startswith("ltx") else 0)) * (size[0] // side) * (size[1] // side)


def weights_gb(network: Network, switches: Switches) -> tuple[float, float]:
    """Of all transformers: gigabytes on the device between steps, and those that wait in the machine's memory."""
    each = 1.0 if switches.storage == "fp8" else BYTES[switches.quantise]
    whole = network.experts * parameters(network) * each / 1e9
    if switches.offload == "none":
        return whole, 0.0
    return PREFETCHED * whole / (network.layers + network.control_layers) / network.experts, whole


def pass_tflop(network: Network, tokens: int, family: str) -> float:
    """Work of one pass, in 10¹²: a multiplication and an addition for every weight that a token meets, and for every
    pair of tokens in attention (scores and values)."""
    width, read = network.width, network.text_tokens + (257 if network.picture_width else 0)
    linear = 2 * tokens * (6 * width**2 + 2 * width * network.ffn) + 2 * read * 2 * width**2
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
    return tokens(card, network, size, slots) * token


def encode_bytes(card: ModelCard, network: Network, size: tuple[int, int], slots: int, switches: Switches) -> float:
    """What encoding a video as long as the window takes: Wan's families encode grey of that length, LTX a long clip."""
    coder, frames = CODERS[network.autoencoder], card.stride * (slots - 1) + 1
    work = (coder.encode_state + coder.encode_work) * _shown(size, switches)
    return work + coder.encode_frame * frames * size[0] * size[1]


def deliver_bytes(network: Network, size: tuple[int, int], switches: Switches) -> float:
    """What delivery takes: the shot and its previz are decoded in step, after the previz was encoded by a few slots, so
    that three streams keep their state and one of them works."""
    coder = CODERS[network.autoencoder]
    return (2 * coder.decode_state + coder.decode_work + coder.encode_state) * _shown(size, switches)


def _shown(size: tuple[int, int], switches: Switches) -> int:
    """Pixels that the autoencoder works on at once."""
    return min(size[0] * size[1], TILE) if switches.tiling else size[0] * size[1]
