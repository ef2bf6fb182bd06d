"""What happened on the simulated venue before the demo first looked, as columns.

A new data folder would show one candle. So the demo's source first tells the venue's recent
past, then follows it live; where the two meet, the past is told up to the first live trade,
so the tape has no hole. The past comes as batches: the same trades over REST would be text
to print and parse again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import numpy as np

from tapewick.model import Event, Instrument, TradeBatch
from tapewick.protocols import Source
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
        self._told = {symbol: (market.first_id_at(start), market.last_id(now)) for symbol, market in markets.items()}

    async def events(self) -> AsyncGenerator[Event, None]:
        """The past of each instrument after its announcement, then whatever ``live`` yields."""
        joined: set[str] = set()
        async for event in self._live.events():
            if isinstance(event, TradeBatch) and len(event) and event.instrument not in joined:
                joined.add(event.instrument)
                symbol = event.instrument.partition(":")[2]
                self.pull = len(joined) < len(self._markets)
                for batch in self._past(event.instrument, self._told[symbol][1] + 1, int(event.first_id[0]) - 1):
                    yield batch
            yield event
            if isinstance(event, Instrument):
                for batch in self._past(event.id, *self._told[event.symbol]):
                    yield batch

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
