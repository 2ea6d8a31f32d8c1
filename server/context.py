"""What every tool call has at hand: the studio, the media roots, the models, and over HTTP a way to link to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context

from dreamontage.generator.timeline import Grid
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Montage, Quality

from .actors import OWNER, actor_of
from .answers import FileLine
from .arguments import SourceForm, source_of
from .files import FileLinks
from .store import Studio


@dataclass(frozen=True)
class App:
    """One open studio behind the tools."""

    studio: Studio
    roots: tuple[Path, ...]
    links: FileLinks | None = None
    urls: bool = False
    """Whether https links are taken as sources."""

    def media_of(self, montage: Montage) -> dict[str, Media]:
        """The media a montage uses, by id."""
        return {i: self.studio.media(i) for i in montage.media_ids}

    def take_in(self, sources: Sequence[str | SourceForm], field: str, actor: str = OWNER.name) -> list[Media]:
        """Media for every source, taken in where they are new. An error names the source's place in the call."""
        from .media.ingest import take_in, take_in_all

        given = [source_of(source) for source in sources]
        if len(given) == 1:
            return [take_in(self.studio, given[0], self.roots, field, actor, self.urls)]
        return take_in_all(self.studio, given, self.roots, field, actor, self.urls) if given else []

    def file(self, ctx: Ctx, path: Path, sha256: str | None = None, duration_s: float | None = None) -> FileLine:
        """Where a finished file is; over HTTP also an expiring link."""
        request = ctx.request_context.request
        url = None
        if self.links and request is not None:
            url = self.links.url(str(request.base_url), path, actor_of(ctx).name)
        return FileLine(path=str(path), bytes=path.stat().st_size, sha256=sha256, duration_s=duration_s, url=url)


Ctx = Context[App, Any]


def app_of(ctx: Ctx) -> App:
    """The app behind a call."""
    return ctx.request_context.lifespan_context


def grid_of(montage: Montage) -> Grid:
    """The grid that the montage's model plans it in; its own frame rate where the model is not known here any more."""
    from dreamontage.generator import native
    from dreamontage.generator.models.catalogue import cards

    found = cards().get(montage.model)
    return Grid(montage.format.fps) if found is None else native.grid_of(found, montage.format.fps)


def card_of(montage: Montage) -> ModelCard:
    """The card of the montage's model. Raises NotFound."""
    from dreamontage.generator.models.catalogue import card

    return card(montage.model)


def fitted_card_of(montage: Montage, quality: Quality) -> ModelCard:
    """The card of the montage's model with the window that fits this machine, the one that plans are made with."""
    from dreamontage.generator.fit import fitted
    from dreamontage.generator.machine import fit_of

    return fitted(card_of(montage), fit_of(montage, quality))
