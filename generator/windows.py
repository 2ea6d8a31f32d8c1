"""What of a montage reaches one segment's window, with every position re-based to the window. No torch.

Slot 0 of a window is global slot `window_start`; it stands for one frame, global frame 4·window_start (4: the
model's stride).
"""

from __future__ import annotations

from dataclasses import dataclass

from dreamontage.generator.models.vocabulary import spoken_camera
from dreamontage.generator.previz import PrevizBeat
from dreamontage.schemas.montage import Camera, Montage
from dreamontage.schemas.plan import PlacedAnchor, Plan, Segment


@dataclass(frozen=True)
class WindowAnchor:
    """The part of an anchor inside a window: `slots` slots from window slot `slot`, its own from `skipped` on."""

    anchor: PlacedAnchor
    slot: int
    skipped: int
    slots: int

    @property
    def frames(self) -> range:
        """The anchor's own frames in it, 1+4(slots-1) of them."""
        stride = self.anchor.stride
        return range(stride * self.skipped, stride * (self.skipped + self.slots - 1) + 1)


@dataclass(frozen=True)
class WindowBeat:
    """The part of a beat inside a window, in slots of the window (fractions allowed)."""

    start: float
    end: float
    prompt: str
    camera: Camera | None

    @property
    def stop(self) -> float:
        """The same as `end`."""
        return self.end


def window_slots(segment: Segment) -> int:
    """n, the slots of a segment's window."""
    return segment.stop - segment.window_start


def window_frames(segment: Segment) -> range:
    """The global frames that a window's previz covers: 4·lo … 4·(stop−1)."""
    return range(segment.stride * segment.window_start, segment.stride * (segment.stop - 1) + 1)


def window_anchors(plan: Plan, segment: Segment) -> list[WindowAnchor]:
    """The anchors inside a segment's window, in order."""
    low, stop = segment.window_start, segment.stop
    inside = []
    for anchor in plan.anchors:
        first, last = max(anchor.slot, low), min(anchor.last_slot, stop - 1)
        if first <= last:
            inside.append(WindowAnchor(anchor, first - low, first - anchor.slot, last - first + 1))
    return inside


def window_beats(montage: Montage, segment: Segment) -> list[WindowBeat]:
    """The beats that reach a segment's window, clipped to it, in order."""
    fps, slots = montage.format.fps, window_slots(segment)
    inside = []
    for beat in sorted(montage.beats, key=lambda beat: (beat.start_s, beat.end_s, beat.prompt)):
        start, end = (second * fps / segment.stride - segment.window_start for second in (beat.start_s, beat.end_s))
        if end > 0 and start < slots:
            clipped = round(max(start, 0.0), 6), round(min(end, float(slots)), 6)
            inside.append(WindowBeat(*clipped, beat.prompt, beat.camera))
    return inside


def previz_beats(montage: Montage) -> list[PrevizBeat]:
    """A montage's beats as the previz takes them, in frames; a move named in the words counts where none is typed."""
    fps = montage.format.fps
    return [
        PrevizBeat(round(b.start_s * fps), round(b.end_s * fps), b.camera or spoken_camera(b.prompt))
        for b in montage.beats
    ]
