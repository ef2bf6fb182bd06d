"""``/api/v3``: what each endpoint costs, and its answer from the market.

An answer is bytes with headers; who asks, weights and compression are ``binance.py``'s. ``Refused``
carries the venue's error code and HTTP status.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tapewick.gateways import _binance_rows as rows
from tapewick.gateways import _binance_stats as stats
from tapewick.gateways import _binance_tickers as tickers
from tapewick.gateways import _binance_trades as stored
from tapewick.gateways._binance_klines import klines
from tapewick.gateways._binance_query import Query, Refused, Unit, busy
from tapewick.gateways._binance_streams import Streams
from tapewick.gateways._binance_symbols import STATUSES, Listed, Symbols, described, status_of
from tapewick.market import Market, Window
from tapewick.model import TradeBatch
from tapewick.timeframe import BY_INDEX, DAY, HOUR, MINUTE

__all__ = ["Answer", "Endpoints"]

MOST_ROWS = 1000
MOST_LEVELS = 5000
MOST_SYMBOLS = 100
_WINDOW = re.compile(r"(\d{1,2})([mhd])", re.ASCII)
_WINDOWS = {"m": (MINUTE, 59), "h": (HOUR, 23), "d": (DAY, 7)}


class Answer(NamedTuple):
    """A body, and headers beside the usual ones."""

    body: bytes
    headers: Mapping[str, str] = {}


Endpoint = Callable[[Query, Unit], Awaitable[Answer]]
Cost = Callable[[Query], int]


def _flat(weight: int) -> Cost:
    return lambda query: weight


def _by_count(one: int, every: int) -> Cost:
    """``one`` for a symbol, ``every`` for several or all."""
    return lambda query: one if "symbol" in query else every


def _depth_cost(query: Query) -> int:
    limit = query.limit(MOST_LEVELS, 100)
    return next(weight for most, weight in ((100, 5), (500, 25), (1000, 50), (MOST_LEVELS, 250)) if limit <= most)


def _day_cost(query: Query) -> int:
    symbols = query.symbols()
    if "symbol" in query or (symbols is not None and len(symbols) <= 20):
        return 2
    return 80 if symbols is None or len(symbols) > 100 else 40


def _window_cost(query: Query) -> int:
    return min(200, 4 * len(query.symbols() or [""]))


class Endpoints:
    """The answers, by name: ``await endpoints.answer("klines", query, unit)``."""

    def __init__(self, market: Market, symbols: Symbols, streams: Streams, *, weight: int, aggregate_raw: bool) -> None:
        self._market, self._symbols, self._streams = market, symbols, streams
        self._weight, self._aggregate_raw = weight, aggregate_raw
        self._known: dict[str, tuple[Cost, Endpoint]] = {
            "ping": (_flat(1), self._ping),
            "time": (_flat(1), self._time),
            "exchangeInfo": (_flat(20), self._exchange_info),
            "depth": (_depth_cost, self._depth),
            "trades": (_flat(25), self._trades),
            "historicalTrades": (_flat(25), self._historical_trades),
            "aggTrades": (_flat(4), self._aggregates),
            "klines": (_flat(2), self._klines),
            "uiKlines": (_flat(2), self._klines),
            "avgPrice": (_flat(2), self._average),
            "ticker/price": (_by_count(2, 4), self._prices),
            "ticker/bookTicker": (_by_count(2, 4), self._quotes),
            "ticker/24hr": (_day_cost, self._days),
            "ticker/tradingDay": (_window_cost, self._trading_days),
            "ticker": (_window_cost, self._windows),
        }

    def cost(self, name: str, query: Query) -> int:
        """The request weight; 1 for what does not exist. Raises ``Refused`` where parameters are wrong."""
        known = self._known.get(name)
        return 1 if known is None else known[0](query)

    async def answer(self, name: str, query: Query, unit: Unit) -> Answer:
        """What ``GET /api/v3/name`` gets. Raises ``Refused``."""
        known = self._known.get(name)
        if known is None:
            raise Refused(-1000, "Unknown path.", 404)
        return await known[1](query, unit)

    # -- general -----------------------------------------------------------------------------------

    async def _ping(self, query: Query, unit: Unit) -> Answer:
        return Answer(b"{}")

    async def _time(self, query: Query, unit: Unit) -> Answer:
        return Answer(b'{"serverTime":%d}' % (self._market.now() // unit))

    async def _exchange_info(self, query: Query, unit: Unit) -> Answer:
        found, _ = await self._wanted(query)
        status = query.status({*STATUSES.values(), *map(status_of, found)})
        if "SPOT" not in query.permissions():  # which every symbol has, and no other
            found = []
        if status is not None:
            found = [one for one in found if status_of(one) == status]
        return Answer(msgspec.json.encode(described(found, self._market.now() // unit, self._weight)))

    # -- book --------------------------------------------------------------------------------------

    async def _depth(self, query: Query, unit: Unit) -> Answer:
        listed, limit = await self._symbol(query), query.limit(MOST_LEVELS, 100)
        book, _ = self._market.books_of(listed.id)
        if not book.live:
            raise busy(f"the order book is {book.state}")
        told = await self._streams.snapshot(listed.id, limit)
        if told is not None:
            return Answer(
                rows.depth(told.last_id, rows.levels(*told.bids, *told.scales), rows.levels(*told.asks, *told.scales))
            )
        found, scales = book.levels(limit), (book.price_scale, book.size_scale)
        bids = rows.levels(found.bid_price, found.bid_size, *scales)
        asks = rows.levels(found.ask_price, found.ask_size, *scales)
        return Answer(rows.depth(book.last_id or book.seq, bids, asks))

    async def _quotes(self, query: Query, unit: Unit) -> Answer:
        return await self._each(query, lambda one: _ready(tickers.quote_body(one, self._market.books_of(one.id)[1])))

    # -- trades ------------------------------------------------------------------------------------

    async def _trades(self, query: Query, unit: Unit) -> Answer:
        listed, limit = await self._symbol(query), query.limit(MOST_ROWS)
        _require_raw(listed)
        found = stored.single(await stored.newest(self._market, listed.id, limit))
        return self._paged(listed, found, rows.trades, unit)

    async def _historical_trades(self, query: Query, unit: Unit) -> Answer:
        listed, limit, first = await self._symbol(query), query.limit(MOST_ROWS), query.integer("fromId")
        _require_raw(listed)
        if first is None:
            found = stored.single(await stored.newest(self._market, listed.id, limit))
        else:
            found = stored.before_aggregates(await stored.from_id(self._market, listed.id, first, limit))
        return self._paged(listed, found, rows.trades, unit)

    async def _aggregates(self, query: Query, unit: Unit) -> Answer:
        listed, limit, first = await self._symbol(query), query.limit(MOST_ROWS), query.integer("fromId")
        start, end = query.start(), query.end()
        if listed.instrument.granularity == "raw" and not self._aggregate_raw:
            raise Refused(-1130, "This symbol has single trades only; ask for trades or historicalTrades.")
        if first is not None and (start is not None or end is not None):
            raise Refused(-1128, "Combination of optional parameters invalid.")
        if first is not None:
            found = await stored.from_id(self._market, listed.id, first, limit)
        elif start is None and end is None:
            found = await stored.newest(self._market, listed.id, limit)
        else:
            found = await stored.between(self._market, listed.id, start, end, limit)
        return self._paged(listed, found, rows.aggregates, unit)

    def _paged(
        self, listed: Listed, found: stored.Trades, encode: Callable[[TradeBatch, Unit], bytes], unit: Unit
    ) -> Answer:
        return Answer(encode(found.batch, unit), self._proof(listed, found.complete))

    # -- candles -----------------------------------------------------------------------------------

    async def _klines(self, query: Query, unit: Unit) -> Answer:
        listed, tf, zone, limit = await self._symbol(query), query.interval(), query.zone(), query.limit(MOST_ROWS)
        found = await klines(self._market, listed.id, tf, query.start(), query.end(), limit, zone)
        return Answer(rows.bars(found.batch, unit, shift=found.shift), self._proof(listed, found.complete))

    async def _average(self, query: Query, unit: Unit) -> Answer:
        listed = await self._symbol(query)
        found = await stats.average_price(self._market, listed)
        text = f'{{"mins":{stats.AVERAGE_MINUTES},"price":"{found.price}","closeTime":{found.close_time // unit}}}'
        return Answer(text.encode(), self._proof(listed, None))

    # -- tickers -----------------------------------------------------------------------------------

    async def _prices(self, query: Query, unit: Unit) -> Answer:
        async def price(one: Listed) -> str:
            answer = await self._market.candles(one.id, BY_INDEX[1], Window(limit=1, newest=True))
            close = int(answer.batch.rows["close"][0]) if len(answer.batch.rows) else 0
            text = rows.printer(answer.head.price_scale)(close)
            return f'{{"symbol":{one.json.decode()},"price":"{text}"}}'

        return await self._each(query, price)

    async def _days(self, query: Query, unit: Unit) -> Answer:
        mini = query.choice("type", "FULL", "MINI") == "MINI"

        async def day(one: Listed) -> str:
            found = await stats.rolling_of(self._market, one.id)
            if mini:
                return tickers.mini_body(one, found, unit)
            size = await stats.last_size(self._market, one.id)
            return tickers.day_body(one, tickers.Day(found, size, self._market.books_of(one.id)[1]), unit)

        return await self._each(query, day)

    async def _trading_days(self, query: Query, unit: Unit) -> Answer:
        zone, body = query.zone(), _window_body(query)
        _require_symbols(query)

        async def day(one: Listed) -> str:
            return body(one, await stats.day_of(self._market, one.id, zone), unit)

        return await self._each(query, day)

    async def _windows(self, query: Query, unit: Unit) -> Answer:
        length, body = _window(query.text("windowSize") or "1d"), _window_body(query)
        _require_symbols(query)

        async def window(one: Listed) -> str:
            return body(one, await stats.rolling_of(self._market, one.id, length), unit)

        return await self._each(query, window)

    # -- symbols -----------------------------------------------------------------------------------

    async def _symbol(self, query: Query) -> Listed:
        return await self._symbols.find(query.symbol())

    async def _wanted(self, query: Query) -> tuple[Sequence[Listed], bool]:
        """The instruments asked for, and whether it was exactly one by ``symbol``."""
        several = query.symbols()
        if several is not None:
            return [await self._symbols.find(symbol) for symbol in several], False
        if "symbol" in query:
            return [await self._symbol(query)], True
        return await self._symbols.all(), False

    async def _each(self, query: Query, row: Callable[[Listed], Awaitable[str]]) -> Answer:
        """One object for ``symbol``, else an array of them."""
        found, single = await self._wanted(query)
        texts = [await row(one) for one in found]
        return Answer(texts[0].encode() if single else rows.array(texts))

    def _proof(self, listed: Listed, complete: bool | None) -> dict[str, str]:
        """What the venue's JSON has no field for: whether the rows are whole, and how old the data is."""
        age = self._market.data_age_ms(listed.id)
        told = {} if age is None else {"X-Tapewick-Data-Age-Ms": str(age)}
        return told if complete is None else {"X-Tapewick-Complete": str(complete).lower(), **told}


async def _ready(text: str) -> str:
    return text


def _require_raw(listed: Listed) -> None:
    if listed.instrument.granularity != "raw":
        raise Refused(-1130, "This symbol has aggregated trades only; ask for aggTrades.")


def _require_symbols(query: Query) -> None:
    if "symbol" not in query and (wanted := query.symbols()) is None:
        raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    elif "symbol" not in query and wanted is not None and len(wanted) > MOST_SYMBOLS:
        raise Refused(-1101, f"Too many parameters; at most {MOST_SYMBOLS} symbols.")


def _window_body(query: Query) -> Callable[[Listed, stats.Stats | None, Unit], str]:
    return tickers.mini_body if query.choice("type", "FULL", "MINI") == "MINI" else tickers.window_body


def _window(text: str) -> int:
    """A window size (1m to 59m, 1h to 23h, 1d to 7d) in ns."""
    match = _WINDOW.fullmatch(text)
    unit, most = _WINDOWS[match[2]] if match else (0, 0)
    if match is None or not 1 <= int(match[1]) <= most:
        raise Refused(-1130, "Data sent for parameter 'windowSize' is not valid.")
    return unit * int(match[1])
