"""Trying on while the store is away: what was taken from the tapes must be written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tapewick.errors import Fenced, StoreDamaged, StoreError

__all__ = ["Patience"]

log = structlog.get_logger()

T = TypeVar("T")

SLOW = 3.0  # seconds after which a store that has not answered makes the engine not ready
FIRST, MOST = 0.1, 5.0  # seconds between two attempts


class Patience:
    """``stopping``: try only briefly."""

    def __init__(self) -> None:
        self._troubles: dict[object, str] = {}  # by what was asked for and is not done yet
        self.stopping = False

    @property
    def trouble(self) -> str | None:
        """Why the store does not do what it was asked, of several things the first; None while it does all."""
        return next(iter(self._troubles.values()), None)

    async def insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` until the store lets us. Raises what trying again does not help: ``StoreDamaged``, ``Fenced``."""
        delay, loop, own = FIRST, asyncio.get_running_loop(), object()
        try:
            while True:
                waiting = loop.call_later(SLOW, self._is_slow, own)
                try:
                    return await work()
                except (StoreDamaged, Fenced):
                    raise
                except StoreError as error:
                    if self.stopping and delay > 2:
                        raise
                    if not self._troubles:
                        log.error("the store refuses; trying on", cause=str(error))
                    self._troubles[own] = str(error)
                finally:
                    waiting.cancel()
                await asyncio.sleep(delay)
                delay = min(delay * 2, MOST)
        finally:
            self._troubles.pop(own, None)

    def _is_slow(self, own: object) -> None:
        """A store that neither does its work nor fails is as good as away."""
        if not self._troubles:
            log.error("the store is slow; waiting for it", seconds=SLOW)
        self._troubles.setdefault(
            own, f"the store has not answered for {SLOW:g} s: see that its server runs and is not overloaded"
        )
