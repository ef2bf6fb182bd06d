"""The simulated venue's REST answers, computed from its markets: no state, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tapewick.sim.capture import Recorded
from tapewick.sim.market import Listing, Market, SimTrade

__all__ = ["Answer", "Tape", "aggregate", "answer", "padded"]

Tape: TypeAlias = Market | Recorded

_PATH = re.compile(r"^/(?:api/v3|fapi/v1|dapi/v1)/(\w+)$")
_WEIGHTS = {"exchangeInfo": 20, "trades": 25, "historicalTrades": 25, "aggTrades": 4}
_MAX_ROWS = 1000


class Answer(NamedTuple):
    """Status, JSON body and the request weight it cost."""

    status: int
    body: bytes
    weight: int = 1


class _Refused(Exception):
    """A request the venue answers with HTTP 400 and one of its error codes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def padded(text: str) -> str:
    """Decimal text with eight digits after the point, as the venue prints all numbers."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<8}"


def aggregate(symbol: str, trades: list[SimTrade], event_time: int | None = None) -> dict[str, Any]:
    """The venue's aggregate of trades that one order filled at one price; with ``event_time``, the stream's."""
    first = trades[0]
    body: dict[str, Any] = {} if event_time is None else {"e": "aggTrade", "E": event_time, "s": symbol}
    return body | {
        "a": first.agg_id,
        "p": padded(first.price),
        "q": padded(str(sum(Decimal(trade.size) for trade in trades))),
        "f": first.id,
        "l": trades[-1].id,
        "T": first.time,
        "m": first.buyer_is_maker,
        "M": True,
    }


def answer(tapes: Mapping[str, Tape], now: int, path: str, query: Mapping[str, str]) -> Answer:
    """What ``GET path?query`` gets at venue time ``now`` (UTC ms); 404 for an unknown path."""
    matched = _PATH.match(path)
    name = matched[1] if matched else ""
    try:
        if name == "ping":
            body: Any = {}
        elif name == "time":
            body = {"serverTime": now}
        elif name == "exchangeInfo":
            body = _exchange_info(tapes, now, query)
        elif name in ("trades", "historicalTrades"):
            body = _trades(_tape(tapes, query), now, query, by_id=name == "historicalTrades")
        elif name == "aggTrades":
            body = _aggregates(_tape(tapes, query), now, query)
        else:
            return Answer(404, b'{"code":-1000,"msg":"Unknown path."}')
    except _Refused as error:
        return Answer(400, msgspec.json.encode({"code": error.code, "msg": str(error)}))
    return Answer(200, msgspec.json.encode(body), _WEIGHTS.get(name, 1))


def _tape(tapes: Mapping[str, Tape], query: Mapping[str, str]) -> Tape:
    if "symbol" not in query:
        raise _Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if query["symbol"] not in tapes:
        raise _Refused(-1121, "Invalid symbol.")
    return tapes[query["symbol"]]


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def _limit(query: Mapping[str, str]) -> int:
    limit = _integer(query, "limit")
    if limit == 0:
        raise _Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit or 500, _MAX_ROWS)


def _trades(tape: Tape, now: int, query: Mapping[str, str], *, by_id: bool) -> list[dict[str, Any]]:
    limit, last = _limit(query), tape.last_id(now)
    start = _integer(query, "fromId") if by_id else None
    first = last - limit + 1 if start is None else start
    return [
        {
            "id": trade.id,
            "price": padded(trade.price),
            "qty": padded(trade.size),
            "quoteQty": f"{Decimal(trade.price) * Decimal(trade.size):.8f}",
            "time": trade.time,
            "isBuyerMaker": trade.buyer_is_maker,
            "isBestMatch": True,
        }
        for trade in tape.trades(first, min(last, first + limit - 1))
    ]


def _aggregates(tape: Tape, now: int, query: Mapping[str, str]) -> list[dict[str, Any]]:
    limit, last = _limit(query), tape.last_id(now)
    from_id, start, end = (_integer(query, name) for name in ("fromId", "startTime", "endTime"))
    if end is not None and from_id is None:
        last = min(last, tape.last_id(end + 1))
    newest = tape.trades(last, last)
    if not newest:
        return []
    newest_agg = newest[0].agg_id
    if from_id is not None:
        first_agg = from_id
    elif start is not None:
        at = tape.trades(first := tape.first_id_at(start), first)
        first_agg = at[0].agg_id if at else newest_agg + 1
    else:
        first_agg = newest_agg - limit + 1
    first_agg = max(first_agg, 1)
    last_agg = min(newest_agg, first_agg + limit - 1)
    if last_agg < first_agg:
        return []
    rows = tape.trades(tape.trade_of_agg(first_agg), min(last, tape.trade_of_agg(last_agg + 1) - 1))
    return [aggregate(tape.listing.symbol, list(group)) for _, group in groupby(rows, key=lambda t: t.agg_id)]


def _exchange_info(tapes: Mapping[str, Tape], now: int, query: Mapping[str, str]) -> dict[str, Any]:
    wanted = list(tapes)
    if "symbol" in query:
        wanted = [query["symbol"]]
    elif "symbols" in query:
        try:
            wanted = msgspec.json.decode(query["symbols"], type=list[str])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise _Refused(-1100, "Illegal characters found in parameter 'symbols'.") from error
    if any(symbol not in tapes for symbol in wanted):
        raise _Refused(-1121, "Invalid symbol.")
    return {
        "timezone": "UTC",
        "serverTime": now,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
        ],
        "exchangeFilters": [],
        "symbols": [_symbol(tapes[symbol].listing) for symbol in wanted],
    }


def _symbol(listing: Listing) -> dict[str, Any]:
    tick, step = (padded(f"{Decimal(1).scaleb(-scale):f}") for scale in (listing.price_scale, listing.size_scale))
    return {
        "symbol": listing.symbol,
        "status": listing.status,
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }
