"""Socket payloads of the simulated venue, keys in the venue's order. ``unit``: 1 for ms, 1000 for µs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tapewick.sim.bars import Bar
from tapewick.sim.book import Levels
from tapewick.sim.market import SimTrade
from tapewick.sim.numerals import amount, padded, ratio
from tapewick.sim.rest_trades import aggregate
from tapewick.sim.symbol import Symbol, Top

__all__ = [
    "Step",
    "agg_frame",
    "array_frame",
    "average_frame",
    "depth_frame",
    "kline_frame",
    "mini_body",
    "mini_frame",
    "partial_frame",
    "quote_frame",
    "ticker_frame",
    "trade_frame",
]

_encode = msgspec.json.encode


class Step(NamedTuple):
    """Where a diff stands in the chain: its first and last id, and the last id of the diff before."""

    time: int
    first_id: int
    last_id: int
    before: int


def trade_frame(symbol: str, trade: SimTrade, now: int, unit: int, *, futures: bool) -> bytes:
    """One trade."""
    maker = "true" if trade.buyer_is_maker else "false"
    kind = '"NA"' if not trade.price.strip("0.") else '"MARKET"'
    tail = f'"X":{kind},"m":{maker}' if futures else f'"m":{maker},"M":true'
    return (
        f'{{"e":"trade","E":{now * unit},"s":"{symbol}","t":{trade.id},"p":"{padded(trade.price)}",'
        f'"q":"{padded(trade.size)}","T":{trade.time * unit},{tail}}}'
    ).encode()


def agg_frame(symbol: str, fills: list[SimTrade], now: int, unit: int) -> bytes:
    """The aggregate of ``fills``: neighbours of one price, time and side."""
    return _encode({"e": "aggTrade", "E": now * unit, "s": symbol} | aggregate(fills, unit))


def depth_frame(symbol: Symbol, changes: Levels, step: Step, unit: int, *, futures: bool) -> bytes:
    """A diff; futures chain by ``pu`` and carry the transaction time."""
    head: dict[str, Any] = {"e": "depthUpdate", "E": step.time * unit}
    head |= {"T": step.time * unit} if futures else {}
    head |= {"s": symbol.name, "U": step.first_id, "u": step.last_id}
    head |= {"pu": step.before} if futures else {}
    return _encode(head | {"b": symbol.rows(changes.bids), "a": symbol.rows(changes.asks)})


def partial_frame(symbol: Symbol, levels: Levels, count: int, step: Step, unit: int, *, futures: bool) -> bytes:
    """The best ``count`` levels per side; on spot without any name."""
    bids, asks = symbol.rows(levels.bids, count), symbol.rows(levels.asks, count)
    if not futures:
        return _encode({"lastUpdateId": step.last_id, "bids": bids, "asks": asks})
    times = {"E": step.time * unit, "T": step.time * unit}
    ids = {"U": step.first_id, "u": step.last_id, "pu": step.before}
    return _encode({"e": "depthUpdate", **times, "s": symbol.name, **ids, "b": bids, "a": asks})


def quote_frame(symbol: str, top: Top, now: int, unit: int, *, futures: bool) -> bytes:
    """The best bid and ask; only futures name the event and its times."""
    quote = {
        "u": top.update_id,
        "s": symbol,
        "b": top.bid,
        "B": top.bid_size,
        "a": top.ask,
        "A": top.ask_size,
    }
    if futures:
        return _encode({"e": "bookTicker", **quote, "T": now * unit, "E": now * unit})
    return _encode(quote)


def kline_frame(symbol: Symbol, interval: str, bar: Bar, now: int, unit: int, *, closed: bool) -> bytes:
    """A bar as it stands; ``closed``: its last frame."""
    k = {
        "t": bar.start * unit,
        "T": bar.end * unit - 1,
        "s": symbol.name,
        "i": interval,
        "f": bar.first_id,
        "L": bar.last_id,
        "o": symbol.price(bar.open),
        "c": symbol.price(bar.close),
        "h": symbol.price(bar.high),
        "l": symbol.price(bar.low),
        "v": symbol.size(bar.volume),
        "n": bar.trades,
        "x": closed,
        "q": symbol.value(bar.quote),
        "V": symbol.size(bar.taker),
        "Q": symbol.value(bar.taker_quote),
        "B": "0",
    }
    return _encode({"e": "kline", "E": now * unit, "s": symbol.name, "k": k})


def mini_body(symbol: Symbol, day: Bar, now: int, unit: int) -> dict[str, Any]:
    """The small ticker of the 24 hours that ``day`` sums, as one object of an array."""
    return {
        "e": "24hrMiniTicker",
        "E": now * unit,
        "s": symbol.name,
        "c": symbol.price(day.close),
        "o": symbol.price(day.open),
        "h": symbol.price(day.high),
        "l": symbol.price(day.low),
        "v": symbol.size(day.volume),
        "q": symbol.value(day.quote),
    }


def mini_frame(symbol: Symbol, day: Bar, now: int, unit: int) -> bytes:
    """The small ticker of one symbol."""
    return _encode(mini_body(symbol, day, now, unit))


def ticker_frame(symbol: Symbol, day: Bar, now: int, unit: int) -> bytes:
    """The whole ticker of the 24 hours that ``day`` sums, with the best quote."""
    top, last = symbol.top(now), symbol.tape.last_trade(now)
    scale = symbol.tape.listing.price_scale
    return _encode(
        {
            "e": "24hrTicker",
            "E": now * unit,
            "s": symbol.name,
            "p": symbol.price(day.close - day.open),
            "P": ratio((day.close - day.open) * 100, day.open, 0, 3),
            "w": ratio(day.quote, day.volume, scale),
            "x": symbol.price(day.open),
            "c": symbol.price(day.close),
            "Q": amount(0, 8) if last is None else padded(last.size),
            "b": top.bid,
            "B": top.bid_size,
            "a": top.ask,
            "A": top.ask_size,
            "o": symbol.price(day.open),
            "h": symbol.price(day.high),
            "l": symbol.price(day.low),
            "v": symbol.size(day.volume),
            "q": symbol.value(day.quote),
            "O": (now - 86_400_000) * unit,
            "C": now * unit,
            "F": day.first_id,
            "L": day.last_id,
            "n": day.trades,
        }
    )


def average_frame(symbol: Symbol, bar: Bar, now: int, unit: int) -> bytes:
    """The average price over ``bar``; the last close where nothing was traded."""
    last = symbol.tape.last_trade(now)
    price = ratio(bar.quote, bar.volume, symbol.tape.listing.price_scale) if bar.trades else symbol.price(bar.close)
    head: dict[str, Any] = {"e": "avgPrice", "E": now * unit, "s": symbol.name, "i": "5m", "w": price}
    return _encode(head | {"T": 0 if last is None else last.time * unit})


def array_frame(bodies: Sequence[dict[str, Any]]) -> bytes:
    """The objects of several symbols as one frame."""
    return _encode(bodies)
