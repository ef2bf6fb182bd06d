"""What a tape lacks, asked of Binance by trade id, page by page.

Raw tapes are filled from ``historicalTrades``, tapes of aggregates from ``aggTrades``. Where spot's raw
trades cannot be had, raw holes are filled from aggregates too: whole records, of which the engine
takes what is missing. A page asked for from id X proves every id from X to its last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Literal, Self, TypeVar

import numpy as np

from tapewick.clock import Clock, RealClock
from tapewick.errors import ConfigError, SourceError, VenueRefused
from tapewick.model import I64, NO_TIME, Instrument, TradeBatch, Wanted
from tapewick.net.venue_client import Priority, VenueClient
from tapewick.sources._binance_listing import PRODUCTS, addresses, listed
from tapewick.sources._binance_time import headers
from tapewick.sources._rest_rows import AggregateRow, Rows, TradeRow, aggregates, trades

__all__ = ["BinanceRepairer"]

PAGE = 1000  # rows, the venue's limit
ABSENT = (401, 403, 404)  # how hosts without raw history answer
FIREWALL = 300 * 10**9  # ns for which a 403 may be a firewall's, which says nothing of what the host has
BEFORE = 1_000_000_000  # ns before the last known trade at which aggregates are looked for
SPOT = "/api/v3"
FUTURES_LIMIT = 2400  # weight per minute
SEARCHES = 130  # requests at most to find an aggregate by id: every second one halves what is left

R = TypeVar("R", TradeRow, AggregateRow)


class BinanceRepairer:
    """``protocols.Repairer`` for one market kind of Binance, or whatever speaks its protocol.

    ``venue`` is the prefix of instrument ids, ``granularity`` what its tapes hold. ``limit`` is the request
    weight the venue allows per minute, of which ``share`` is ours; ``attempts`` bounds how often one
    page is asked for before ``fetch`` gives up, ``patience`` the seconds it waits for a venue that told to wait.
    ``microseconds``: ask spot for times in µs, as its live trades come where they are asked for so.
    """

    def __init__(
        self,
        *,
        venue: str = "binance",
        rest_url: str | None = None,
        granularity: Literal["raw", "agg"] = "raw",
        clock: Clock | None = None,
        share: float = 0.5,
        limit: int = 6000,
        attempts: int = 4,
        patience: float = 90.0,
        priority: Priority = Priority.REPAIR,
        microseconds: bool = False,
    ) -> None:
        if venue not in PRODUCTS and not rest_url:
            raise ConfigError(f"{venue!r} has no address to repair from; use one of {' '.join(PRODUCTS)}")
        product = PRODUCTS.get(venue, PRODUCTS["binance"])
        self.venue = venue
        self._product, self._root = product, product.root
        self._granularity, self._priority = granularity, priority
        self._forbidden_since: int | None = None  # when raw trades were refused with 403, if never given since
        self._weights = (25, 4) if product.root == SPOT else (20, 20)
        self._clock = clock or RealClock()
        self._client = VenueClient(
            addresses(rest_url, product.rest),
            clock=clock,
            share=share,
            limit=limit if product.root == SPOT else min(limit, FUTURES_LIMIT),
            attempts=attempts,
            patience=patience,
            headers=headers(product, microseconds=microseconds),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    @property
    def client(self) -> VenueClient:
        """Its state and counters tell how the venue answers."""
        return self._client

    async def fetch(self, wanted: Wanted) -> AsyncGenerator[TradeBatch, None]:
        """Pages of the wanted ids, oldest first; nothing is skipped. Raises ``SourceError`` after pages that stand."""
        times = wanted.since or (NO_TIME,) * len(wanted.ranges)
        for (low, high), since in zip(wanted.ranges, times, strict=True):
            async with aclosing(self._range(wanted.instrument, low, high, since)) as pages:
                async for page in pages:
                    yield page

    async def listing(self, symbol: str) -> Instrument | None:
        """What the venue lists as ``symbol``, None if it does not. Raises ``SourceError``."""
        found = await listed(self._client, self._product, [symbol], venue=self.venue, granularity=self._granularity)
        return found[0] if found else None

    async def first_id_at(self, instrument: str, time: int) -> int | None:
        """The id of the first trade at or after ``time`` (ns), None if there is none yet. Raises ``SourceError``."""
        found = await self._aggregates(instrument, startTime=max(time, 0) // 1_000_000, limit=1)
        return found[0].f if found else None

    async def newest_id(self, instrument: str) -> int | None:
        """The id of the newest trade, None if there is none. Raises ``SourceError``."""
        found = await self._aggregates(instrument, limit=1)
        return found[-1].l if found else None

    async def _range(self, instrument: str, low: int, high: int, since: int) -> AsyncGenerator[TradeBatch, None]:
        raw = None
        if self._granularity == "raw":
            try:
                raw = await self._trades(instrument, low, high)
            except VenueRefused as error:
                if not self._absent(error.status):
                    raise
        if raw is not None:
            pages = self._pages(
                instrument, low, high, raw, trades, lambda rows: self._trades(instrument, rows[-1].id + 1, high)
            )
        else:
            start = await self._cursor(instrument, low, since)
            found = await self._aggregates(instrument, fromId=start, limit=PAGE)
            pages = self._pages(
                instrument, low, high, found, aggregates,
                lambda rows: self._aggregates(instrument, fromId=rows[-1].a + 1, limit=PAGE),
            )  # fmt: skip
        async with aclosing(pages):
            async for page in pages:
                yield page

    def _absent(self, status: int) -> bool:
        """Whether a refusal of raw trades tells that the host has none; of a 403 only where it lasts."""
        if status == 403:
            now = self._clock.now()
            self._forbidden_since = self._forbidden_since or now
            if now - self._forbidden_since < FIREWALL:
                return False
        return status in ABSENT and self._root == SPOT

    async def _pages(
        self,
        instrument: str,
        low: int,
        high: int,
        found: list[R],
        columns: Callable[[list[R]], Rows],
        after: Callable[[list[R]], Coroutine[None, None, list[R]]],
    ) -> AsyncGenerator[TradeBatch, None]:
        """Batches of ``found`` and the pages ``after`` it up to ``high``; the next is asked for while one is worked on.

        Aggregates over an edge of [low, high] stay whole: the engine knows what of them is missing.
        """
        while True:
            if not found:
                raise SourceError(
                    f"{self._client.host} has no trades of {instrument} from id {low} on yet; later ones were seen"
                )
            rows = columns(found)
            last = int(rows.last_id[-1])
            following = asyncio.create_task(after(found)) if last < high else None
            try:
                if last >= low:
                    kept = np.flatnonzero((rows.last_id >= low) & (rows.first_id <= high))
                    yield self._batch(instrument, rows.pick(kept), (low, min(last, high)))
                    low = last + 1
                if following is None:
                    return
                found = await following
            finally:
                if following is not None:
                    following.cancel()
                    await asyncio.wait({following})

    async def _trades(self, instrument: str, low: int, high: int) -> list[TradeRow]:
        found = await self._client.get(
            f"{self._root}/historicalTrades",
            list[TradeRow],
            {"symbol": _symbol(instrument), "fromId": low, "limit": min(PAGE, high - low + 1)},
            weight=self._weights[0],
            priority=self._priority,
        )
        self._forbidden_since = None
        return found

    async def _aggregates(self, instrument: str, **params: int) -> list[AggregateRow]:
        return await self._client.get(
            f"{self._root}/aggTrades",
            list[AggregateRow],
            {"symbol": _symbol(instrument), **params},
            weight=self._weights[1],
            priority=self._priority,
        )

    async def _cursor(self, instrument: str, low: int, since: int) -> int:
        """The venue's number of an aggregate from which on no id ≥ ``low`` is missed."""
        if since != NO_TIME:
            found = await self._aggregates(instrument, startTime=max(since - BEFORE, 0) // 1_000_000, limit=1)
            if found and found[0].f <= low:
                return found[0].a
        return await self._searched(instrument, low)

    async def _searched(self, instrument: str, low: int) -> int:
        """``_cursor`` without a time: between aggregates known to lie below and above, closer each time."""
        newest = await self._aggregates(instrument, limit=1)
        if not newest or newest[-1].l < low:
            raise SourceError(f"{self._client.host} has no trades of {instrument} up to id {low} yet")
        above, above_id = newest[-1].a, newest[-1].f
        if above_id <= low:
            return above
        below, below_id = 0, 0
        for turn in range(SEARCHES):
            if above - below <= 1 or low - below_id <= PAGE:
                break
            middle = (below + above) // 2
            if turn % 2 == 0:  # where ids would be if they were even, a little before
                middle = below + (low - below_id) * (above - below) // (above_id - below_id) - PAGE // 4
            middle = min(max(middle, below + 1), above - 1)
            found = await self._aggregates(instrument, fromId=middle, limit=1)
            if found and found[0].a < above and found[0].f <= low:
                below, below_id = found[0].a, found[0].f
            else:
                above, above_id = middle, (found[0].f if found and found[0].a < above else above_id)
        return below

    # Batches.

    def _batch(self, instrument: str, rows: Rows, covers: tuple[int, int]) -> TradeBatch:
        real = np.flatnonzero(rows.price > 0)
        if len(real) < len(rows.price):  # a price of zero marks an id the venue used for no trade
            rows = rows.pick(real)
        return TradeBatch(
            instrument=instrument,
            trade_id=rows.last_id,
            first_id=rows.first_id,
            count=(rows.last_id - rows.first_id + 1).astype(np.int32),
            ts_event=rows.time,
            ts_recv=_now(self._clock, len(rows.time)),
            price=rows.price,
            size=rows.size,
            side=rows.side,
            price_scale=rows.price_scale,
            size_scale=rows.size_scale,
            covers=(covers,),
            late=True,
            source=f"repair:{self.venue}",
        )


def _symbol(instrument: str) -> str:
    return instrument.partition(":")[2]


def _now(clock: Clock, count: int) -> I64:
    return np.full(count, clock.now(), np.int64)
