"""Time, injected: a real clock, one that tests move by hand, and one a recording drives.

All times are int64 UTC nanoseconds. Nothing else in tapewick asks the operating system
for the time of day, so a replay or a test decides what "now" is.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

__all__ = ["Clock", "ElapsedClock", "ManualClock", "RealClock", "RecordedClock"]


class Clock(Protocol):
    """What the time is, and how to wait for it."""

    def now(self) -> int:
        """Current UTC time in ns."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once ``now`` has advanced by ``seconds``."""
        ...


class RealClock:
    """The operating system's clock."""

    def now(self) -> int:
        """UTC in ns; it jumps where the system's clock is set."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """Sleep by the event loop's clock, which is never set."""
        await asyncio.sleep(seconds)


class ElapsedClock:
    """Time since the machine started, the time it was suspended included: never set, and nothing elsewhere."""

    _COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> int:
        """ns since the machine started."""
        return time.clock_gettime_ns(self._COUNTER)

    async def sleep(self, seconds: float) -> None:
        """Sleep by the event loop's clock."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when ``advance`` or ``set`` is called; sleepers wake in time order."""

    def __init__(self, start: int = 0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Event]] = []

    def now(self) -> int:
        """ns as last set."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was moved on by ``seconds``; for ever if nobody moves it."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake = asyncio.Event()
        heapq.heappush(self._sleepers, (self._now + int(seconds * 1e9), next(self._order), wake))
        await wake.wait()

    def set(self, now: int) -> None:
        """Move to ``now`` (ns, never back) and wake every sleeper that is due."""
        self._now = max(self._now, now)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            heapq.heappop(self._sleepers)[2].set()

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``."""
        self.set(self._now + int(seconds * 1e9))


class RecordedClock(ManualClock):
    """The receive clock of a recording, paced against real time.

    ``await reach(t)`` returns when the recording's time ``t`` (ns) has come at ``speed``
    times real time; ``speed=None`` never waits.
    """

    def __init__(self, speed: float | None = None) -> None:
        super().__init__()
        self._speed = speed
        self._origin: tuple[int, int] | None = None

    async def reach(self, t: int) -> None:
        """Wait until ``t`` (ns) has come at the recording's pace, then move there."""
        if self._speed is not None:
            if self._origin is None:
                self._origin = (t, time.monotonic_ns())
            recorded, real = self._origin
            due = real + int((t - recorded) / self._speed)
            if (wait := due - time.monotonic_ns()) > 0:
                await asyncio.sleep(wait / 1e9)
        self.set(t)
