"""Depth, bars and tickers in the venue's REST shape."""

from __future__ import annotations

import re
from typing import Any

from tapewick.sim.bars import MINUTE, Bar, Grid
from tapewick.sim.numerals import amount, ratio
from tapewick.sim.query import Query, Refused
from tapewick.sim.symbol import DAY, Symbol

__all__ = [
    "average_price",
    "bar_row",
    "best_price",
    "day_ticker",
    "depth",
    "klines",
    "last_price",
    "rolling_ticker",
    "statistics",
]

_WINDOW = re.compile(r"([1-9]\d?)([mhd])", re.ASCII)
_LONGEST = {"m": 59, "h": 23, "d": 7}
_LENGTH = {"m": MINUTE, "h": 60 * MINUTE, "d": DAY}


def depth(symbol: Symbol, now: int, query: Query) -> dict[str, Any]:
    """The book of ``now``, up to 5000 levels per side."""
    body = symbol.snapshot(query.limit(100, 5000), now)
    if body is None:
        raise Refused(-1008, "Server is currently overloaded with other requests. Please try again.", 503)
    return body


async def klines(symbol: Symbol, now: int, query: Query) -> list[list[Any]]:
    """Rows of twelve, ascending."""
    interval = query.text("interval")
    grid = Grid.of(interval)
    if grid is None:
        raise Refused(-1120, "Invalid interval.")
    grid = Grid.of(interval, query.get("timeZone", "0"))
    if grid is None:
        raise Refused(-1130, "Data sent for parameter 'timeZone' is not valid.")
    start, end = query.time("startTime", up=True), query.time("endTime")
    spans = symbol.bars.page(grid, now, start=start, end=end, limit=query.limit(500, 1000))
    if spans:
        await symbol.bars.warm(spans[0][0], spans[-1][1], now)
    return [bar_row(symbol, symbol.bars.bar(first, last, now), query.unit) for first, last in spans]


def bar_row(symbol: Symbol, bar: Bar, unit: int = 1) -> list[Any]:
    """A bar as ``klines`` prints it."""
    return [
        bar.start * unit,
        symbol.price(bar.open),
        symbol.price(bar.high),
        symbol.price(bar.low),
        symbol.price(bar.close),
        symbol.size(bar.volume),
        bar.end * unit - 1,
        symbol.value(bar.quote),
        bar.trades,
        symbol.size(bar.taker),
        symbol.value(bar.taker_quote),
        "0",
    ]


def average_price(symbol: Symbol, now: int, query: Query) -> dict[str, Any]:
    """The volume-weighted price of the last five minutes; without trades the last price."""
    bar = symbol.bars.bar(now - 5 * MINUTE, now, now)
    last = symbol.tape.last_trade(now)
    close_time = 0 if last is None else last.time * query.unit
    return {"mins": 5, "price": _average(symbol, bar), "closeTime": close_time}


def last_price(symbol: Symbol, now: int) -> dict[str, Any]:
    """The price of the newest trade; 0 before the first."""
    last = symbol.tape.last_trade(now)
    return {"symbol": symbol.name, "price": symbol.price(0) if last is None else amount(*_mantissa(last.price))}


def best_price(symbol: Symbol, now: int) -> dict[str, Any]:
    """The best bid and ask with their sizes."""
    top = symbol.top(now)
    return {
        "symbol": symbol.name,
        "bidPrice": top.bid,
        "bidQty": top.bid_size,
        "askPrice": top.ask,
        "askQty": top.ask_size,
    }


async def day_ticker(symbol: Symbol, now: int, query: Query) -> dict[str, Any]:
    """``ticker/24hr`` of one symbol; ``type=MINI`` leaves out what is derived."""
    await symbol.bars.warm(now - DAY, now, now)
    bar = symbol.day(now)
    body = statistics(symbol, bar, now - DAY, now, query)
    if query.get("type", "FULL") == "MINI":
        return body
    last = symbol.tape.last_trade(now)
    return body | {
        "prevClosePrice": symbol.price(bar.open),
        "lastQty": symbol.size(0) if last is None else amount(*_mantissa(last.size)),
        **{name: text for name, text in best_price(symbol, now).items() if name != "symbol"},
    }


async def rolling_ticker(symbol: Symbol, now: int, query: Query, *, today: bool = False) -> dict[str, Any]:
    """``ticker`` over ``windowSize``, or ``ticker/tradingDay`` (``today``): since midnight in ``timeZone``."""
    if today:
        grid = Grid.of("1d", query.get("timeZone", "0"))
        if grid is None:
            raise Refused(-1130, "Data sent for parameter 'timeZone' is not valid.")
        start, end = grid.open(now), grid.next(grid.open(now))
    else:
        matched = _WINDOW.fullmatch(query.get("windowSize", "1d"))
        if matched is None or int(matched[1]) > _LONGEST[matched[2]]:
            raise Refused(-1130, "Data sent for parameter 'windowSize' is not valid.")
        start, end = now - int(matched[1]) * _LENGTH[matched[2]], now + 1
        start -= start % MINUTE
    await symbol.bars.warm(start, now, now)
    return statistics(symbol, symbol.bars.bar(start, end, now), start, end - 1, query)


def statistics(symbol: Symbol, bar: Bar, start: int, end: int, query: Query) -> dict[str, Any]:
    """What all tickers say of a window; ``type=MINI`` without the derived values."""
    derived = {
        "priceChange": symbol.price(bar.close - bar.open),
        "priceChangePercent": ratio((bar.close - bar.open) * 100, bar.open, 0, 3),
        "weightedAvgPrice": _average(symbol, bar),
    }
    return {
        "symbol": symbol.name,
        **({} if query.get("type", "FULL") == "MINI" else derived),
        "openPrice": symbol.price(bar.open),
        "highPrice": symbol.price(bar.high),
        "lowPrice": symbol.price(bar.low),
        "lastPrice": symbol.price(bar.close),
        "volume": symbol.size(bar.volume),
        "quoteVolume": symbol.value(bar.quote),
        "openTime": start * query.unit,
        "closeTime": end * query.unit,
        "firstId": bar.first_id,
        "lastId": bar.last_id,
        "count": bar.trades,
    }


def _average(symbol: Symbol, bar: Bar) -> str:
    if not bar.trades:
        return symbol.price(bar.close)
    return ratio(bar.quote, bar.volume, symbol.tape.listing.price_scale)


def _mantissa(text: str) -> tuple[int, int]:
    return int(text.replace(".", "")), len(text.partition(".")[2])
