"""Trades that are handed to us: onto the bus, and back with the proof that the store has committed them.

The proof is the store itself, never an acknowledgement: what is answered as stored has been read back. One batch of an
instrument is under way at a time, so that what was there before and what is new can be told apart.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from tapewick.errors import NotFound, Unavailable
from tapewick.model import I64, Instrument, TradeBatch
from tapewick.protocols import Bus, Store

__all__ = ["Intake", "NoRoom", "Outcome"]

log = structlog.get_logger()

FIRST_LOOK, LAST_LOOK = 0.01, 0.1  # seconds between two looks at the store
DOUBT = 1.0  # seconds after which the store is asked whether it has the instrument at all
RETRY_AFTER = 2


class NoRoom(Unavailable):
    """The bus is full: nothing was sent."""


class Outcome(NamedTuple):
    """Of the trades of a batch, all of them committed: which are ``new`` with it, and which ids the tape has with
    ``other`` values, those of whoever was first."""

    new: npt.NDArray[np.bool_]
    other: npt.NDArray[np.bool_]


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

    async def store(self, batch: TradeBatch, *, sent: bool = False) -> Outcome:
        """What became of the trades of ``batch``; when this returns, all of them are committed.

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
            held, seq = await self._held(batch)
            if not held.all():
                await self._add(batch.select(np.flatnonzero(~held)), end, sent=sent)
            return Outcome(~held, await self._other(batch, held, seq))
        finally:
            lock.release()

    async def _add(self, batch: TradeBatch, end: float, *, sent: bool) -> None:
        if not sent and not self._bus.offer("trades", batch):
            raise _full()
        delay, check = FIRST_LOOK, time.monotonic() + DOUBT
        while True:
            await asyncio.sleep(delay)
            if (await self._held(batch))[0].all():
                return
            now = time.monotonic()
            if now > check:
                check = now + DOUBT
                await self._announce_if_lost(batch)
            if now > end:
                raise _late()
            delay = min(delay * 1.5, LAST_LOOK)

    async def _announce_if_lost(self, batch: TradeBatch) -> None:
        """A store that was restored may lack the instrument, and an engine that began since knows nothing of it."""
        known = self._known.get(batch.instrument)
        if known is None or any(one.id == known.id for one in await self._store.instruments()):
            return
        log.error("the store has lost an instrument; it is announced again", instrument=known.id)
        if not (self._bus.offer("trades", known) and self._bus.offer("trades", batch)):
            raise _full()

    async def _other(self, batch: TradeBatch, held: npt.NDArray[np.bool_], seq: int) -> npt.NDArray[np.bool_]:
        """Which trades the tape has with other values. Of new ones too: another gateway may have been faster; they
        came after ``seq``. A hash names what it was made of, so there is nothing to compare where ids are unique."""
        other = np.zeros(len(batch), np.bool_)
        if seq >= 0:
            for which, since in ((held, 0), (~held, seq)):
                if which.any():
                    part = batch.select(np.flatnonzero(which))
                    other[which] = await self._store.unlike(batch.instrument, part, since)
        return other

    async def _held(self, batch: TradeBatch) -> tuple[npt.NDArray[np.bool_], int]:
        """Which trades of ``batch`` the store has, and the tape's last seq; -1 where ids are unique."""
        own = (await self.instruments({batch.instrument})).get(batch.instrument)
        if own is None:
            raise _late()
        try:
            if own.id_kind == "contiguous":
                state = await self._store.coverage(batch.instrument, primary=True)
                return _covered(batch.trade_id, state.ranges), state.seq
            return await self._store.holds(batch.instrument, batch.names), -1
        except NotFound:  # for now: a store that was restored gets it back
            return np.zeros(len(batch), np.bool_), -1


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
