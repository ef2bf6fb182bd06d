"""Ticker streams: rolling statistics kept up with live candles, sent every second while they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import structlog

from tapewick.channel import Batch, Channel
from tapewick.errors import StoreError
from tapewick.gateways import _binance_stats as stats
from tapewick.gateways import _binance_tickers as tickers
from tapewick.gateways._binance_fanout import Stream
from tapewick.gateways._binance_names import Name
from tapewick.gateways._binance_query import Unit
from tapewick.gateways._binance_symbols import Listed, Symbols
from tapewick.market import Market, Window
from tapewick.model import CandleBatch, TradeBatch, empty_candles
from tapewick.timeframe import BY_INDEX, DAY, MINUTE

__all__ = ["Desk", "Minutes", "TickerFeed", "TickersFeed"]

log = structlog.get_logger()

KEPT = DAY // MINUTE + 2
RETRY = 1.0
Event = Callable[[Listed, "Minutes", int, Unit], bytes | None]


class Minutes:
    """The last day of one instrument in 1m ``rows`` as committed, and its last trade, kept up while anybody
    uses it."""

    def __init__(self, market: Market, listed: Listed) -> None:
        self._market, self.listed, self.users = market, listed, 0
        self._candles, self._trades = Channel("candle", listed.id, BY_INDEX[1]), Channel("trade", listed.id)
        self.rows = empty_candles()
        self._held: list[CandleBatch] | None = []  # what comes while the rows are loaded
        self._loading: asyncio.Task[None] | None = None
        self._last = (-1, 0)  # id and size of the newest trade
        self.scales = (listed.instrument.price_scale, listed.instrument.size_scale)
        self.version = 0

    async def open(self) -> None:
        """Load and attach; every user calls this first."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._begin(), name=f"minutes {self.listed.id}")
        await asyncio.shield(self._loading)

    async def _begin(self) -> None:
        await self._market.attach(self._candles, self)
        await self._market.attach(self._trades, self)
        await self._load()

    async def _load(self) -> None:
        self._held = []
        answer = await self._market.candles(self.listed.id, BY_INDEX[1], Window(limit=KEPT, newest=True))
        size = await stats.last_size(self._market, self.listed.id)
        self.rows, self.scales = answer.batch.rows, (answer.head.price_scale, answer.head.size_scale)
        self._last = self._last if self._last[0] >= 0 else (0, size)
        held, self._held = self._held or [], None
        for batch in held:
            self._merge(replace(batch, rows=batch.rows[batch.rows["pos"] > answer.head.pos]))
        self.version += 1

    def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        self._market.detach(self._candles, self)
        self._market.detach(self._trades, self)

    def durable(self, batch: Batch) -> None:
        if isinstance(batch, TradeBatch):
            at = int(np.argmax(batch.trade_id))
            if int(batch.trade_id[at]) > self._last[0]:
                self._last = int(batch.trade_id[at]), int(batch.size[at])
        elif self._held is not None:
            self._held.append(batch)
        else:
            self._merge(batch)

    def provisional(self, batch: CandleBatch) -> None:
        """Not used: at the turn of a minute the open bar knows trades its neighbour does not hold yet."""

    def restarted(self) -> None:
        """Another tape: nothing of the old one counts."""
        self.rows, self._held, self._last = empty_candles(), [], (-1, 0)
        self._loading = asyncio.create_task(self._reload(self._loading), name=f"minutes {self.listed.id}")

    async def _reload(self, before: asyncio.Task[None] | None) -> None:
        """Load after ``before``, again until it succeeds: nobody waits for it who could hear of an error."""
        if before is not None:
            try:
                await asyncio.wait({before})
            except asyncio.CancelledError:
                before.cancel()
                raise
        while True:
            try:
                await self._load()
                return
            except StoreError as error:
                log.error("minutes could not be read", instrument=self.listed.id, cause=str(error))
            except Exception:
                log.exception("minutes could not be read", instrument=self.listed.id)
            await asyncio.sleep(RETRY)

    def _merge(self, batch: CandleBatch) -> None:
        scales = (batch.price_scale, batch.size_scale)
        if scales != self.scales:  # the tape was rescaled: older rows are at other scales
            self.rows, self.scales = empty_candles(), scales
        kept = self.rows[~np.isin(self.rows["open_time"], batch.rows["open_time"])]
        rows = np.concatenate((kept, batch.rows))
        self.rows = rows[np.argsort(rows["open_time"], kind="stable")][-KEPT:]
        self.version += 1

    @property
    def last_size(self) -> int:
        return self._last[1]

    def window(self, length: int) -> stats.Stats | None:
        """Statistics over the last ``length`` ns."""
        return stats.last_window(self.rows, length, *self.scales)


