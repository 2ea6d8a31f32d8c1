"""Subscriptions to montages in both eras of the protocol, fed by the event log of the studio.

The event table is the bus: whichever process writes, every server that has a listener sees the row within POLL_S and
tells its clients that `montage://{id}` changed. A cue carries no content and is not replayed; clients read again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from .store import Studio

POLL_S = 0.05
_RETRY_S = 1.0
MAX_PER_CONNECTION = 1_000
_STATE = "dreamontage.subscriptions"

log = logging.getLogger(__name__)


class EventBus(InMemorySubscriptionBus):
    """The SDK's bus, on which `run` also puts what other calls and other processes wrote."""

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self._studio = studio
        self._seen = 0
        self._wanted: anyio.Event | None = None
        self._runners: list[TaskGroup] = []

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Register a listener; nothing that is written from now on escapes it."""
        if not self._listeners:
            self._seen = self._studio.last_event()
        if self._wanted is not None:
            self._wanted.set()
        return super().subscribe(listener)

    async def run(self) -> None:
        """Watch the event log while anyone listens, until cancelled. A server runs it as long as it has clients."""
        async with anyio.create_task_group() as tasks:
            self._runners.append(tasks)
            try:
                await self._watch()
            finally:
                self._runners.remove(tasks)

    def soon(self, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a runner send something, so that no listener waits for a client."""
        self._runners[0].start_soon(send)

    async def _watch(self) -> None:
        while True:
            if not self._listeners:
                self._wanted = anyio.Event()
                await self._wanted.wait()
            try:
                newest, changed = await anyio.to_thread.run_sync(self._studio.changed_montages, self._seen)
            except Exception:  # cues are advisory: a disk that fails for a moment must not take the server down
                log.exception("the event log cannot be read")
                await anyio.sleep(_RETRY_S)
                continue
            if newest > self._seen:  # else another runner of the same bus was first
                self._seen = newest
                for montage_id in changed:
                    await self.publish(ResourceUpdated(uri=f"montage://{montage_id}"))
            await anyio.sleep(POLL_S)


class HandshakeEra:
    """`resources/subscribe` for clients of the revisions before 2026-07-28, on the same bus.

    A cue that is still on its way to a client stands for the changes after it, so a client that has stopped reading
    holds up nobody.
    """

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def subscribe(self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        """Tell this connection when the resource changes. Raises MCPError beyond MAX_PER_CONNECTION resources."""
        uri, subscribed = str(params.uri), _subscribed(ctx)
        if uri not in subscribed:
            if len(subscribed) >= MAX_PER_CONNECTION:
                raise MCPError(INVALID_PARAMS, f"A connection may subscribe to {MAX_PER_CONNECTION} resources.")
            subscribed[uri] = self._bus.subscribe(self._teller(ctx, uri))
        return EmptyResult()

    async def unsubscribe(self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        """End a subscription, if there is one."""
        if leave := _subscribed(ctx).pop(str(params.uri), None):
            leave()
        return EmptyResult()

    def _teller(self, ctx: ServerRequestContext[Any, Any], uri: str) -> Callable[[ServerEvent], None]:
        on_its_way = False

        async def tell() -> None:
            nonlocal on_its_way
            try:
                await ctx.session.send_resource_updated(uri)
            finally:
                on_its_way = False

        def hear(event: ServerEvent) -> None:
            nonlocal on_its_way
            if event == ResourceUpdated(uri=uri) and not on_its_way:
                on_its_way = True
                self._bus.soon(tell)

        return hear


def serve_handshake_era(server: MCPServer[Any], bus: EventBus) -> None:
    """Add the methods that MCPServer itself does not serve; which revisions have them is the SDK's to know."""
    era = HandshakeEra(bus)
    lowlevel = server._lowlevel_server
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, era.subscribe)
    lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, era.unsubscribe)


def _subscribed(ctx: ServerRequestContext[Any, Any]) -> dict[str, Callable[[], None]]:
    """How to end each subscription of the client's connection, by resource; all end with the connection."""
    connection = ctx.session._connection  # where the SDK keeps a connection's state; it offers no public way
    if _STATE not in connection.state:
        subscribed: dict[str, Callable[[], None]] = {}

        def end() -> None:
            for leave in subscribed.values():
                leave()

        connection.exit_stack.callback(end)
        connection.state[_STATE] = subscribed
    kept: dict[str, Callable[[], None]] = connection.state[_STATE]
    return kept
