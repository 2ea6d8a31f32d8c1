"""A planned shot, rendered in the ways that are compared. All of them share one plan, one previz and one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamontage.generator.conditioning import ClipCondition, Condition, StillCondition, assemble
from dreamontage.generator.decoding import StreamingDecoder, carry_over, encode_slots, to_pixels, to_tensor
from dreamontage.generator.evaluation.metrics import Frames
from dreamontage.generator.evaluation.variants import decoded
from dreamontage.generator.fingerprint import decide
from dreamontage.generator.graph import render_segments
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sampling import Sampling, sample
from dreamontage.generator.sar import Rendered, Shot, assemble_latents, conditions_of, sample_segment
from dreamontage.generator.takes import MemoryTakes
from dreamontage.generator.timeline import frames_of_span
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import SIZES, Beat, Format, Montage, Quality
from dreamontage.schemas.report import Video, VideoSegment

FPS = 24
CHUNK_SLOTS = 4
PLAIN_STEPS = 10
Pinned = Sequence[tuple[Frames, int]]
"""Anchors as (frames [n,H,W,3], first frame)."""


@dataclass(frozen=True)
class Staged:
    """A planned shot with its anchors as pixels."""

    shot: Shot
    media: dict[str, Media]


@dataclass(frozen=True)
class Takes:
    """The takes of a whole shot: what every segment was decided to be, and where its latents are."""

    rendered: list[Rendered]
    store: MemoryTakes

    @property
    def seams(self) -> list[tuple[int, str]]:
        """First frame of every segment but the first, and its kind: pinned, carried, or held (the one before ends in
        slots that an earlier take gave)."""
        found: list[tuple[int, str]] = []
        for before, after in pairwise(self.rendered):
            segment = after.decision.segment
            kind = "held" if before.held is not None and not before.reused else segment.seam
            found.append((frames_of_span(segment.start, segment.start + 1).start, kind))
        return found


@dataclass(frozen=True)
class Piece:
    """The next frames uint8 [n,H,W,3]: delivered, the model's own (m = 0), D(E(previz)), previz; its confidence."""

    final: Frames
    own: Frames
    guide: Frames
    previz: Frames
    sure: NDArray[np.float32]


def stage(
    pipeline: Any, pinned: Pinned, frames: int, size: tuple[int, int], beats: Sequence[Beat] = (), seed: int = 0
) -> Staged:
    """Plan a shot of `frames` frames (1+4m) through pictures and clips of `size` (width, height) at frames 4k."""
    media: dict[str, Media] = {}
    anchors = []
    for number, (pictures, frame) in enumerate(pinned):
        digest = hashlib.sha256(np.ascontiguousarray(pictures).tobytes()).hexdigest()
        film = len(pictures) > 1
        item = Media(
            id=f"{'clip' if film else 'img'}_{digest[:16]}", sha256=digest, kind="clip" if film else "still",
            container="raw", width=size[0], height=size[1], duration_s=len(pictures) / FPS if film else 0.0, fps=FPS,
            frames=len(pictures), bytes=pictures.nbytes,
        )  # fmt: skip
        media[item.id] = item
        anchors.append(Anchor(id=f"a{number}", media_id=item.id, second=frame / FPS))
    montage = Montage(
        id="m_suite", format=Format(width=size[0], height=size[1], fps=FPS), duration_s=(frames - 1) / FPS,
        model=pipeline.card.id, seed=seed, anchors=anchors, beats=list(beats),
    )  # fmt: skip
    plan = plan_montage(montage, media, pipeline.card, quality_of(size))
    placed = [PrevizAnchor(pinned[int(a.anchor_id[1:])][0][: a.frames], a.frame, a.media_id) for a in plan.anchors]
    previz = Previz(placed, previz_beats(montage), plan.frames, size, FPS)
    return Staged(Shot(plan, montage, previz, placed), media)


def quality_of(size: tuple[int, int]) -> Quality:
    """The quality whose size (width, height) this is: draft or standard."""
    return next(quality for (_, quality), known in SIZES.items() if known == size)


def render_takes(
    pipeline: Any, staged: Staged, settings: RenderSettings, base: Takes | None = None
) -> Takes:
    """Render what is not kept of `base`, the takes of an earlier version of this shot."""
    store = base.store if base is not None else MemoryTakes()
    quality = quality_of(staged.shot.previz.size)
    request = RenderRequest(quality=quality, settings=settings)
    known: dict[str, Any] = {} if base is None else {"id": "v", "quality": quality, "segments": _segments(base)}
    video = Video.model_construct(**known) if known else None  # a decision needs no more of a video
    plan, montage = staged.shot.plan, staged.shot.montage
    decisions = decide(plan, montage, staged.media, pipeline.card, request, video, weights="")
    return Takes(list(render_segments(pipeline, staged.shot, decisions, store)), store)


