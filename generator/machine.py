"""What this machine renders with: the profile that was asked for, its GPU, and how a model fits both. No torch."""

from __future__ import annotations

import math
import os

from dreamontage.generator.chips import peak_tflops
from dreamontage.generator.estimating import Pace
from dreamontage.generator.fit import Fit, fit, least_gb
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.switching import usable
from dreamontage.generator.native import native_shape, usual_size
from dreamontage.schemas.errors import NotFound
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import Montage, Quality
from dreamontage.schemas.plan import Plan
from dreamontage.schemas.profile import PLAIN, ladder

PROFILE = "DREAMONTAGE_PROFILE"
SHARE = 0.4
"""Of a GPU's peak that denoising is taken to reach until the studio's own videos teach better."""


def profile() -> str:
    """The profile that was asked for: `--profile`, or DREAMONTAGE_PROFILE; else auto."""
    return os.environ.get(PROFILE) or "auto"


def use_profile(asked: str | None) -> None:
    """Ask for a profile from now on, in this process and in those that it starts. Raises InvalidInput."""
    if asked:
        ladder(asked)
        os.environ[PROFILE] = asked


def fit_here(card: ModelCard, size: tuple[int, int]) -> Fit:
    """How a model fits this machine at a size (width, height), with the profile that was asked for."""
    return fit(card, size, catalogue.gpu_memory_gb(), profile(), host_memory_gb())


def fit_of(montage: Montage, quality: Quality) -> Fit:
    """How a montage's model fits this machine at a quality; a previz has no model. Raises NotFound.

    What does not fit here is left to a Ray cluster that renders with GPUs that the studio was not told of.
    """
    if quality == "previz":
        return Fit()
    card = catalogue.card(montage.model)
    shape = native_shape(montage.format.at(quality), card, quality)
    found = fit_here(card, (shape.width, shape.height))
    if found.fits or not _on_cluster() or os.environ.get(catalogue.CLUSTER_GPU):
        return found
    return Fit(note=f"{card.id} does not fit the studio's own machine; whether it fits the Ray cluster is not known:"
               f" {catalogue.CLUSTER_GPU} says what GPUs it has.")  # fmt: skip


def pinned(montage: Montage, request: RenderRequest, found: Fit | None = None) -> RenderRequest:
    """The request with what is decided when it is queued: the profile, and the switches and window it comes to here."""
    found = found or fit_of(montage, request.quality)
    return request.model_copy(update={"profile": profile(), "switches": found.switches, "window": found.window})


def pace_of(card: ModelCard, plan: Plan, request: RenderRequest, correction: float = 1.0) -> Pace:
    """How fast a request is rendered here with this card, the one that the plan was made with."""
    size = plan.format.width, plan.format.height
    return Pace(card, request.quality, size, request.switches or PLAIN, tflops(), correction)


def _on_cluster() -> bool:
    """Whether a Ray cluster renders, or may."""
    return "ray" in os.environ.get("DREAMONTAGE_DEVICES", "")


def host_memory_gb() -> float:
    """Memory of this machine, in which offloaded weights wait; no bound where they wait on a cluster's machines."""
    if _on_cluster():
        return math.inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def tflops() -> float:
    """What the largest GPU here reaches, in 10¹² operations a second."""
    return SHARE * peak_tflops(max(zip(catalogue.gpus(), catalogue.gpu_names(), strict=False), default=(0.0, ""))[1])


def at_best(card: ModelCard) -> Fit:
    """How a model fits this machine at its standard size, or at draft's where only that fits."""
    standard, draft = (fit_here(card, usual_size(card, quality)) for quality in ("standard", "draft"))
    return draft if draft.fits and not standard.fits else standard


def how_here(card: ModelCard) -> str:
    """How a model that needs a GPU would be run here, in a sentence."""
    return at_best(card).note if card.network is None or catalogue.gpu_memory_gb() else "There is no GPU here."


def needs_gb(card: ModelCard) -> int:
    """Memory in whole GB of the smallest GPU on which the profile renders with a model; 0: it runs on a CPU."""
    return least_gb(card, usual_size(card, "draft"), usable(card, ladder(profile())))


def choose() -> tuple[ModelCard, str]:
    """What model=auto means here: the best installed model that fits with the profile, and a sentence on what would be
    better.

    Raises NotFound where no model is installed.
    """
    fitting = [(card, found) for card in catalogue.cards().values() if (found := at_best(card)).fits]
    best = sorted(fitting, key=lambda pair: -pair[0].rank)
    here = [pair for pair in best if pair[0].available]
    if not here:
        raise NotFound("no model is installed", field="model", next_call="pip install dreamontage again")
    chosen, (better, would) = here[0][0], best[0]
    if better.rank <= chosen.rank:
        return chosen, ""
    return chosen, (
        f"model=auto took {chosen.id}, the best that is installed. {would.note} It is one command away:"
        f" {catalogue.pull_command(better.id)}."
    )
