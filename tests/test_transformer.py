"""nano's transformer and prompt tokens: the 36-channel layout, timed words."""

from __future__ import annotations

from pathlib import Path

import torch

from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer, init_from_scratch
from dreamontage.generator.models.vocabulary import WORDS, TimedWord, timed_words, understood
from dreamontage.schemas.montage import Camera

TINY = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 48, "num_layers": 2, "text_dim": 16}


def test_a_fresh_transformer_for_training_predicts_no_velocity_yet() -> None:
    transformer = NanoTransformer(**TINY)
    init_from_scratch(transformer)
    out = transformer(torch.randn(1, 36, 2, 4, 4), torch.tensor([500.0]), torch.randn(1, 4, 16)).sample
    assert out.shape == (1, 16, 2, 4, 4)
    assert not out.any()


def test_every_word_of_a_beat_is_one_token_and_the_rest_are_null_tokens() -> None:
    tokens = PromptTokens(text_dim=16, capacity=6)
    with torch.no_grad():
        out = tokens([[TimedWord("pan", 0, 4, 0.5), TimedWord("unheard-of", 0, 4), TimedWord("left", 0, 4)], []])
    assert out.shape == (2, 6, 16)
    assert torch.equal(out[1], tokens.null.expand(6, -1))
    assert [torch.equal(token, tokens.null) for token in out[0]] == [False, False, True, True, True, True]


def test_the_time_and_the_amount_of_a_word_reach_its_token() -> None:
    tokens = PromptTokens(text_dim=16)
    words = [TimedWord("pan", 0, 4), TimedWord("pan", 4, 8), TimedWord("pan", 0, 4, 0.3), TimedWord("tilt", 0, 4)]
    with torch.no_grad():
        out = tokens([words])[0, :4]
    assert all(not torch.allclose(out[i], out[j], atol=1e-4) for i in range(4) for j in range(i))


def test_prompt_tokens_come_back_from_disk(tmp_path: Path) -> None:
    tokens = PromptTokens(text_dim=16)
    tokens.save_pretrained(tmp_path)
    again = PromptTokens.from_pretrained(tmp_path)
    words = [[TimedWord("zoom", 1.5, 7.25, 1.0)]]
    with torch.no_grad():
        assert torch.equal(tokens(words), again(words))


def test_a_prompt_says_which_words_were_understood_and_which_ignored() -> None:
    known, ignored = understood("Slowly panning LEFT over 3 misty mountains in Xanadu, then zoom in")
    assert known == ["slow", "pan", "left", "mist", "mountain", "zoom", "in"]
    assert ignored == ["over", "in", "xanadu", "then"]
    assert len(set(WORDS)) == len(WORDS)


def test_typed_moves_use_the_same_vocabulary_with_an_amount() -> None:
    words = timed_words("slow", Camera(move="zoom", direction="in", amount=2.0, ease="out"), 1, 5)
    assert [(word.word, word.amount) for word in words] == [("zoom", 1), ("in", 1), ("ease_out", 1), ("slow", 0)]
    assert all(word.word in WORDS for word in words)


def test_an_untrained_flow_from_the_condition_ends_exactly_at_it() -> None:
    transformer = NanoTransformer(**TINY, from_condition=True)
    init_from_scratch(transformer)
    noisy, cond = torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 3, 4, 4)
    cond[:, :, 2] = 0  # nothing is known here
    mask = torch.zeros(1, 4, 3, 4, 4)
    velocity = transformer(torch.cat([noisy, mask, cond], 1), torch.tensor([400.0]), torch.zeros(1, 4, 16)).sample
    end = noisy - 0.4 * velocity
    assert (end - cond)[:, :, :2].abs().max() < 1e-5
    assert not velocity[:, :, 2].any()
