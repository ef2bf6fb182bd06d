"""What is stored of instruments, completed by the open candles the engine announces: trades, candles, prices as of a
time. ``Market`` joins it with live data."""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple

import numpy as np

from tapewick.channel import Batch
from tapewick.engine import encode_candles, encode_trades, indicators
from tapewick.engine.candles import fill as filled
from tapewick.engine.candles import fold
from tapewick.errors import BadRequest, NotFound
from tapewick.live import Feed
from tapewick.model import CandleBatch, Candles, Head, TradeBatch, empty_candles, position
from tapewick.present import Present
from tapewick.timeframe import BY_INDEX, SECOND, Timeframe, bucket, bucket_end

__all__ = ["FAR", "CandleAnswer", "Fill", "History", "Price", "Window"]

MOST_TRADES = 500_000  # trades one answer may fold into 1s candles
MOST_MINUTES = 100_000  # looked through for its newest seconds
FAR = 2**62

Fill = Literal["prev", "null"]
"""How to show empty buckets: with the close before, or without prices."""


class Window(NamedTuple):
    """Which rows: ``start`` ≤ open_time < ``end`` (ns); of those the first ``limit`` or, with
    ``newest``, the last; ``limit`` 0 = all."""

    start: int | None = None
    end: int | None = None
    limit: int = 500
    newest: bool = False

    def cut(self, rows: Candles) -> Candles:
        """At most ``limit`` of ``rows``, from the wanted end."""
        if not self.limit:
            return rows
        return rows[-self.limit :] if self.newest else rows[: self.limit]


class CandleAnswer(NamedTuple):
    """Rows of one frame, ascending, and the head they were read at. ``reached``: the time up to which
    it was looked for rows; an answer with fewer than ``limit`` may go on from there."""

    batch: CandleBatch
    head: Head
    reached: int = FAR


class Price(NamedTuple):
    """The last trade at or before ``at`` (ns): its price as a mantissa, time and id.

    ``complete``: nothing between it and ``at`` is missing; None where that cannot be told.
    """

    price: int
    price_scale: int
    ts_event: int
    trade_id: int
    text_id: bool
    at: int
    complete: bool | None
    position: str


