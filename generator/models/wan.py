"""Wan image-to-video: Wan2.2-I2V-A14B (two experts), Wan2.1-I2V-14B (attends to the opening picture), Wan2.1-Fun-InP.

The network reads 16 noise + 4 mask + 16 condition channels. By the card's `condition` what is known is either encoded
piece by piece and put at its slots among encoded grey ("apart": any stills and clips at any slots), or written to one
grey video that is encoded whole ("padded": as the weights were trained and as diffusers' own pipeline does).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from dreamontage.generator.conditioning import Assembled, assemble
from dreamontage.generator.conditioning.encoding import encode_video
from dreamontage.generator.conditioning.window import LAST_FRAME, WHOLE
from dreamontage.generator.decoding import to_pixels
from dreamontage.generator.models.family import Run, Window
from dreamontage.generator.models.flow_family import PromptedFamily
from dreamontage.generator.models.flow_run import FlowRun
from dreamontage.generator.models.slot_conditions import assembled, grey, kept
from dreamontage.generator.models.wan_files import load_transformer
from dreamontage.generator.sampling import Sampling
from dreamontage.generator.timeline import STRIDE
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import PLAIN, Switches


def padded(vae: Any, window: Window, device: torch.device) -> Assembled:
    """Stills and clips written to one grey video that is encoded whole; carried latents are put in afterwards."""
    frames = STRIDE * (window.slots - 1) + 1
    video = torch.zeros(3, frames, 8 * window.height, 8 * window.width, device=device)
    if window.tail is not None:
        video[:, :1] = window.tail.head
    for pin in window.pins:
        first = STRIDE * pin.slot
        video[:, first : first + pin.pixels.shape[1]] = pin.strength * pin.pixels
    conditions = kept(vae, window)
    cond, mask, fixed = assemble(
        conditions, window.slots, window.height, window.width, empty=encode_video(vae, video), device=device
    )
    for pin in window.pins:
        for index in range((pin.pixels.shape[1] - 1) // STRIDE + 1):
            slot = pin.slot + index
            if not fixed[slot]:
                flags = WHOLE if index or not slot else LAST_FRAME
                mask[:, slot] = pin.strength * mask.new_tensor(flags)[:, None, None]
    return Assembled(cond, mask, fixed)


class WanRun(FlowRun):
    """A window on Wan image-to-video."""

    mask: Tensor
    pictures: Tensor | None
    """Embeddings [1,tokens,width] of the pictures that the network attends to."""

    def predict(self, network: Any, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """The velocity under the condition channels."""
        inputs = torch.cat([latents, self.mask[None], self.cond[None]], dim=1).to(network.dtype)
        pictures = None if self.pictures is None else self.pictures.to(network.device, network.dtype)
        with network.rope.at(range(self.cond.shape[1])):  # every slot where it is; nothing is appended to them
            found: Tensor = network(
                hidden_states=inputs, timestep=time.expand(len(latents)), encoder_hidden_states=text,
                encoder_hidden_states_image=pictures, return_dict=False,
            )[0]  # fmt: skip
        return found


@dataclass
class WanFamily(PromptedFamily):
    """A loaded Wan image-to-video model. `pictures`: CLIP's vision encoder and its processor, where it has them."""

    pictures: tuple[Any, Any] | None = None

    @classmethod
    def load(
        cls, folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype | None = None,
        switches: Switches = PLAIN,
    ) -> Self:  # fmt: skip
        """As every Wan model; the vision encoder stays on the CPU. Raises InvalidInput."""
        family = super().load(folder, card, device, dtype, switches)
        if (folder / "image_encoder" / "config.json").is_file():
            from transformers import CLIPImageProcessor, CLIPVisionModel

            encoder = CLIPVisionModel.from_pretrained(folder / "image_encoder", dtype=torch.float32)
            processor = CLIPImageProcessor.from_pretrained(folder / "image_processor")
            family.pictures = encoder.requires_grad_(False), processor
        return family

    @classmethod
    def read(cls, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
        """Of either layout, with the condition's channels."""
        return load_transformer(folder, dtype, device)

    @torch.no_grad()
    def begin(self, window: Window, sampling: Sampling, generator: torch.Generator) -> Run:
        """Encode a window's conditions and prompts and draw its noise."""
        texts = self.told(window, sampling)
        if self.card.condition == "padded":
            cond, mask, fixed = padded(self.vae, window, self.device)
        else:
            empty = grey(self.vae, window, self.device) if self.card.empty_condition == "grey" else None
            # Followed, the guide is where denoising starts; only asked for as `loose` it stands in the empty slots,
            # which the published weights were not trained for and ours from `train adapt` were.
            hinted = window if sampling.t0 == 1 else replace(window, guide=None)
            cond, mask, fixed = assembled(self.vae, hinted, generator, self.device, empty)
        run = WanRun(self.experts, self.scheduler, cond, fixed, texts, sampling, generator, window.guide)
        run.mask, run.pictures = mask, self._seen(window)
        return run

    def _seen(self, window: Window) -> Tensor | None:
        """Embeddings of the window's opening picture (and closing one, where weights read two); zeros for none."""
        config = self.experts.high.config
        if config["image_dim"] is None:
            return None
        count = 1 if config["pos_embed_seq_len"] is None else 2
        shown = [] if window.tail is None else [window.tail.head[:, 0]]
        shown += [pin.pixels[:, frame] for pin in window.pins for frame in (0, -1)]
        if self.pictures is None or not shown:
            return torch.zeros(count, 257, config["image_dim"])
        encoder, processor = self.pictures
        frames = to_pixels(torch.stack([shown[0], shown[-1]][:count]))
        inputs = processor(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
        found: Tensor = encoder(**inputs.to(encoder.device), output_hidden_states=True).hidden_states[-2]
        return found
