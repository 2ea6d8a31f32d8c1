"""How fast, and how much at once, each caller may ask: a token bucket and a count per name, in memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_REMEMBERED = 4_096


@dataclass
class Rates:
    """Bounds for one kind of caller: `per_s` calls a second in the long run, `burst` of them at once, and `at_once`
    under way. Not shared between processes; used from one event loop."""

    per_s: float
    burst: int
    at_once: int
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    _under_way: Counter[str] = field(default_factory=Counter)

    def wait(self, who: str, now: float | None = None) -> float:
        """0 where the call may go ahead now, and is counted; otherwise the seconds until it may."""
        now = time.monotonic() if now is None else now
        if self._under_way[who] >= self.at_once:
            return 1.0
        left, at = self._left.get(who, (float(self.burst), now))
        left = min(self.burst, left + (now - at) * self.per_s)
        if left < 1:
            return (1 - left) / self.per_s
        if len(self._left) >= _REMEMBERED:
            self._forget(now)
        self._left[who] = (left - 1, now)
        return 0.0

    @contextmanager
    def under_way(self, who: str) -> Iterator[None]:
        """Count a call while it is answered."""
        self._under_way[who] += 1
        try:
            yield
        finally:
            self._under_way[who] -= 1
            if not self._under_way[who]:
                del self._under_way[who]

    def _forget(self, now: float) -> None:
        """Drop who has a full bucket again: they are as good as strangers."""
        full = [who for who, (left, at) in self._left.items() if left + (now - at) * self.per_s >= self.burst]
        for who in full:
            del self._left[who]
