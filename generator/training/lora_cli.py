"""Options of the stages for `--base`: an adapter (LoRA) of a Wan-layout checkpoint is tuned instead of nano."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dreamontage.generator.training.lora import LoraOptions

Base = Annotated[
    Path | None,
    typer.Option(help="Tune an adapter (LoRA) of this Wan-layout checkpoint instead of nano; it is only read."),
]
Rank = Annotated[int, typer.Option(help="With --base: rank of the adapter.", min=1)]
FeedForward = Annotated[bool, typer.Option(help="With --base: adapt the feed-forward layers, too.")]
Checkpointing = Annotated[bool, typer.Option(help="With --base: less memory, about 30 % slower.")]


def lora_options(base: Path, rank: int, feed_forward: bool, checkpointing: bool) -> LoraOptions:
    """The adapter's options, after saying what is special about the base. Raises InvalidInput if it is none."""
    from dreamontage.generator.training.lora import LoraOptions
    from dreamontage.generator.training.wan import read_facts

    for remark in read_facts(base).remarks():
        typer.echo(remark, err=True)
    return LoraOptions(rank, feed_forward=feed_forward, checkpointing=checkpointing)
