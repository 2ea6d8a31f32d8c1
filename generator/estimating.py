"""What a render will take: seconds of denoising and delivery, memory and disk. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dreamontage.generator.footprint import footprint
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Quality
from dreamontage.schemas.plan import Estimate, Plan, Segment
from dreamontage.schemas.profile import PLAIN, Switches

LINK_GB_S = 20.0
"""Gigabytes a second from the machine's memory to a GPU, over PCIe 4.0 with 16 lanes."""
_BYTES_PER_PIXEL = 0.1
"""Of a delivered video; photographs were measured at 0.04 on average, so that this is an upper end."""


class Work(NamedTuple):
    """A take to render: its segment, the denoising steps, and whether every step is done with guidance."""

    segment: Segment
    steps: int
    guided: bool

    @classmethod
    def of(cls, segment: Segment, card: ModelCard, settings: RenderSettings) -> Work:
        """A take of a segment with these settings over the card's."""
        resolved = card.resolve(settings)
        return cls(segment, resolved.steps or 1, _guided(resolved))


@dataclass(frozen=True)
class Pace:
    """How fast a model renders here, at a quality and size (width, height) in pixels.

    `tflops`: what the device reaches, for a model that needs a GPU. `correction`: seconds measured ÷ estimated, of
    earlier videos.
    """

    card: ModelCard
    quality: Quality
    size: tuple[int, int]
    switches: Switches = PLAIN
    tflops: float = 0.0
    correction: float = 1.0

    def seconds(self, work: Work) -> float:
        """Seconds in which a take is denoised.

        Where weights wait in the machine's memory, a pass takes at least as long as fetching them.
        """
        slots = work.segment.stop - work.segment.window_start
        if self.card.network is None:
            return self.correction * work.steps * slots * self.card.speed.get(f"{self._scale}_step", 0.05)
        taken = footprint(self.card, self.size, slots, self.switches)
        computed = taken.step_tflop / (1 + _guided(self.card.defaults)) / self.tflops
        return self.correction * work.steps * (1 + work.guided) * max(computed, taken.fetched_gb / LINK_GB_S)

    @property
    def slot_s(self) -> float:
        """Seconds in which a slot is delivered: decoded, measured and written."""
        return self.correction * self.card.speed.get(f"{self._scale}_deliver", 0.1)

    @property
    def memory_gb(self) -> float | None:
        """Peak of device memory for the card's window, in 10⁹ bytes; None for a model that needs no GPU."""
        if self.card.network is None or self.quality == "previz":
            return None
        return round(footprint(self.card, self.size, self.card.window, self.switches).memory_gb, 2)

    @property
    def _scale(self) -> Quality:
        return "draft" if self.quality == "previz" else self.quality


def estimate(plan: Plan, pace: Pace, works: Sequence[Work], others: Sequence[Work] = (), videos: int = 1) -> Estimate:
    """Denoising of the takes to render, encoding and decoding of the whole shot.

    `others`: takes beside the first ones; `videos`: how often the shot is delivered.
    """
    denoising = [] if pace.quality == "previz" else [pace.seconds(work) for work in (*works, *others)]
    seconds = sum(denoising) + videos * plan.slots * pace.slot_s
    disk = 0 if pace.quality == "previz" else _take_bytes(plan, [work.segment for work in (*works, *others)])
    return Estimate(
        segments_to_render=len(works),
        segments_reused=len(plan.segments) - len(works),
        alternatives=len(others),
        seconds=round(seconds, 1),
        low_s=round(seconds * 0.6, 1),
        high_s=round(seconds * 1.8, 1),
        bytes=_video_bytes(plan, videos) + disk,
        memory_gb=pace.memory_gb,
        segment_s=[round(s, 2) for s in denoising],
        correction=pace.correction,
    )


def _guided(settings: RenderSettings) -> bool:
    return (settings.guidance or 1.0) > 1


def _take_bytes(plan: Plan, to_render: Sequence[Segment]) -> int:
    """Disk of takes: 16 channels of float32 for every cell of 8x8 pixels."""
    cells = plan.format.width * plan.format.height // 64
    return sum(s.stop - s.window_start for s in to_render) * cells * 16 * 4


def _video_bytes(plan: Plan, videos: int) -> int:
    """Disk of videos, each with its copy for people."""
    return round(2 * videos * plan.frames * plan.format.width * plan.format.height * _BYTES_PER_PIXEL)
