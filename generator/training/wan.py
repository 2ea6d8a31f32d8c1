"""Wan-layout checkpoints as a base for tuning: what a folder must hold, its own numbers, and its networks.

A base is a diffusers folder as `WanImageToVideoPipeline.save_pretrained` writes it: transformer/ of 16 noise + 4 mask +
16 condition channels, vae/ and scheduler/; text_encoder/ and tokenizer/ where it reads text (models/wan_text.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from dreamontage.generator.conditioning.encoding import normalise
from dreamontage.generator.models.transformer import IN_CHANNELS, LATENT_CHANNELS, PiecewiseAttention
from dreamontage.generator.models.wan_autoencoder import WanAutoencoder
from dreamontage.generator.numbers import number_type
from dreamontage.schemas.errors import InvalidInput

IMAGE_TOKENS = 257
"""Tokens of one picture as Wan 2.1's image encoder gives them."""
LAYOUT = "a folder as diffusers' WanImageToVideoPipeline.save_pretrained writes it, with transformer/, vae/, scheduler/"


@dataclass(frozen=True)
class WanFacts:
    """A base's own numbers.

    `shift`: its scheduler's time shift. `boundary`: flow time below which its second expert takes over, 0 where it has
    one. `image_dim`, `images`: width and number of the picture embeddings that its transformer attends to, or None, 0.
    """

    folder: Path
    shift: float
    boundary: float
    text_dim: int
    image_dim: int | None
    images: int

    @property
    def reads_text(self) -> bool:
        """Whether a text encoder is part of the folder."""
        return (self.folder / "text_encoder" / "config.json").is_file() and (self.folder / "tokenizer").is_dir()

    def remarks(self) -> list[str]:
        """What a user should know before training on it, one sentence each."""
        said = []
        if not self.reads_text:
            said.append("No text encoder in the base: all windows are trained with an empty prompt (zeros).")
        if self.images:
            said.append("The base attends to picture embeddings: they are zeros here, conditions come by channel only.")
        if self.boundary:
            said.append(f"The base has two experts: transformer/ is tuned, on flow times from {self.boundary:g} to 1.")
        return said


def read_facts(folder: Path) -> WanFacts:
    """Check a base and read its numbers; no weights are loaded. Raises InvalidInput."""
    network, coder = (_config(folder, part) for part in ("transformer", "vae"))
    for part, config, name in (
        ("transformer", network, "WanTransformer3DModel"),
        ("vae", coder, "AutoencoderKLWan"),
    ):
        if config["_class_name"] != name:
            raise _wrong(f"{part}/ of {folder.name} is a {config['_class_name']}, not a {name}", LAYOUT)
    channels = network["in_channels"], network["out_channels"]
    if channels != (IN_CHANNELS, LATENT_CHANNELS):
        raise _wrong(
            f"the transformer of {folder.name} takes {channels[0]} channels and gives {channels[1]}",
            f"{IN_CHANNELS} in ({LATENT_CHANNELS} noise, 4 mask, {LATENT_CHANNELS} condition: Wan image-to-video or "
            f"Fun-InP) and {LATENT_CHANNELS} out; text-to-video, VACE and TI2V-5B checkpoints cannot be used",
        )
    scales = coder["z_dim"], coder.get("scale_factor_temporal", 4), coder.get("scale_factor_spatial", 8)
    if scales != (LATENT_CHANNELS, 4, 8):
        raise _wrong(f"the autoencoder of {folder.name} has (channels, time, space) {scales}", "(16, 4, 8)")
    index, steps = _json(folder / "model_index.json"), _config(folder, "scheduler")
    return WanFacts(
        folder=folder,
        shift=float(steps.get("flow_shift") or steps.get("shift") or 1.0),
        boundary=float(index.get("boundary_ratio") or 0.0),
        text_dim=network["text_dim"],
        image_dim=network.get("image_dim"),
        images=0 if network.get("image_dim") is None else 1 if network.get("pos_embed_seq_len") is None else 2,
    )


def _wrong(problem: str, allowed: str) -> InvalidInput:
    return InvalidInput(problem, field="base", allowed=allowed)


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _config(folder: Path, part: str) -> dict[str, Any]:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    if not (folder / part / name).is_file():
        raise _wrong(f"{folder.name} is no Wan-layout checkpoint: {part}/{name} is missing", LAYOUT)
    return _json(folder / part / name)


class WanBackbone(WanTransformer3DModel):
    """Wan's transformer, called as nano's is: picture embeddings that it attends to are zeros where none are given.

    Input [B,36,T,h,w], timestep [B] in 0..1000, text [B,512,text_dim]; output: the flow velocity [B,16,T,h,w].
    """

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The velocity; arguments and results as in `WanTransformer3DModel.forward`."""
        text, config = encoder_hidden_states.to(hidden_states.device), self.config
        if config["image_dim"] is not None and encoder_hidden_states_image is None:
            images = len(text) * (1 if config["pos_embed_seq_len"] is None else 2)
            encoder_hidden_states_image = text.new_zeros(images, IMAGE_TOKENS, config["image_dim"])
        return super().forward(hidden_states, timestep, text, encoder_hidden_states_image, **kwargs)


def load_transformer(facts: WanFacts, device: torch.device, bf16: bool = True) -> WanBackbone:
    """The base's (first) transformer, frozen: in bfloat16 where the device is fast at it, else in float32."""
    fast = bf16 and number_type(device) == torch.bfloat16
    model = WanBackbone.from_pretrained(
        facts.folder / "transformer", torch_dtype=torch.bfloat16 if fast else torch.float32
    )
    if not fast:
        model.set_attn_processor(PiecewiseAttention())  # type: ignore[no-untyped-call]
    loaded: WanBackbone = model.requires_grad_(False).to(device)
    return loaded


def load_vae(facts: WanFacts, device: torch.device) -> WanAutoencoder:
    """The base's autoencoder in float32, frozen."""
    model = WanAutoencoder.from_pretrained(facts.folder / "vae", torch_dtype=torch.float32)
    loaded: WanAutoencoder = model.requires_grad_(False).eval().to(device)
    return loaded


@torch.no_grad()
def posterior(vae: WanAutoencoder, video: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance [16,1+m,h,w] of the normalised latents of float [3,1+4m,H,W] in -1..1, encoded alone."""
    found = vae.encode(video[None].to(vae.device)).latent_dist
    scale = found.mean.new_tensor(vae.config["latents_std"]).log().view(-1, 1, 1, 1)
    return normalise(vae, found.mean[0]), found.logvar[0] - 2 * scale


def grey(vae: WanAutoencoder, slots: int, height: int, width: int) -> Tensor:
    """What an empty window [16,n,h,w] holds on Wan: the encoding of grey frames, not zeros."""
    return posterior(vae, torch.zeros(3, 4 * slots - 3, 8 * height, 8 * width))[0]
