"""How many trades a second one key may send: a bucket that fills at the rate and holds one second's worth."""

from __future__ import annotations

import math
from collections.abc import Callable

from tapewick.errors import TooManyRequests

__all__ = ["Rate"]

MOST_OWNERS = 10_000


class Rate:
    """``per_second`` for each owner, with at least ``burst`` at once; ``now`` in seconds."""

    def __init__(self, per_second: int, burst: int, now: Callable[[], float]) -> None:
        self._per_second, self._size, self._now = per_second, max(per_second, burst), now
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, owner: str, count: int) -> None:
        """Use up ``count`` of what ``owner`` may send now. Raises ``TooManyRequests`` and uses nothing."""
        now = self._now()
        level, since = self._levels.get(owner, (float(self._size), now))
        level = min(self._size, level + (now - since) * self._per_second)
        if level < count:
            wait = max(1, math.ceil((count - level) / self._per_second))
            raise TooManyRequests(
                f"this key may send {self._per_second:,} trades a second (ingest.trades_per_s); wait {wait} s",
                retry_after=wait,
            )
        if len(self._levels) >= MOST_OWNERS and owner not in self._levels:
            self._levels.clear()  # full buckets are what a forgotten owner gets
        self._levels[owner] = (level - count, now)
