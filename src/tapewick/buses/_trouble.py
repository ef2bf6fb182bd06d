"""Trying on while a server is away: back-off, one log line when it goes and one when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

import structlog

from tapewick import metrics
from tapewick.errors import BusError, BusRefused
from tapewick.net.backoff import Backoff

__all__ = ["Trouble", "ended"]

log = structlog.get_logger()

T = TypeVar("T")


class Trouble:
    """What does not work at the moment, of everything that one bus does."""

    def __init__(self, kind: str, *, base: float = 0.1, cap: float = 5.0) -> None:
        self._kind, self._base, self._cap = kind, base, cap
        self._causes: dict[str, str] = {}

    @property
    def cause(self) -> str | None:
        """Why the bus does not work; None while it does."""
        return next(iter(self._causes.values()), None)

    async def insist(self, what: str, work: Callable[[], Awaitable[T]], *, always: bool = False) -> T:
        """Do ``work`` until the server lets us. Raises ``BusRefused``, which trying again does not help: unless
        ``always``, for what must go on when somebody has changed the server's mind."""
        backoff = Backoff(base=self._base, cap=self._cap)
        while True:
            try:
                result = await work()
            except BusError as error:
                if isinstance(error, BusRefused) and not always:
                    self.over(what)
                    raise
                self.began(what, error)
                await asyncio.sleep(backoff.delay() + self._base / 10)
            else:
                self.over(what)
                return result

    def began(self, what: str, error: BusError) -> None:
        """``what`` failed."""
        metrics.bus_failures.labels(self._kind).inc()
        if not self._causes:
            log.error("the bus does not answer; trying on", bus=self._kind, while_=what, cause=str(error))
        self._causes[what] = str(error)

    def over(self, what: str) -> None:
        """``what`` works, or is no longer tried."""
        if self._causes.pop(what, None) is not None and not self._causes:
            log.warning("the bus answers again", bus=self._kind)


async def ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel ``tasks`` and return when they have ended: again and again, for drivers swallow a cancellation
    that meets them at the wrong moment (redis-py does while it reads an answer)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)
