"""The suite `scaling`: does a six times longer shot need more memory, or more time per second?"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LENGTHS_S = (10.0, 60.0)
GAP_S = 2.5


def render_length(seconds: float, model: str, out: Path) -> dict[str, float]:
    """Render stills of test pictures every 2.5 s at draft size, in this process: seconds and peak memory."""
    import hashlib
    import time

    from PIL import Image

    from dreamontage.generator.evaluation.clips import GAP, similarity_clip, validation_pictures
    from dreamontage.generator.memory import peak_memory_bytes
    from dreamontage.generator.pipeline import DreaMontagePipeline
    from dreamontage.generator.render import RenderTask, render
    from dreamontage.schemas.anchor import Anchor
    from dreamontage.schemas.job import RenderRequest
    from dreamontage.schemas.media import Media
    from dreamontage.schemas.montage import Montage

    out.mkdir(parents=True, exist_ok=True)
    media, blobs, anchors = {}, {}, []
    pictures = validation_pictures()
    for number in range(int(seconds / GAP_S) + 1):
        name = f"img_{number}"
        still = similarity_clip(pictures[number % len(pictures)], 200 + number).frames[GAP]
        blobs[name] = out / f"{name}.png"
        Image.fromarray(still).save(blobs[name])
        content = blobs[name].read_bytes()
        media[name] = Media(
            id=name, sha256=hashlib.sha256(content).hexdigest(), kind="still", container="PNG",
            width=still.shape[1], height=still.shape[0], bytes=len(content),
        )  # fmt: skip
        anchors.append(Anchor(id=f"a{number}", media_id=name, second=number * GAP_S))
    montage = Montage(id="m_scaling", duration_s=seconds, anchors=anchors, model=model)
    pipeline = DreaMontagePipeline.from_pretrained(model)
    task = RenderTask(
        montage=montage, media=media, blobs=blobs, request=RenderRequest(quality="draft"), base=None,
        takes=out / "takes", out=out, video_id="v_scaling",
    )  # fmt: skip
    began, work_began = time.perf_counter(), time.process_time()
    video = render(task, lambda _: pipeline, lambda _: None)
    wall, work = time.perf_counter() - began, time.process_time() - work_began
    return {
        "seconds": seconds, "delivered_s": video.report.duration_s, "wall_s": round(wall, 2),
        "cpu_s": round(work, 2), "peak_memory_bytes": peak_memory_bytes(),
    }  # fmt: skip


def run_scaling(model: str, out: Path) -> dict[str, Any]:
    """Render 10 s and 60 s, each in a process of its own; returns and writes the two ratios (out/scaling.json)."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seconds in LENGTHS_S:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", __name__, str(seconds), model, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    short, long = rows

    def growth(key: str) -> float:
        return round(float(long[key] / long["delivered_s"] / (short[key] / short["delivered_s"])), 3)

    numbers = {
        "runs": rows,
        "memory_ratio": round(long["peak_memory_bytes"] / short["peak_memory_bytes"], 3),
        "time_per_second_ratio": growth("wall_s"),
        "cpu_per_second_ratio": growth("cpu_s"),  # tells where other programs slowed one of the two
    }
    (out / "scaling.json").write_text(json.dumps(numbers, indent=1) + "\n")
    return numbers


if __name__ == "__main__":
    print(json.dumps(render_length(float(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