def chunks_of(staged: Staged, takes: Takes) -> Iterator[Tensor]:
    """The shot's latents, one chunk a segment."""
    return assemble_latents(staged.shot.plan, [item.fingerprint for item in takes.rendered], takes.store)


def without_tails(pipeline: Any, staged: Staged, takes: Takes) -> list[Tensor]:
    """Every segment rendered by itself from the same conditions, previz and seed, without the tail before it."""
    chunks = []
    for item in takes.rendered:
        segment = item.decision.segment
        result = sample_segment(pipeline, staged.shot, item.decision, None, None)
        chunks.append(result.latents[:, segment.start - segment.window_start :].float().cpu())
    return chunks


def pieces(pipeline: Any, staged: Staged, chunks: Iterable[Tensor]) -> Iterator[Piece]:
    """Decode a shot beside its previz, a few slots at a time: what is delivered, with and without detail carry-over."""
    painted, guides = StreamingDecoder(pipeline.vae), StreamingDecoder(pipeline.vae)
    slot = 0
    for latents in chunks:
        for at in range(0, latents.shape[1], CHUNK_SLOTS):
            part = latents[:, at : at + CHUNK_SLOTS]
            span = frames_of_span(slot, slot + part.shape[1])
            shown, sure = staged.shot.previz.window(span.start, span.stop)
            target = to_tensor(shown)
            own = torch.cat(list(painted.slots(part)))
            guide = torch.cat(list(guides.slots(encode_slots(pipeline.vae, target, first=slot == 0))))
            final = carry_over(own, guide, target, torch.from_numpy(sure))
            slot += part.shape[1]
            yield Piece(to_pixels(final), to_pixels(own), to_pixels(guide), shown, sure)


def whole(parts: Iterable[Piece]) -> Piece:
    """All pieces of a shot as one."""
    every = list(parts)
    fields = ("final", "own", "guide", "previz", "sure")
    return Piece(*(np.concatenate([getattr(part, name) for part in every]) for name in fields))


def through_autoencoder(pipeline: Any, frames: Frames) -> Frames:
    """D(E(frames)), decoded as a stream."""
    return decoded(pipeline.vae, encode_slots(pipeline.vae, to_tensor(frames), first=True))


def plain(pipeline: Any, staged: Staged, settings: RenderSettings) -> Frames:
    """The paper's mode: guide off, the conditions re-encoded each by itself, the model's own pixels."""
    off = settings.model_copy(update={"guide": "off", "steps": PLAIN_STEPS, "t0": None})
    takes = render_takes(pipeline, staged, off)
    return decoded(pipeline.vae, torch.cat(list(chunks_of(staged, takes)), 1))


def plain_naive(pipeline: Any, staged: Staged, truth: Frames) -> Frames:
    """Plain mode with naive conditions: slices of the true clip's own latents instead of stills encoded by themselves.

    One window only. The slice of a slot shows four true frames, of which a user could give the last one alone, so that
    this is what naive conditioning would do at its best.
    """
    (segment,) = staged.shot.plan.segments
    latents = encode_slots(pipeline.vae, to_tensor(truth), first=True)
    sliced: list[Condition] = []
    for condition in conditions_of(pipeline.vae, staged.shot, segment, pipeline.device):
        assert isinstance(condition, StillCondition | ClipCondition)
        if isinstance(condition, StillCondition):
            sliced.append(StillCondition(condition.slot, latents[:, condition.slot : condition.slot + 1]))
        else:
            stop = condition.slot + condition.latents.shape[1]
            sliced.append(ClipCondition(condition.slot, latents[:, condition.slot : stop]))
    generator = torch.Generator().manual_seed(segment.seed)
    window = assemble(sliced, latents.shape[1], *latents.shape[2:], generator=generator)
    result = sample(pipeline, window, [], [], Sampling(PLAIN_STEPS), generator)
    return decoded(pipeline.vae, result.latents)




def _segments(takes: Takes) -> list[VideoSegment]:
    return [
        VideoSegment(
            start=item.decision.segment.start, stop=item.decision.segment.stop,
            window_start=item.decision.segment.window_start, seam=item.decision.segment.seam, seed=item.decision.seed,
            recipe=item.decision.recipe, fingerprint=item.fingerprint, settings=item.decision.settings, tail=item.tail,
            held=item.held,
        )
        for item in takes.rendered
    ]  # fmt: skip
