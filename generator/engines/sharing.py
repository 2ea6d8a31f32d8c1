"""One process of several that share every window: it holds the whole model on one device and renders when it is asked.

What is shared is the network's work: diffusers' context parallelism splits a window's tokens between the processes.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel
from diffusers.models._modeling_parallel import ContextParallelConfig, ContextParallelInput, ParallelConfig
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from dreamontage.generator.engines.engine import execute
from dreamontage.generator.engines.job import SegmentJob
from dreamontage.generator.memory import gpu_peak_bytes, reset_peak_memory
from dreamontage.generator.models.family import Family
from dreamontage.schemas.errors import Busy, Cancelled, DreamontageError, InvalidInput
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.profile import Switches

Load = Callable[[str, torch.device, Switches], Family]

_TOKENS: Final = ContextParallelInput(split_dim=1, expected_dims=3)
PLANS: Final[dict[str, dict[str, Any]]] = {
    "wan": WanTransformer3DModel._cp_plan,
    "ti2v": WanTransformer3DModel._cp_plan,
    "vace": {
        **WanTransformer3DModel._cp_plan,
        "vace_blocks.0": {"hidden_states": _TOKENS, "control_hidden_states": _TOKENS},
    },
}
"""For every family whose windows can be shared, where its network's tokens are split and put together again."""
GOES_ON = "the job goes on by itself, with what is finished"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """One process of a group: its number, the devices of all, and the file by which they find each other."""

    rank: int
    devices: Sequence[str]
    meeting: str

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device(self.devices[self.rank])


def check_shared(card: ModelCard, switches: Switches) -> None:
    """Refuse a model or a switch whose windows cannot be shared between devices. Raises InvalidInput."""
    if card.family not in PLANS:
        raise InvalidInput(
            f"a window of {card.id} cannot be shared between devices; those of the families {', '.join(PLANS)} can",
            field="DREAMONTAGE_DEVICES",
            allowed="cuda:0,cuda:1 and so on, with commas, which gives every device jobs of its own",
        )
    if switches.cache:
        raise InvalidInput(
            "every device would decide for itself which steps the first-block cache skips, and wait for the others",
            field="profile",
            allowed="cache=0 where devices share a window",
        )


def serve(pipe: Connection, place: Place, model: str, switches: Switches, load: Load) -> None:
    """A process of a group: load the model, then do what is asked until the group or its parent ends."""
    from diffusers.utils import logging as diffusers_logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, args=(place,), daemon=True).start()
    diffusers_logging.set_verbosity_error()
    try:
        meet(place)
        family = load(model, place.device, switches)
        share(family, place, switches)
        pipe.send(("ready", family.computes))
        while True:
            asked, value = pipe.recv()
            if asked == "learn":
                family.learn(value)
            else:
                job = SegmentJob.from_bytes(value)
                check_parts(family, job, place, switches)
                pipe.send(("done", _rendered(family, job, pipe, place.rank)))
    except (EOFError, ConnectionError):
        return
    except DreamontageError as error:
        pipe.send(("failed", error))
    except Exception as error:
        log.exception("rendering on %s failed", place.device)
        said = (
            f"{place.device} broke while it shared a window ({type(error).__name__}); details are in the worker's log"
        )
        pipe.send(("failed", Busy(said, next_call=GOES_ON)))


def meet(place: Place) -> None:
    """Join the other processes: NCCL between GPUs; gloo between CPUs, and for small things, over this machine alone."""
    on_gpu = place.device.type == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(cores // len(place.devices), 1))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if on_gpu:
        torch.cuda.set_device(place.device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        init_method=f"file://{place.meeting}",
        rank=place.rank,
        world_size=len(place.devices),
    )


def share(family: Any, place: Place, switches: Switches) -> None:
    """Split the windows of a loaded family between the processes that have met. Raises InvalidInput."""
    count = len(place.devices)
    mesh = init_device_mesh(place.device.type, (1, count), mesh_dim_names=("ring", "ulysses"))
    ulysses = ContextParallelConfig(ulysses_degree=count, ulysses_anything=not switches.compile)
    config = ParallelConfig(context_parallel_config=ulysses)
    config.setup(place.rank, count, place.device, mesh=mesh)
    for network in _networks(family):
        # diffusers would take the GPU of the process's number, whichever the device is, and knows no group of CPUs.
        network._resolve_parallel_config = lambda _: config
        try:
            network.enable_parallelism(config=config, cp_plan=PLANS[family.card.family])
        except ValueError as error:
            raise InvalidInput(f"{error}", field="profile", allowed="attention=native everywhere") from error
        network._parallel_config = config


def use_loras(family: Any, loras: Sequence[str]) -> None:
    """Switch on the LoRAs of a job. One on the last layer wraps it; then the wrapped layer puts the parts together, no
    longer the one inside. Raises InvalidInput."""
    family.adapters.use(loras)
    last = {"proj_out": PLANS[family.card.family]["proj_out"]}
    for network in _networks(family):
        if hasattr(network.proj_out, "base_layer"):
            remove_context_parallel(network, last)
            apply_context_parallel(network, network._parallel_config.context_parallel_config, last)


def check_parts(family: Any, job: SegmentJob, place: Place, switches: Switches) -> None:
    """Refuse a window whose parts differ in length: compiled networks cannot exchange them, and gloo, between CPUs,
    cannot put them together. Raises InvalidInput."""
    count, config = len(place.devices), family.experts.high.config
    _, rows, columns = config["patch_size"]
    tokens = job.slots * (job.height // rows) * (job.width // columns)
    heads = config["num_attention_heads"] if switches.compile else 0
    if (tokens % count or heads % count) and (switches.compile or place.device.type == "cpu"):
        raise InvalidInput(
            f"{count} devices cannot share {tokens} tokens and {heads or 'any'} heads in equal parts",
            field="profile" if switches.compile else "DREAMONTAGE_DEVICES",
            allowed="compile=off, where parts may differ" if switches.compile else "one CPU",
        )


def _rendered(family: Family, job: SegmentJob, pipe: Connection, rank: int) -> tuple[bytes, int]:
    """The SegmentResult of a job, from the first process alone, and the peak of bytes on this GPU; nothing where it was
    stopped, as all are."""

    def on_step(done: int, steps: int, latents: Tensor) -> None:
        going = torch.ones(1)
        if rank == 0:
            pipe.send(("step", (done, steps)))
            going[0] = pipe.recv()
        dist.broadcast(going, 0)
        if not going:
            raise Cancelled("the order was dropped")

    reset_peak_memory()
    use_loras(family, job.sampling.loras)
    try:
        result = execute(family, job, on_step, f"{os.uname().nodename}:{os.getpid()}")
    except Cancelled:
        return b"", 0
    finally:
        torch.cuda.empty_cache()  # who asked encodes and decodes on the first device
    return b"" if rank else result.to_bytes(), gpu_peak_bytes()


def _networks(family: Any) -> list[Any]:
    return [network for network in (family.experts.high, family.experts.low) if network is not None]


def _leave_with_parent(place: Place) -> None:
    """Free the device when the parent was killed, also while others are waited for, and tidy up in its stead."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(Path(place.meeting).parent, ignore_errors=True)
    os._exit(1)
