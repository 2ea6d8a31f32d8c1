"""Delivery: one streaming pass of flat memory that decodes, measures and writes the mp4, the sheet and the report."""

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
from dreamontage.generator.memory import gpu_peak_bytes, peak_memory_bytes
from dreamontage.generator.resampling import Resampler
from dreamontage.generator.sheet import Cell, cell_size, contact_sheet, sheet_frames
from dreamontage.generator.soundtrack import Soundtrack
from dreamontage.generator.timeline import frames_of_span
from dreamontage.generator.video import VideoWriter
from dreamontage.schemas.errors import RenderFailed
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Plan
from dreamontage.schemas.report import EstimateReport, Report, SegmentReport, Timing

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

    `anchors` are the plan's anchors in order, as pixels. `latents` yields the whole shot in order, as normalised
    [16,n,h,w] pieces, each inside one segment; None (with `vae` None) delivers the previz itself. `t0` (flow time each
    segment was started from: 1 where the previz did not lead) and `segments` follow the plan's segments. `carry_over`
    False sets m = 0. `encode_s` and `denoise_s` are the job's wall seconds before delivery. `sound`: a file to
    lay under the video, and its PyAV demuxer. `estimate`: what was foreseen, with the seconds measured before delivery.
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
    sound: tuple[Path, str] | None = None
    estimate: EstimateReport | None = None


class _Piece(NamedTuple):
    """The next delivered frames [n,H,W,3]; the same frames of D(E(previz)) and the previz where there is a model."""

    pixels: NDArray[np.uint8]
    references: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None


def deliver(delivery: Delivery, out: Path, on_progress: Callable[[int, int], None]) -> Report:
    """Write one-shot.mp4, sheet.jpg and report.json into `out`, each whole or not at all, and return the report.

    `on_progress(frames done, frames in all)` is called before and after every chunk of slots; what it raises
    (Cancelled) ends the delivery without a trace. Raises StudioFull if the disk has no room, RenderFailed if the
    latents do not cover the plan.
    """
    plan, size = delivery.plan, (delivery.plan.format.width, delivery.plan.format.height)
    began = time.perf_counter()
    meter = ShotMeter(plan, delivery.montage, [(anchor.frames, anchor.frame) for anchor in delivery.anchors])
    shown = sheet_frames(plan)
    thumbnail = cell_size(len(shown), size[0] / size[1])[1:]
    cells: list[Cell] = []
    on_progress(0, plan.frames)
    soundtrack = Soundtrack(*delivery.sound, plan.duration_s) if delivery.sound is not None else None
    shape = plan.shown or plan.format
    resampler = Resampler(plan.format, shape)
    with VideoWriter(out / VIDEO_NAME, (shape.width, shape.height), shape.fps, soundtrack=soundtrack) as writer:
        for piece in _previz_pieces(delivery) if delivery.latents is None else _decoded_pieces(delivery):
            for index, pixels in enumerate(piece.pixels):
                if meter.frames in shown:
                    small = np.asarray(cv2.resize(pixels, thumbnail, interpolation=cv2.INTER_AREA), np.uint8)
                    cells.append(Cell(small, meter.frames / plan.format.fps, shown[meter.frames]))
                meter.add(pixels, *(() if piece.references is None else (frames[index] for frames in piece.references)))
            writer.write(resampler.next(piece.pixels))
            on_progress(meter.frames, plan.frames)
        if meter.frames != plan.frames:
            raise RenderFailed(f"the takes hold {meter.frames} of {plan.frames} frames", next_call="render again")
    write_whole(out / SHEET_NAME, contact_sheet(cells, _title(delivery)))
    decode_s = time.perf_counter() - began
    report = meter.report(
        segments=delivery.segments,
        t0=delivery.t0,
        model=delivery.model,
        rendered=delivery.latents is not None,
        timing=Timing(
            encode_s=round(delivery.encode_s, 3),
            denoise_s=round(delivery.denoise_s, 3),
            decode_s=round(decode_s, 3),
            total_s=round(delivery.encode_s + delivery.denoise_s + decode_s, 3),
        ),
        peak_memory_bytes=peak_memory_bytes(),
        estimate=_checked(delivery.estimate, decode_s),
    )
    write_whole(out / REPORT_NAME, report.model_dump_json(indent=2).encode())
    return report


def _checked(estimate: EstimateReport | None, decode_s: float) -> EstimateReport | None:
    """The estimate beside all that was measured."""
    if estimate is None:
        return None
    peak = peak_memory_bytes() if estimate.memory_gb is None else gpu_peak_bytes()
    measured_gb = round(peak / 1e9, 2) if peak else None  # other processes' GPUs are not seen from here
    return estimate.model_copy(
        update={"measured_s": round(estimate.measured_s + decode_s, 3), "measured_gb": measured_gb}
    )


def _previz_pieces(delivery: Delivery) -> Iterator[_Piece]:
    for start in range(0, delivery.plan.slots, CHUNK_SLOTS):
        stop = min(start + CHUNK_SLOTS, delivery.plan.slots)
        frames = frames_of_span(start, stop, delivery.plan.stride)
        yield _Piece(delivery.previz.window(frames.start, frames.stop)[0], None)


def _decoded_pieces(delivery: Delivery) -> Iterator[_Piece]:
    from dreamontage.generator.decoding import ShotDecoder

    assert delivery.latents is not None and delivery.vae is not None, "latents come with their autoencoder"
    decoder = ShotDecoder(delivery.vae, delivery.carry_over)
    slot = 0
    for piece, after in _with_following(delivery.latents, getattr(delivery.vae, "ahead", 0)):
        frames = frames_of_span(slot, slot + piece.shape[1], delivery.plan.stride)
        planned, confidence = delivery.previz.window(frames.start, frames.stop)
        led = _t0_at(delivery, slot) < 1
        decoded = decoder.next(piece, planned, confidence if led else np.zeros_like(confidence), after)
        slot += piece.shape[1]
        yield _Piece(decoded.pixels, (decoded.guide, planned))


def _with_following(latents: Iterator[Tensor], ahead: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Latents in pieces of CHUNK_SLOTS slots, each inside one segment, with the `ahead` slots that follow each."""
    pieces = (whole[:, at : at + CHUNK_SLOTS] for whole in latents for at in range(0, whole.shape[1], CHUNK_SLOTS))
    waiting: list[Tensor] = []
    for piece in pieces:
        waiting.append(piece)
        while waiting and sum(part.shape[1] for part in waiting[1:]) >= ahead:
            yield _first(waiting, ahead)
    while waiting:
        yield _first(waiting, ahead)


def _first(waiting: list[Tensor], ahead: int) -> tuple[Tensor, Tensor | None]:
    import torch

    piece = waiting.pop(0)
    return piece, torch.cat(waiting, dim=1)[:, :ahead] if ahead and waiting else None


def _t0_at(delivery: Delivery, slot: int) -> float:
    return next(t0 for segment, t0 in zip(delivery.plan.segments, delivery.t0, strict=True) if slot < segment.stop)


def _title(delivery: Delivery) -> str:
    shape, name = delivery.plan.shown or delivery.plan.format, delivery.montage.brief or delivery.montage.id
    seconds = f"{delivery.plan.duration_s:.2f} s"
    return f"{name}  |  {seconds}, {shape.width}x{shape.height}, {shape.fps} fps  |  {delivery.model}"
