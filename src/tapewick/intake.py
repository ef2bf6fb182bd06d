"""Trades that are handed to us: onto the bus, and back with the proof that the store has committed them.

The proof is the store itself, never an acknowledgement: what is answered as stored has been read back. One batch of an
instrument is under way at a time, so that what was there before and what is new can be told apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from tapewick.errors import Unavailable
from tapewick.model import I64, Instrument, TradeBatch
from tapewick.protocols import Bus, Store

__all__ = ["Intake", "NoRoom"]

FIRST_LOOK, LAST_LOOK = 0.01, 0.1  # seconds between two looks at the store
RETRY_AFTER = 2


class NoRoom(Unavailable):
    """The bus is full: nothing was sent."""


class Intake:
    """Brings trades of other programs to ``bus``; waits at most ``patience`` seconds for ``store`` to hold them."""

    def __init__(self, bus: Bus, store: Store, patience: float = 10.0) -> None:
        self._bus, self._store, self._patience = bus, store, patience
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, Instrument] = {}

    async def instruments(self, ids: set[str]) -> dict[str, Instrument]:
        """Those of ``ids`` that have a tape."""
        if not ids <= self._known.keys():
            self._known = {one.id: one for one in await self._store.instruments()}
        return {id: self._known[id] for id in ids if id in self._known}

    async def count(self, venue: str) -> int:
        """How many instruments ``venue`` has."""
        return sum(one.venue == venue for one in await self._store.instruments())

    async def register(self, instrument: Instrument) -> Instrument:
        """Have the engine open a tape; the instrument as it is stored. Raises ``Unavailable``."""
        end = time.monotonic() + self._patience
        async with self._locks[instrument.id]:
            while True:
                if known := (await self.instruments({instrument.id})).get(instrument.id):
                    return known
                if not self._bus.offer("trades", instrument):
                    raise _full()
                await self._seen(instrument.id, end)

    async def _seen(self, id: str, end: float) -> None:
        delay = FIRST_LOOK
        while not await self.instruments({id}):
            if time.monotonic() > end:
                raise _late()
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, LAST_LOOK)

    async def store(self, batch: TradeBatch, *, sent: bool = False) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch`` are new; when this returns, all of them are committed.

        ``sent``: they are on the bus already, and only waited for.
        Ids must differ from each other. Raises ``Unavailable`` when the bus is full, or the store does not hold
        them in time: they may still arrive, and sending them again is safe. Raises ``StoreError`` while the store
        does not answer.
        """
        end = time.monotonic() + self._patience
        lock = self._locks[batch.instrument]
        try:
            async with asyncio.timeout(self._patience):  # ``wait_for`` can swallow a cancellation before Python 3.12
                await lock.acquire()
        except TimeoutError:
            raise _late() from None
        try:
            new = ~await self._held(batch)
            if new.any():
                await self._add(batch.select(np.flatnonzero(new)), end, sent=sent)
            return new
        finally:
            lock.release()

    async def _add(self, batch: TradeBatch, end: float, *, sent: bool) -> None:
        if not sent and not self._bus.offer("trades", batch):
            raise _full()
        delay = FIRST_LOOK
        while True:
            await asyncio.sleep(delay)
            if (await self._held(batch)).all():
                return
            if time.monotonic() > end:
                self._known.pop(batch.instrument, None)  # a store that was restored may have lost it
                raise _late()
            delay = min(delay * 1.5, LAST_LOOK)

    async def _held(self, batch: TradeBatch) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch`` the store has."""
        own = (await self.instruments({batch.instrument})).get(batch.instrument)
        if own is None:
            raise _late()
        if own.id_kind == "contiguous":
            return _covered(batch.trade_id, (await self._store.coverage(batch.instrument)).ranges)
        return await self._store.holds(batch.instrument, batch.names)


def _covered(ids: I64, ranges: I64) -> npt.NDArray[np.bool_]:
    """Which of ``ids`` lie in one of ``ranges`` (n, 4), ascending."""
    if not len(ranges):
        return np.zeros(len(ids), np.bool_)
    at = np.searchsorted(ranges[:, 0], ids, "right") - 1
    inside: npt.NDArray[np.bool_] = (at >= 0) & (ids <= ranges[np.maximum(at, 0), 1])
    return inside


def _full() -> NoRoom:
    return NoRoom("the server has no room for more trades now; send them again later", retry_after=RETRY_AFTER)


def _late() -> Unavailable:
    return Unavailable(
        "the store has not confirmed the trades in time; send them again: what is there already is not counted twice",
        retry_after=RETRY_AFTER,
    )
