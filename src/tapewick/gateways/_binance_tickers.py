"""Tickers in the venue's JSON, as REST rows and as stream events."""

from __future__ import annotations

from typing import NamedTuple

from tapewick.gateways._binance_query import Unit
from tapewick.gateways._binance_rows import printer
from tapewick.gateways._binance_stats import CHANGE_DIGITS, Average, Stats
from tapewick.gateways._binance_symbols import Listed
from tapewick.model import Quote

__all__ = [
    "Best",
    "Day",
    "average_event",
    "best",
    "day_body",
    "full_event",
    "mini_body",
    "mini_event",
    "quote_body",
    "window_body",
    "window_event",
]


class Best(NamedTuple):
    """Best bid and ask, printed; zeros where nothing is known."""

    bid: str
    bid_size: str
    ask: str
    ask_size: str


def best(listed: Listed, quote: Quote | None) -> Best:
    """``quote`` with the digits the instrument has."""
    own = listed.instrument
    if quote is None:
        price, size = printer(own.price_scale)(0), printer(own.size_scale)(0)
        return Best(price, size, price, size)
    text, amount = printer(quote.price_scale), printer(quote.size_scale)
    return Best(text(quote.bid), amount(quote.bid_size), text(quote.ask), amount(quote.ask_size))


def quote_body(listed: Listed, quote: Quote | None) -> str:
    """A row of ticker/bookTicker."""
    return f'{{"symbol":{listed.json.decode()},{_best_fields(best(listed, quote))}}}'


def _best_fields(b: Best) -> str:
    return f'"bidPrice":"{b.bid}","bidQty":"{b.bid_size}","askPrice":"{b.ask}","askQty":"{b.ask_size}"'


class Day(NamedTuple):
    """What the full tickers print beside a window: the last trade's size, and the best prices."""

    stats: Stats | None
    last_size: int
    quote: Quote | None


def _empty(listed: Listed) -> Stats:
    own = listed.instrument
    return Stats(0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, 0, own.price_scale, own.size_scale)


class _Texts(NamedTuple):
    """The printed numbers of a window."""

    open: str
    high: str
    low: str
    last: str
    before: str
    change: str
    percent: str
    mean: str
    volume: str
    quote: str


def _texts(s: Stats) -> _Texts:
    price, size = printer(s.price_scale), printer(s.size_scale)
    return _Texts(
        price(s.open), price(s.high), price(s.low), price(s.last), price(s.before), price(s.last - s.open),
        printer(CHANGE_DIGITS)(s.percent), price(s.mean), size(s.volume), printer(s.price_scale + s.size_scale)(
            s.quote_volume
        ),
    )  # fmt: skip


def mini_body(listed: Listed, found: Stats | None, unit: Unit) -> str:
    """A ticker of ``type=MINI``."""
    s = found or _empty(listed)
    t = _texts(s)
    return (
        f'{{"symbol":{listed.json.decode()},"openPrice":"{t.open}","highPrice":"{t.high}","lowPrice":"{t.low}",'
        f'"lastPrice":"{t.last}",{_tail(s, t, unit)}}}'
    )


def window_body(listed: Listed, found: Stats | None, unit: Unit) -> str:
    """A row of ticker and ticker/tradingDay."""
    s = found or _empty(listed)
    t = _texts(s)
    return (
        f'{{"symbol":{listed.json.decode()},"priceChange":"{t.change}","priceChangePercent":"{t.percent}",'
        f'"weightedAvgPrice":"{t.mean}","openPrice":"{t.open}","highPrice":"{t.high}","lowPrice":"{t.low}",'
        f'"lastPrice":"{t.last}",{_tail(s, t, unit)}}}'
    )


def day_body(listed: Listed, day: Day, unit: Unit) -> str:
    """A row of ticker/24hr."""
    s = day.stats or _empty(listed)
    t = _texts(s)
    return (
        f'{{"symbol":{listed.json.decode()},"priceChange":"{t.change}","priceChangePercent":"{t.percent}",'
        f'"weightedAvgPrice":"{t.mean}","prevClosePrice":"{t.before}","lastPrice":"{t.last}",'
        f'"lastQty":"{printer(s.size_scale)(day.last_size)}",{_best_fields(best(listed, day.quote))},'
        f'"openPrice":"{t.open}","highPrice":"{t.high}","lowPrice":"{t.low}",{_tail(s, t, unit)}}}'
    )


def _tail(s: Stats, t: _Texts, unit: Unit) -> str:
    return (
        f'"volume":"{t.volume}","quoteVolume":"{t.quote}","openTime":{s.open_time // unit},'
        f'"closeTime":{s.close_time // unit},"firstId":{s.first_id},"lastId":{s.last_id},"count":{s.trades}'
    )


def mini_event(listed: Listed, s: Stats, now: int, unit: Unit) -> bytes:
    """A miniTicker event."""
    t = _texts(s)
    return (
        f'{{"e":"24hrMiniTicker","E":{now // unit},"s":{listed.json.decode()},"c":"{t.last}","o":"{t.open}",'
        f'"h":"{t.high}","l":"{t.low}","v":"{t.volume}","q":"{t.quote}"}}'
    ).encode()


def window_event(listed: Listed, s: Stats, kind: str, now: int, unit: Unit) -> bytes:
    """An event of a rolling window; ``kind`` as ``1hTicker``."""
    t = _texts(s)
    return (
        f'{{"e":"{kind}","E":{now // unit},"s":{listed.json.decode()},"p":"{t.change}","P":"{t.percent}",'
        f'"o":"{t.open}","h":"{t.high}","l":"{t.low}","c":"{t.last}","w":"{t.mean}","v":"{t.volume}",'
        f'"q":"{t.quote}","O":{s.open_time // unit},"C":{s.close_time // unit},"F":{s.first_id},'
        f'"L":{s.last_id},"n":{s.trades}}}'
    ).encode()


def full_event(listed: Listed, day: Day, now: int, unit: Unit) -> bytes:
    """A 24hrTicker event."""
    s = day.stats or _empty(listed)
    t = _texts(s)
    b = best(listed, day.quote)
    return (
        f'{{"e":"24hrTicker","E":{now // unit},"s":{listed.json.decode()},"p":"{t.change}","P":"{t.percent}",'
        f'"w":"{t.mean}","x":"{t.before}","c":"{t.last}","Q":"{printer(s.size_scale)(day.last_size)}",'
        f'"b":"{b.bid}","B":"{b.bid_size}","a":"{b.ask}","A":"{b.ask_size}","o":"{t.open}","h":"{t.high}","l":"{t.low}",'
        f'"v":"{t.volume}","q":"{t.quote}","O":{s.open_time // unit},"C":{s.close_time // unit},'
        f'"F":{s.first_id},"L":{s.last_id},"n":{s.trades}}}'
    ).encode()


def average_event(listed: Listed, found: Average, now: int, unit: Unit) -> bytes:
    """An avgPrice event."""
    return (
        f'{{"e":"avgPrice","E":{now // unit},"s":{listed.json.decode()},"i":"5m","w":"{found.price}",'
        f'"T":{found.close_time // unit}}}'
    ).encode()
