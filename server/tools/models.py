"""The models on this machine."""

from __future__ import annotations

from typing import Annotated

from mcp.types import CallToolResult

from dreamontage.generator.machine import how_here, needs_gb
from dreamontage.generator.models.catalogue import cards, pull_command

from ..answers import ModelLine, ModelsAnswer, reply
from ..context import Ctx
from ..toolkit import tool


@tool("List models", read_only=True)
def list_models(ctx: Ctx) -> Annotated[CallToolResult, ModelsAnswer]:
    """Models with what they are good for, which are installed and how to get the others, what they need and under which
    licence, the settings they accept with defaults, and the prompt words they know."""
    lines = [
        ModelLine(
            id=card.id,
            title=card.title,
            licence=card.licence,
            summary=card.summary,
            forbids=card.forbids,
            available=card.available,
            get="" if card.available else pull_command(card.id),
            needs_gpu_gb=needs_gb(card),
            here=how_here(card),
            settings=card.settings,
            defaults=card.defaults.model_dump(exclude_none=True, exclude={"negative_prompt"}),
            loras=card.loras,
            get_loras=[pull_command(card.id, name) for name in card.known_loras if name not in card.loras],
            words=card.words,
        )
        for card in cards().values()
    ]
    texts = []
    for line in lines:
        defaults = ", ".join(f"{key}={value}" for key, value in line.defaults.items())
        missing = "" if line.available else f" (not installed: {line.get})"
        needs = f" Needs a GPU, with {line.needs_gpu_gb:g} GB at the least. {line.here}" if line.needs_gpu_gb else ""
        terms = ", ".join(filter(None, [line.licence, line.forbids.rstrip(".")]))
        licence = f" Licence: {terms}." if line.needs_gpu_gb else ""
        words = f" Prompt words: {', '.join(line.words)}." if line.words else ""
        loras = f" LoRAs: {', '.join(line.loras)}." if line.loras else ""
        loras += f" LoRAs to get: {', '.join(line.get_loras)}." if line.get_loras and line.available else ""
        texts.append(f"{line.id}{missing}: {line.summary} Settings: {defaults}.{words}{loras}{needs}{licence}")
    return reply("\n".join(texts), ModelsAnswer(models=lines))
