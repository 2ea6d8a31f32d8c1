"""`dreamontage train …`: the command line of training. Torch is imported only when a command runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from dreamontage.generator.training import lora_cli, stages_cli
from dreamontage.schemas.errors import NotFound

app = typer.Typer(name="train", help="Train and measure nano's networks.", no_args_is_help=True)


@app.callback()
def _train() -> None:
    """Train and measure nano's networks. Raises NotFound where the extra `train` is missing."""
    missing = [name for name in ("accelerate", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotFound(f"training needs {' and '.join(missing)}", next_call="pip install 'dreamontage[train]'")


@app.command()
def autoencoder(
    out: stages_cli.Out,
    pictures: stages_cli.Pictures = None,
    minutes: stages_cli.Minutes = None,
    steps: stages_cli.Steps = None,
    config: stages_cli.Config = None,
    seed: stages_cli.Seed = None,
    threads: stages_cli.Threads = None,
    resume: stages_cli.Resume = False,
) -> None:
    """Train the autoencoder; OUT/model is the result.

    Pictures come from Debian `lomiri-wallpapers-16.04` and PyPI `miniworld==2.1.0` where installed, from procedural
    worlds always. OUT/pictures.json says which were used. The held-out score uses the demo's photographs and PyPI
    `mvtb-data==1.6.1`.
    """
    from dreamontage.generator.training.autoencoder import AutoencoderTraining, train_autoencoder
    from dreamontage.generator.training.held_out import held_out_pictures
    from dreamontage.generator.training.running import configured

    stages_cli.prepare(threads)
    recipe = configured(AutoencoderTraining(), "autoencoder", config, minutes=minutes, steps=steps, seed=seed)
    mixture = stages_cli.mixture_of(out, pictures, recipe.seed)
    with stages_cli.bars("training") as report:
        model = train_autoencoder(recipe, out, mixture.pictures, held_out_pictures(), resume, report)
    typer.echo(f"model: {model}")


@app.command()
def adapt(
    out: Annotated[Path, typer.Option(help="Folder for shots, latents, checkpoints, curves, strips and the model.")],
    minutes: Annotated[
        float | None, typer.Option(help="Wall-clock budget of the training itself; default: the recipe's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Train this many steps instead of by the clock.")] = None,
    vae: Annotated[Path | None, typer.Option(help="Folder of the autoencoder; default: nano's own.")] = None,
    pictures: Annotated[
        list[Path] | None, typer.Option(help="Folder of training pictures, besides the installed packages. Repeatable.")
    ] = None,
    shots: Annotated[int, typer.Option(help="Training shots to draw; those in OUT/shots are kept.")] = 3000,
    large: Annotated[int, typer.Option(help="How many of them at draft size; the others are smaller.")] = 300,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and data; default: 0.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads for torch; default: all cores.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from OUT/checkpoint.pt.")] = False,
    warm_start: Annotated[
        Path | None, typer.Option(help="Begin at the weights of another checkpoint.pt, or of a model folder.")
    ] = None,
    from_share: Annotated[float, typer.Option(help="This run is a piece of a longer course and begins here.")] = 0.0,
    to_share: Annotated[float, typer.Option(help="... and ends here, 0..1.")] = 1.0,
    naive: Annotated[bool, typer.Option(help="Ablation: anchors are slices of the clip's own latents.")] = False,
    config: Annotated[Path | None, typer.Option(help="Recipe as a TOML file; default: recipes/adapt.toml.")] = None,
    base: lora_cli.Base = None,
    rank: lora_cli.Rank = 16,
    feed_forward: lora_cli.FeedForward = False,
    checkpointing: lora_cli.Checkpointing = False,
    size: Annotated[str | None, typer.Option(help="With --base: size of all shots, WIDTHxHEIGHT.")] = None,
) -> None:
    """Adaptive tuning of the transformer on clips of known motion, guided and plain; OUT/model is the result.

    With --base that is an adapter of a Wan-layout checkpoint, begun at the adapter that --warm-start names.
    """
    from dreamontage.generator.training.adapt import AdaptTraining
    from dreamontage.generator.training.adapt_run import train_adapt
    from dreamontage.generator.training.running import configured

    stages_cli.prepare(threads)
    recipe = configured(
        AdaptTraining(), "lora-adapt" if base else "adapt", config,
        minutes=minutes, steps=steps, seed=seed, naive=naive or None,
        from_share=from_share or None, to_share=to_share if to_share < 1 else None,
    )  # fmt: skip
    mixture = stages_cli.mixture_of(out, pictures, recipe.seed)
    options = lora_cli.lora_options(base, rank, feed_forward, checkpointing) if base else None
    with stages_cli.bars("shots", "latents", "training") as report:
        if base and options:
            from dreamontage.generator.training.lora_run import train_lora_adapt

            sides = stages_cli.sides(size) if size else None
            model = train_lora_adapt(
                recipe, options, base, warm_start, out, mixture, shots, large, sides, resume, report
            )
        else:
            network = stages_cli.nano_vae(vae)
            model = train_adapt(recipe, out, mixture, network, shots, large, resume, warm_start, report)
    typer.echo(f"model: {model}")


@app.command("measure-autoencoder")
def measure_autoencoder(
    model: Annotated[Path, typer.Argument(help="Folder of a saved autoencoder.")],
    sheet: Annotated[Path | None, typer.Option(help="Write originals beside reconstructions to this PNG.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of each clip, 1+4m.")] = 17,
) -> None:
    """Print PSNR and LPIPS on held-out pictures under a moving camera, for clips and for stills, at 256x144."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from dreamontage.generator.models.autoencoder import NanoAutoencoder
    from dreamontage.generator.training import held_out
    from dreamontage.generator.training.perceptual import PerceptualDistance

    network = NanoAutoencoder.from_pretrained(model, torch_dtype=torch.float32).eval()
    pictures = held_out.held_out_pictures()
    clips = held_out.held_out_clips(pictures, frames)
    scores, results = held_out.reconstruct(network, clips, [p.name for p in pictures], PerceptualDistance())
    table = Table("picture", "clip dB", "clip LPIPS", "still dB", "still LPIPS")
    for s in scores:
        table.add_row(s.name, f"{s.psnr_db:.2f}", f"{s.lpips:.3f}", f"{s.still_psnr_db:.2f}", f"{s.still_lpips:.3f}")
    means = held_out.mean_scores(scores)
    table.add_row("mean", *(f"{value:.2f}" if key.endswith("db") else f"{value:.3f}" for key, value in means.items()))
    Console().print(table)
    if sheet:
        held_out.write_sheet(sheet, clips, results, most=len(clips))


@app.command()
def benchmark(
    model: Annotated[Path, typer.Argument(help="Folder of a saved autoencoder.")],
    frames: Annotated[int, typer.Option(help="Frames of the clip, 1+4m.")] = 17,
    threads: Annotated[int | None, typer.Option(help="Threads for torch; default: all cores.")] = None,
) -> None:
    """Compare the autoencoder's speed with a small AutoencoderKLWan at 256x144."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from dreamontage.generator.models.autoencoder import NanoAutoencoder
    from dreamontage.generator.training.benchmark import compare_speed

    if threads:
        torch.set_num_threads(threads)
    table = Table("autoencoder", "dtype", "M parameters", "encode fps", "decode fps")
    for s in compare_speed(NanoAutoencoder.from_pretrained(model), frames):
        table.add_row(s.name, s.dtype, f"{s.million_parameters:.2f}", f"{s.encode_fps:.1f}", f"{s.decode_fps:.1f}")
    Console().print(table)


for _stage in (
    stages_cli.sft, stages_cli.cut_discriminator, stages_cli.dpo, stages_cli.distil, stages_cli.evaluate_stage,
):
    app.command()(_stage)
