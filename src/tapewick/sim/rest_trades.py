"""Trades and aggregates in the venue's REST shape."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import groupby
from typing import Any

from tapewick.sim.market import SimTrade
from tapewick.sim.numerals import padded, product
from tapewick.sim.query import Query
from tapewick.sim.recorded import Recorded
from tapewick.sim.symbol import Tape

__all__ = ["aggregate", "aggregates", "trades"]

MAX_ROWS = 1000


def trades(tape: Tape, now: int, query: Query, *, by_id: bool) -> list[dict[str, Any]]:
    """Answer of ``trades`` and (``by_id``) ``historicalTrades``: the newest, or those from an id on."""
    limit, last = query.limit(500, MAX_ROWS), tape.last_id(now)
    start = query.integer("fromId") if by_id else None
    first = max(last - limit + 1 if start is None else start, 1)
    printed = _printer(tape)
    return [
        {
            **printed(trade),
            "time": trade.time * query.unit,
            "isBuyerMaker": trade.buyer_is_maker,
            "isBestMatch": True,
        }
        for trade in tape.trades(first, min(last, first + limit - 1))
    ]


def _printer(tape: Tape) -> Callable[[SimTrade], dict[str, Any]]:
    """Id, price, size and their product as printed. A market's numbers all have the listing's digits: that
    is used, as pages of them are what repairs are made of."""
    scales = tape.listing.price_scale, tape.listing.size_scale
    if isinstance(tape, Recorded) or not all(scales) or max(scales) > 8:
        return lambda trade: {
            "id": trade.id,
            "price": padded(trade.price),
            "qty": padded(trade.size),
            "quoteQty": product(trade.price, trade.size),
        }
    zeros = "0" * (8 - scales[0]), "0" * (8 - scales[1]), "0" * max(8 - sum(scales), 0)
    digits, unit = sum(scales), 10 ** sum(scales)

    def printed(trade: SimTrade) -> dict[str, Any]:
        value = int(trade.price.replace(".", "")) * int(trade.size.replace(".", ""))
        quote = f"{value // unit}.{value % unit:0{digits}d}{zeros[2]}"
        return {"id": trade.id, "price": trade.price + zeros[0], "qty": trade.size + zeros[1], "quoteQty": quote}

    return printed


def aggregates(tape: Tape, now: int, query: Query) -> list[dict[str, Any]]:
    """Answer of ``aggTrades``: from an aggregate's id on, of a span of time, or the newest."""
    limit, last = query.limit(500, MAX_ROWS), tape.last_id(now)
    from_id, start, end = query.integer("fromId"), query.time("startTime", up=True), query.time("endTime")
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
    return [aggregate(list(group), query.unit) for _, group in groupby(rows, key=lambda trade: trade.agg_id)]


def aggregate(fills: list[SimTrade], unit: int = 1) -> dict[str, Any]:
    """One aggregate: the trades one order filled at one price."""
    first = fills[0]
    return {
        "a": first.agg_id,
        "p": padded(first.price),
        "q": padded(str(sum(Decimal(trade.size) for trade in fills))),
        "f": first.id,
        "l": fills[-1].id,
        "T": first.time * unit,
        "m": first.buyer_is_maker,
        "M": True,
    }
