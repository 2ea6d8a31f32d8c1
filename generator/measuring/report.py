"""From streamed frames to the measured report (definitions in `schemas.report`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dreamontage.generator.measuring import judge
from dreamontage.generator.measuring.anchors import AnchorFit, AnchorMeter
from dreamontage.generator.measuring.notes import notes, unforeseen
from dreamontage.generator.measuring.pairs import PairMeter
from dreamontage.generator.native import shown_frames
from dreamontage.generator.timeline import frames_of_slot, slot_of_frame
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Plan, Segment
from dreamontage.schemas.report import (
    AnchorReport,
    CutReport,
    EstimateReport,
    IntervalReport,
    Report,
    SeamReport,
    SegmentReport,
    Timing,
)

Frame = NDArray[np.uint8]


class ShotMeter:
    """Takes the delivered frames one by one and keeps a few numbers of each; `report` judges the whole shot.

    `anchors`: the plan's anchors in order, as (pictures [n,H,W,3], global frame of the first).
    """

    def __init__(self, plan: Plan, montage: Montage, anchors: Sequence[tuple[Frame, int]]) -> None:
        self._plan, self._montage = plan, montage
        self._pairs, self._guide = PairMeter(), PairMeter()
        self._anchors = AnchorMeter(anchors, plan.frames)

    @property
    def frames(self) -> int:
        """Frames measured so far."""
        return len(self._pairs.curves)

    def add(self, frame: Frame, reference: Frame | None = None, previz: Frame | None = None) -> None:
        """The next delivered frame, RGB [H,W,3]; the same frame of D(E(previz)) and of the previz if there is a model.
        """
        self._pairs.add(frame)
        if previz is not None:
            self._guide.add(previz)
        self._anchors.add(frame, reference)

    def report(
        self,
        segments: Sequence[SegmentReport],
        t0: Sequence[float],
        model: str,
        rendered: bool,
        timing: Timing,
        peak_memory_bytes: int,
        estimate: EstimateReport | None = None,
    ) -> Report:
        """The report of all frames. `t0` per segment of the plan; `rendered` False: the previz was delivered."""
        plan, fps, curves = self._plan, self._plan.format.fps, self._pairs.curves
        shape = plan.shown or plan.format  # what the file is; all that is measured is measured before it is resampled
        fits = self._anchors.fits()
        seams = plan.seams if rendered else []
        at_seams = [frames_of_slot(seam.slot, plan.stride).start for seam in seams]
        own = self._frames_that_may_rest()
        cuts = [cut for cut in judge.cuts(curves, fps) if cut.frame not in self._frames_inside_clips()]
        anchor_reports = [
            AnchorReport(
                label=anchor.label or anchor.anchor_id,
                kind=anchor.kind,
                strength=anchor.strength,
                requested_s=anchor.requested_s,
                snapped_s=anchor.snapped_s,
                frame=shown_frames(anchor.frame + 1, fps, shape.fps) - 1,
                psnr_db=round(fit.psnr_db, 2),
                reference_psnr_db=None if fit.reference_psnr_db is None else round(fit.reference_psnr_db, 2),
                best_offset_frames=fit.best_offset_frames,
            )
            for anchor, fit in zip(plan.anchors, fits, strict=True)
        ]
        intervals = self._intervals(fits, t0 if rendered else [])
        planned = self._guide.curves if len(self._guide.curves) else None
        seam_fits = judge.seam_fits(curves, at_seams, fps)
        faults = judge.seam_faults(curves, planned, at_seams, fps)
        seam_reports = [
            SeamReport(at_s=seam.at_s, step_ratio=fit.step_ratio, jerk_ratio=fit.jerk_ratio, fault=fault)
            for seam, fit, fault in zip(seams, seam_fits, faults, strict=True)
        ]
        cut_reports = [
            CutReport(at_s=round(cut.frame / fps, 4), score=cut.score, detector=judge.CUT_DETECTOR) for cut in cuts
        ]
        return Report(
            requested_duration_s=plan.requested_duration_s,
            duration_s=plan.duration_s,
            fps=shape.fps,
            frames=shown_frames(len(curves), fps, shape.fps),
            width=shape.width,
            height=shape.height,
            model=model,
            seed=self._montage.seed,
            segments=list(segments),
            anchors=anchor_reports,
            intervals=intervals,
            seams=seam_reports,
            cuts=cut_reports,
            notes=[
                *notes(
                    anchor_reports, intervals, seam_reports, cut_reports, judge.freezes(curves, fps, own), fps, rendered
                ),
                *([] if estimate is None else unforeseen(estimate, plan.duration_s)),
            ],
            timing=timing,
            peak_memory_bytes=peak_memory_bytes,
            estimate=estimate,
        )

    def _frames_inside_clips(self) -> set[int]:
        """Frames of clips but their first: a cut or rest there is the clip's own."""
        clips = [range(anchor.frame + 1, anchor.frame + anchor.frames) for anchor in self._plan.anchors]
        return {frame for clip in clips for frame in clip}

    def _frames_that_may_rest(self) -> set[int]:
        """Frames inside clips, and inside beats that ask the camera to hold."""
        fps = self._plan.format.fps
        holds = [b for b in self._montage.beats if b.camera is not None and b.camera.move == "hold"]
        held = {frame for beat in holds for frame in range(round(beat.start_s * fps), round(beat.end_s * fps) + 1)}
        return held | self._frames_inside_clips()

    def _intervals(self, fits: Sequence[AnchorFit], t0: Sequence[float]) -> list[IntervalReport]:
        """Before the first anchor, between neighbours, after the last; what is inside a clip is pinned and left out."""
        plan, fps, frames = self._plan, self._plan.format.fps, self.frames
        firsts = [anchor.frame for anchor in plan.anchors]
        lasts = [anchor.frame + anchor.frames - 1 for anchor in plan.anchors]
        found: list[IntervalReport] = []
        for at, (start, stop) in enumerate(zip([-1, *lasts], [*firsts, frames], strict=True)):
            if stop - start < 2:
                continue
            around = [fit.gradient for fit in fits[max(0, at - 1) : at + 1]] or [0.0]
            fit = judge.interval_fit(self._pairs.curves, start, stop, float(np.mean(around)), fps)
            segment = self._segment_at((start + stop) // 2)
            found.append(
                IntervalReport(
                    start_s=round(max(start, 0) / fps, 4),
                    end_s=round(min(stop, frames) / fps, 4),
                    guide=segment.guide,
                    t0=t0[segment.index] if segment.index < len(t0) else 0.0,
                    sharpness_vs_anchors=fit.sharpness_vs_anchors,
                    motion=fit.motion,
                    static_share=fit.static_share,
                )
            )
        return found

    def _segment_at(self, frame: int) -> Segment:
        slot = slot_of_frame(min(frame, self._plan.frames - 1), self._plan.stride)
        return next(segment for segment in self._plan.segments if segment.start <= slot < segment.stop)
