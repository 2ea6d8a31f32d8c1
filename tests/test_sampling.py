"""The denoising loop: flow times, starting from the guide, guidance, fixed slots, determinism."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamontage.generator.conditioning import ClipCondition, GuideCondition, StillCondition, assemble
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.models.vocabulary import TimedWord
from dreamontage.generator.sampling import Sampled, Sampling, sample, step_times, unshifted

H, W = 4, 6


def latents(slots: int, seed: int = 0) -> Tensor:
    return torch.randn(16, slots, H, W, generator=torch.Generator().manual_seed(seed))


class Oracle(torch.nn.Module):
    """Knows the true video: its velocity (x_t − x0) / t leads every start straight to it."""

    def __init__(self, truth: Tensor) -> None:
        super().__init__()
        self.truth, self.times = truth, []

    def forward(self, inputs: Tensor, timestep: Tensor, prompts: Tensor, return_dict: bool) -> tuple[Tensor]:
        time = timestep.view(-1, 1, 1, 1, 1) / 1000
        self.times.append(float(timestep[0]) / 1000)
        return ((inputs[:, :16] - self.truth) / time,)


def model(transformer: torch.nn.Module) -> Any:
    torch.manual_seed(0)
    tokens = PromptTokens(text_dim=8, capacity=4)
    return SimpleNamespace(transformer=transformer, prompt_tokens=tokens, scheduler=FlowMatchEulerDiscreteScheduler())


def run(transformer: torch.nn.Module, sampling: Sampling, seed: int = 1, **kwargs: Any) -> Sampled:
    guide = kwargs.get("guide")
    conditions = kwargs.pop("conditions", [])
    if guide is not None:
        conditions = [*conditions, GuideCondition(guide)]
    words = kwargs.pop("words", [])
    window = assemble(conditions, 5, H, W)
    return sample(model(transformer), window, words, [], sampling, torch.Generator().manual_seed(seed), **kwargs)


def tiny_transformer() -> NanoTransformer:
    torch.manual_seed(3)
    return NanoTransformer(
        num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=2, text_dim=8, freq_dim=16
    )


@given(st.integers(1, 30), st.floats(0.2, 8), st.floats(0.05, 1))
def test_times_begin_at_the_start_and_fall_towards_zero(steps: int, shift: float, start: float) -> None:
    times = step_times(steps, shift, start)
    shifted = [shift * u / (1 + (shift - 1) * u) for u in times]
    assert shifted[0] == pytest.approx(start)
    assert all(a > b > 0 for a, b in pairwise(shifted))
    assert unshifted(shifted[-1], shift) == pytest.approx(times[-1])


@pytest.mark.parametrize(("steps", "shift", "t0"), [(1, 1.0, 1.0), (4, 1.0, 1.0), (6, 3.0, 1.0), (4, 2.0, 0.4)])
def test_a_perfect_velocity_arrives_at_the_truth(steps: int, shift: float, t0: float) -> None:
    truth = latents(5)
    oracle = Oracle(truth)
    result = run(oracle, Sampling(steps, 1.0, shift, t0), guide=latents(5, 2))
    assert torch.allclose(result.latents, truth, atol=1e-4)
    assert oracle.times[0] == pytest.approx(t0, abs=1e-5)
    assert len(oracle.times) == steps


def test_follow_starts_from_the_noised_guide_with_given_slots_in_place() -> None:
    guide, clip = latents(5, 2), latents(2, 4)
    seen: list[Tensor] = []
    run(
        Oracle(latents(5)), Sampling(3, t0=0.4), guide=guide, conditions=[ClipCondition(2, clip)],
        on_step=lambda done, steps, x: seen.append(x.clone()),
    )  # fmt: skip
    noise = torch.randn(16, 5, H, W, generator=torch.Generator().manual_seed(1))
    clean = guide.clone()
    clean[:, 3] = clip[:, 1]
    assert torch.allclose(seen[0], 0.6 * clean + 0.4 * noise, atol=1e-6)
    assert len(seen) == 4


def test_slots_that_are_given_whole_stay_verbatim_and_a_mid_stills_slot_is_generated() -> None:
    clip, still = latents(3, 4), latents(1, 5)
    result = run(tiny_transformer(), Sampling(2), conditions=[ClipCondition(1, clip), StillCondition(4, still)])
    assert torch.equal(result.latents[:, 2:4], clip[:, 1:])
    assert not torch.equal(result.own[:, 2:4], clip[:, 1:])
    assert torch.equal(result.latents[:, [0, 1, 4]], result.own[:, [0, 1, 4]])


def test_the_same_seed_gives_the_same_latents_and_another_does_not() -> None:
    first, again, other = (run(tiny_transformer(), Sampling(2), seed).latents for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_guidance_moves_away_from_the_unconditional_prediction() -> None:
    words = [TimedWord("pan", 0, 5, 0.5)]
    transformer = tiny_transformer()
    told = run(transformer, Sampling(1), words=words).latents
    untold = run(transformer, Sampling(1)).latents
    guided = run(transformer, Sampling(1, guidance=3.0), words=words).latents
    assert not torch.allclose(told, untold, atol=1e-6)
    assert torch.allclose(guided, untold + 3 * (told - untold), atol=1e-4)


def test_an_exception_from_the_step_callback_ends_the_loop_at_once() -> None:
    seen = []

    def stop(done: int, steps: int, x: Tensor) -> None:
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny_transformer(), Sampling(6), on_step=stop)
    assert seen == [0, 1, 2]
