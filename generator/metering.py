"""How far a job is, in seconds of work, and what was foreseen of it. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dreamontage.generator.estimating import Pace, Work, estimate
from dreamontage.generator.fingerprint import Decision
from dreamontage.generator.windows import window_slots
from dreamontage.schemas.job import Progress
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.plan import Plan, Segment
from dreamontage.schemas.report import EstimateReport, SegmentTime

if TYPE_CHECKING:
    from dreamontage.generator.sar import Rendered


@dataclass
class Meter:
    """Progress in seconds of work: denoising by steps times slots, delivery by slots, at the speeds seen so far.

    `slots`: of all videos that are delivered; `segments`: takes in all, alternatives included; `spent`: seconds of
    denoising by segment; `seen`: when a segment was last heard of, `last`: when any was.
    """

    report: Callable[[Progress], None]
    steps: float
    slots: int
    segments: int
    step_s: float
    slot_s: float
    steps_done: float = 0.0
    slots_done: float = 0.0
    segments_done: int = 0
    denoise_s: float = 0.0
    delivery_s: float = 0.0
    spent: dict[int, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)
    seen: dict[int, float] = field(default_factory=dict)

    def step(self, segment: Segment, done: int) -> None:
        """A step of a segment is done, or with `done` 0 its first begins."""
        now = time.perf_counter()
        if done:
            self.denoise_s += now - self.last
            self.spent[segment.index] = self.spent.get(segment.index, 0.0) + now - self.seen[segment.index]
            self.steps_done += window_slots(segment)
        self.last = self.seen[segment.index] = now
        self.tell("denoising")

    def tell(self, stage: str) -> None:
        """Report; an exception from the receiver ends the job."""
        if self.denoise_s and self.steps_done:
            self.step_s = self.denoise_s / self.steps_done
        if self.delivery_s and self.slots_done:
            self.slot_s = self.delivery_s / self.slots_done
        done = self.steps_done * self.step_s + self.slots_done * self.slot_s
        total = self.steps * self.step_s + self.slots * self.slot_s
        self.report(
            Progress(
                stage=stage,
                done=round(done, 3),
                total=round(total, 3),
                seconds_left=round(max(total - done, 0.0), 1),
                segments_done=self.segments_done,
                segments_total=self.segments,
            )
        )


def foreseen_by(
    profile: str, plan: Plan, pace: Pace, meter: Meter, rendered: Sequence[Rendered]
) -> EstimateReport | None:
    """The estimate of what was denoised in this job and of one delivery, beside the seconds so far; None where every
    take was there."""
    works = [Work.of(o.decision.segment, pace.card, o.decision.settings) for o in rendered if not o.reused]
    if not works:
        return None
    cost = estimate(plan, pace, works)
    times = [
        SegmentTime(
            start_s=plan.segments[index].start_s, measured_s=round(spent, 3),
            estimate_s=round(sum(pace.seconds(work) for work in works if work.segment.index == index), 3),
        )
        for index, spent in sorted(meter.spent.items())
    ]  # fmt: skip
    return EstimateReport(
        profile=profile, seconds=cost.seconds, low_s=cost.low_s, high_s=cost.high_s,
        correction=pace.correction, measured_s=meter.denoise_s, memory_gb=cost.memory_gb, measured_gb=None,
        segments=times,
    )  # fmt: skip


def steps_of(decision: Decision, card: ModelCard) -> float:
    """Denoising work of one take of a decision's segment, in steps times slots."""
    return float(Work.of(decision.segment, card, decision.settings).steps * window_slots(decision.segment))


def meter_of(report: Callable[[Progress], None], plan: Plan, pace: Pace, decisions: Sequence[Decision]) -> Meter:
    """A meter of what is decided, at the pace that is estimated until it is seen."""
    takes = [decision for decision in decisions for _ in range((decision.action == "render") + len(decision.others))]
    steps = sum(steps_of(decision, pace.card) for decision in takes)
    seconds = sum(pace.seconds(Work.of(decision.segment, pace.card, decision.settings)) for decision in takes)
    return Meter(
        report=report,
        steps=steps,
        slots=plan.slots * (1 + max((len(d.others) for d in decisions), default=0)),
        segments=len(plan.segments) + sum(len(d.others) for d in decisions),
        step_s=seconds / steps if steps else 0.0,
        slot_s=pace.slot_s,
    )
