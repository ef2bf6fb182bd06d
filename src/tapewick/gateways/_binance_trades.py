"""Stored trades the way the venue pages them: by id, ascending, from a given id or time, or the newest.

The tape is ordered by arrival; 1m candles tell in which minutes the wanted trades lie. A page by id
never steps over a hole: it ends before it, and a page that would begin in one is refused, since
a client must be able to take a jump of ids inside a page for ids that do not exist.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tapewick.gateways._binance_query import Refused, busy
from tapewick.market import Market, Window
from tapewick.model import I64, Candles, TapeState, TradeBatch
from tapewick.timeframe import BY_INDEX, BY_NAME, SECOND, bucket_end

__all__ = ["Trades", "before_aggregates", "between", "from_id", "newest", "single"]

SLACK = 2 * SECOND  # a trade may carry a time this much away from those of its neighbours by id
MINUTE = BY_INDEX[1]
FIRST_READ = 16  # minutes looked at first; four times as many each time that was too few
FRAMES = tuple(BY_NAME[name] for name in ("1M", "1d", "1h", "1m"))


class Trades(NamedTuple):
    """Trades by id. ``complete``: whether no id between the first and the last is missing."""

    batch: TradeBatch
    complete: bool


async def newest(market: Market, id: str, count: int) -> Trades:
    """The ``count`` trades with the highest ids."""
    return await _backward(market, id, None, count)


async def between(market: Market, id: str, start: int | None, end: int | None, count: int) -> Trades:
    """Trades with ``start`` ≤ time < ``end`` (ns): the first ``count`` where ``start`` is given, else the last."""
    if start is None:
        return await _backward(market, id, end, count)
    first = (await market.candles(id, MINUTE, Window(start - start % MINUTE.length, end, 1))).batch.rows
    if not len(first):
        return _nothing(id)
    batch = await _forward(market, id, int(first["open_time"][0]), count, start=start, end=end)
    return _proven(batch, await market.coverage(id))


def single(found: Trades) -> Trades:
    """Without what the tape holds as aggregates only (holes repaired from them)."""
    merged = np.flatnonzero(found.batch.count > 1)
    if not len(merged):
        return found
    return Trades(found.batch.select(np.flatnonzero(found.batch.count == 1)), False)


def before_aggregates(found: Trades) -> Trades:
    """A page by id up to the first record of several ids. Raises ``Refused`` where it begins with one."""
    merged = np.flatnonzero(found.batch.count > 1)
    if not len(merged):
        return found
    if merged[0] == 0:
        last = int(found.batch.trade_id[0])
        raise Refused(-1130, f"Ids up to {last} are known as an aggregate only; ask aggTrades for them.")
    return Trades(found.batch.select(np.arange(merged[0])), True)


async def from_id(market: Market, id: str, first: int, count: int) -> Trades:
    """At most ``count`` trades from id ``first`` on. Raises ``Refused`` where the tape does not hold that id."""
    state = await market.coverage(id)
    ranges = state.ranges
    if not len(ranges) or first > ranges[-1, 1]:
        return _nothing(id)
    at = int(np.searchsorted(ranges[:, 0], first, side="right")) - 1
    if at < 0:
        if first > 1:  # 0 and 1 ask for the beginning, whatever it is
            raise Refused(-1130, f"This tape begins with id {ranges[0, 0]}; ask from there on.")
        at, first = 0, int(ranges[0, 0])
    if first > ranges[at, 1]:
        raise _hole(state, first, int(ranges[at + 1, 0]))
    minute = await _minute_of(market, id, first)
    if minute is None:
        return _nothing(id)
    batch = await _forward(market, id, minute, count, first_id=first, last_id=int(ranges[at, 1]))
    return Trades(batch, True)


def _hole(state: TapeState, first: int, after: int) -> Refused:
    """Why a page cannot begin at ``first``; ``after`` is the first id behind the hole."""
    lost = any(gap.left_id < first < gap.right_id and gap.state == "unrepairable" for gap in state.gaps)
    if lost:
        return Refused(-1130, f"Ids {first} to {after - 1} are missing and cannot be repaired; go on from {after}.")
    return busy(f"ids {first} to {after - 1} are being repaired")


def _nothing(id: str) -> Trades:
    return Trades(TradeBatch.empty(id), True)


def _proven(batch: TradeBatch, state: TapeState) -> Trades:
    if not len(batch):
        return Trades(batch, True)
    first, last = int(batch.first_id[0]), int(batch.trade_id[-1])
    at = int(np.searchsorted(state.ranges[:, 0], first, side="right")) - 1
    return Trades(batch, at >= 0 and bool(state.ranges[at, 1] >= last))


async def _backward(market: Market, id: str, end: int | None, count: int) -> Trades:
    """The ``count`` highest ids with a time before ``end``."""
    minutes = FIRST_READ
    while True:
        rows = (await market.candles(id, MINUTE, Window(None, end, minutes, newest=True))).batch.rows
        if not len(rows):
            return _nothing(id)
        whole = len(rows) < minutes
        held = np.cumsum(rows["trades"][::-1])
        enough = int(np.searchsorted(held, count))
        start = int(rows["open_time"][::-1][min(enough, len(rows) - 1)]) - SLACK
        batch = _by_id((await market.trades(id, start=start, end=end, limit=0))[0])
        if len(batch) >= count or whole or minutes >= count * 4:
            return _proven(batch.select(np.arange(max(0, len(batch) - count), len(batch))), await market.coverage(id))
        minutes *= 4


async def _forward(
    market: Market,
    id: str,
    minute: int,
    count: int,
    *,
    start: int | None = None,
    end: int | None = None,
    first_id: int = 0,
    last_id: int = 2**63 - 1,
) -> TradeBatch:
    """The ``count`` lowest ids from ``minute`` on that lie inside all bounds."""
    minutes = FIRST_READ
    while True:
        rows = (await market.candles(id, MINUTE, Window(minute, end, minutes))).batch.rows
        whole = len(rows) < minutes
        until = _reach(rows, count, minute) + SLACK
        if end is not None:
            until = end if whole else min(end, until)
        low = minute - SLACK if start is None else max(start, minute - SLACK)
        batch = _by_id((await market.trades(id, start=low, end=until, limit=0))[0])
        batch = batch.select(np.flatnonzero((batch.trade_id >= first_id) & (batch.trade_id <= last_id)))
        if len(batch) >= count or whole or minutes >= count * 4:
            return batch.select(np.arange(min(len(batch), count)))
        minutes *= 4


def _reach(rows: Candles, count: int, minute: int) -> int:
    """Where the minute ends with which ``count`` ids and the whole first minute are held."""
    if not len(rows):
        return minute + MINUTE.length
    held = np.cumsum(rows["trades"]) - rows["trades"][0]
    enough = min(int(np.searchsorted(held, count)), len(rows) - 1)
    return bucket_end(MINUTE, int(rows["open_time"][enough]))


def _by_id(batch: TradeBatch) -> TradeBatch:
    order: I64 = np.argsort(batch.trade_id, kind="stable")
    return batch.select(order)


async def _minute_of(market: Market, id: str, wanted: int) -> int | None:
    """The open time of the minute that holds id ``wanted``, or the nearest before it; None without trades.

    From months down to minutes, two rows each. Bars that were imported hide the ids of the tape's
    incomplete ones; the search then reads on from the last one that shows them.
    """
    start: int | None = None
    end: int | None = None
    for tf in FRAMES:
        rows = (await market.candles(id, tf, Window(start, end, 0))).batch.rows
        rows = rows[(rows["trades"] > 0) & (rows["first_id"] >= 0)]
        if not len(rows):
            return start
        at = max(0, int(np.searchsorted(np.maximum.accumulate(rows["first_id"]), wanted, side="right")) - 1)
        start = int(rows["open_time"][at])
        end = bucket_end(tf, int(rows["open_time"][min(at + 1, len(rows) - 1)]))
    return start
