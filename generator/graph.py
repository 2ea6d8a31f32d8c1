"""The plan as a graph: which segment waits for which, and the loop that renders what is ready on an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dreamontage.generator.engines.engine import Engine, InProcess, Order
from dreamontage.generator.engines.job import SegmentResult
from dreamontage.generator.fingerprint import Decision, fingerprint, resolve_settings
from dreamontage.generator.models.family import Family
from dreamontage.generator.sar import WARM_UP, Rendered, Shot, latents_hash, load_take, texts_of
from dreamontage.generator.takes import TakeStore
from dreamontage.schemas.models import ModelCard
from dreamontage.schemas.plan import Segment


@dataclass(frozen=True)
class Node:
    """One take: the first of segment `index`, or an alternative (`number` 2 and up), and the segments it waits for."""

    index: int
    number: int
    decision: Decision
    after: frozenset[int]


@dataclass(frozen=True)
class Named:
    """A take that is looked for or ordered: its name, and the hashes of the tail and the held end it met."""

    node: Node
    name: str
    tail: str | None
    held: str | None


def needs(segments: Sequence[Segment], reach: int) -> list[frozenset[int]]:
    """For every segment the earlier ones whose latents it continues from.

    A carried seam needs the `reach` slots before it: its tail, and what its tail's one frame is decoded after. These
    may lie on both sides of an earlier pinned seam. A pinned seam needs nothing.
    """
    return [
        frozenset(
            other.index
            for other in segments[: segment.index]
            if segment.seam == "carried" and other.stop > segment.start - reach
        )
        for segment in segments
    ]


def nodes_of(decisions: Sequence[Decision], reach: int) -> list[Node]:
    """All takes in order, each segment's alternatives after its first, which they wait for too."""
    nodes = []
    for index, after in enumerate(needs([decision.segment for decision in decisions], reach)):
        decision = decisions[index]
        nodes.append(Node(index, 1, decision, after))
        for number, seed in enumerate(decision.others, 2):
            other = replace(decision, action="render", seed=seed, take=None, others=())
            nodes.append(Node(index, number, other, after | {index}))
    return nodes


def render_segments(
    model: Family,
    shot: Shot,
    decisions: Sequence[Decision],
    takes: TakeStore,
    on_step: Callable[[Decision, int, int, Tensor], None] | None = None,
    engine: Engine | None = None,
) -> Iterator[Rendered]:
    """Render or find the take of every segment, in order, each followed by its alternatives; each is saved the moment
    it is finished. What does not wait for another is rendered side by side, as far as the engine has room.

    Only the slots that a segment still has to continue from are held in memory. A take that exists already is not
    rendered again, so the loop resumes where an earlier run stopped. An exception from `on_step` ends the loop between
    two steps.
    """
    engine = engine or InProcess(model)
    loop = _Loop(shot, decisions, takes, engine, model.card)
    engine.learn(texts_of(model, shot, decisions))

    def told(key: int, done: int, steps: int, latents: Tensor) -> None:
        if on_step is not None:
            on_step(loop.nodes[key].decision, done, steps, latents)

    try:
        for key in range(len(loop.nodes)):
            while key not in loop.done:
                if not loop.begin_next():
                    loop.finish(*engine.wait(told))
            yield loop.done.pop(key)
    finally:
        engine.drop()


class _Loop:
    """What of a shot's graph waits, runs and is done."""

    def __init__(
        self, shot: Shot, decisions: Sequence[Decision], takes: TakeStore, engine: Engine, card: ModelCard
    ) -> None:
        self.shot, self.takes, self.engine, self.card, self.overlap = shot, takes, engine, card, card.overlap
        self.reach = card.overlap + WARM_UP
        self.nodes = nodes_of(decisions, self.reach)
        self.waiting = list(range(len(self.nodes)))
        self.running: dict[int, Named] = {}
        self.done: dict[int, Rendered] = {}
        self.firsts: dict[int, str] = {}
        self.ends: dict[int, Tensor] = {}

    def begin_next(self) -> bool:
        """Find or order the first take that is ready; False where nothing is, or the engine has no room."""
        if len(self.running) >= self.engine.lanes:
            return False
        key = next((key for key in self.waiting if self.nodes[key].after <= self.firsts.keys()), None)
        if key is None:
            return False
        self.waiting.remove(key)
        self._begin(key)
        return True

    def finish(self, key: int, result: SegmentResult) -> None:
        """Keep what the engine rendered."""
        named = self.running.pop(key)
        decision = named.node.decision
        settings = resolve_settings(self.card, decision.settings, decision.segment)[0]
        info: dict[str, Any] = {"tail": named.tail, "held": named.held, "seed": decision.seed}
        info["settings"] = settings.model_dump(mode="json", exclude_none=True)
        if result.drift is not None:
            info["drift"] = [list(values) for values in result.drift]
        self.takes.save(named.name, result.latents, info)
        self._keep(key, named, result.latents, info, reused=False)

    def _begin(self, key: int) -> None:
        node = self._held(self.nodes[key])
        decision, kept = node.decision, node.decision.held_take
        before = self._before(node) if decision.segment.seam == "carried" else None
        tail = None if before is None else latents_hash(before[:, -self.overlap :])
        held_latents = None if kept is None else load_take(self.takes, kept)[0][:, -self.overlap :]
        held = None if held_latents is None else latents_hash(held_latents)
        name, found = decision.take, None if decision.take is None else self.takes.load(decision.take)
        if found is not None and before is not None and found[1].get("tail") != tail:
            found = None  # it continued from something else
        if found is None or name is None:
            name = fingerprint(decision.recipe, decision.seed, self.engine.number_type, tail, held)
            found = self.takes.load(name)
        named = Named(node, name, tail, held)
        if found is not None:
            self._keep(key, named, *found, reused=True)
            return
        self.running[key] = named
        self.engine.submit(key, Order(self.shot, decision, before, held_latents))

    def _before(self, node: Node) -> Tensor:
        """The latents [C,r,h,w] up to a node's carried seam."""
        ends = [self.ends[index] for index in sorted(node.after - {node.index})]
        return torch.cat(ends, dim=1)[:, -self.reach :]

    def _held(self, node: Node) -> Node:
        """An alternative keeps the end of its segment's first take, where the next segment continues from that."""
        if node.number == 1:
            return node
        carried_on = any(other.index == node.index + 1 and node.index in other.after for other in self.nodes)
        held = self.firsts[node.index] if carried_on else None
        return replace(node, decision=replace(node.decision, held_take=held))

    def _keep(self, key: int, named: Named, latents: Tensor, info: dict[str, Any], reused: bool) -> None:
        node = named.node
        end = latents_hash(latents[:, -self.overlap :])
        self.done[key] = Rendered(
            node.decision, named.name, info.get("tail"), info.get("held"), reused, end, node.number
        )
        if node.number == 1:
            self.firsts[node.index], self.ends[node.index] = named.name, latents[:, -self.reach :].clone()
        wanted = frozenset[int]().union(*(self.nodes[key].after for key in self.waiting))
        self.ends = {index: end for index, end in self.ends.items() if index in wanted}