class History(Present):
    """The past of all instruments, from the store."""

    async def trades(
        self,
        id: str,
        *,
        since: int | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int = 500,
        newest: bool = False,
    ) -> tuple[TradeBatch, Head]:
        """Committed trades ascending by ``seq``, as ``Store.trades``. Raises ``NotFound``."""
        feed = await self._feed(id)
        batch, head = await self._store.trades(id, since=since, start=start, end=end, limit=limit, newest=newest)
        if len(batch):
            feed.saw(int(batch.ts_event.max()))
        return batch, head

    async def candles(self, id: str, tf: Timeframe, window: Window, *, fill: Fill | None = None) -> CandleAnswer:
        """Candles of ``window``, the open one as of now included; ``1s`` is folded from trades.

        ``fill``: make rows for empty buckets too. Raises ``NotFound``, ``BadRequest``.
        """
        feed = await self._feed(id)
        if tf.index == 0:
            window = await self._near(id, _whole_seconds(window), fill)
            rows, head = await (self._newest_seconds if window.newest else self._seconds)(id, window)
        else:
            rows, head = await self._store.candles(id, tf.index, **window._asdict())
        rows = _with_open(rows, feed.open_row(tf.index, head), window)
        reached = FAR if tf.index or window.end is None or window.newest else window.end
        if fill is not None:
            rows, reached = await self._filled(feed, tf, rows, window, fill, head)
        if len(rows):
            feed.saw(int(rows["last_ts"].max()))
        return CandleAnswer(feed.batch(rows, head), head, reached)

    def open_candle(self, id: str, tf: Timeframe) -> CandleBatch | None:
        """The open candle of a known instrument as last announced; None if unknown or closed since."""
        feed = self._live.feeds[id]
        row = feed.open_row(tf.index, feed.head)
        return feed.batch(row, feed.head) if len(row) else None

    async def changes(self, id: str, tf: Timeframe, since_pos: int, limit: int = 0) -> tuple[CandleAnswer, bool]:
        """Stored rows of one frame that changed after ``since_pos``, in their latest version, by ``pos``.

        A commit's rows share one ``pos`` and are never cut apart, even if that exceeds ``limit``.
        The second value tells whether there are more. ``1s`` rows are not stored: none.
        """
        feed = await self._feed(id)
        if tf.index == 0:
            head = await self._store.head(id)
            return CandleAnswer(feed.batch(empty_candles(), head), head), False
        size = limit
        while True:
            rows, head = await self._store.candles(id, tf.index, since_pos=since_pos, limit=size)
            if not limit or len(rows) < size:
                return CandleAnswer(feed.batch(rows, head), head), False
            whole = rows[rows["pos"] < rows["pos"][-1]]
            if len(whole):
                return CandleAnswer(feed.batch(whole, head), head), True
            size *= 4  # all of one commit so far: read on to its end, but not to the end of the tape

    async def _near(self, id: str, window: Window, fill: Fill | None) -> Window:
        """``window`` of 1s candles, begun where there are some and bounded in time by its limit too."""
        if window.start is None or window.newest:
            return window
        minute = bucket(BY_INDEX[1], window.start)
        first, _ = await self._store.candles(id, 1, start=minute, limit=1)
        if not len(first):
            return window
        begun = max(int(first["open_time"][0]), bucket(BY_INDEX[0], int(first["first_ts"][0])))
        start = max(window.start, begun)
        if fill is not None and len((await self._store.candles(id, 1, end=minute, limit=1, newest=True))[0]):
            start = window.start  # the quiet seconds before the next trade are wanted
        reach = bucket(BY_INDEX[0], start) + (window.limit + 1) * SECOND if window.limit else FAR
        return window._replace(start=start, end=min(FAR if window.end is None else window.end, reach))

    async def _seconds(self, id: str, window: Window) -> tuple[Candles, Head]:
        """1s candles folded from all trades of ``window``. Raises ``BadRequest`` for too many."""
        batch, head = await self._store.trades(id, start=window.start, end=window.end, limit=MOST_TRADES + 1)
        if len(batch) > MOST_TRADES:
            raise BadRequest(f"over {MOST_TRADES} trades in this range; narrow it with start and end", field="end")
        return window.cut(await _folded(batch, head)), head

    async def _newest_seconds(self, id: str, window: Window) -> tuple[Candles, Head]:
        """The last 1s candles of ``window``, of whole minutes: late trades have high offsets and old times, so which
        seconds are the newest is told by the minutes there are. Fewer where more trades would have to be folded."""
        wanted = -(-window.limit // 60) if window.limit else MOST_MINUTES
        end, low = window.end, -FAR if window.start is None else window.start
        while True:
            first = bucket(BY_INDEX[1], low)
            minutes, _ = await self._store.candles(id, 1, start=first, end=end, limit=wanted, newest=True)
            if not len(minutes):
                return await self._seconds(id, window)
            trades = np.cumsum(minutes["trades"][::-1])
            few = max(1, int(np.searchsorted(trades, MOST_TRADES, "right")))  # minutes that may be folded
            begin = int(minutes["open_time"][-few])
            batch, head = await self._store.trades(id, start=max(low, begin), end=end)
            rows = await _folded(batch, head)
            last = len(minutes) < wanted or few < len(minutes) or wanted >= MOST_MINUTES
            if last or 0 < window.limit <= len(rows):
                return window.cut(rows), head
            wanted = min(4 * wanted, MOST_MINUTES)

    async def _filled(
        self, feed: Feed, tf: Timeframe, rows: Candles, window: Window, mode: Fill, head: Head
    ) -> tuple[Candles, int]:
        """``rows`` with empty buckets filled, no more than ``window`` asks for, and the time reached."""
        id, reach = feed.instrument.id, (window.limit + 1) * tf.length if window.limit else FAR
        end = FAR if window.end is None else window.end
        gaps = [(gap.left_ts, gap.right_ts) for gap in (await self._store.coverage(id)).gaps if gap.state != "closed"]
        if window.newest:
            return _filled_back(rows, tf, window, mode, head.watermark, gaps), FAR
        before = empty_candles()
        if window.start is None:
            if not len(rows):
                return rows, FAR
            start = int(rows["open_time"][0])
        else:
            start = window.start
            before = await self._before(id, tf, start)
            if len(rows) and not len(before):  # nothing is filled before the first row: begin there
                start = max(start, int(rows["open_time"][0]))
        end = min(end, start + reach)
        everything = np.concatenate((before, rows))
        made = filled(everything, tf, start, end, mode, watermark=head.watermark, gaps=gaps)
        return window.cut(made), end

    async def _before(self, id: str, tf: Timeframe, start: int) -> Candles:
        """The last row with trades before ``start``: one or none."""
        if tf.index:
            return (await self._store.candles(id, tf.index, end=start, limit=1, newest=True))[0]
        minute = bucket(BY_INDEX[1], start)
        batch, _ = await self._store.trades(id, start=minute, end=start)
        if len(batch):
            return fold(batch, tf)[-1:]
        rows, _ = await self._store.candles(id, 1, end=minute, limit=1, newest=True)
        for row in rows:  # the close of a minute is the close of its last second
            row["tf"], row["open_time"] = tf.index, bucket(tf, int(row["last_ts"]))
        return rows

    async def ticker(self, id: str) -> dict[str, object]:
        """Last price, 24 h and session statistics; JSON-ready, decimals as strings."""
        answer = await self.candles(id, BY_INDEX[1], Window(limit=indicators.DAY_ROWS, newest=True))
        ticker = indicators.ticker(self._live.feeds[id].instrument, answer.batch.rows, answer.head)
        return {**ticker, "data_age_ms": self.data_age_ms(id)}

    async def price(self, id: str, at: int) -> Price:
        """The price as of ``at`` (ns). Raises ``NotFound`` when there was none yet."""
        own = (await self._feed(id)).instrument
        minute = bucket(BY_INDEX[1], at)
        batch, head = await self._store.trades(id, start=minute, end=at + 1)
        if len(batch):
            last = max(range(len(batch)), key=lambda i: (batch.ts_event[i], batch.trade_id[i]))
            found = int(batch.price[last]), int(batch.ts_event[last]), int(batch.trade_id[last])
        else:
            row = await self._before(id, BY_INDEX[1], minute)
            if not len(row):
                raise NotFound(
                    f"{id} had no trade at or before this time; /v1/coverage tells what there is", field="at"
                )
            found = int(row["close"][0]), int(row["last_ts"][0]), int(row["last_id"][0])
        missing = [
            gap
            for gap in (await self._store.coverage(id)).gaps
            if gap.state != "closed" and gap.left_ts <= at and gap.right_ts >= found[1]
        ]
        proven = None if own.id_kind == "unique" else False if missing else True if at < head.watermark else None
        price, ts_event, trade_id = found
        here = position(head.epoch, head.seq)
        return Price(price, head.price_scale, ts_event, trade_id, own.id_kind == "unique", at, proven, here)

    def encode(self, batch: Batch, *, ns: bool = False) -> bytes:
        """The rows of ``batch`` as a JSON array; ``ns``: times as decimal strings of ns, not integers of ms."""
        text_ids = self._live.feeds[batch.instrument].instrument.id_kind == "unique"
        times = "ns" if ns else "ms"
        if isinstance(batch, TradeBatch):
            return encode_trades(batch, times=times, text_ids=text_ids)
        scales = batch.price_scale, batch.size_scale
        return encode_candles(batch.instrument, batch.rows, *scales, times=times, text_ids=text_ids)


async def _folded(batch: TradeBatch, head: Head) -> Candles:
    """1s candles of ``batch``, folded beside the loop: there may be many trades."""
    return await asyncio.to_thread(fold, batch, BY_INDEX[0], watermark=head.watermark)


def _whole_seconds(window: Window) -> Window:
    """The same rows of 1s asked with bounds that cut no second apart."""
    start, end = (None if time is None else min(-(-time // SECOND) * SECOND, FAR) for time in window[:2])
    return window._replace(start=start, end=end)


def _with_open(rows: Candles, live: Candles, window: Window) -> Candles:
    """``rows`` with the open candle as announced, where the window wants it and it is newer."""
    if not len(live):
        return rows
    open_time, last_seq = int(live["open_time"][0]), int(live["last_seq"][0])
    if open_time < (window.start or -FAR) or open_time >= (FAR if window.end is None else window.end):
        return rows
    newest = int(rows["open_time"][-1]) if len(rows) else -FAR
    if open_time == newest and last_seq > int(rows["last_seq"][-1]):
        return np.concatenate((rows[:-1], live))
    if open_time > newest and (window.newest or not window.limit or len(rows) < window.limit):
        return window.cut(np.concatenate((rows, live)))
    return rows


def _filled_back(
    rows: Candles, tf: Timeframe, window: Window, mode: Fill, watermark: int, gaps: list[tuple[int, int]]
) -> Candles:
    """The last ``window.limit`` of ``rows`` and the filled ones between, found from the end back.

    Only as many buckets are looked at as are wanted: what lies in an open gap is stepped over.
    """
    if not len(rows):
        return rows
    low, reach = int(rows["open_time"][0]), (window.limit + 1) * tf.length if window.limit else FAR
    high = max(bucket_end(tf, int(rows["open_time"][-1])), bucket(tf, max(watermark, 0)))
    high = min(high, FAR if window.end is None else window.end)
    parts: list[Candles] = []
    while True:
        begin = max(low, high - reach)
        parts.insert(0, filled(rows, tf, begin, high, mode, watermark=watermark, gaps=gaps))
        if begin <= low or sum(map(len, parts)) >= window.limit:
            return window.cut(np.concatenate(parts))
        high = begin
        for left, right in gaps:
            if left < high <= right:
                high = min(high, bucket_end(tf, bucket(tf, left)))