class Desk:
    """The minutes of every instrument some ticker stream needs."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._minutes: dict[str, Minutes] = {}

    async def take(self, listed: Listed) -> Minutes:
        """Use an instrument's minutes until ``give_back``."""
        minutes = self._minutes.get(listed.id)
        if minutes is None:
            minutes = self._minutes[listed.id] = Minutes(self._market, listed)
        minutes.users += 1
        try:
            await minutes.open()
        except BaseException:
            self.give_back(minutes)
            raise
        return minutes

    def give_back(self, minutes: Minutes) -> None:
        minutes.users -= 1
        if minutes.users == 0:
            minutes.close()
            self._minutes.pop(minutes.listed.id, None)


def event_of(name: Name, market: Market) -> Event:
    """What a ticker stream sends of one instrument; None while there is nothing."""

    def event(listed: Listed, minutes: Minutes, now: int, unit: Unit) -> bytes | None:
        if name.kind == "avgPrice":
            return tickers.average_event(listed, stats.average(minutes.rows, *minutes.scales), now, unit)
        found = minutes.window(name.length or DAY)
        if found is None:
            return None
        if name.kind == "window":
            return tickers.window_event(listed, found, f"{name.window}Ticker", now, unit)
        if name.kind == "mini":
            return tickers.mini_event(listed, found, now, unit)
        return tickers.full_event(
            listed, tickers.Day(found, minutes.last_size, market.books_of(listed.id)[1]), now, unit
        )

    return event


class TickerFeed:
    """A ticker of one symbol."""

    def __init__(self, market: Market, desk: Desk, listed: Listed, stream: Stream, name: Name) -> None:
        self._market, self._desk, self._listed, self._stream = market, desk, listed, stream
        self._event = event_of(name, market)
        self._minutes: Minutes | None = None
        self._seen = -1

    async def open(self) -> None:
        self._minutes = await self._desk.take(self._listed)

    def close(self) -> None:
        if self._minutes is not None:
            self._desk.give_back(self._minutes)
            self._minutes = None

    async def tick(self) -> None:
        """Send the ticker if anything has changed."""
        minutes = self._minutes
        if minutes is None or minutes.version == self._seen:
            return
        self._seen, now = minutes.version, self._market.now()
        if self._event(self._listed, minutes, now, 1_000_000) is not None:
            self._stream.value(lambda unit: [self._event(self._listed, minutes, now, unit) or b"{}"])


class TickersFeed:
    """The tickers of all symbols that have changed, in one array."""

    def __init__(self, market: Market, desk: Desk, symbols: Symbols, stream: Stream, name: Name) -> None:
        self._market, self._desk, self._symbols, self._stream = market, desk, symbols, stream
        self._event = event_of(name, market)
        self._minutes: dict[str, Minutes] = {}
        self._seen: dict[str, int] = {}
        self._closed = False

    async def open(self) -> None:
        await self._take_all()

    async def _take_all(self) -> None:
        for listed in await self._symbols.all():
            if listed.id not in self._minutes and not self._closed:
                minutes = await self._desk.take(listed)
                if self._closed:
                    self._desk.give_back(minutes)
                else:
                    self._minutes[listed.id] = minutes

    def close(self) -> None:
        self._closed = True
        for minutes in self._minutes.values():
            self._desk.give_back(minutes)
        self._minutes.clear()

    async def tick(self) -> None:
        """Send those that changed; symbols that are new join in."""
        await self._take_all()
        changed = [one for id, one in self._minutes.items() if self._seen.get(id) != one.version]
        if not changed:
            return
        now = self._market.now()
        self._seen.update((one.listed.id, one.version) for one in changed)

        def encode(unit: Unit) -> list[bytes]:
            events = [self._event(one.listed, one, now, unit) for one in changed]
            return [b"[" + b",".join(event for event in events if event is not None) + b"]"]

        self._stream.value(encode)
