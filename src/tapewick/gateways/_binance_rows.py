"""Rows in the venue's JSON: key order, number padding and time units exactly as its clients expect.

Everything is text made from integers; ``unit`` is the ns one printed unit of time stands for.
Prices have the digits of the tick, sizes those of the step, quote amounts those of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tapewick.engine.candles import sums
from tapewick.gateways._binance_query import Unit
from tapewick.gateways._binance_symbols import Listed
from tapewick.model import I64, CandleBatch, Quote, State, TradeBatch
from tapewick.timeframe import BY_INDEX, bucket_end

__all__ = [
    "aggregates",
    "aggregate_events",
    "array",
    "bar_event",
    "bars",
    "depth",
    "depth_event",
    "levels",
    "printer",
    "quote_event",
    "trade_events",
    "trades",
]

TRUTH = ("false", "true")
GONE = "0.00000000"


def printer(scale: int) -> Callable[[int], str]:
    """Writes mantissas with exactly ``scale`` digits after the point."""
    if scale <= 0:
        return lambda mantissa: str(mantissa * 10**-scale)
    unit = 10**scale

    def text(mantissa: int) -> str:
        whole, fraction = divmod(abs(mantissa), unit)
        return f"{'-' if mantissa < 0 else ''}{whole}.{fraction:0{scale}d}"

    return text


def array(rows: Iterable[str]) -> bytes:
    """JSON texts as one JSON array."""
    return f"[{','.join(rows)}]".encode()


# -- candles -------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """The printed fields of a candle; a bucket without trades has ids -1."""

    open_time: int
    end: int
    first_id: int
    last_id: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    taker_volume: str
    taker_quote_volume: str
    closed: bool


def _bars(batch: CandleBatch) -> Iterator[Bar]:
    """The rows of ``batch``, one after the other."""
    rows = batch.rows
    if not len(rows):
        return
    tf = BY_INDEX[int(rows["tf"][0])]
    price, size = printer(batch.price_scale), printer(batch.size_scale)
    quote = printer(batch.price_scale + batch.size_scale)
    names = ("open_time", "first_id", "last_id", "open", "high", "low", "close", "trades", "state")
    plain = [rows[name].tolist() for name in names]
    wide = [sums(rows, name) for name in ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")]
    for t, first, last, o, h, low, c, n, state, v, q, tv, tq in zip(*plain, *wide, strict=True):
        yield Bar(
            t, bucket_end(tf, t), first, last, price(o), price(h), price(low), price(c),
            size(v), quote(q), n, size(tv), quote(tq), state != State.OPEN,
        )  # fmt: skip


def bars(batch: CandleBatch, unit: Unit, *, shift: int = 0) -> bytes:
    """The body of klines. ``shift`` (ns) was added to open times to make local midnights round."""
    return array(
        f'[{(b.open_time - shift) // unit},"{b.open}","{b.high}","{b.low}","{b.close}","{b.volume}",'
        f'{(b.end - shift) // unit - 1},"{b.quote_volume}",{b.trades},"{b.taker_volume}",'
        f'"{b.taker_quote_volume}","0"]'
        for b in _bars(batch)
    )


def bar_event(
    listed: Listed, interval: str, batch: CandleBatch, now: int, unit: Unit, *, closed: bool, shift: int = 0
) -> bytes:
    """A kline event of the last row of ``batch``."""
    *_, b = _bars(batch)
    symbol = listed.json.decode()
    return (
        f'{{"e":"kline","E":{now // unit},"s":{symbol},"k":{{"t":{(b.open_time - shift) // unit},'
        f'"T":{(b.end - shift) // unit - 1},"s":{symbol},"i":"{interval}","f":{b.first_id},"L":{b.last_id},'
        f'"o":"{b.open}","c":"{b.close}","h":"{b.high}","l":"{b.low}","v":"{b.volume}","n":{b.trades},'
        f'"x":{TRUTH[closed]},"q":"{b.quote_volume}","V":"{b.taker_volume}","Q":"{b.taker_quote_volume}","B":"0"}}}}'
    ).encode()


# -- trades --------------------------------------------------------------------------------------


class _Trade(NamedTuple):
    id: int
    first: int
    price: str
    size: str
    quote: str
    ts: int
    maker: str  # whether the buyer was the maker, as JSON


def _trades(batch: TradeBatch) -> Iterator[_Trade]:
    price, size = printer(batch.price_scale), printer(batch.size_scale)
    quote = printer(batch.price_scale + batch.size_scale)
    columns = (batch.trade_id, batch.first_id, batch.price, batch.size, batch.ts_event, batch.side)
    for id, first, p, q, ts, side in zip(*(column.tolist() for column in columns), strict=True):
        yield _Trade(id, first, price(p), size(q), quote(p * q), ts, TRUTH[side < 0])


def trades(batch: TradeBatch, unit: Unit) -> bytes:
    """The body of trades and historicalTrades."""
    return array(
        f'{{"id":{t.id},"price":"{t.price}","qty":"{t.size}","quoteQty":"{t.quote}","time":{t.ts // unit},'
        f'"isBuyerMaker":{t.maker},"isBestMatch":true}}'
        for t in _trades(batch)
    )


def aggregates(batch: TradeBatch, unit: Unit) -> bytes:
    """The body of aggTrades; an aggregate's id is the last trade id it stands for."""
    return array(
        f'{{"a":{t.id},"p":"{t.price}","q":"{t.size}","f":{t.first},"l":{t.id},"T":{t.ts // unit},'
        f'"m":{t.maker},"M":true}}'
        for t in _trades(batch)
    )


