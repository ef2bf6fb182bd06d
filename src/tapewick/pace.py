"""How often the engine commits: no more often than asked, and at leisure while nobody waits."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

__all__ = ["Pace"]

LEISURE = 3
"""A commit may take a third of the time: the least one costs the store milliseconds of CPU, however few its rows."""
SLOW = 0.02
"""Seconds above which a commit is to take less of the time still: so many instruments' rows cost the loop as well."""
MOST = 0.25
"""Seconds nobody waits longer than, however slow the commits."""


class Pace:
    """The pause between commits: their starts lie ``interval`` seconds apart or more.

    Unless somebody is in a hurry they also lie ``LEISURE`` times a commit's own duration apart, more often that of
    a ``SLOW`` one, up to ``MOST`` seconds, so that a store whose commits are slow is not kept busy by a trickle of
    trades.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._hurry = asyncio.Event()
        self._started = 0.0

    def begin(self) -> None:
        """A commit starts now."""
        self._started = time.monotonic()
        self._hurry.clear()

    def hurry(self) -> None:
        """Somebody can do nothing until the next commit."""
        self._hurry.set()

    async def rest(self) -> None:
        """Return when the commit after the one that has just ended may start."""
        took = time.monotonic() - self._started
        await asyncio.sleep(max(self._interval - took, 0))
        times = LEISURE + 2 * max(took / SLOW - 1, 0)
        leisure = min(took * times, MOST) - max(took, self._interval)
        if leisure > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(leisure):
                    await self._hurry.wait()
