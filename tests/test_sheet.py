"""The contact sheet shows the shot at a glance, and never grows beyond what an answer may carry."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreamontage.generator.sheet import PINNED, Cell, cell_size, contact_sheet, sheet_frames, timecode
from dreamontage.schemas import limits
from dreamontage.schemas.montage import Format
from dreamontage.schemas.plan import PlacedAnchor, Plan

SIZES = [(512, 288), (288, 512), (384, 384)]


def placed(frame: int, slots: int = 1, label: str = "") -> PlacedAnchor:
    return PlacedAnchor(
        anchor_id=f"a{frame}", media_id="img_0", label=label, kind="clip" if slots > 1 else "still",
        requested_s=frame / 24, snapped_s=frame / 24, frame=frame, slot=frame // 4, slots=slots,
    )  # fmt: skip


def plan(frames: int, anchors: list[PlacedAnchor]) -> Plan:
    return Plan(
        montage_id="m_1", revision=1, model="nano", format=Format(), requested_duration_s=frames / 24,
        duration_s=frames / 24, frames=frames, slots=(frames - 1) // 4 + 1, anchors=anchors, segments=[],
    )  # fmt: skip


def noise(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=["JPEG"])


def outlined(sheet: Image.Image) -> int:
    return int((np.abs(np.asarray(sheet).astype(int) - PINNED).max(axis=2) < 40).sum())


def test_every_pinned_frame_is_shown_in_time_order_with_the_ends() -> None:
    shown = sheet_frames(plan(289, [placed(0), placed(100, label="lake"), placed(104), placed(200, 6)]))
    assert list(shown) == sorted(shown)
    assert {0, 100, 104, 200, 220, 288} <= set(shown)
    assert shown[100] == "lake" and shown[104] == "a104" and shown[220] == "a200" and shown[288] == ""
    assert 12 <= len(shown) <= 18


def test_a_clip_cut_at_the_end_and_a_shot_of_one_slot_are_shown() -> None:
    assert max(sheet_frames(plan(97, [placed(80, 9)]))) == 96
    assert list(sheet_frames(plan(5, [placed(0)]))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 16, 224])
def test_a_sheet_of_any_format_and_length_stays_within_its_bytes(size: tuple[int, int], count: int) -> None:
    width, height = cell_size(count, size[0] / size[1])[1:]
    assert width / height == pytest.approx(size[0] / size[1], rel=0.03)
    pictures = [noise((width, height), seed) for seed in range(3)]
    cells = [Cell(pictures[at % 3], at / 3, "pin" if at % 4 == 0 else "") for at in range(count)]
    content = contact_sheet(cells, "One shot")
    assert len(content) <= limits.MAX_PICTURE_BYTES
    sheet = opened(content)
    assert sheet.width >= 300 and sheet.height <= 3000


@pytest.mark.parametrize("size", SIZES)
def test_a_usual_sheet_is_readable(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[1], : size[0]]
    smooth = np.stack([x % 256, y % 256, (x + y) % 256], axis=2).astype(np.uint8)
    sheet = opened(contact_sheet([Cell(smooth, index, "") for index in range(16)], "One shot"))
    assert 900 <= sheet.width <= 1600 and sheet.height <= 1800


def test_pinned_frames_are_outlined_and_others_are_not() -> None:
    grey = np.full((144, 256, 3), 90, np.uint8)
    plain = opened(contact_sheet([Cell(grey, 0.0), Cell(grey, 1.0)]))
    pinned = opened(contact_sheet([Cell(grey, 0.0), Cell(grey, 1.0, "lake")]))
    assert outlined(plain) == 0
    assert outlined(pinned) > 1000
    assert outlined(pinned.crop((0, 0, pinned.width // 2 - 8, pinned.height))) == 0


def test_a_long_title_and_label_do_not_break_the_sheet() -> None:
    cells = [Cell(noise((256, 144)), 1.0, "an exceedingly long label that goes on and on " * 3)] * 3
    assert opened(contact_sheet(cells, "title " * 200)).width <= 1600
    assert opened(contact_sheet([Cell(noise((256, 144)), 1.0, "two\nlines")], "a brief\nof two lines")).width <= 1600


def test_time_codes_read_as_minutes_seconds_hundredths() -> None:
    assert [timecode(second) for second in (0, 7.25, 59.999, 61.5, 600)] == [
        "0:00.00", "0:07.25", "1:00.00", "1:01.50", "10:00.00",
    ]  # fmt: skip


def test_the_same_cells_give_the_same_bytes() -> None:
    cells = [Cell(noise((256, 144), index), index, "a" if index else "") for index in range(4)]
    assert contact_sheet(cells, "t") == contact_sheet(cells, "t")
