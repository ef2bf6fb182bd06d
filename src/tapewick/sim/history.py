"""What happened on the simulated venue before the demo first looked, as columns.

A new data folder would show one candle. So the demo's source tells the venue's recent past
first, then follows its trades live; where the two meet, the past is told up to the first live trade,
so the tape has no hole. Books do not wait for it. The past comes as batches: the same trades over REST would be text
to print and parse again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import cast

import numpy as np

from tapewick.model import Event, Instrument, TradeBatch
from tapewick.protocols import Source, Watching
from tapewick.sim.market import Market

__all__ = ["WithHistory"]

MS = 1_000_000


class WithHistory:
    """``live`` preceded by the trades of ``markets`` since ``start`` (UTC ms).

    ``pull`` is true while the past is told: nothing of it may be dropped.
    """

    def __init__(self, live: Source, markets: dict[str, Market], *, start: int, now: int) -> None:
        self.name = live.name
        self.pull = True
        self._live = live
        self._markets = markets
        self._announced: set[str] = set()
        self._joined: set[str] = set()  # instruments whose past and present have met
        self._told = {symbol: (market.first_id_at(start), market.last_id(now)) for symbol, market in markets.items()}

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is collected now."""
        return cast(Watching, self._live).symbols

    def watch(self, symbols: Sequence[str]) -> None:
        """Collect these too, without their past."""
        cast(Watching, self._live).watch(symbols)

    def unwatch(self, symbols: Sequence[str]) -> None:
        """Collect these no longer."""
        cast(Watching, self._live).unwatch(symbols)

    async def events(self) -> AsyncGenerator[Event, None]:
        """The past of each instrument after its announcement, then its trades as ``live`` yields them.

        Everything else ``live`` yields, books above all, comes at once. Its trades and its clock wait: what
        happens while the past is told is told as part of it.
        """
        live = self._live.events()
        past: OrderedDict[str, Iterator[TradeBatch]] = OrderedDict()
        coming = asyncio.ensure_future(anext(live, None))
        try:
            while True:
                while past:
                    await asyncio.sleep(0)  # what has come already is news, and goes first
                    if coming.done():
                        break
                    instrument, batches = next(iter(past.items()))
                    if (batch := next(batches, None)) is None:
                        del past[instrument]
                    else:
                        yield batch
                if (event := await coming) is None:
                    break
                coming = asyncio.ensure_future(anext(live, None))
                for part in self._in_order(event, past):
                    yield part
            for batches in past.values():
                for batch in batches:
                    yield batch
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await live.aclose()

    def _in_order(self, event: Event, past: OrderedDict[str, Iterator[TradeBatch]]) -> Iterator[Event]:
        """``event`` with what must be told before it; nothing, where the past of its instrument is not told yet."""
        if isinstance(event, TradeBatch):
            if event.instrument in past:
                return
            if event.instrument not in self._joined:
                yield from self._meet(event)
        yield event
        if isinstance(event, Instrument) and event.id not in self._announced:
            self._announced.add(event.id)
            past[event.id] = self._past(event.id, *self._told[event.symbol])

    def _meet(self, event: TradeBatch) -> Iterator[TradeBatch]:
        """What happened since the past was told and before ``event``, live trades or a tick of the clock."""
        symbol = event.instrument.partition(":")[2]
        first = self._told[symbol][1] + 1
        if len(event):
            last = int(event.first_id[0]) - 1
            self._joined.add(event.instrument)
            self.pull = len(self._joined) < len(self._markets)
        else:
            last = self._markets[symbol].last_id(event.clock // MS)
        self._told[symbol] = first, max(first - 1, last)
        return self._past(event.instrument, first, last)

    def _past(self, instrument: str, first: int, last: int) -> Iterator[TradeBatch]:
        """Trades with ids in [first, last], a block of the market at a time."""
        market = self._markets[instrument.partition(":")[2]]
        while first <= last:
            block = market.block((first - 1) // market.block_trades)
            end = min(last, block.first_id + len(block.time) - 1)
            part = slice(first - block.first_id, end - block.first_id + 1)
            id = np.arange(first, end + 1, dtype=np.int64)
            time = block.time[part].astype(np.int64) * MS
            yield TradeBatch(
                instrument=instrument,
                trade_id=id,
                first_id=id,
                count=np.ones(len(id), np.int32),
                ts_event=time,
                ts_recv=time,
                price=block.price[part],
                size=block.size[part],
                side=np.where(block.maker[part], -1, 1).astype(np.int8),
                price_scale=market.listing.price_scale,
                size_scale=market.listing.size_scale,
                clock=int(time[-1]),
                source=self.name,
            )
            first = end + 1
