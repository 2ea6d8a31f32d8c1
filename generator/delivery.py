"""Delivery: one streaming pass that decodes, measures and writes one-shot.mp4, sheet.jpg and report.json. Flat memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.files import write_whole
from dreamontage.generator.measuring.report import ShotMeter
from dreamontage.generator.memory import peak_memory_bytes
from dreamontage.generator.sheet import Cell, cell_size, contact_sheet, sheet_frames
from dreamontage.generator.timeline import frames_of_span
from dreamontage.generator.video import VideoWriter
from dreamontage.schemas.errors import RenderFailed
from dreamontage.schemas.job import Progress
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Plan
from dreamontage.schemas.report import Report, SegmentReport, Timing

if TYPE_CHECKING:
    from torch import Tensor

    from dreamontage.generator.decoding import StreamingAutoencoder
    from dreamontage.generator.previz import Previz, PrevizAnchor

VIDEO_NAME, SHEET_NAME, REPORT_NAME = "one-shot.mp4", "sheet.jpg", "report.json"
CHUNK_SLOTS = 4
"""Slots decoded between two reports of progress; memory grows with it, pixels do not depend on it."""


@dataclass
class Delivery:
    """All that becomes a video.

    `anchors` are the plan's anchors in order, as pixels. `latents` yields the whole shot in order, normalised [16,n,h,w]
    pieces of any length; None (with `vae` None) delivers the previz itself. `segments` and `t0` (flow time each segment was
    started from) follow the plan's segments and are read when the last latents have come. `carry_over` False sets
    m = 0. `started` is the job's begin on time.perf_counter's clock.
    """

    plan: Plan
    montage: Montage
    previz: Previz
    anchors: Sequence[PrevizAnchor]
    latents: Iterator[Tensor] | None = None
    vae: StreamingAutoencoder | None = None
    segments: list[SegmentReport] = field(default_factory=list)
    t0: list[float] = field(default_factory=list)
    carry_over: bool = True
    model: str = "previz"
    encode_s: float = 0.0
    denoise_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class _Piece(NamedTuple):
    """Delivered frames [n,H,W,3] of the slots up to `slots`, and the same frames of D(E(previz)) where there is one."""

    slots: int
    pixels: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None


class _Waiting:
    """Passes latents on in pieces of at most CHUNK_SLOTS and sums up the seconds spent waiting for them."""

    def __init__(self, latents: Iterator[Tensor]) -> None:
        self.seconds = 0.0
        self._latents = latents

    def pieces(self) -> Iterator[Tensor]:
        while True:
            began = time.perf_counter()
            latents = next(self._latents, None)
            self.seconds += time.perf_counter() - began
            if latents is None:
                return
            for at in range(0, latents.shape[1], CHUNK_SLOTS):
                yield latents[:, at : at + CHUNK_SLOTS]


def deliver(delivery: Delivery, out: Path, on_progress: Callable[[Progress], None]) -> Report:
    """Write one-shot.mp4, sheet.jpg and report.json into `out`, each whole or not at all, and return the report.

    `on_progress` is called before and after every chunk of slots (stage "decoding", in slots) and may raise Cancelled. Raises
    StudioFull if the disk has no room, RenderFailed if the latents do not cover the plan.
    """
    plan, size = delivery.plan, (delivery.plan.format.width, delivery.plan.format.height)
    began = time.perf_counter()
    waiting = _Waiting(delivery.latents) if delivery.latents is not None else None
    meter = ShotMeter(plan, delivery.montage, [(anchor.frames, anchor.frame) for anchor in delivery.anchors])
    shown = sheet_frames(plan)
    thumbnail = cell_size(len(shown), size[0] / size[1])[1:]
    cells: list[Cell] = []
    on_progress(_progress(delivery, 0, began))
    with VideoWriter(out / VIDEO_NAME, size, plan.format.fps) as writer:
        for piece in _previz_pieces(delivery) if waiting is None else _decoded_pieces(delivery, waiting):
            for index, pixels in enumerate(piece.pixels):
                if meter.frames in shown:
                    small = np.asarray(cv2.resize(pixels, thumbnail, interpolation=cv2.INTER_AREA), np.uint8)
                    cells.append(Cell(small, meter.frames / plan.format.fps, shown[meter.frames]))
                meter.add(pixels, None if piece.reference is None else piece.reference[index])
            writer.write(piece.pixels)
            on_progress(_progress(delivery, piece.slots, began))
        if meter.frames != plan.frames:
            raise RenderFailed(f"the takes hold {meter.frames} of {plan.frames} frames", next_call="render again")
    write_whole(out / SHEET_NAME, contact_sheet(cells, _title(delivery)))
    ended = time.perf_counter()
    report = meter.report(
        segments=delivery.segments,
        t0=delivery.t0,
        model=delivery.model,
        rendered=waiting is not None,
        timing=Timing(
            encode_s=round(delivery.encode_s, 3),
            denoise_s=round(delivery.denoise_s, 3),
            decode_s=round(ended - began - (waiting.seconds if waiting else 0.0), 3),
            total_s=round(ended - delivery.started, 3),
        ),
        peak_memory_bytes=peak_memory_bytes(),
    )
    write_whole(out / REPORT_NAME, report.model_dump_json(indent=2).encode())
    return report


def _previz_pieces(delivery: Delivery) -> Iterator[_Piece]:
    for start in range(0, delivery.plan.slots, CHUNK_SLOTS):
        stop = min(start + CHUNK_SLOTS, delivery.plan.slots)
        frames = frames_of_span(start, stop)
        yield _Piece(stop, delivery.previz.window(frames.start, frames.stop)[0], None)


def _decoded_pieces(delivery: Delivery, waiting: _Waiting) -> Iterator[_Piece]:
    from dreamontage.generator.decoding import ShotDecoder

    assert delivery.vae is not None, "latents come with the autoencoder that decodes them"
    decoder = ShotDecoder(delivery.vae, delivery.carry_over)
    slot = 0
    for latents in waiting.pieces():
        stop = slot + latents.shape[1]
        frames = frames_of_span(slot, stop)
        decoded = decoder.next(latents, *delivery.previz.window(frames.start, frames.stop))
        slot = stop
        yield _Piece(slot, decoded.pixels, decoded.guide)


def _progress(delivery: Delivery, slots: int, began: float) -> Progress:
    total, elapsed = delivery.plan.slots, time.perf_counter() - began
    return Progress(
        stage="decoding",
        done=slots,
        total=total,
        seconds_left=round(elapsed / slots * (total - slots), 1) if slots else None,
        segments_done=len(delivery.segments),
        segments_total=len(delivery.plan.segments),
    )


def _title(delivery: Delivery) -> str:
    shape, name = delivery.plan.format, delivery.montage.brief or delivery.montage.id
    seconds = f"{delivery.plan.frames / shape.fps:.2f} s"
    return f"{name}  |  {seconds}, {shape.width}x{shape.height}, {shape.fps} fps  |  {delivery.model}"
