"""Delivery: one pass from latents to video, sheet and report, with memory that does not grow with the length."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from dreamontage.generator.decoding import encode_slots, to_tensor
from dreamontage.generator.delivery import Delivery, deliver
from dreamontage.generator.memory import reset_peak_memory
from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.timeline import frame_count, slot_count, slot_start_s
from dreamontage.generator.video import read_back
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import Cancelled, RenderFailed
from dreamontage.schemas.montage import Format, Montage
from dreamontage.schemas.plan import PlacedAnchor, Plan, Seam, Segment
from dreamontage.schemas.report import Report

WIDTH, HEIGHT, FPS = 256, 144, 24


@cache
def tiny() -> NanoAutoencoder:
    torch.manual_seed(0)
    vae: NanoAutoencoder = NanoAutoencoder(
        widths=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1), decoder_memory=(1, 1, 1)
    ).eval()
    return vae


def photo(seed: int) -> NDArray[np.uint8]:
    """A picture [1,H,W,3] with structure at every scale."""
    rng = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3))
    for step in (4, 16, 64):
        grain = rng.normal(size=(HEIGHT // step + 2, WIDTH // step + 2, 3)).astype(np.float32)
        total += cv2.resize(grain, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * step**0.5
    total -= total.min()
    return np.asarray(total / total.max() * 255, np.uint8)[None]


def shot(seconds: float, second_anchor: float) -> Delivery:
    """Two photographs, two segments, the previz as delivered without a model."""
    frames = frame_count(seconds, FPS)
    slots = slot_count(frames)
    at = [0, 4 * round(second_anchor * FPS / 4)]
    border = slots // 2
    plan = Plan(
        montage_id="m_1",
        revision=1,
        model="nano",
        format=Format(width=WIDTH, height=HEIGHT, fps=FPS),
        requested_duration_s=seconds,
        duration_s=frames / FPS,
        frames=frames,
        slots=slots,
        anchors=[
            PlacedAnchor(
                anchor_id=f"a{index}", media_id=f"img_{index}", label=f"photo {index}", kind="still",
                requested_s=frame / FPS, snapped_s=frame / FPS, frame=frame, slot=frame // 4,
            )
            for index, frame in enumerate(at)
        ],
        segments=[
            Segment(
                index=index, start=start, stop=stop, window_start=max(0, start - 3), start_s=slot_start_s(start, FPS),
                end_s=slot_start_s(stop, FPS), seam="carried" if index else "start", seed=index,
            )
            for index, (start, stop) in enumerate([(0, border), (border, slots)])
        ],
        seams=[Seam(slot=border, at_s=slot_start_s(border, FPS), kind="carried")],
    )  # fmt: skip
    anchors = [PrevizAnchor(photo(index), frame, f"img_{index}") for index, frame in enumerate(at)]
    montage = Montage(
        id="m_1",
        brief="two photographs",
        duration_s=seconds,
        seed=7,
        anchors=[Anchor(id=f"a{index}", media_id=f"img_{index}", second=frame / FPS) for index, frame in enumerate(at)],
    )
    return Delivery(plan, montage, Previz(anchors, [], frames, (WIDTH, HEIGHT), FPS), anchors)


def with_model(delivery: Delivery, carry_over: bool = True) -> Delivery:
    """The same shot through the autoencoder, with the latents that a transformer which only agrees would give."""
    pixels, _ = delivery.previz.window(0, delivery.plan.frames)
    z = encode_slots(tiny(), to_tensor(pixels), first=True)
    borders = [segment.stop - segment.start for segment in delivery.plan.segments]
    delivery.latents = iter(torch.split(z, borders, dim=1))
    delivery.vae, delivery.model, delivery.carry_over = tiny(), "nano", carry_over
    delivery.t0 = [0.5, 0.25]
    return delivery


def quiet(done: int, total: int) -> None:
    return


def check_files(out: Path, report: Report) -> None:
    assert sorted(entry.name for entry in out.iterdir()) == ["one-shot.mp4", "report.json", "sheet.jpg"]
    assert read_back(out / "one-shot.mp4") == (report.frames, report.width, report.height, report.fps)
    assert Report.model_validate_json((out / "report.json").read_text()) == report
    Image.open(io.BytesIO((out / "sheet.jpg").read_bytes()), formats=["JPEG"]).load()


def test_a_previz_is_delivered_without_a_model(tmp_path: Path) -> None:
    report = deliver(shot(2.0, 1.5), tmp_path / "new", quiet)
    check_files(tmp_path / "new", report)
    assert (report.frames, report.requested_duration_s, report.model, report.seed) == (49, 2.0, "previz", 7)
    assert [anchor.psnr_db for anchor in report.anchors] == [99, 99]
    assert [anchor.best_offset_frames for anchor in report.anchors] == [0, 0]
    assert [anchor.reference_psnr_db for anchor in report.anchors] == [None, None]
    assert report.seams == [] and report.segments == []
    assert [(interval.start_s, round(interval.end_s, 2)) for interval in report.intervals] == [(0, 1.5), (1.5, 2.04)]


def test_a_previz_is_delivered_without_torch() -> None:
    code = "import sys, dreamontage.generator.delivery; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_the_transformer_agrees_anchors_are_delivered_sharp(tmp_path: Path) -> None:
    report = deliver(with_model(shot(2.0, 1.5)), tmp_path, quiet)
    check_files(tmp_path, report)
    for anchor in report.anchors:
        assert anchor.reference_psnr_db is not None
        assert anchor.best_offset_frames == 0
        assert anchor.psnr_db >= anchor.reference_psnr_db + 10
    assert [interval.t0 for interval in report.intervals] == [0.5, 0.25]
    assert len(report.seams) == 1
    assert report.timing.total_s == pytest.approx(report.timing.decode_s) and report.timing.decode_s > 0
    assert report.peak_memory_bytes > 50 * 2**20


def test_m_0_delivers_the_models_own_pixels(tmp_path: Path) -> None:
    report = deliver(with_model(shot(1.0, 0.5), carry_over=False), tmp_path, quiet)
    for anchor in report.anchors:
        assert anchor.psnr_db == anchor.reference_psnr_db, "D(z) with z = E(previz) is the reference itself"
    assert any("dB" in note.what for note in report.notes), "an untrained autoencoder is named as the fault it is"


def test_two_deliveries_give_identical_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        deliver(with_model(shot(1.0, 0.5)), tmp_path / name, quiet)
    for file in ("one-shot.mp4", "sheet.jpg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in "ab")
    for report in (first, second):
        del report["timing"], report["peak_memory_bytes"]
    assert first == second


def test_progress_is_told_at_every_chunk_and_ends_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    deliver(with_model(shot(2.0, 1.5)), tmp_path, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[0] == (0, 49) and told[-1] == (49, 49)
    assert max(b[0] - a[0] for a, b in pairwise(told)) <= 16


@pytest.mark.parametrize("carried", [False, True])
def test_a_cancelled_delivery_leaves_no_partial_file(tmp_path: Path, carried: bool) -> None:
    def cancel(done: int, total: int) -> None:
        if done >= 16:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        deliver(with_model(shot(2.0, 1.5)) if carried else shot(2.0, 1.5), tmp_path, cancel)
    assert list(tmp_path.iterdir()) == []


def test_latents_that_do_not_cover_the_plan_are_refused(tmp_path: Path) -> None:
    delivery = with_model(shot(2.0, 1.5))
    assert delivery.latents is not None
    delivery.latents = iter([next(delivery.latents)])
    with pytest.raises(RenderFailed, match="of 49 frames"):
        deliver(delivery, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def peak_of(seconds: float, out: Path) -> int:
    """Peak memory of one delivery; run in a process of its own, where no other test has left its garbage."""
    delivery = shot(seconds, 0.5)
    slots = delivery.plan.slots
    delivery.latents = (torch.zeros(16, min(8, slots - at), HEIGHT // 8, WIDTH // 8) for at in range(0, slots, 8))
    delivery.t0 = [0.5] * len(delivery.plan.segments)
    delivery.vae, delivery.model = tiny(), "nano"
    reset_peak_memory()
    return deliver(delivery, out / str(seconds), quiet).peak_memory_bytes


def test_invariant_6_memory_is_flat_in_the_length(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        short, long = (fresh.submit(peak_of, seconds, tmp_path).result() for seconds in (5.0, 30.0))
    # What even the leanest buffer of the whole shot would add; the allocator alone varies by a quarter of it.
    twenty_five_seconds_of_pixels = 600 * WIDTH * HEIGHT * 3
    assert long - short < twenty_five_seconds_of_pixels
