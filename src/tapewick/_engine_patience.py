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
    """``trouble``: why the store does not do what it was asked; None while it does. ``stopping``: try only briefly."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.stopping = False

    async def insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` until the store lets us. Raises what trying again does not help: ``StoreDamaged``, ``Fenced``."""
        delay, loop = FIRST, asyncio.get_running_loop()
        while True:
            waiting = loop.call_later(SLOW, self._is_slow)
            try:
                result = await work()
            except (StoreDamaged, Fenced):
                raise
            except StoreError as error:
                if self.stopping and delay > 2:
                    raise
                if self.trouble is None:
                    log.error("the store refuses; trying on", cause=str(error))
                self.trouble = str(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, MOST)
            else:
                self.trouble = None
                return result
            finally:
                waiting.cancel()

    def _is_slow(self) -> None:
        """A store that neither does its work nor fails is as good as away."""
        if self.trouble is None:
            self.trouble = f"the store has not answered for {SLOW:g} s: see that its server runs and is not overloaded"
            log.error("the store is slow; waiting for it", seconds=SLOW)
