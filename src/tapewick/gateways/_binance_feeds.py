"""What fills the streams of trades, bars and tickers, from the market's live data.

A feed listens while its stream has readers. Times between pushes are the venue's: open bars every
2 s, tickers every second, trades and closed bars at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import numpy as np

from tapewick.channel import Batch, Channel
from tapewick.engine.candles import fill
from tapewick.gateways import _binance_rows as rows
from tapewick.gateways._binance_fanout import Stream
from tapewick.gateways._binance_klines import klines
from tapewick.gateways._binance_names import Name
from tapewick.gateways._binance_query import Unit
from tapewick.gateways._binance_symbols import Listed
from tapewick.market import Market, Window
from tapewick.model import NO_TIME, CandleBatch, Candles, State, TradeBatch
from tapewick.timeframe import Timeframe, bucket_end

__all__ = ["Bars", "Feed", "Seconds", "ShiftedBars", "TradeFeed"]

PUSH = 2.0  # seconds between two pushes of an open bar
PATIENCE = 15.0  # seconds an open bar waits for the one before it to close
MOST_FLAT = 1000  # flat bars sent at once after a long quiet time


class Feed(Protocol):
    """Fills one stream."""

    async def open(self) -> None:
        """Begin. Raises what the market raises."""
        ...

    def close(self) -> None:
        """Nobody reads any more."""
        ...

    async def tick(self) -> None:
        """Called about once per second."""
        ...


class TradeFeed:
    """Trades or aggregates in rising id: what comes below the last one sent is left to REST."""

    def __init__(self, market: Market, listed: Listed, stream: Stream, sent: dict[str, int]) -> None:
        self._market, self._listed, self._stream, self._sent = market, listed, stream, sent
        self._channel = Channel("trade", listed.id)
        self._encode = rows.trade_events if stream.name.endswith("@trade") else rows.aggregate_events

    async def open(self) -> None:
        ranges = (await self._market.coverage(self._listed.id)).ranges
        last = int(ranges[-1, 1]) if len(ranges) else -1
        self._sent[self._stream.name] = max(last, self._sent.get(self._stream.name, -1))
        await self._market.attach(self._channel, self)

    def close(self) -> None:
        self._market.detach(self._channel, self)

    async def tick(self) -> None:
        """Trades are sent as they come."""

    def durable(self, batch: Batch) -> None:
        assert isinstance(batch, TradeBatch)
        if (
            self._encode is rows.trade_events and (batch.count > 1).any()
        ):  # repaired from aggregates: no ids of their own
            batch = batch.select(np.flatnonzero(batch.count == 1))
        last = self._sent[self._stream.name]
        ids = batch.trade_id
        rising = np.flatnonzero(ids > np.maximum.accumulate(np.append(last, ids[:-1])))
        if not len(rising):
            return
        news = batch if len(rising) == len(ids) else batch.select(rising)
        self._sent[self._stream.name] = int(news.trade_id[-1])
        now = self._market.now()
        self._stream.events(lambda unit: self._encode(self._listed, news, now, unit))

    def provisional(self, batch: CandleBatch) -> None:
        """Trades have no provisional form."""

    def restarted(self) -> None:
        """Another tape: its ids begin anew."""
        self._sent[self._stream.name] = -1


class Bars:
    """Bars of a UTC interval from 1m up. A bar is sent closed exactly once, when it first closes.

    A bar closes some seconds after its end, when no more late trades are expected; the open bar behind it
    waits for that, so that clients see one bar after the other.
    """

    def __init__(self, market: Market, listed: Listed, stream: Stream, tf: Timeframe) -> None:
        self._market, self._listed, self._stream, self._tf = market, listed, stream, tf
        self._channel = Channel("candle", listed.id, tf)
        self._loop = asyncio.get_running_loop()
        self._ready = False
        self._open: CandleBatch | None = None
        self._shown = NO_TIME  # open time of the newest bar sent open, or that was to be when the next one came
        self._patience = 0.0  # until when the bar behind it waits
        self._closed = NO_TIME  # open time of the newest bar sent closed, or closed before anybody listened
        self._last: CandleBatch | None = None  # the newest bar with trades, of which flat ones are made
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        await self._market.attach(self._channel, self)
        batch = (await self._market.candles(self._listed.id, self._tf, Window(limit=2, newest=True))).batch
        settled = batch.rows[batch.rows["state"] != State.OPEN]
        if len(settled):
            self._closed = max(self._closed, int(settled["open_time"][-1]))
            self._last = _with(batch, settled[-1:])
        self._ready = True

    def close(self) -> None:
        self._market.detach(self._channel, self)
        if self._timer is not None:
            self._timer.cancel()

    def provisional(self, batch: CandleBatch) -> None:
        opened = int(batch.rows["open_time"][0])
        if not self._ready or opened <= self._closed:
            return
        waiting = None if self._open is None else int(self._open.rows["open_time"][0])
        if waiting is None or waiting < opened:
            self._patience = self._loop.time() + PATIENCE
            self._shown = max(self._shown, NO_TIME if waiting is None else waiting)
        self._open = batch
        self._push_soon()

    def _push_soon(self) -> None:
        if self._loop.time() >= self._due:
            self._push()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self._push)

    def durable(self, batch: Batch) -> None:
        assert isinstance(batch, CandleBatch)
        if not self._ready:
            return
        settled = batch.rows[(batch.rows["state"] != State.OPEN) & (batch.rows["open_time"] > self._closed)]
        _, first = np.unique(settled["open_time"][::-1], return_index=True)  # of versions the newest
        for row in settled[::-1][first]:
            self._close(_with(batch, np.array([row], batch.rows.dtype)))

    def restarted(self) -> None:
        """Another tape: nothing of the old one is news."""
        self._open = self._last = None
        self._closed = self._shown = NO_TIME

    def _push(self) -> None:
        """Send the open bar."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        news, time = self._open, self._loop.time()
        if news is None:
            return
        opened = int(news.rows["open_time"][0])
        if self._closed < self._shown < opened and time < self._patience:
            return
        self._open, self._shown, self._due = None, opened, time + PUSH
        now = self._market.now()
        self._stream.value(lambda unit: [self._event(news, now, unit, closed=False)])

    def _close(self, bar: CandleBatch) -> None:
        """Send a bar that has just closed."""
        self._closed = int(bar.rows["open_time"][0])
        if int(bar.rows["trades"][0]):
            self._last = bar
        now = self._market.now()
        self._stream.events(lambda unit: [self._event(bar, now, unit, closed=True)])
        if self._open is not None and int(self._open.rows["open_time"][0]) <= self._closed:
            self._open = None
        elif self._open is not None:
            self._push_soon()

    def _event(self, bar: CandleBatch, now: int, unit: Unit, *, closed: bool) -> bytes:
        return rows.bar_event(self._listed, self._tf.name, bar, now, unit, closed=closed)

    async def tick(self) -> None:
        """Send flat bars for buckets that ended without a trade, once the watermark has passed them."""
        last = self._last
        if last is None or self._market.now() < bucket_end(self._tf, bucket_end(self._tf, self._closed)):
            return
        state = await self._market.coverage(self._listed.id)
        watermark = (await self._market.head(self._listed.id)).watermark
        gaps = [(gap.left_ts, gap.right_ts) for gap in state.gaps if gap.state != "closed"]
        start = bucket_end(self._tf, self._closed)
        if last is not self._last or watermark < bucket_end(self._tf, start):
            return
        end = min(watermark, start + MOST_FLAT * self._tf.length)
        flat = fill(last.rows, self._tf, start, end, "prev", watermark=watermark, gaps=gaps)
        for row in flat[flat["filled"] > 0]:
            if bucket_end(self._tf, int(row["open_time"])) <= watermark:
                self._close(_with(last, np.array([row], last.rows.dtype)))


