"""A montage in a model's own size and frame rate: planned and rendered so, resampled at delivery. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Format, Montage, Quality, Shape
from dreamontage.schemas.plan import PlacedAnchor

from .timeline import Grid


def native_shape(asked: Shape, card: ModelCard, quality: Quality) -> Shape:
    """The size and frame rate that a model renders in where this is asked for; a previz has no model."""
    if quality == "previz":
        return asked
    own = card.sizes.get(quality, card.sizes.get("standard", {}))
    width, height = own.get(asked.aspect, (asked.width, asked.height))
    return Shape(width=width, height=height, fps=card.fps or asked.fps)


def delivered_shape(asked: Shape, native: Shape) -> Shape:
    """What is delivered of what a model renders: the asked-for frame rate, and the larger of the two sizes."""
    if native.width * native.height <= asked.width * asked.height:
        return asked
    return Shape(width=native.width, height=native.height, fps=asked.fps)


def usual_size(card: ModelCard, quality: Quality) -> tuple[int, int]:
    """Width and height in which a model renders 16:9."""
    shape = native_shape(Format.of("16:9", "standard", 24).at(quality), card, quality)
    return shape.width, shape.height


def grid_of(card: ModelCard, fps: int) -> Grid:
    """The grid that a model plans a montage of this frame rate in."""
    return Grid(card.fps or fps, card.stride)


def at_native(montage: Montage, card: ModelCard, quality: Quality) -> Montage:
    """The montage at the model's frame rate, where it has one of its own; all its seconds stay."""
    if quality == "previz" or card.fps in (None, montage.format.fps):
        return montage
    return montage.model_copy(update={"format": montage.format.model_copy(update={"fps": card.fps})})


def at_shown(anchors: Sequence[PlacedAnchor], fps: int, shown_fps: int) -> list[PlacedAnchor]:
    """Anchors of a grid of `fps` at the frames of the delivered file."""
    if fps == shown_fps:
        return list(anchors)
    return [
        anchor.model_copy(
            update={
                "frame": shown_frames(anchor.frame + 1, fps, shown_fps) - 1,
                "slots": shown_frames(anchor.frames, fps, shown_fps),
                "stride": 1,
            }
        )
        for anchor in anchors
    ]


def shown_frames(frames: int, fps: int, shown_fps: int) -> int:
    """Delivered frames of a grid of `frames`: as many as lie between its first and its last."""
    return (frames - 1) * shown_fps // fps + 1


def resampling(asked: Shape, native: Shape, shown: Shape, card: ModelCard) -> list[str]:
    """What is delivered in another size than asked for, and what is resampled for it, in words."""
    size = f"{shown.width}x{shown.height}"
    own_size = [f"The video is {size}, the size of its model."] if size != f"{asked.width}x{asked.height}" else []
    told = {"size": (f"{native.width}x{native.height}", size),
            "rate": (f"{native.fps} fps", f"{shown.fps} fps")}  # fmt: skip
    apart = [pair for pair in told.values() if pair[0] != pair[1]]
    if not apart:
        return own_size
    own, wanted = (", ".join(pair[side] for pair in apart) for side in (0, 1))
    return [*own_size, f"{card.title} renders at {own}; the video is resampled to {wanted}."]