def trade_events(listed: Listed, batch: TradeBatch, now: int, unit: Unit) -> list[bytes]:
    """Trade events, one per row."""
    head = f'{{"e":"trade","E":{now // unit},"s":{listed.json.decode()},"t":'
    return [
        f'{head}{t.id},"p":"{t.price}","q":"{t.size}","T":{t.ts // unit},"m":{t.maker},"M":true}}'.encode()
        for t in _trades(batch)
    ]


def aggregate_events(listed: Listed, batch: TradeBatch, now: int, unit: Unit) -> list[bytes]:
    """Events of aggregated trades, one per row."""
    head = f'{{"e":"aggTrade","E":{now // unit},"s":{listed.json.decode()},"a":'
    return [
        f'{head}{t.id},"p":"{t.price}","q":"{t.size}","f":{t.first},"l":{t.id},"T":{t.ts // unit},'
        f'"m":{t.maker},"M":true}}'.encode()
        for t in _trades(batch)
    ]


# -- books ---------------------------------------------------------------------------------------


def levels(prices: I64, sizes: I64, price_scale: int, size_scale: int) -> str:
    """One side of a book as ``[["price","size"],…]``. A level that is gone has the venue's ``0.00000000``:
    python-binance's book compares with this very text."""
    price, size = printer(price_scale), printer(size_scale)
    pairs = zip(prices.tolist(), sizes.tolist(), strict=True)
    return "[" + ",".join([f'["{price(p)}","{size(q) if q else GONE}"]' for p, q in pairs]) + "]"


def depth(last_id: int, bids: str, asks: str) -> bytes:
    """The body of depth and of the partial depth streams, from texts of ``levels``."""
    return f'{{"lastUpdateId":{last_id},"bids":{bids},"asks":{asks}}}'.encode()


def depth_event(listed: Listed, first: int, last: int, bids: str, asks: str, ts: int, unit: Unit) -> bytes:
    """A difference of the book: levels that changed from update ``first`` to update ``last``."""
    return (
        f'{{"e":"depthUpdate","E":{ts // unit},"s":{listed.json.decode()},"U":{first},"u":{last},'
        f'"b":{bids},"a":{asks}}}'
    ).encode()


def quote_event(listed: Listed, quote: Quote) -> bytes:
    """Best bid and ask; the venue sends neither kind nor time with them."""
    price, size = printer(quote.price_scale), printer(quote.size_scale)
    return (
        f'{{"u":{quote.update_id},"s":{listed.json.decode()},"b":"{price(quote.bid)}","B":"{size(quote.bid_size)}",'
        f'"a":"{price(quote.ask)}","A":"{size(quote.ask_size)}"}}'
    ).encode()