class Seconds:
    """Bars of ``1s``. They are not stored, so closed ones are read once per second, and open ones are not sent."""

    def __init__(self, market: Market, listed: Listed, stream: Stream, tf: Timeframe) -> None:
        self._market, self._listed, self._stream, self._tf = market, listed, stream, tf
        self._next = NO_TIME

    async def open(self) -> None:
        watermark = (await self._market.head(self._listed.id)).watermark
        self._next = max(NO_TIME, watermark - watermark % self._tf.length)

    def close(self) -> None:
        """Nothing was attached."""

    async def tick(self) -> None:
        """Send the seconds the watermark has passed since."""
        watermark = (await self._market.head(self._listed.id)).watermark
        end = watermark - watermark % self._tf.length
        if end <= self._next:
            return
        window = Window(max(self._next, end - MOST_FLAT * self._tf.length), end, MOST_FLAT)
        batch = (await self._market.candles(self._listed.id, self._tf, window, fill="prev")).batch
        self._next, now = end, self._market.now()
        bars = [_with(batch, batch.rows[at : at + 1]) for at in range(len(batch.rows))]
        if bars:
            self._stream.events(
                lambda unit: [rows.bar_event(self._listed, self._tf.name, bar, now, unit, closed=True) for bar in bars]
            )


class ShiftedBars:
    """Bars of an interval that begins at another zone's midnight: read every 2 s, not announced."""

    def __init__(self, market: Market, listed: Listed, stream: Stream, name: Name) -> None:
        assert name.tf is not None
        self._market, self._listed, self._stream, self._tf, self._zone = market, listed, stream, name.tf, name.zone
        self._closed = NO_TIME
        self._seen = -1
        self._turn = 0

    async def open(self) -> None:
        batch = await self._newest()
        settled = batch.rows["open_time"][batch.rows["state"] != State.OPEN]
        self._closed = int(settled[-1]) if len(settled) else NO_TIME

    def close(self) -> None:
        """Nothing was attached."""

    async def _newest(self) -> CandleBatch:
        return (await klines(self._market, self._listed.id, self._tf, None, None, 3, self._zone)).batch

    async def tick(self) -> None:
        """Send what has closed since, and every second time the open bar if it has changed."""
        self._turn += 1
        batch, now = await self._newest(), self._market.now()
        for row in batch.rows[batch.rows["open_time"] > self._closed]:
            bar = _with(batch, np.array([row], batch.rows.dtype))
            if row["state"] != State.OPEN:
                self._closed = int(row["open_time"])
                self._stream.events(self._encoded(bar, now, closed=True))
            elif self._turn % 2 and int(row["last_seq"]) != self._seen:
                self._seen = int(row["last_seq"])
                self._stream.value(self._encoded(bar, now, closed=False))

    def _encoded(self, bar: CandleBatch, now: int, *, closed: bool) -> Callable[[Unit], list[bytes]]:
        return lambda unit: [
            rows.bar_event(self._listed, self._tf.name, bar, now, unit, closed=closed, shift=self._zone)
        ]


def _with(batch: CandleBatch, part: Candles) -> CandleBatch:
    return CandleBatch(
        instrument=batch.instrument,
        rows=part,
        price_scale=batch.price_scale,
        size_scale=batch.size_scale,
        epoch=batch.epoch,
        pos=batch.pos,
    )
