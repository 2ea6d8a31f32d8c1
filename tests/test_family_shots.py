"""A whole shot on every further family: planned on its own grid, rendered segment by segment, decoded and delivered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_families import save_tiny_ltx, save_tiny_ti2v, save_tiny_vace
from tiny_ltx2 import save_tiny_ltx2
from tiny_model import clip, picture

from dreamontage.generator.delivery import VIDEO_NAME, Delivery, deliver
from dreamontage.generator.fingerprint import decide
from dreamontage.generator.graph import render_segments
from dreamontage.generator.models import catalogue
from dreamontage.generator.models.loading import load_model
from dreamontage.generator.planner import plan_montage
from dreamontage.generator.previz import Previz, PrevizAnchor
from dreamontage.generator.sar import Shot, assemble_latents
from dreamontage.generator.takes import MemoryTakes
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.job import RenderRequest
from dreamontage.schemas.media import Media
from dreamontage.schemas.models import ModelCard, RenderSettings
from dreamontage.schemas.montage import Format, Montage

OWN = (64, 64)
FAMILIES: dict[str, tuple[Callable[[Path], Path], int, int]] = {
    "vace": (save_tiny_vace, 4, 8),
    "ti2v": (save_tiny_ti2v, 4, 16),
    "ltx": (save_tiny_ltx, 8, 32),
    "ltx2": (save_tiny_ltx2, 8, 32),
}


def card(family: str, stride: int, scale: int) -> ModelCard:
    return ModelCard(
        id=f"tiny-{family}", title="Tiny", licence="Apache-2.0", summary="Random weights, for tests.", family=family,
        stride=stride, scale=scale, window=7, overlap=3, shortest=2, fps=8, sizes={"draft": {"16:9": OWN}},
        condition="padded", empty_condition="grey", settings=["steps", "guidance", "shift", "t0", "guide"],
        defaults=RenderSettings(steps=2, guidance=2.0, shift=3.0, t0=1.0, guide="off"),
    )  # fmt: skip


def media(name: str, frames: int) -> Media:
    return Media(
        id=name, sha256=64 * "0", kind="clip" if frames > 1 else "still", container="raw", width=OWN[0], height=OWN[1],
        duration_s=frames / 8 if frames > 1 else 0, fps=8, frames=frames, bytes=1,
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shot_is_rendered_and_delivered_on_the_familys_own_grid(family: str, tmp_path: Path) -> None:
    save, stride, scale = FAMILIES[family]
    own = card(family, stride, scale)
    (save(tmp_path / "model") / catalogue.CARD).write_text(own.model_dump_json(exclude={"available"}))
    model = load_model(tmp_path / "model")
    length = 10.0 * stride / 8
    body = Montage(
        id="m_1", format=Format(width=256, height=144, fps=8), duration_s=length, model=own.id, seed=5,
        anchors=[
            Anchor(id="a", media_id="still", second=0), Anchor(id="b", media_id="clip", second=0.5 * length),
        ],
    )  # fmt: skip
    pixels = {"still": picture(1, OWN)[None], "clip": clip(2, 1 + 2 * stride, OWN)}
    known = {name: media(name, len(frames)) for name, frames in pixels.items()}
    plan = plan_montage(body, known, own, "draft")
    assert (plan.stride, plan.slots, plan.frames) == (stride, 11, 10 * stride + 1)
    assert [a.frame for a in plan.anchors] == [0, 5 * stride] and plan.anchors[1].frames == 1 + 2 * stride
    assert [seam.kind for seam in plan.seams] == ["carried", "pinned"]

    placed = [PrevizAnchor(pixels[a.media_id][: a.frames], a.frame, a.media_id) for a in plan.anchors]
    shot = Shot(plan, body, Previz(placed, previz_beats(body), plan.frames, OWN, 8), placed)
    takes = MemoryTakes()
    decisions = decide(plan, body, known, own, RenderRequest(quality="draft"), None, weights="")
    names = [done.fingerprint for done in render_segments(model, shot, decisions, takes)]
    latents = torch.cat(list(assemble_latents(plan, names, takes)), dim=1)
    assert latents.shape[1:] == (11, OWN[1] // scale, OWN[0] // scale) and latents.isfinite().all()

    assert all(done.reused for done in render_segments(model, shot, decisions, takes))

    delivery = Delivery(
        plan, body, shot.previz, placed, assemble_latents(plan, names, takes), model.vae, t0=[1.0] * 3, model=own.id
    )  # fmt: skip
    report = deliver(delivery, tmp_path, lambda done, frames: None)
    assert report.frames == plan.frames and (tmp_path / VIDEO_NAME).stat().st_size > 0
