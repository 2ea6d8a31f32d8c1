"""Segment-wise auto-regression: windows with tails and held ends, and the assembly of takes; graph.py runs the loop.

Source: DreaMontage (https://arxiv.org/abs/2512.21252), made executable with the invariants named in the tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamontage.generator.conditioning import Condition
from dreamontage.generator.conditioning.encoding import pixels_to_tensor
from dreamontage.generator.decoding import StreamingDecoder, StreamingEncoder, to_tensor
from dreamontage.generator.fingerprint import Decision, resolve_settings
from dreamontage.generator.models.family import Family, Pin, Tail, Window
from dreamontage.generator.models.slot_conditions import pinned
from dreamontage.generator.models.vocabulary import TimedWord, timed_words
from dreamontage.generator.models.wan_text import phrases, spoken
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sampling import Sampled, Sampling, StepCallback, denoise
from dreamontage.generator.takes import TakeStore
from dreamontage.generator.timeline import STRIDE
from dreamontage.generator.windows import window_anchors, window_beats, window_frames, window_slots
from dreamontage.schemas.montage import Montage
from dreamontage.schemas.plan import Plan, Segment

WARM_UP = 6
"""Slots decoded before a slot whose true frame is wanted; more than the decoder remembers back."""
GUIDE_CHUNK = 4
"""Slots of previz that are encoded at a time."""
DRIFT_LIMIT = 0.02
"""Drift of a channel's mean or deviation, in standard deviations, that is left alone."""


@dataclass(frozen=True)
class Shot:
    """All that windows are cut from. `anchors` are the plan's anchors in order, as pixels at the plan's size."""

    plan: Plan
    montage: Montage
    previz: Previz
    anchors: Sequence[PrevizAnchor]


class Rendered(NamedTuple):
    """One segment's take: where it is kept, what it met, whether it was there before, the hash of its last slots.

    `number` is 1 for the take that is delivered and carried on, 2 and up for its alternatives.
    """

    decision: Decision
    fingerprint: str
    tail: str | None
    held: str | None
    reused: bool
    end: str
    number: int = 1


class Drift(NamedTuple):
    """Channel means and deviations [C] over the overlap's slots lo+1 … a−1: of the new window and of the tail."""

    new_mean: Tensor
    new_std: Tensor
    tail_mean: Tensor
    tail_std: Tensor

    @property
    def largest(self) -> float:
        """The largest change of a channel's mean or deviation, in the tail's standard deviations."""
        shift = (self.new_mean - self.tail_mean).abs() / self.tail_std
        spread = (self.new_std / self.tail_std - 1).abs()
        return float(torch.maximum(shift, spread).max())


