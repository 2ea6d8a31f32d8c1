"""Cancel with the real renderer: honoured at the next report, within one denoising step or one decoded chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dreamontage.generator.render import RenderTask
from dreamontage.generator.render import render as render_really
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import Job, Progress, RenderRequest
from dreamontage.schemas.models import RenderSettings
from dreamontage.schemas.montage import Format, Montage
from dreamontage.schemas.report import Video
from dreamontage.server.media.ingest import take_in_all
from dreamontage.server.store import Studio, new_id
from dreamontage.server.worker import Worker

STEPS = 12


@pytest.fixture
def job(studio: Studio, pictures: list[Path], tiny_model: str) -> Job:
    """A queued draft of five seconds, decoded in several chunks."""
    media = take_in_all(studio, [path.name for path in pictures[:2]], [pictures[0].parent])
    anchors = [Anchor(id=f"a{n}", media_id=one.id, second=4.0 * n) for n, one in enumerate(media)]
    shape = Format(width=256, height=144, fps=8)
    montage = studio.create_montage(
        Montage(id=new_id("m"), duration_s=5, anchors=anchors, format=shape, model=tiny_model)
    )
    return studio.enqueue(montage, RenderRequest(settings=RenderSettings(steps=STEPS)), None)


def reports_after_cancel(studio: Studio, job: Job, stage: str) -> tuple[list[Progress], Progress]:
    """Cancel right after the second report of a stage; what is reported then, and the report before."""
    seen: list[Progress] = []

    def render(task: RenderTask, load: Callable[..., object], on_progress: Callable[[Progress], None]) -> Video:
        def report(progress: Progress) -> None:
            seen.append(progress)
            on_progress(progress)
            if len([one for one in seen if one.stage == stage]) == 3 and studio.job(job.id).state == "running":
                studio.cancel(job.id)

        return render_really(task, load, report)  # type: ignore[arg-type]

    Worker(studio, render=render, idle_exit_s=0).run()
    third = [n for n, one in enumerate(seen) if one.stage == stage][2]
    return seen[third + 1 :], seen[third]


@pytest.mark.parametrize("stage", ["denoising", "decoding"])
def test_a_cancel_waits_for_one_step_or_one_chunk_at_most(studio: Studio, job: Job, stage: str) -> None:
    after, last = reports_after_cancel(studio, job, stage)
    assert [one.stage for one in after] == [stage]  # the next report met the cancel
    assert last.done < after[0].done < after[0].total
    assert studio.job(job.id).state == "cancelled" and studio.job(job.id).error is None
    assert list((studio.folder / "videos").iterdir()) == []
    kept = [path for path in studio.takes.iterdir() if path.suffix == ".safetensors"]
    assert bool(kept) == (stage == "decoding")  # finished segments are kept
