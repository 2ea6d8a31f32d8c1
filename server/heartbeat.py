"""Signs of life of a worker, from a thread of their own: a step may take longer than anybody waits for one."""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import Self

from dreamontage.schemas.errors import DreamontageError

from .device import keep_device
from .store import Studio

log = logging.getLogger(__name__)


class Heartbeat:
    """While the block runs, touches the device's lock and the worker's row every `every_s` seconds, and at any news."""

    def __init__(self, studio: Studio, worker_id: str, device: str, lock: int | None, every_s: float) -> None:
        self._studio, self._worker_id, self._device, self._lock = studio, worker_id, device, lock
        self._every_s, self._doing = every_s, "waiting"
        self._news, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def now(self, doing: str) -> None:
        """Say what the worker does from now on."""
        if doing != self._doing:
            self._doing = doing
            self._news.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._news.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.is_set():
            if self._lock is not None:
                keep_device(self._lock)
            try:
                self._studio.heartbeat(self._worker_id, self._device, os.getpid(), self._doing)
            except DreamontageError as error:  # the lock's file tells that this worker is alive
                log.warning("no heartbeat: %s", error)
            self._news.wait(self._every_s)
            self._news.clear()
