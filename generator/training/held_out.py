"""How well an autoencoder reconstructs clips that it never saw: virtual camera moves over held-out pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.training.data.camera import camera_clip
from dreamontage.generator.training.data.pictures import Picture, Pixels, Source, load_pictures
from dreamontage.generator.training.perceptual import PerceptualDistance


@dataclass(frozen=True)
class Reconstruction:
    """Quality of one clip: PSNR in dB and LPIPS over all frames, and both for frame 0 (image mode)."""

    name: str
    psnr_db: float
    lpips: float
    still_psnr_db: float
    still_lpips: float


MVTB = (
    "eiffel-1.png",
    "church.jpg",
    "parks.png",
    "rocks2-l.png",
    "lab-scene.png",
    "flowers1.png",
    "notre-dame.png",
    "street.png",
)
"""Files of PyPI `mvtb-data==1.6.1`, reserved for evaluation."""
DEMO_MEDIA = Path(__file__).parents[1] / "media" / "demo"


def held_out_pictures() -> list[Picture]:
    """The demo's four photographs, and those of `mvtb-data` if that package is installed; never trained on."""
    paths = sorted(DEMO_MEDIA.glob("*.jpg"))
    spec = importlib.util.find_spec("mvtbdata")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        paths += [Path(package) / "images" / name for name in MVTB]
    return load_pictures(Source(path, "own", "evaluation only") for path in paths)


def as_video(clip: Pixels) -> Tensor:
    """uint8 [F,H,W,3] -> float [1,3,F,H,W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(clip)).permute(3, 0, 1, 2)[None].float().div(127.5).sub(1)


def as_pixels(video: Tensor) -> Pixels:
    """float [1,3,F,H,W] in -1..1 -> uint8 [F,H,W,3]."""
    pixels = video[0].permute(1, 2, 3, 0).float().add(1).mul(127.5).round().clamp(0, 255)
    return np.asarray(pixels.to(torch.uint8).numpy())


def held_out_clips(pictures: Sequence[Picture], frames: int = 9, height: int = 144, width: int = 256) -> list[Pixels]:
    """One fixed camera clip for each picture; the same for every run."""
    return [
        camera_clip(np.random.default_rng([7, index]), picture, frames, height, width, move)[0]
        for index, picture in enumerate(pictures)
        for move in [("pan", "zoom", "tilt", "dolly", "orbit", "roll")[index % 6]]
    ]


def psnr_db(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio of uint8 pictures in dB."""
    error = np.square(first.astype(np.float64) - second).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@torch.no_grad()
def reconstruct(
    model: NanoAutoencoder, clips: Sequence[Pixels], names: Sequence[str], distance: PerceptualDistance
) -> tuple[list[Reconstruction], list[Pixels]]:
    """Encode (mode) and decode each clip in the model's dtype; the scores and the reconstructions."""
    scores: list[Reconstruction] = []
    results: list[Pixels] = []
    for name, clip in zip(names, clips, strict=True):
        video = as_video(clip).to(model.device)
        posterior = model.encode(video.to(model.dtype)).latent_dist  # type: ignore[union-attr]
        decoded = model.decode(posterior.mode()).sample.float()  # type: ignore[union-attr]
        result = as_pixels(decoded)
        lpips = distance(decoded[0].transpose(0, 1), video[0].transpose(0, 1))
        scores.append(
            Reconstruction(
                name, psnr_db(result, clip), float(lpips.mean()), psnr_db(result[0], clip[0]), float(lpips[0])
            )
        )
        results.append(result)
    return scores, results


def mean_scores(scores: Sequence[Reconstruction]) -> dict[str, float]:
    """Plain means over clips."""
    keys = ("psnr_db", "lpips", "still_psnr_db", "still_lpips")
    return {key: float(np.mean([getattr(score, key) for score in scores])) for key in keys}


def write_sheet(path: Path, clips: Sequence[Pixels], results: Sequence[Pixels], most: int = 8) -> None:
    """One row per clip: first, middle and last frame, each with its reconstruction to the right."""
    rows = []
    for clip, result in list(zip(clips, results, strict=True))[:most]:
        picks = (0, len(clip) // 2, len(clip) - 1)
        rows.append(np.concatenate([frame for i in picks for frame in (clip[i], result[i])], axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def write_curve(path: Path, values: NDArray[np.float64], title: str) -> None:
    """Draw values [N] (smoothed over N/100, logarithmic scale) as a 900x360 PNG."""
    image = np.full((360, 900, 3), 255, np.uint8)
    window = max(1, len(values) // 100)
    smooth = np.log10(np.convolve(values, np.ones(window) / window, mode="valid").clip(1e-9))
    low, high = float(smooth.min()), float(smooth.max())
    xs = np.linspace(60, 880, len(smooth))
    ys = 330 - 290 * (smooth - low) / max(high - low, 1e-6)
    cv2.polylines(image, [np.stack([xs, ys], axis=-1).round().astype(np.int32)], False, (160, 60, 20), 1, cv2.LINE_AA)
    for value, y in ((high, 40), (low, 330)):
        cv2.putText(image, f"{10**value:.3g}", (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(image, title, (60, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), image)
