"""`dreamontage speedup`: how much faster several renderers of a Ray cluster are than one, on segments that wait for
nothing; and whether they make the same bytes."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from dreamontage.generator.engines.ray_engine import RayEngine, connect
from dreamontage.generator.fingerprint import Decision, decide
from dreamontage.generator.frames import fitted
from dreamontage.generator.graph import render_segments
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.catalogue import SHIPPED
from dreamontage.generator.pipeline import DreaMontagePipeline
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sar import Shot, latents_hash
from dreamontage.generator.takes import MemoryTakes
from dreamontage.generator.timeline import STRIDE
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.montage import SIZES, Format, Montage, Quality

PICTURE = SHIPPED.parent / "media" / "demo" / "picosdeeuropa.jpg"
FPS = 24


def pinned_shot(card: ModelCard, segments: int, quality: Quality) -> tuple[Shot, list[Decision]]:
    """A shot whose every segment is closed by a clip that is longer than the overlap, so that all seams are pinned."""
    width, height = SIZES["16:9", quality]
    every, covered = card.window - card.overlap, card.overlap + 2
    media, anchors, pixels = {}, [], {}
    for number in range(segments):
        frames = _film(number, STRIDE * (covered - 1) + 1, (width, height))
        item = Media(
            id=f"clip_{number}", sha256=f"{number:064x}", kind="clip", container="raw", width=width, height=height,
            duration_s=len(frames) / FPS, fps=FPS, frames=len(frames), bytes=frames.nbytes,
        )  # fmt: skip
        second = STRIDE * (every * (number + 1) - covered) / FPS
        media[item.id], pixels[item.id] = item, frames
        anchors.append(Anchor(id=f"a{number}", media_id=item.id, second=second))
    form = Format(width=width, height=height, fps=FPS)
    length = STRIDE * (every * segments - 1) / FPS
    body = Montage(id="m_speedup", format=form, duration_s=length, model=card.id, seed=1, anchors=anchors)
    plan = plan_montage(body, media, card, quality)
    placed = [PrevizAnchor(pixels[a.media_id], a.frame, a.media_id) for a in plan.anchors]
    previz = Previz(placed, [], plan.frames, (width, height), FPS)
    decisions = decide(plan, body, media, card, RenderRequest(quality=quality), None)
    return Shot(plan, body, previz, placed), decisions


def run(model: str, workers: int, segments: int, quality: Quality, least: float, repeats: int) -> int:
    """Render the shot on one renderer and on several, in turn; status 1 if bytes differ or it is not `least` faster."""
    pipe = DreaMontagePipeline.from_pretrained(model)
    shot, decisions = pinned_shot(pipe.card, segments, quality)
    connect(cpus=workers)
    weights = catalogue.weights_hash(model)
    engines = {count: RayEngine(model, weights, workers=count) for count in (1, workers)}
    _, expected = _timed(pipe, shot, decisions, engines[workers])  # the first one warms up
    took: dict[int, list[float]] = {1: [], workers: []}
    same = True
    for _ in range(repeats):
        for count, engine in engines.items():
            seconds, found = _timed(pipe, shot, decisions, engine)
            took[count].append(seconds)
            same &= found == expected
    best = {count: min(seconds) for count, seconds in took.items()}
    faster = best[1] / best[workers]
    table = Table("single-thread renderers", "seconds", "segments a minute")
    for count, seconds in best.items():
        table.add_row(str(count), f"{seconds:.1f}", f"{60 * len(decisions) / seconds:.1f}")
    Console().print(table)
    seams = [segment.seam for segment in shot.plan.segments]
    Console().print(
        f"{faster:.2f} times as fast on {len(seams)} segments with {seams.count('pinned')} pinned seams; "
        f"the bytes are {'the same' if same else 'NOT the same'}."
    )
    return int(not same or faster < least)


def _timed(
    pipe: DreaMontagePipeline, shot: Shot, decisions: list[Decision], engine: RayEngine
) -> tuple[float, list[str]]:
    takes, began = MemoryTakes(), time.perf_counter()
    names = [item.fingerprint for item in render_segments(pipe, shot, decisions, takes, engine=engine)]
    seconds = time.perf_counter() - began
    return seconds, [latents_hash(found[0]) for name in names if (found := takes.load(name))]


def _film(number: int, frames: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A camera that travels over a photograph, uint8 [n,H,W,3]."""
    with Image.open(PICTURE) as opened:
        picture = np.asarray(fitted(opened.convert("RGB"), (2 * size[0], 2 * size[1]), "cover", (0.5, 0.5)))
    left, top = (37 * number) % (size[0] - 3 * frames), (53 * number) % size[1]
    return np.stack([picture[top : top + size[1], left + 3 * i : left + 3 * i + size[0]] for i in range(frames)])
