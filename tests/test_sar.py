"""The segment loop: design invariants 1, 2, 4, 5, 7, 9 and 10, each by its name, with real tiny components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CARD, clip, picture, tiny_pipeline, tiny_shot
from torch import Tensor

from dreamontage.generator.conditioning.encoding import denormalise, encode_video
from dreamontage.generator.decoding import ShotDecoder
from dreamontage.generator.fingerprint import Decision, decide
from dreamontage.generator.graph import render_segments
from dreamontage.generator.numbers import computing
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.sar import (
    DRIFT_LIMIT,
    WARM_UP,
    Drift,
    Rendered,
    Shot,
    assemble_latents,
    correct_drift,
    guide_latents,
    last_frame,
    latents_hash,
    measure_drift,
    sample_segment,
    tail_of,
    words_of,
)
from dreamontage.generator.takes import MemoryTakes
from dreamontage.generator.windows import window_anchors, window_beats, window_frames, window_slots
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Beat, Camera

OVERLAP = CARD.overlap


@pytest.fixture(scope="module")
def pipe() -> DreaMontagePipeline:
    return tiny_pipeline()


def orders(shot: Shot, media: dict[str, Media], **settings: Any) -> list[Decision]:
    request = RenderRequest(quality="draft", settings=RenderSettings(**settings))
    return decide(shot.plan, shot.montage, media, CARD, request, None, weights="w")


class Recorder:
    """Keeps every input the transformer saw."""

    def __init__(self, pipe: DreaMontagePipeline) -> None:
        self.inputs: list[Tensor] = []
        self.handle = pipe.transformer.register_forward_pre_hook(lambda module, args: self.inputs.append(args[0]))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()

    def condition(self, call: int) -> tuple[Tensor, Tensor]:
        """Mask [4,n,h,w] and condition [16,n,h,w] of one call."""
        return self.inputs[call][0, 16:20], self.inputs[call][0, 20:]


@pytest.fixture(scope="module")
def carried(pipe: DreaMontagePipeline) -> tuple[Shot, list[Rendered], MemoryTakes, Recorder]:
    """Stills over several windows, rendered in one step each."""
    shot, media = tiny_shot([(picture(i)[None], second) for i, second in enumerate((0, 3.5, 7))], 8.0)
    takes = MemoryTakes()
    with Recorder(pipe) as recorder:
        rendered = list(render_segments(pipe, shot, orders(shot, media, steps=1), takes))
    assert len(rendered) >= 3
    assert [s.seam for s in shot.plan.segments][1:] == ["carried"] * (len(rendered) - 1)
    return shot, rendered, takes, recorder


def latents_of(takes: MemoryTakes, rendered: Sequence[Rendered]) -> Tensor:
    found = [takes.load(item.fingerprint) for item in rendered]
    return torch.cat([item[0] for item in found if item is not None], dim=1)


def test_invariant_1_window_slot_0_is_the_last_frame_of_slot_lo_after_its_true_predecessors(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, recorder = carried
    whole = latents_of(takes, rendered)
    with torch.no_grad(), computing(whole.device):
        video = pipe.vae.decode(denormalise(pipe.vae, whole[None])[0][None]).sample[0].float()
    for segment in shot.plan.segments[1:]:
        mask, cond = recorder.condition(segment.index)
        frame = 4 * segment.window_start
        expected = encode_video(pipe.vae, video[:, frame : frame + 1])
        assert torch.allclose(cond[:, :1], expected, atol=1e-5)
        assert torch.equal(cond[:, 1:OVERLAP], whole[:, segment.window_start + 1 : segment.start])
        assert (mask[:, :OVERLAP] == 1).all()


def test_invariant_1_the_warm_up_gives_the_same_frame_as_decoding_from_the_beginning(pipe: DreaMontagePipeline) -> None:
    latents = torch.randn(16, 14, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = last_frame(pipe.vae, latents)
    assert torch.equal(last_frame(pipe.vae, latents[:, -(WARM_UP + 1) :]), whole)
    assert not torch.allclose(last_frame(pipe.vae, latents[:, -1:]), whole, atol=1e-4)


def test_invariant_1_a_user_still_in_the_overlap_is_not_written_again(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, recorder = carried
    closing = [s for s in shot.plan.segments[1:] if any(a.slot == s.start - 1 for a in shot.plan.anchors)]
    assert closing
    whole = latents_of(takes, rendered)
    for segment in closing:
        _, cond = recorder.condition(segment.index)
        assert torch.equal(cond[:, OVERLAP - 1], whole[:, segment.start - 1])


def test_invariant_2_overlap_stays_verbatim(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, _ = carried
    whole = latents_of(takes, rendered)
    assert whole.shape[1] == shot.plan.slots, "the new latents of an overlap are dropped"
    for item in rendered[1:]:
        segment = item.decision.segment
        with torch.no_grad():
            window = sample_segment(pipe, shot, item.decision, whole[:, : segment.start], None)
        overlap = whole[:, segment.window_start + 1 : segment.start]
        assert torch.equal(window.latents[:, 1:OVERLAP], overlap)
        assert not torch.equal(window.own[:, 1:OVERLAP], overlap), "the model made something of its own there"


def test_invariant_3_latents_cross_a_seam_and_no_pixel_does(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, _ = carried
    chunks = list(assemble_latents(shot.plan, [item.fingerprint for item in rendered], takes))
    decoder, pieces, frame = ShotDecoder(pipe.vae, carried=False), [], 0
    for chunk in chunks:  # as delivered: segment by segment
        stop = frame + 4 * chunk.shape[1] - (3 if frame == 0 else 0)
        pieces.append(decoder.next(chunk, *shot.previz.window(frame, stop)).pixels)
        frame = stop
    whole = ShotDecoder(pipe.vae, carried=False).next(torch.cat(chunks, dim=1), *shot.previz.window(0, frame))
    assert np.array_equal(np.concatenate(pieces), whole.pixels), "the video is one decode of the latents, nothing else"


def test_invariant_4_every_anchor_and_beat_reaches_its_windows_re_based_and_none_repeats(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, _, _, recorder = carried
    stills = {a.slot: encode_video(pipe.vae, torch.as_tensor(p.frames).permute(3, 0, 1, 2) / 127.5 - 1)
              for a, p in zip(shot.plan.anchors, shot.anchors, strict=True)}  # fmt: skip
    landed = []
    for segment in shot.plan.segments:
        mask, _ = recorder.condition(segment.index)
        first = segment.start - segment.window_start
        pinned = [k for k in range(first, window_slots(segment)) if mask[3, k].all()]
        landed += [segment.window_start + k for k in pinned]
    assert landed == sorted(stills)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.integers(0, 25), st.integers(1, 12)), max_size=4),
)
def test_invariant_4_windows_describe_exactly_what_lies_inside_them(
    slots: list[int], spans: list[tuple[int, int]]
) -> None:
    beats = [Beat(start_s=a, end_s=min(a + n, 31), prompt="slow") for a, n in spans]
    shot, _ = tiny_shot([(picture(0)[None, :1, :1], slot / 2) for slot in sorted(slots)], 31.0, beats)
    seen: list[str] = []
    for segment in shot.plan.segments:
        for inside in window_anchors(shot.plan, segment):
            assert segment.window_start + inside.slot == inside.anchor.slot
            if inside.anchor.slot >= segment.start:
                seen.append(inside.anchor.anchor_id)
        told = window_beats(shot.montage, segment)
        real = [b for b in shot.montage.beats if 2 * b.start_s < segment.stop and 2 * b.end_s > segment.window_start]
        assert len(told) == len(real)
        assert all(0 <= beat.start < beat.end <= window_slots(segment) for beat in told)
    assert seen == [a.anchor_id for a in shot.plan.anchors]


def test_invariant_4_the_guide_of_a_window_begins_with_its_frame_4_lo_in_image_mode(pipe: DreaMontagePipeline) -> None:
    shot, _ = tiny_shot([(picture(0)[None], 0.0), (picture(1)[None], 5.0)], 8.0)
    segment = shot.plan.segments[1]
    frames = window_frames(segment)
    assert (frames.start, len(frames)) == (4 * segment.window_start, 4 * (window_slots(segment) - 1) + 1)
    pixels = shot.previz.window(frames.start, frames.stop)[0]
    whole = encode_video(pipe.vae, torch.from_numpy(pixels).permute(3, 0, 1, 2) / 127.5 - 1)
    assert torch.allclose(guide_latents(pipe.vae, shot.previz, frames), whole, atol=1e-5)


def test_the_words_of_a_beat_come_in_slots_of_the_window() -> None:
    beats = [Beat(start_s=1, end_s=6, prompt="misty", camera=Camera(move="pan", direction="left", amount=0.5))]
    shot, _ = tiny_shot([(picture(0)[None, :1, :1], 0.0)], 8.0, beats)
    words = [words_of(shot, segment) for segment in shot.plan.segments]
    assert [(w.word, w.start, w.end) for w in words[0]][:1] == [("pan", 2.0, 9.0)]
    low = shot.plan.segments[1].window_start
    assert [(w.start, w.end) for w in words[1]] == [(0.0, min(12.0 - low, 9.0))] * 4
    assert {w.word for w in words[0]} == {"pan", "left", "ease_in_out", "mist"}


def test_invariant_5_takes_are_immutable_and_what_assembly_does_is_neither_carried_nor_stored(
    carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder],
) -> None:
    shot, rendered, takes, _ = carried
    before = latents_of(takes, rendered).clone()
    chunks = list(assemble_latents(shot.plan, [item.fingerprint for item in rendered], takes))
    assert [c.shape[1] for c in chunks] == [s.stop - s.start for s in shot.plan.segments]
    assert torch.equal(latents_of(takes, rendered), before)
    # Tails are hashes of takes, not of what assembly made of them.
    for item, segment in zip(rendered[1:], shot.plan.segments[1:], strict=True):
        assert item.tail == latents_hash(before[:, segment.window_start : segment.start])


def test_invariant_7_drift_is_measured_per_carried_seam_and_corrected_only_beyond_the_limit(
    carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder],
) -> None:
    shot, rendered, takes, _ = carried
    chunks = list(assemble_latents(shot.plan, [item.fingerprint for item in rendered], takes))
    for item, chunk in zip(rendered, chunks, strict=True):
        found = takes.load(item.fingerprint)
        assert found is not None
        latents, info = found
        if item.decision.segment.seam == "start":
            assert "drift" not in info
            assert torch.equal(chunk, latents)
            continue
        drift = Drift(*(torch.tensor(value) for value in info["drift"]))
        takes.save("calm", latents, {**info, "drift": [info["drift"][i] for i in (2, 3, 2, 3)]})
        names = [r.fingerprint if r is not item else "calm" for r in rendered]
        calm = list(assemble_latents(shot.plan, names, takes))[item.decision.segment.index]
        assert torch.equal(calm, latents)
        assert drift.largest > DRIFT_LIMIT
        pinned = {a.slot - item.decision.segment.start for a in shot.plan.anchors}
        for slot in pinned & set(range(latents.shape[1])):
            assert torch.equal(chunk[:, slot:], latents[:, slot:])


def test_invariant_7_a_correction_restores_the_tails_statistics_and_fades_to_identity() -> None:
    tail = torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    drift = measure_drift(tail * 1.3 + 0.4, tail)
    assert drift.largest > 0.3
    new = torch.randn(16, 10, 6, 6, generator=torch.Generator().manual_seed(1))
    fixed = correct_drift(new, drift, 8)
    assert torch.equal(fixed[:, 8:], new[:, 8:])
    change = (fixed - new).abs().mean((0, 2, 3))
    assert all(a > b for a, b in pairwise(change[:9]))
    assert torch.equal(correct_drift(new, drift, 0), new)
    assert measure_drift(tail, tail).largest == 0


def test_invariant_9_the_same_seeds_give_the_same_takes_and_one_changed_tail_changes_the_next_fingerprint(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, _ = carried
    _, media = tiny_shot([(picture(i)[None], second) for i, second in enumerate((0, 3.5, 7))], 8.0)
    again = MemoryTakes()
    decisions = orders(shot, media, steps=1)
    repeat = list(render_segments(pipe, shot, decisions, again))
    assert [r.fingerprint for r in repeat] == [r.fingerprint for r in rendered]
    assert torch.equal(latents_of(again, repeat), latents_of(takes, rendered))
    first = decisions[0]
    other = [replace(first, seed=99), *decisions[1:]]
    changed = list(render_segments(pipe, shot, other, MemoryTakes()))
    assert all(a.fingerprint != b.fingerprint for a, b in zip(changed, rendered, strict=True))


def test_takes_that_exist_are_not_rendered_again(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, _ = carried
    with Recorder(pipe) as recorder:
        again = list(render_segments(pipe, shot, [r.decision for r in rendered], takes))
    assert recorder.inputs == []
    assert all(item.reused for item in again)


def test_invariant_10_a_held_end_stays_verbatim(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, _ = carried
    old = rendered[1]
    held = replace(old.decision, seed=4, held_take=old.fingerprint)
    kept = replace(rendered[2].decision, action="reuse", take=rendered[2].fingerprint)
    result = list(render_segments(pipe, shot, [rendered[0].decision, held, kept], takes))
    new, before = takes.load(result[1].fingerprint), takes.load(old.fingerprint)
    assert new is not None and before is not None
    assert torch.equal(new[0][:, -OVERLAP:], before[0][:, -OVERLAP:])
    assert not torch.equal(new[0][:, :-OVERLAP], before[0][:, :-OVERLAP])
    assert [r.reused for r in result] == [True, False, True]
    assert result[1].held == latents_hash(before[0][:, -OVERLAP:])


def test_a_kept_take_that_would_continue_from_something_else_is_rendered_instead(
    pipe: DreaMontagePipeline, carried: tuple[Shot, list[Rendered], MemoryTakes, Recorder]
) -> None:
    shot, rendered, takes, _ = carried
    first = replace(rendered[0].decision, seed=8)
    kept = replace(rendered[1].decision, action="reuse", take=rendered[1].fingerprint)
    result = list(render_segments(pipe, shot, [first, kept], takes))
    assert [r.reused for r in result] == [False, False]


def test_a_pinned_seam_needs_nothing_of_the_segment_before(pipe: DreaMontagePipeline) -> None:
    shot, media = tiny_shot([(clip(3, 97), 0.0)], 12.0)
    pinned = [s for s in shot.plan.segments if s.seam == "pinned"]
    assert pinned
    takes = MemoryTakes()
    with Recorder(pipe) as recorder:
        rendered = list(render_segments(pipe, shot, orders(shot, media, steps=1), takes))
    for segment in pinned:
        mask, cond = recorder.condition(segment.index)
        frame = torch.from_numpy(shot.anchors[0].frames[4 * segment.window_start][None]).permute(3, 0, 1, 2)
        assert torch.allclose(cond[:, :1], encode_video(pipe.vae, frame / 127.5 - 1), atol=1e-5)
        assert (mask == 1).all()
        assert rendered[segment.index].tail is None
    whole = encode_video(pipe.vae, torch.from_numpy(shot.anchors[0].frames[:97]).permute(3, 0, 1, 2) / 127.5 - 1)
    assert torch.allclose(latents_of(takes, rendered), whole, atol=1e-5)


def test_a_tail_gives_one_frame_and_the_carried_slots(pipe: DreaMontagePipeline) -> None:
    before = torch.randn(16, 9, 4, 4, generator=torch.Generator().manual_seed(1))
    tail = tail_of(pipe.vae, before, 3)
    assert torch.equal(tail.rest, before[:, -2:])
    assert torch.equal(tail.head, last_frame(pipe.vae, before[:, :-2]))
