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

__all__ = ["Intake"]

FIRST_LOOK, LAST_LOOK = 0.01, 0.1  # seconds between two looks at the store
RETRY_AFTER = 2
MOST_ADRIFT = 1_000_000


class Intake:
    """Brings trades of other programs to ``bus``; waits at most ``patience`` seconds for ``store`` to hold them."""

    def __init__(self, bus: Bus, store: Store, patience: float = 10.0) -> None:
        self._bus, self._store, self._patience = bus, store, patience
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[str, Instrument] = {}
        # Ids that are on the bus and not known to be stored: they must not be sent twice, where ids are unique the
        # engine would count them twice.
        self._adrift: defaultdict[str, set[int]] = defaultdict(set)

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

    async def store(self, batch: TradeBatch) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch`` are new; when this returns, all of them are committed.

        Ids must differ from each other. Raises ``Unavailable`` when the bus is full, or the store does not hold
        them in time: they may still arrive, and sending them again is safe.
        """
        end = time.monotonic() + self._patience
        lock = self._locks[batch.instrument]
        try:
            await asyncio.wait_for(lock.acquire(), self._patience)
        except TimeoutError:
            raise _late() from None
        try:
            new = ~await self._held(batch)
            if new.any():
                await self._add(batch.select(np.flatnonzero(new)), end)
            return new
        finally:
            lock.release()

    async def _add(self, batch: TradeBatch, end: float) -> None:
        adrift = self._adrift[batch.instrument]
        fresh = [row for row, id in enumerate(batch.trade_id.tolist()) if id not in adrift]
        if fresh:
            sent = batch.select(np.array(fresh, np.int64))
            if sum(map(len, self._adrift.values())) > MOST_ADRIFT or not self._bus.offer("trades", sent):
                raise _full()
            adrift.update(sent.trade_id.tolist())
        await self._committed(batch, end)
        adrift.difference_update(batch.trade_id.tolist())

    async def _committed(self, batch: TradeBatch, end: float) -> None:
        delay = FIRST_LOOK
        while True:
            await asyncio.sleep(delay)
            if (await self._held(batch)).all():
                return
            if time.monotonic() > end:
                raise _late()
            delay = min(delay * 1.5, LAST_LOOK)

    async def _held(self, batch: TradeBatch) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch`` the store has."""
        if self._known[batch.instrument].id_kind == "contiguous":
            return _covered(batch.trade_id, (await self._store.coverage(batch.instrument)).ranges)
        start, end = int(batch.ts_event.min()), int(batch.ts_event.max()) + 1
        stored, _ = await self._store.trades(batch.instrument, start=start, end=end)
        return np.isin(batch.trade_id, stored.trade_id)


def _covered(ids: I64, ranges: I64) -> npt.NDArray[np.bool_]:
    """Which of ``ids`` lie in one of ``ranges`` (n, 4), ascending."""
    if not len(ranges):
        return np.zeros(len(ids), np.bool_)
    at = np.searchsorted(ranges[:, 0], ids, "right") - 1
    inside: npt.NDArray[np.bool_] = (at >= 0) & (ids <= ranges[np.maximum(at, 0), 1])
    return inside


def _full() -> Unavailable:
    return Unavailable("the server has no room for more trades now; send them again later", retry_after=RETRY_AFTER)


def _late() -> Unavailable:
    return Unavailable(
        "the store has not confirmed the trades in time; send them again: what is there already is not counted twice",
        retry_after=RETRY_AFTER,
    )
