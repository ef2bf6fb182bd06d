"""A clock that runs faster than the wall's."""

from __future__ import annotations

import asyncio
import time

__all__ = ["LapseClock"]


class LapseClock:
    """Time from ``start`` (UTC ns, default now) on, ``speed`` times as fast as real time.

    A venue and the clients under test share one: what takes an hour at one takes an hour at all.
    """

    def __init__(self, speed: float, start: int | None = None) -> None:
        self.speed = speed
        self._start = time.time_ns() if start is None else start
        self._began = time.monotonic_ns()

    def now(self) -> int:
        return self._start + int((time.monotonic_ns() - self._began) * self.speed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)
