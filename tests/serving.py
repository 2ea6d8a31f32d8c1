"""A real HTTP server on a free port, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import uvicorn


@contextmanager
def served(app: Any, **settings: Any) -> Iterator[str]:
    """The address of an application while the block runs; `settings` are uvicorn's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1, **settings))
    ready = threading.Event()
    startup = server.startup

    async def announced(*arguments: Any, **more: Any) -> None:
        await startup(*arguments, **more)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: anyio.run(server.serve))
    thread.start()
    assert ready.wait(20)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
