"""The generator: turns a timeline into one continuous shot. Importing it imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamontage.generator.pipeline import DreaMontagePipeline

__all__ = ["DreaMontagePipeline"]


def __getattr__(name: str) -> Any:
    if name == "DreaMontagePipeline":
        from dreamontage.generator.pipeline import DreaMontagePipeline

        return DreaMontagePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
