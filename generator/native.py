"""A montage in a model's own size and frame rate: planned and rendered so, resampled back at delivery. No torch."""

from __future__ import annotations

from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Montage, Quality, Shape


def native_shape(shown: Shape, card: ModelCard, quality: Quality) -> Shape:
    """The size and frame rate that a model renders in for this delivered shape; a previz has no model."""
    if quality == "previz":
        return shown
    own = card.sizes.get(quality, card.sizes.get("standard", {}))
    width, height = own.get(shown.aspect, (shown.width, shown.height))
    return Shape(width=width, height=height, fps=card.fps or shown.fps)


def at_native(montage: Montage, card: ModelCard, quality: Quality) -> Montage:
    """The montage at the model's frame rate, where it has one of its own; all its seconds stay."""
    if quality == "previz" or card.fps in (None, montage.format.fps):
        return montage
    return montage.model_copy(update={"format": montage.format.model_copy(update={"fps": card.fps})})


def shown_frames(frames: int, fps: int, shown_fps: int) -> int:
    """Delivered frames of a grid of `frames`: as many as lie between its first and its last."""
    return (frames - 1) * shown_fps // fps + 1


def resampling(native: Shape, shown: Shape, card: ModelCard) -> list[str]:
    """What is done at delivery, in words; nothing where both are the same."""
    told = {"size": (f"{native.width}x{native.height}", f"{shown.width}x{shown.height}"),
            "rate": (f"{native.fps} fps", f"{shown.fps} fps")}  # fmt: skip
    apart = [pair for pair in told.values() if pair[0] != pair[1]]
    if not apart:
        return []
    own, wanted = (", ".join(pair[side] for pair in apart) for side in (0, 1))
    return [f"{card.title} renders at {own}; the video is resampled to {wanted}."]