def latents_hash(latents: Tensor) -> str:
    """sha256 of latents' float32 bytes."""
    return hashlib.sha256(latents.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def last_frame(vae: Any, latents: Tensor, after: Tensor | None = None) -> Tensor:
    """The last frame [3,1,H,W] of the last of these slots [C,n,h,w], decoded after its true predecessors, and before
    the slots `after` for an autoencoder that looks ahead."""
    *_, frames = StreamingDecoder(vae).slots(latents, after)
    return frames[-1][:, None]


def guide_latents(vae: Any, previz: Previz, frames: range, stride: int = STRIDE) -> Tensor:
    """The previz of a window's frames as latents [C,n,h,w], made and encoded a few slots at a time."""
    pieces, start, encoder = [], frames.start, StreamingEncoder(vae)
    while start < frames.stop:
        stop = min(start + stride * GUIDE_CHUNK + (start == frames.start), frames.stop)
        shown, _ = previz.window(start, stop)
        pieces.append(encoder.next(to_tensor(shown)))
        start = stop
    return torch.cat(pieces, dim=1)


def tail_of(vae: Any, before: Tensor, overlap: int) -> Tail:
    """The window's first slots from the latents [C,r,h,w] before it: slot lo as one frame, the rest as they are."""
    at = before.shape[1] - overlap + 1
    return Tail(last_frame(vae, before[:, :at], before[:, at:]), before[:, at:])


def pins_of(shot: Shot, segment: Segment, device: torch.device) -> list[Pin]:
    """Stills and clips inside a segment's window as pixels, at slots of the window."""
    pixels = {anchor.frame: anchor.frames for anchor in shot.anchors}
    return [
        Pin(
            inside.slot,
            pixels_to_tensor(pixels[inside.anchor.frame][inside.frames.start : inside.frames.stop], device),
            inside.anchor.strength,
            inside.anchor.kind == "clip",
        )
        for inside in window_anchors(shot.plan, segment)
    ]


def conditions_of(vae: Any, shot: Shot, segment: Segment, device: torch.device) -> list[Condition]:
    """Stills and clips inside a segment's window, each encoded by itself, at slots of the window."""
    return [pinned(vae, pin) for pin in pins_of(shot, segment, device)]


def words_of(shot: Shot, segment: Segment) -> tuple[TimedWord, ...]:
    """The window's prompt words and typed moves, in slots of the window."""
    return tuple(
        word
        for beat in window_beats(shot.montage, segment)
        for word in timed_words(beat.prompt, beat.camera, beat.start, beat.end)
    )


def prompt_of(shot: Shot, segment: Segment) -> str:
    """What a model that reads text is told of a window: the brief, then its beats with their seconds in the window."""
    said = spoken(phrases(window_beats(shot.montage, segment)), shot.plan.format.fps, segment.stride)
    return " ".join(part for part in (shot.montage.brief.strip(), said) if part)


def texts_of(model: Family, shot: Shot, decisions: Sequence[Decision]) -> list[str]:
    """Every prompt that rendering these segments will ask for, negative ones included."""
    wanted = [d for d in decisions if d.action == "render" or d.others]
    negative = [resolve_settings(model.card, d.settings, d.segment)[0].negative_prompt or "" for d in wanted]
    return sorted({*(prompt_of(shot, d.segment) for d in wanted), *negative})


def window_of(
    model: Family, shot: Shot, decision: Decision, before: Tensor | None, held: Tensor | None
) -> tuple[Window, Sampling]:
    """A segment's window and sampling; `before` [C,r,h,w]: latents up to the seam; `held` [C,O,h,w]: its end."""
    segment, device, form = decision.segment, model.device, shot.plan.format
    settings, guide_mode = resolve_settings(model.card, decision.settings, segment)
    guide = None
    if guide_mode != "off":
        guide = guide_latents(model.vae, shot.previz, window_frames(segment), segment.stride).to(device)
    window = Window(
        slots=window_slots(segment),
        height=form.height // model.card.scale,
        width=form.width // model.card.scale,
        fps=form.fps,
        pins=pins_of(shot, segment, device),
        tail=None if before is None else tail_of(model.vae, before.to(device), model.card.overlap),
        held=None if held is None else held.to(device),
        guide=guide,
        words=words_of(shot, segment),
        prompt=prompt_of(shot, segment),
        negative=settings.negative_prompt or "",
    )
    return window, Sampling(
        steps=settings.steps or 1,
        guidance=1.0 if settings.guidance is None else settings.guidance,
        shift=settings.shift or 1.0,
        t0=1.0 if settings.t0 is None else settings.t0,
        loras=tuple(settings.loras or ()),
    )


def sample_segment(
    model: Family,
    shot: Shot,
    decision: Decision,
    before: Tensor | None,
    held: Tensor | None,
    on_step: StepCallback | None = None,
) -> Sampled:
    """Render one window. `before` [C,r,h,w]: latents up to the carried seam; `held` [C,O,h,w]: the end to keep."""
    window, sampling = window_of(model, shot, decision, before, held)
    return denoise(model.begin(window, sampling, torch.Generator().manual_seed(decision.seed)), on_step)


def measure_drift(own: Tensor, tail: Tensor) -> Drift:
    """Compare what the model made of the overlap's slots [C,O-1,h,w] with what was carried over."""
    return Drift(own.mean((1, 2, 3)), own.std((1, 2, 3)), tail.mean((1, 2, 3)), tail.std((1, 2, 3)))


def correct_drift(latents: Tensor, drift: Drift, end: int) -> Tensor:
    """Undo a seam's drift on new latents [C,n,h,w]: nearly whole at slot 0, fading to identity at slot `end`."""
    shape = (-1, 1, 1, 1)
    scale, mean, aim = (
        value.view(shape) for value in (drift.tail_std / drift.new_std, drift.new_mean, drift.tail_mean)
    )
    fade = (1 - torch.arange(1, latents.shape[1] + 1) / (end + 1)).clamp(0, 1).view(1, -1, 1, 1)
    return latents + fade * ((latents - mean) * scale + aim - latents)


def assemble_latents(plan: Plan, fingerprints: Sequence[str], takes: TakeStore) -> Iterator[Tensor]:
    """The whole shot's normalised latents [C,n,h,w], one chunk a segment, in order.

    Drift beyond DRIFT_LIMIT is corrected here and only here: fading out towards the next pinned slot or, at the
    latest, the slots the next segment continues from. Takes stay as they are.
    """
    for segment, name in zip(plan.segments, fingerprints, strict=True):
        latents, info = load_take(takes, name)
        drift = Drift(*(torch.tensor(value) for value in info["drift"])) if info.get("drift") else None
        if segment.seam == "carried" and drift is not None and drift.largest > DRIFT_LIMIT:
            latents = correct_drift(latents, drift, _fade_end(plan, segment))
        yield latents


def _fade_end(plan: Plan, segment: Segment) -> int:
    """Slots of a segment over which a correction may fade out: up to its first pinned slot or the next overlap."""
    pinned = [max(a.slot, segment.start) for a in plan.anchors if a.strength == 1 and a.last_slot >= segment.start]
    following = [s for s in plan.segments if s.index == segment.index + 1]
    overlap = max((s.start - s.window_start for s in following), default=0)
    return min([segment.stop - overlap, *pinned]) - segment.start


def load_take(takes: TakeStore, name: str) -> tuple[Tensor, Mapping[str, Any]]:
    """A take that was there a moment ago: latents [C,n,h,w] and what it met."""
    found = takes.load(name)
    assert found is not None, f"take {name} vanished while it was needed"
    return found
