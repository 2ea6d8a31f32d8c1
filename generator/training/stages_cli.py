"""The commands of the stages after adaptive tuning. Torch is imported only when a command runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamontage.generator.training.lora_cli import Base, Checkpointing, FeedForward, Rank, lora_options

if TYPE_CHECKING:
    from dreamontage.generator.training.data.batches import ClipMixture

Out = Annotated[Path, typer.Option(help="Folder for drawn data, checkpoints, curves, samples and the model.")]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Model folder with transformer/ and prompt_tokens/; default: nano's own. With --base: an adapter.",
    ),
]
Vae = Annotated[Path | None, typer.Option(help="Folder of the autoencoder; default: nano's own.")]
Pictures = Annotated[
    list[Path] | None, typer.Option(help="Folder of training pictures, besides the installed packages. Repeatable.")
]
Minutes = Annotated[float | None, typer.Option(help="Wall-clock budget of the training itself; default: the recipe's.")]
Steps = Annotated[int | None, typer.Option(help="Train this many steps instead of by the clock.")]
Config = Annotated[Path | None, typer.Option(help="Recipe as a TOML file; default: the stage's in recipes/.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights and data; default: 0.")]
Threads = Annotated[int | None, typer.Option(help="Threads for torch; default: all cores.")]
Resume = Annotated[bool, typer.Option(help="Go on from OUT's checkpoint.")]
FromShare = Annotated[float | None, typer.Option(help="This run is a piece of a longer course and begins here, 0..1.")]
ToShare = Annotated[float | None, typer.Option(help="... and ends here, 0..1.")]
Size = Annotated[str, typer.Option(help="WIDTHxHEIGHT of generations, multiples of 16.")]


def sft(
    out: Out,
    source: From = None,
    clips: Annotated[
        Path | None, typer.Option(help="Clips built by `dreamontage data build --set sft`; default: drawn on the fly.")
    ] = None,
    sets: Annotated[int, typer.Option(help="Windows of each of the five classes; those in OUT/shots are kept.")] = 120,
    large: Annotated[int, typer.Option(help="How many of them at draft size; the others are smaller.")] = 20,
    vae: Vae = None,
    pictures: Pictures = None,
    minutes: Minutes = None,
    steps: Steps = None,
    config: Config = None,
    seed: Seed = None,
    from_share: FromShare = None,
    to_share: ToShare = None,
    threads: Threads = None,
    resume: Resume = False,
    base: Base = None,
    rank: Rank = 16,
    feed_forward: FeedForward = False,
    checkpointing: Checkpointing = False,
) -> None:
    """Visual-expression SFT from adapted weights, balanced over camera, effect, sport, space, transition.

    OUT/model is the result.
    """
    from dreamontage.generator.training.data.store import ClipStore
    from dreamontage.generator.training.running import configured
    from dreamontage.generator.training.sft import SftTraining, drawn_clips, stored_clips, train_sft
    from dreamontage.generator.training.trainer import load_models

    prepare(threads)
    recipe = configured(
        SftTraining(), "lora-sft" if base else "sft", config,
        minutes=minutes, steps=steps, seed=seed, from_share=from_share, to_share=to_share,
    )  # fmt: skip
    options = lora_options(base, rank, feed_forward, checkpointing) if base else None
    clip = stored_clips(ClipStore(clips)) if clips else drawn_clips(mixture_of(out, pictures, recipe.seed), recipe.seed)
    with bars("shots", "latents", "training") as report:
        if base and options:
            from dreamontage.generator.training.lora_run import train_lora_sft

            model = train_lora_sft(recipe, options, base, source, out, clip, sets, large, resume, report)
        else:
            models = load_models(_folder(source))
            model = train_sft(recipe, out, models, nano_vae(vae), clip, sets, large, resume, report)
    typer.echo(f"model: {model}")


def cut_discriminator(
    out: Out,
    source: From = None,
    count: Annotated[int, typer.Option(help="Scenes of two unrelated pictures; a quarter as many of one.")] = 40,
    seeds: Annotated[int, typer.Option(help="Generations of each scene.")] = 2,
    clips: Annotated[int, typer.Option(help="Continuous training clips.")] = 200,
    slots: Annotated[int, typer.Option(help="Length of generations in latent slots of four frames.")] = 9,
    size: Size = "160x96",
    vae: Vae = None,
    pictures: Pictures = None,
    minutes: Minutes = None,
    steps: Steps = None,
    config: Config = None,
    seed: Seed = None,
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Train the judge of abrupt cuts on the model's own first–last generations, in five levels of severity.

    OUT/model/discriminator is the result; OUT/score.json its held-out accuracy, OUT/strips.jpg samples of each level.
    """
    from dreamontage.generator.training.cut_discriminator import DiscriminatorTraining
    from dreamontage.generator.training.discriminator_run import train_discriminator
    from dreamontage.generator.training.groups import GroupPlan
    from dreamontage.generator.training.running import configured
    from dreamontage.generator.training.trainer import load_models

    prepare(threads)
    recipe = configured(
        DiscriminatorTraining(), "cut-discriminator", config, minutes=minutes, steps=steps, seed=seed
    )
    plan = GroupPlan((("unrelated", count), ("camera", max(1, count // 4))), seeds, sides(size), slots)
    mixture = mixture_of(out, pictures, recipe.seed)
    with bars("groups", "labels", "training") as report:
        folder = train_discriminator(
            recipe, out, load_models(_folder(source)), nano_vae(vae), mixture, plan, clips, resume, report
        )
    typer.echo((out / "score.json").read_text())
    typer.echo(f"discriminator: {folder}")


def dpo(
    out: Out,
    discriminator: Annotated[Path, typer.Option(help="Folder of a trained cut discriminator.")],
    source: From = None,
    cut_groups: Annotated[int, typer.Option(help="Groups between unrelated pictures, judged by cuts.")] = 40,
    motion_groups: Annotated[int, typer.Option(help="Groups with a moving subject, judged by its motion.")] = 40,
    seeds: Annotated[int, typer.Option(help="Generations of each group.", min=2)] = 4,
    beta: Annotated[list[float] | None, typer.Option(help="Strength; repeat to sweep. Default: 500, 2000.")] = None,
    cut_gap: Annotated[float, typer.Option(help="Least difference of severity, of 1..5, in a pair.")] = 2.0,
    motion_gap: Annotated[float, typer.Option(help="Least difference of rationality, of 0..1, in a pair.")] = 0.02,
    motion_share: Annotated[float, typer.Option(help="Share of motion groups kept, of the highest contrast.")] = 0.6,
    slots: Annotated[int, typer.Option(help="Length of generations in latent slots of four frames.")] = 9,
    size: Size = "160x96",
    vae: Vae = None,
    pictures: Pictures = None,
    minutes: Minutes = None,
    steps: Steps = None,
    config: Config = None,
    seed: Seed = None,
    from_share: FromShare = None,
    to_share: ToShare = None,
    threads: Threads = None,
    resume: Resume = False,
    base: Base = None,
    rank: Rank = 16,
    feed_forward: FeedForward = False,
    checkpointing: Checkpointing = False,
) -> None:
    """Tailored DPO from SFT weights on pairs of the model's own generations: cuts and subject motion in one run.

    `minutes` and `steps` are for each beta. OUT/sweep.json compares the betas on held-out material; OUT/model is the
    best one's result.
    """
    from dreamontage.generator.training.cut_discriminator import load_discriminator
    from dreamontage.generator.training.dpo import DpoTraining
    from dreamontage.generator.training.dpo_run import NanoStart, Pairing, train_dpo
    from dreamontage.generator.training.groups import GroupPlan
    from dreamontage.generator.training.preferences import Gaps
    from dreamontage.generator.training.running import configured

    prepare(threads)
    recipe = configured(
        DpoTraining(), "lora-dpo" if base else "dpo", config,
        minutes=minutes, steps=steps, seed=seed, from_share=from_share, to_share=to_share,
    )  # fmt: skip
    plan = Pairing(
        GroupPlan(
            (("unrelated", cut_groups), ("subject", motion_groups)), seeds, sides(size), slots, first_seed=1_000_000
        ),
        Gaps(cut_gap), Gaps(motion_gap, motion_share), tuple(beta or (500.0, 2000.0)),
    )  # fmt: skip
    mixture = mixture_of(out, pictures, recipe.seed)
    judge = load_discriminator(discriminator)
    options = lora_options(base, rank, feed_forward, checkpointing) if base else None
    with bars("groups", "pairs", "training") as report:
        if base and options:
            from dreamontage.generator.training.lora_dpo import train_lora_dpo

            model = train_lora_dpo(recipe, options, base, source, plan, out, mixture, judge, resume, report)
        else:
            model = train_dpo(
                recipe, plan, out, NanoStart(_folder(source)), nano_vae(vae), mixture, judge, resume, report
            )
    typer.echo((out / "sweep.json").read_text())
    typer.echo(f"model: {model}")


def distil(
    out: Out,
    source: From = None,
    shots: Annotated[
        Path | None, typer.Option(help="Folder of drawn shots, as adaptive tuning leaves in OUT/shots; default: drawn.")
    ] = None,
    count: Annotated[int, typer.Option(help="Shots to draw where no folder is given.")] = 2000,
    large: Annotated[int, typer.Option(help="How many of them at draft size; the others are smaller.")] = 300,
    strangers: Annotated[
        float, typer.Option(min=0, max=1, help="Share of ways between unrelated scenes, where the previz is the goal.")
    ] = 0.4,
    vae: Vae = None,
    pictures: Pictures = None,
    minutes: Minutes = None,
    steps: Steps = None,
    config: Config = None,
    seed: Seed = None,
    from_share: FromShare = None,
    to_share: ToShare = None,
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Distil the guided mode to one or two steps, judged by delivered pixels: the last stage.

    OUT/model is the result.
    """
    from dreamontage.generator.training.distil import DistilTraining, train_distil
    from dreamontage.generator.training.running import configured
    from dreamontage.generator.training.shots import draw_shots
    from dreamontage.generator.training.trainer import load_models

    prepare(threads)
    recipe = configured(
        DistilTraining(), "distil", config,
        minutes=minutes, steps=steps, seed=seed, from_share=from_share, to_share=to_share,
    )  # fmt: skip
    with bars("shots", "latents", "training") as report:
        if shots:
            paths = sorted(shots.glob("*.npz"))
        else:
            mixture = mixture_of(out, pictures, recipe.seed)
            paths = draw_shots(
                out / "shots", mixture, count, large, recipe.seed,
                lambda done: report("shots", done, count, ""), strangers=strangers,
            )  # fmt: skip
        model = train_distil(recipe, out, load_models(_folder(source)), nano_vae(vae), paths, resume, report)
    typer.echo(f"model: {model}")


def evaluate_stage(
    model: Annotated[list[str], typer.Option(help="NAME=FOLDER; repeat, in the order of the stages.")],
    out: Annotated[Path, typer.Option(help="Folder for table.md, table.json and sheet.jpg.")],
    unrelated: Annotated[int, typer.Option(help="Scenes between two unrelated photographs.")] = 40,
    subjects: Annotated[int, typer.Option(help="Scenes with a moving subject.")] = 40,
    camera: Annotated[int, typer.Option(help="Scenes of one photograph and a moving camera.")] = 0,
    discriminator: Annotated[Path | None, typer.Option(help="Folder of a cut discriminator, for severity.")] = None,
    slots: Annotated[int, typer.Option(help="Length of generations in latent slots of four frames.")] = 9,
    size: Size = "160x96",
    vae: Vae = None,
    threads: Threads = None,
) -> None:
    """Compare stages in plain mode on held-out first and last frames: each model against the one named before it.

    Cut rate, severity, motion, rationality, anchor PSNR, LPIPS to the truth where it is known, with paired bootstrap
    intervals; needs the extra `evaluate`.
    """
    from dreamontage.generator.evaluation.stage_table import held_out, run_stage_table
    from dreamontage.generator.training.cut_discriminator import load_discriminator
    from dreamontage.generator.training.held_out import held_out_pictures
    from dreamontage.generator.training.trainer import load_models

    prepare(threads)
    named = [entry.partition("=") for entry in model]
    models = {name: load_models(Path(folder or name)) for name, _, folder in named}
    scenes = held_out(
        held_out_pictures(), {"unrelated": unrelated, "subject": subjects, "camera": camera}, sides(size), slots
    )
    judge = load_discriminator(discriminator) if discriminator else None
    with bars("scenes") as report:
        text = run_stage_table(
            models, nano_vae(vae), scenes, out, judge, lambda done, total: report("scenes", done, total, "")
        )
    typer.echo(text)


def prepare(threads: int | None) -> None:
    """One thread for OpenCV, `threads` for torch."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    if threads:
        torch.set_num_threads(threads)


def _folder(source: Path | None) -> Path:
    from dreamontage.generator.models.catalogue import weights_folder

    return source or weights_folder("nano")


def nano_vae(folder: Path | None) -> Any:
    """The autoencoder of a folder (None: nano's own), frozen, in float32."""
    import torch

    from dreamontage.generator.models.autoencoder import NanoAutoencoder

    network = NanoAutoencoder.from_pretrained(folder or _folder(None) / "vae", torch_dtype=torch.float32)
    return network.eval().requires_grad_(False)


def mixture_of(out: Path, pictures: Sequence[Path] | None, seed: int) -> ClipMixture:
    """Training pictures; OUT/pictures.json says which."""
    from dreamontage.generator.training.data.batches import ClipMixture
    from dreamontage.generator.training.data.pictures import find_pictures, load_pictures, write_manifest

    sources = find_pictures(list(pictures or []))
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(sources, out / "pictures.json", "Besides these, procedural worlds painted from seeds.")
    return ClipMixture(list(load_pictures(sources)), seed)


def sides(size: str) -> tuple[int, int]:
    """ "480x272" as (480, 272). Raises InvalidInput."""
    from dreamontage.schemas.errors import InvalidInput

    sides = [int(side) if side.isdigit() else 0 for side in size.split("x")]
    if len(sides) != 2 or any(side < 32 or side % 16 for side in sides):
        raise InvalidInput(f"{size!r} is no size", field="size", allowed="WIDTHxHEIGHT, multiples of 16 from 32 on")
    return sides[0], sides[1]


@contextmanager
def bars(*stages: str) -> Iterator[Callable[[str, float, float, str], None]]:
    """A progress bar for each stage; yields what reports to them."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        tasks = {stage: bar.add_task(stage, total=1.0) for stage in stages}

        def report(stage: str, done: float, total: float, text: str) -> None:
            bar.update(tasks[stage], completed=done, total=total, description=text or stage)

        yield report
