"""Statistics over a window of trades: 24 h, any rolling window, a trading day, the 5-minute average.

Computed from 1m candles, so a window begins on a whole minute. Windows end with the newest trade:
a quiet symbol shows its last day, not nothing.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np

from tapewick.decimals import truncated_ratio
from tapewick.gateways._binance_rows import printer
from tapewick.gateways._binance_symbols import Listed
from tapewick.gateways._binance_trades import newest
from tapewick.market import Market, Window
from tapewick.model import Candles, Head
from tapewick.timeframe import BY_INDEX, DAY, MINUTE, bucket

__all__ = [
    "AVERAGE_MINUTES",
    "CHANGE_DIGITS",
    "Average",
    "Stats",
    "average",
    "average_price",
    "day_of",
    "last_size",
    "last_window",
    "rolling_of",
    "stats",
    "total",
]

AVERAGE_MINUTES = 5
CHANGE_DIGITS = 3  # digits of a change in percent
ATTEMPTS, TURN = 3, 0.05  # how often, and with what pause (s), the last two bars are read until they join
_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


def total(rows: Candles, name: str) -> int:
    """The exact sum of one 128-bit column."""
    low = rows[name + "_lo"]
    small, large = int(np.sum(low & _LOW)), int(np.sum(low >> _HALF))
    return (int(np.sum(rows[name + "_hi"])) << 64) + (large << 32) + small


class Stats(NamedTuple):
    """What a window of one instrument adds up to, in mantissas; ``before`` is the close before it. Times in ns."""

    open_time: int
    close_time: int
    open: int
    high: int
    low: int
    last: int
    before: int
    volume: int
    quote_volume: int
    first_id: int
    last_id: int
    trades: int
    price_scale: int
    size_scale: int

    @property
    def mean(self) -> int:
        """The weighted average price; the last price without volume."""
        ratio = truncated_ratio(self.quote_volume, self.volume, 0)
        return self.last if ratio is None else ratio

    @property
    def percent(self) -> int:
        """The change in percent, with ``CHANGE_DIGITS`` digits."""
        return truncated_ratio((self.last - self.open) * 100, self.open, CHANGE_DIGITS) or 0


def stats(rows: Candles, start: int, end: int, price_scale: int, size_scale: int) -> Stats | None:
    """Over the 1m rows with ``start`` ≤ open time < ``end``; None where none of them has trades."""
    rows = rows[rows["trades"] > 0]
    inside = rows[(rows["open_time"] >= start) & (rows["open_time"] < end)]
    if not len(inside):
        return None
    earlier = rows[rows["open_time"] < start]
    first, last = inside[0], inside[-1]
    return Stats(
        open_time=start,
        close_time=int(inside["last_ts"].max()),
        open=int(first["open"]),
        high=int(inside["high"].max()),
        low=int(inside["low"].min()),
        last=int(last["close"]),
        before=int(earlier["close"][-1]) if len(earlier) else int(first["open"]),
        volume=total(inside, "volume"),
        quote_volume=total(inside, "quote_volume"),
        first_id=int(first["first_id"]),
        last_id=int(last["last_id"]),
        trades=int(inside["trades"].sum()),
        price_scale=price_scale,
        size_scale=size_scale,
    )


def last_window(rows: Candles, length: int, price_scale: int, size_scale: int) -> Stats | None:
    """The ``length`` (ns) before the newest trade of 1m ``rows``."""
    traded = rows[rows["trades"] > 0]
    if not len(traded):
        return None
    start = bucket(BY_INDEX[1], int(traded["last_ts"].max()) - length)
    return stats(traded, start, 2**63 - 1, price_scale, size_scale)


async def minutes_of(market: Market, id: str, length: int) -> tuple[Candles, Head]:
    """Enough of the newest 1m rows for a window of ``length`` and the row before it."""
    for attempt in range(ATTEMPTS):
        answer = await market.candles(id, BY_INDEX[1], Window(limit=length // MINUTE + 2, newest=True))
        ends = answer.batch.rows[-2:]
        whole = len(ends) < 2 or int(ends["first_id"][1]) == int(ends["last_id"][0]) + 1
        if whole or attempt == ATTEMPTS - 1:
            break
        await asyncio.sleep(TURN)  # at the turn of a minute the open bar is ahead of the one before it
    return answer.batch.rows, answer.head


async def rolling_of(market: Market, id: str, length: int = DAY) -> Stats | None:
    """The window of ``length`` (ns) that ends with the newest trade."""
    rows, head = await minutes_of(market, id, length)
    return last_window(rows, length, head.price_scale, head.size_scale)


async def day_of(market: Market, id: str, zone: int) -> Stats | None:
    """The trading day of the newest trade, in a zone ``zone`` ns ahead of UTC."""
    rows, head = await minutes_of(market, id, DAY)
    traded = rows[rows["trades"] > 0]
    if not len(traded):
        return None
    newest_ts = int(traded["last_ts"].max())
    start = newest_ts - (newest_ts + zone) % DAY
    found = stats(traded, start, 2**63 - 1, head.price_scale, head.size_scale)
    return None if found is None else found._replace(close_time=start + DAY - 1)


class Average(NamedTuple):
    """The average price of the last minutes, printed, and the time of its last trade (ns)."""

    price: str
    close_time: int


async def average_price(market: Market, listed: Listed) -> Average:
    """Weighted over the last five minutes with trades up to now; else the last price."""
    rows, head = await minutes_of(market, listed.id, AVERAGE_MINUTES * MINUTE)
    return average(rows, head.price_scale, head.size_scale)


def average(rows: Candles, price_scale: int, size_scale: int) -> Average:
    """The same from 1m rows."""
    found = last_window(rows, (AVERAGE_MINUTES - 1) * MINUTE, price_scale, size_scale)
    text = printer(price_scale)
    return Average(text(0), 0) if found is None else Average(text(found.mean), found.close_time)


async def last_size(market: Market, id: str) -> int:
    """The size of the trade with the highest id; 0 without trades."""
    found = (await newest(market, id, 1)).batch
    return int(found.size[-1]) if len(found) else 0
