"""Training stages: SFT, the cut discriminator, DPO; their losses, their data, and runs that resume."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from dreamontage.generator.models.autoencoder import NanoAutoencoder
from dreamontage.generator.models.prompt_tokens import PromptTokens
from dreamontage.generator.models.transformer import NanoTransformer
from dreamontage.generator.training.adapt import AdaptTrainer
from dreamontage.generator.training.cli import app as train_app
from dreamontage.generator.training.cut_discriminator import (
    DISSOLVES,
    CutDiscriminator,
    DiscriminatorTrainer,
    DiscriminatorTraining,
    Graded,
    construct,
    load_discriminator,
    score,
    shrunk,
)
from dreamontage.generator.training.cut_labels import Detected, detect
from dreamontage.generator.training.data.batches import ClipMixture
from dreamontage.generator.training.data.procedural import paint
from dreamontage.generator.training.dpo import (
    DpoTrainer,
    DpoTraining,
    Errors,
    PairBook,
    pair_batch,
    preference_loss,
    velocity_error,
)
from dreamontage.generator.training.groups import (
    GroupPlan,
    PlainMode,
    decoded,
    draw_groups,
    draw_scene,
    ends_of,
    load_group,
)
from dreamontage.generator.training.preferences import Gaps, Pair, alternate, build_pairs, chosen, load_pair
from dreamontage.generator.training.running import RECIPES, configured, run
from dreamontage.generator.training.samples import Sample
from dreamontage.generator.training.sft import CLASSES, BalancedBook, SftTraining, drawn_clips, train_sft
from dreamontage.generator.training.shots import ShotAnchor, load_shot
from dreamontage.generator.training.trainer import Models, TransformerTrainer, load_models
from dreamontage.schemas.errors import InvalidInput, NotFound

SIZE, SLOTS = (64, 32), 4


def tiny_models(seed: int = 0) -> Models:
    """Two layers of random weights."""
    torch.manual_seed(seed)
    return Models(
        NanoTransformer(
            num_layers=2, num_attention_heads=1, attention_head_dim=24, ffn_dim=32, text_dim=8, freq_dim=16,
            from_condition=True,
        ),
        PromptTokens(8, capacity=8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def vae() -> NanoAutoencoder:
    torch.manual_seed(0)
    return NanoAutoencoder((4, 4, 8), (1, 1, 1), (1, 1, 1), (1, 1, 1)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def mixture() -> ClipMixture:
    return ClipMixture([replace(paint(seed, 160), kind="own") for seed in range(3)])


def sample(seed: int) -> Sample:
    """Random latents under a first and a last still."""
    generator = torch.Generator().manual_seed(seed)
    truth, guide = torch.randn(2, 16, SLOTS, 4, 8, generator=generator)
    heads = torch.stack([truth[:, :1], truth[:, -1:]])
    anchors = (ShotAnchor(0, 1), ShotAnchor(SLOTS - 1, 1))
    return Sample(truth, guide, heads, torch.full((16, 1, 1, 1), 0.05), anchors, 0, ())


def pair(seed: int, kind: str = "cut") -> Pair:
    """Random generations between random ends."""
    winner, loser, other = torch.randn(3, 16, SLOTS, 4, 8, generator=torch.Generator().manual_seed(seed))
    ends = torch.stack([other[:, :1], other[:, -1:]])
    return Pair(kind, winner, loser, ends, (), (2.0, 0.0))  # type: ignore[arg-type]


def course(trainer: TransformerTrainer | DiscriminatorTrainer, steps: int) -> list[float]:
    """The losses of so many steps."""
    return [trainer.train_step()["loss"] for _ in range(steps)]


SFT = SftTraining(minutes=None, steps=8, tokens=100, bf16=False)
DPO = DpoTraining(minutes=None, steps=8, tokens=200, bf16=False)
JUDGE = DiscriminatorTraining(minutes=None, steps=8, batch=5)


def bank(count: int = 6, frames: int = 13) -> list[Graded]:
    """Pictures that slide, at 64x36: continuous training clips, and generations with labels."""
    rng = np.random.default_rng(0)
    wide = [cv2.resize(coarse, (64 + frames, 36)) for coarse in rng.integers(0, 256, (count, 5, 9, 3), dtype=np.uint8)]
    clips = [np.stack([picture[:, i : i + 64] for i in range(frames)]) for picture in wide]
    return [Graded(clip, 1 if n % 2 else 3, "clip" if n % 2 else "model") for n, clip in enumerate(clips)]


@pytest.mark.parametrize("stage", ["sft", "dpo", "cut-discriminator"])
def test_a_stage_that_resumes_is_the_same_bit_for_bit(stage: str, tmp_path: Path) -> None:
    def begin() -> TransformerTrainer | DiscriminatorTrainer:
        if stage == "sft":
            sets = [[sample(n + k) for k in range(CLASSES)] for n in (0, 10)]
            return AdaptTrainer(SFT, (), models=tiny_models(), book=BalancedBook(sets, SFT.tokens))
        if stage == "dpo":
            return DpoTrainer(DPO, tiny_models(), [pair(0), pair(1), pair(2, "motion")])
        return DiscriminatorTrainer(JUDGE, bank())

    whole = begin()
    course(whole, 2)
    whole.save(tmp_path / "checkpoint.pt")
    rest = course(whole, 3)
    resumed = begin()
    resumed.load(tmp_path / "checkpoint.pt")
    assert course(resumed, 3) == rest
    for ours, theirs in zip(resumed.slow_parameters(), whole.slow_parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_piece_goes_on_from_published_half_precision_weights_at_its_place_of_the_course(tmp_path: Path) -> None:
    sets = [[sample(k) for k in range(CLASSES)]]
    book = BalancedBook(sets, SFT.tokens)
    first = AdaptTrainer(replace(SFT, to_share=0.5), (), models=tiny_models(), book=book)
    course(first, 2)
    first.publish(tmp_path)
    second = AdaptTrainer(replace(SFT, from_share=0.5, seed=0), (), models=load_models(tmp_path), book=book)
    for ours, theirs in zip(second.fast_parameters(), first.slow_parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())
    assert second.position == 0.5 and second.draw != first.draw
    whole = AdaptTrainer(SFT, (), models=tiny_models(), book=book)
    second.step, whole.step = 6, 7  # 6 of the piece's 8 steps are 7/8 of the whole course
    assert second.position == whole.position and second.rate() == pytest.approx(whole.rate())


def test_every_batch_of_sft_holds_as_many_windows_of_each_class() -> None:
    sets = [[replace(sample(n), tail=k) for k in range(CLASSES)] for n in range(3)]  # the tail marks the class
    for tokens in (10, 400):
        batch = BalancedBook(sets, tokens).draw(np.random.default_rng(0), large=False)
        counts = [sum(one.tail == k for one in batch) for k in range(CLASSES)]
        assert set(counts) == {len(batch) // CLASSES} and len(batch) >= CLASSES


def test_a_run_of_sft_starts_from_given_weights_and_leaves_a_model(
    vae: NanoAutoencoder, mixture: ClipMixture, tmp_path: Path
) -> None:
    models = tiny_models()
    before = [param.clone() for param in models.transformer.parameters()]
    config = replace(SFT, steps=1, tokens=1, muon_lr=0.0, adam_lr=0.0, modes=(("off", 1.0),))
    folder = train_sft(config, tmp_path, models, vae, drawn_clips(mixture, 3), sets=2, large=0)
    after = load_models(folder).transformer.parameters()
    assert all(torch.equal(a, b.half().float()) for a, b in zip(after, before, strict=True))
    assert (tmp_path / "curve.csv").is_file() and (tmp_path / "strips.jpg").is_file()
    shots = [load_shot(path) for path in sorted((tmp_path / "shots").iterdir())]
    for start in (0, CLASSES):  # windows come in sets of one shape, one of each class
        group = shots[start : start + CLASSES]
        assert len({shot.truth.shape for shot in group}) == 1 and len({shot.kind for shot in group}) == CLASSES


def test_the_preference_loss_is_its_formula_and_log_2_at_the_reference() -> None:
    errors = Errors(*(torch.tensor([value]) for value in (0.30, 0.52, 0.36, 0.50)))
    beta = 40.0
    by_hand = -np.log(1 / (1 + np.exp(beta / 2 * ((0.30 - 0.36) - (0.52 - 0.50)))))
    assert preference_loss(errors, beta).item() == pytest.approx(by_hand, rel=1e-5)
    same = Errors(*(torch.tensor([value]) for value in (0.3, 0.5, 0.3, 0.5)))
    assert preference_loss(same, beta).item() == pytest.approx(np.log(2))


def test_identical_weights_give_log_2() -> None:
    trainer = DpoTrainer(DPO, tiny_models(), [pair(0), pair(1)])
    assert trainer.losses()[0].item() == pytest.approx(np.log(2), abs=1e-6)


def test_the_gradient_pushes_the_winners_error_down_and_the_losers_up() -> None:
    errors = Errors(*(torch.tensor([value], requires_grad=True) for value in (0.3, 0.5, 0.3, 0.5)))
    preference_loss(errors, 10.0).sum().backward()
    assert errors.winner.grad is not None and errors.loser.grad is not None
    assert errors.winner.grad > 0 > errors.loser.grad  # descent lowers the one and raises the other
    config = replace(DPO, steps=40, warm_up=1e-3, muon_lr=1e-2, adam_lr=1e-2, beta=100.0)
    trainer = DpoTrainer(config, tiny_models(), [pair(0)])
    models = Models(trainer.transformer, trainer.prompt_tokens)
    batch = pair_batch([pair(0)] * 4, torch.Generator().manual_seed(3), trainer.device)
    course(trainer, 12)
    with torch.no_grad():
        assert trainer.errors(models, batch).margin.mean() > 0


def test_pinned_slots_do_not_contribute() -> None:
    predicted, velocity = torch.randn(2, 3, 16, SLOTS, 4, 8, generator=torch.Generator().manual_seed(0))
    pinned = torch.zeros(3, SLOTS, dtype=torch.bool)
    pinned[:, [0, -1]] = True
    before = velocity_error(predicted, velocity, pinned)
    changed = predicted.clone()
    changed[:, :, [0, -1]] += 5
    assert torch.equal(velocity_error(changed, velocity, pinned), before)
    assert before[0] == pytest.approx((predicted - velocity)[0, :, 1:-1].square().mean().item(), rel=1e-5)
    batch = pair_batch([pair(0)], torch.Generator().manual_seed(0), torch.device("cpu"))
    assert batch.pinned.tolist() == 2 * [[True, False, False, True]]


def test_winner_and_loser_share_time_and_noise() -> None:
    batch = pair_batch([pair(0), pair(1)], torch.Generator().manual_seed(0), torch.device("cpu"))
    truth = torch.stack([pair(0).winner, pair(1).winner, pair(0).loser, pair(1).loser])
    noise = batch.velocity + truth
    assert torch.allclose(noise[:2], noise[2:], atol=1e-5) and torch.equal(batch.time[:2], batch.time[2:])
    assert torch.allclose(batch.inputs[:, :16], truth + batch.time.view(-1, 1, 1, 1, 1) * batch.velocity)


def test_both_kinds_of_pairs_take_turns_however_many_there_are() -> None:
    book = PairBook([pair(n) for n in range(9)] + [pair(20, "motion")], tokens=8 * 64)
    drawn = book.draw(np.random.default_rng(0))
    assert abs(sum(one.kind == "cut" for one in drawn) - len(drawn) / 2) <= 1 and len(drawn) >= 4


def test_groups_share_their_ends_and_differ_by_seed(vae: NanoAutoencoder, mixture: ClipMixture, tmp_path: Path) -> None:
    plan = GroupPlan((("unrelated", 1), ("subject", 1)), seeds=2, size=SIZE, slots=SLOTS, mode=PlainMode(1))
    paths = draw_groups(tmp_path, plan, tiny_models(), vae, mixture)
    stamps = [path.stat().st_mtime_ns for path in paths]
    assert [path.stat().st_mtime_ns for path in draw_groups(tmp_path, plan, tiny_models(), vae, mixture)] == stamps
    kinds = {load_group(path).kind for path in paths}
    assert kinds == {"unrelated", "subject"}
    group = load_group(paths[0])
    scene = draw_scene(group.kind, group.seed, mixture, SIZE, SLOTS)
    assert torch.allclose(group.ends, ends_of(vae, scene), atol=2e-3)
    assert not torch.equal(group.latents[0], group.latents[1])
    for latents in group.latents:
        assert torch.allclose(latents[:, 0], group.ends[0, :, 0])  # the first frame is given whole
        assert decoded(vae, latents).shape == (13, 32, 64, 3)


def test_pairs_are_the_best_and_worst_of_groups_that_differ_enough(
    vae: NanoAutoencoder, mixture: ClipMixture, tmp_path: Path
) -> None:
    plan = GroupPlan((("unrelated", 2),), seeds=3, size=SIZE, slots=SLOTS, mode=PlainMode(1))
    paths = draw_groups(tmp_path / "groups", plan, tiny_models(), vae, mixture)
    given = iter([-1.0, -4.0, -2.0, -3.0, -3.0, -2.5])
    pairs = build_pairs("cut", paths, tmp_path / "pairs", vae, lambda *_: next(given), Gaps(2.0))
    (only,) = [load_pair(path) for path in pairs]
    group = load_group(paths[0])
    assert only.scores == (-1.0, -4.0)
    assert torch.equal(only.winner, group.latents[0]) and torch.equal(only.loser, group.latents[1])
    again = build_pairs("cut", paths, tmp_path / "pairs", vae, lambda *_: 1 / 0, Gaps(0.4))  # scores are kept
    assert len(again) == 2


def test_of_motion_groups_those_of_the_highest_contrast_are_taken() -> None:
    scores = {Path(f"{n}"): [0.0, n / 10] for n in range(1, 6)}
    assert [path.name for path in chosen(scores, Gaps(0.15, 0.4))] == ["5", "4"]
    taught, held = alternate([[Path(str(n)) for n in range(10)], [Path("a"), Path("b")]])
    assert len(held) == 2 and not set(taught) & set(held) and len(taught) == 10


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_a_construction_of_a_level_changes_pictures_in_so_many_frames(level: int) -> None:
    first, second = np.zeros((33, 36, 64, 3), np.uint8), np.full((33, 36, 64, 3), 200, np.uint8)
    for seed in range(20):
        values = construct(np.random.default_rng(seed), first, second, level)[:, 0, 0, 0]
        mixed = int(((values > 0) & (values < 200)).sum())
        if level == 1:
            assert not values.any()
            continue
        low, high = DISSOLVES[level]
        assert low <= mixed <= high and values[0] == 0 and values[-1] == 200


def test_detectors_tell_a_hard_cut_from_a_slide() -> None:
    rng = np.random.default_rng(0)
    wide = [cv2.resize(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8), (220, 96)) for _ in range(2)]
    slides = [np.stack([picture[:, i : i + 160] for i in range(30)]) for picture in wide]
    cut = np.concatenate([slides[0][:15], slides[1][15:]])
    assert detect(slides[0]).severity == 1 and detect(cut).severity >= 4
    assert [Detected(*seen).severity for seen in ((True, 0.9, 9.0), (False, 0.9, 2.0), (False, 0.3, 2.0))] == [5, 4, 3]


def test_the_discriminator_learns_to_grade_and_keeps_its_grades_on_disk(tmp_path: Path) -> None:
    config = DiscriminatorTraining(minutes=None, steps=40, batch=10, own=0.0, ema=0.9)
    trainer = DiscriminatorTrainer(config, [shot._replace(level=1) for shot in bank(8, 17)])
    losses = course(trainer, 40)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    trainer.publish(tmp_path)
    graded = load_discriminator(tmp_path / "discriminator")
    calm, other = (shot.small for shot in bank(8, 17)[:2])
    cut = construct(np.random.default_rng(1), calm, other, 5)
    assert 1 <= graded.grade(calm) < graded.grade(cut) <= 5
    found = score(graded, [Graded(calm, 1, "clip"), Graded(cut, 5, "construction")])
    assert found.confusion.sum() == 2 and 0 <= found.accuracy <= found.within_one <= 1


def test_a_grade_depends_on_neither_size_nor_length_of_a_shot() -> None:
    network = CutDiscriminator()
    for shape in ((5, 36, 64, 3), (9, 96, 160, 3), (33, 160, 96, 3)):
        assert 1 <= network.grade(np.zeros(shape, np.uint8)) <= 5
    assert shrunk(np.zeros((2, 160, 96, 3), np.uint8)).shape == (2, 36, 64, 3)


def test_a_recipe_is_read_from_its_file_and_overridden_by_name(tmp_path: Path) -> None:
    for stage, recipe in (("sft", SftTraining()), ("dpo", DpoTraining()), ("cut-discriminator", JUDGE)):
        assert configured(recipe, stage).minutes is not None and (RECIPES / f"{stage}.toml").is_file()
    own = tmp_path / "own.toml"
    own.write_text('steps = 7\nmodes = [["off", 1.0]]\n')
    found = configured(SftTraining(), "sft", own, seed=3, minutes=None)
    assert (found.steps, found.minutes, found.seed, found.modes) == (7, None, 3, (("off", 1.0),))
    own.write_text("step = 7\n")
    with pytest.raises(InvalidInput, match="step"):
        configured(SftTraining(), "sft", own)


def test_a_run_writes_what_it_used_and_a_finished_one_has_nothing_left_to_do(tmp_path: Path) -> None:
    drawn: list[Path] = []
    trainer = DpoTrainer(replace(DPO, steps=2), tiny_models(), [pair(0)])
    run(trainer, tmp_path, "DPO", drawn.append)
    assert json.loads((tmp_path / "recipe.json").read_text())["beta"] == DPO.beta
    assert (tmp_path / "curve.png").is_file() and drawn == [tmp_path / "strips.jpg"]
    again = DpoTrainer(replace(DPO, steps=2), tiny_models(), [pair(0)])
    run(again, tmp_path, "DPO", drawn.append, resume=True)
    assert again.step == 2 and len(drawn) == 1


def test_margins_of_held_out_pairs_are_zero_at_the_reference() -> None:
    trainer = DpoTrainer(DPO, tiny_models(), [pair(0)])
    margins: list[float] = trainer.margins([pair(4), pair(5)], draws=2)
    assert margins == pytest.approx([0.0, 0.0], abs=1e-6)
    kept: list[Tensor] = trainer.slow_parameters()
    assert len(kept) == len(trainer.fast_parameters())


def test_training_without_its_packages_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else found(name))
    result = CliRunner().invoke(train_app, ["benchmark", "nowhere"])
    assert isinstance(result.exception, NotFound) and "dreamontage[train]" in str(result.exception.next_call)
