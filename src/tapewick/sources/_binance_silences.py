"""The newest trade of instruments that are silent after their stream began.

What happened while a source was away shows by the ids of the first trade afterwards. Where none comes, the venue is
asked for the newest one, so that a quiet market learns of its hole as soon as a busy one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tapewick.clock import Clock
from tapewick.errors import SourceError
from tapewick.model import TradeBatch
from tapewick.net.backoff import Backoff
from tapewick.net.venue_client import Priority, VenueClient
from tapewick.sources._binance_listing import Product
from tapewick.sources._rest_rows import AggregateRow, Rows, TradeRow, aggregates, trades

__all__ = ["Silences"]

SILENCE = 2.0  # seconds without a trade after which the venue is asked
LOOK = 0.25  # seconds between two looks whose time has come
SPOT = "/api/v3"
WEIGHTS = {("trade", True): 25, ("trade", False): 5, ("aggTrade", True): 4, ("aggTrade", False): 20}
"""Of a request, by stream and whether it is the spot market's."""


@dataclass(slots=True, eq=False)
class _Silence:
    """``due``: when (ns) the venue is asked, perhaps again."""

    due: int
    backoff: Backoff


class Silences:
    """Hands the newest trade of every expected symbol that is not heard of to ``put``, as a batch of ``venue``.

    ``rejects["newest"]`` counts questions that failed; they are asked again, at most every ``retry_cap`` seconds.
    """

    def __init__(
        self,
        product: Product,
        venue: str,
        stream: Literal["trade", "aggTrade"],
        clock: Clock,
        put: Callable[[TradeBatch], None],
        rejects: Counter[str],
        *,
        retry_cap: float,
    ) -> None:
        self._root, self._venue, self._stream = product.root, venue, stream
        self._clock, self._put, self._rejects = clock, put, rejects
        self._retry_cap = retry_cap
        self._silent: dict[str, _Silence] = {}
        self._news = asyncio.Event()

    def expect(self, symbols: Iterable[str]) -> None:
        """Their stream has just begun, perhaps again."""
        due = self._in(SILENCE)
        self._silent.update({symbol: _Silence(due, Backoff(cap=self._retry_cap)) for symbol in symbols})
        self._news.set()

    def heard(self, symbol: str) -> None:
        """A trade of it came, or it is collected no longer."""
        self._silent.pop(symbol, None)

    async def run(self, rest: VenueClient) -> None:
        """Ask until cancelled, one question at a time."""
        while True:
            self._news.clear()
            for symbol, silence in tuple(self._silent.items()):
                if silence.due <= self._clock.now() and self._silent.get(symbol) is silence:
                    await self._ask(rest, symbol, silence)
            if self._silent:
                await self._clock.sleep(LOOK)
            else:
                await self._news.wait()

    async def _ask(self, rest: VenueClient, symbol: str, silence: _Silence) -> None:
        try:
            rows = await self._newest(rest, symbol)
        except SourceError as error:
            self._rejects["newest"] += 1
            silence.due = self._in(silence.backoff.delay(getattr(error, "retry_after", None)))
            return
        if self._silent.get(symbol) is not silence:
            return  # a trade came or it was dropped meanwhile; what its stream missed since is asked for anew
        self.heard(symbol)
        if rows is not None:
            self.tell(symbol, rows)

    def _in(self, seconds: float) -> int:
        return self._clock.now() + int(seconds * 1e9)

    def tell(self, symbol: str, rows: Rows) -> None:
        """Hand over what the venue answered."""
        self._put(self._batch(symbol, rows))

    async def _newest(self, rest: VenueClient, symbol: str) -> Rows | None:
        params: dict[str, str | int] = {"symbol": symbol, "limit": 1}
        weight = WEIGHTS[self._stream, self._root == SPOT]
        if self._stream == "trade":
            path = f"{self._root}/trades"
            raw = await rest.get(path, list[TradeRow], params, weight=weight, priority=Priority.REPAIR)
            return trades(raw[-1:]) if raw else None
        path = f"{self._root}/aggTrades"
        found = await rest.get(path, list[AggregateRow], params, weight=weight, priority=Priority.REPAIR)
        return aggregates(found[-1:]) if found else None

    def _batch(self, symbol: str, rows: Rows) -> TradeBatch:
        covers = (int(rows.first_id[0]), int(rows.last_id[0]))
        rows = rows.pick(np.flatnonzero(rows.price > 0))  # a price of zero marks an id the venue used for no trade
        return TradeBatch(
            instrument=f"{self._venue}:{symbol}",
            trade_id=rows.last_id,
            first_id=rows.first_id,
            count=(rows.last_id - rows.first_id + 1).astype(np.int32),
            ts_event=rows.time,
            ts_recv=np.full(len(rows.price), self._clock.now(), np.int64),
            price=rows.price,
            size=rows.size,
            side=rows.side,
            price_scale=rows.price_scale,
            size_scale=rows.size_scale,
            covers=(covers,),
            source=self._venue,
        )
