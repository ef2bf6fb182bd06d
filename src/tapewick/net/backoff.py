"""When to try again: exponential back-off with full jitter, and a cap on attempts per host."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from tapewick.clock import Clock

__all__ = ["AttemptLimiter", "Backoff", "limiter_for"]


class Backoff:
    """Delays drawn evenly from [0, min(cap, base · 2ⁿ)] seconds after the n-th failure in a row.

    Full jitter keeps clients that lost the same venue together from returning together.
    """

    def __init__(self, *, base: float = 0.5, cap: float = 60.0, rng: Callable[[], float] = random.random) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng
        self.failures = 0

    def twin(self) -> Backoff:
        """Another one of the same kind, without failures."""
        return Backoff(base=self._base, cap=self._cap, rng=self._rng)

    def reset(self) -> None:
        """The last try went well."""
        self.failures = 0

    def delay(self, retry_after: float | None = None) -> float:
        """Seconds to wait after one more failure, never less than the venue's ``retry_after``."""
        ceiling = min(self._cap, self._base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return (retry_after or 0.0) + self._rng() * ceiling


class AttemptLimiter:
    """At most ``limit`` attempts in any ``period`` seconds; the venue bans an address that exceeds it."""

    def __init__(self, limit: int = 300, period: float = 300.0) -> None:
        self._limit = limit
        self._period = int(period * 1e9)
        self._taken: deque[int] = deque()

    async def take(self, clock: Clock) -> None:
        """Return when one more attempt is allowed, having counted it."""
        while True:
            now = clock.now()
            # A clock that was set back must not lock the venue out: forget what lies ahead of it.
            while self._taken and not now - self._period < self._taken[0] <= now:
                self._taken.popleft()
            if len(self._taken) < self._limit:
                self._taken.append(now)
                return
            await clock.sleep((self._taken[0] + self._period - now) / 1e9)


_LIMITERS: dict[str, AttemptLimiter] = {}


def limiter_for(host: str) -> AttemptLimiter:
    """The limiter all connections of this process to ``host`` share."""
    return _LIMITERS.setdefault(host, AttemptLimiter())
