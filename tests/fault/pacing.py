"""A fast clock that never runs ahead of the work: it moves in small steps, one per turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tapewick.clock import ManualClock
from tapewick.sim.lapse import LapseClock

__all__ = ["PacedClock"]

TURN = 0.002  # seconds of real time between two steps
LONGEST = 0.02  # of real time one step stands for, however long the turn of the loop took


class PacedClock(LapseClock):
    """Runs from ``start`` (UTC ns) at most ``speed`` times as fast as real time, slower where the machine is busy.

    A loaded machine then makes a test last longer, and changes nothing of what happens in it.
    """

    def __init__(self, speed: float, start: int) -> None:
        super().__init__(speed, start)
        self._hand = ManualClock(start)

    def now(self) -> int:
        return self._hand.now()

    async def sleep(self, seconds: float) -> None:
        await self._hand.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Jump forward."""
        self._hand.advance(seconds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PacedClock]:
        """The clock moves while the context is open; ``speed`` may be changed meanwhile."""
        task = asyncio.create_task(self._run(), name="clock")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(TURN)
            before, passed = loop.time(), loop.time() - before
            self._hand.advance(min(passed, LONGEST) * self.speed)
