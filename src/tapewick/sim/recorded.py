"""One symbol of a recording as it was served so far: its trades, and its order book at this moment."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from tapewick.decimals import parse_mantissa
from tapewick.sim.market import LISTING, Columns, Listing, SimTrade

__all__ = ["Recorded", "RecordedBook"]


class Recorded:
    """The trades of one symbol served so far, with the questions a ``Market`` answers."""

    def __init__(self, symbol: str) -> None:
        self.listing = LISTING.get(symbol) or _guessed(symbol)
        self.book = RecordedBook()
        self._trades: list[SimTrade] = []

    def add(self, trade: SimTrade) -> None:
        """Append a trade; one that does not follow in id (a recording's repeat) is left out."""
        if not self._trades or trade.id > self._trades[-1].id:
            self._trades.append(trade)

    def now(self) -> int:
        """The recording's time (UTC ms): right behind the last trade served."""
        return self._trades[-1].time + 1 if self._trades else 0

    def last_id(self, now: int) -> int:
        """Id of the last trade served with a time before ``now`` (UTC ms); 0 if there is none."""
        end = bisect_left(self._trades, now, key=lambda trade: trade.time)
        return self._trades[end - 1].id if end else 0

    def first_id_at(self, time: int) -> int:
        """Id of the first trade at or after ``time`` (UTC ms), else one above the last."""
        start = bisect_left(self._trades, time, key=lambda trade: trade.time)
        if start < len(self._trades):
            return self._trades[start].id
        return self._trades[-1].id + 1 if self._trades else 1

    def trades(self, first_id: int, last_id: int) -> list[SimTrade]:
        """Trades served with ids in [first_id, last_id], ascending."""
        start = bisect_left(self._trades, first_id, key=lambda trade: trade.id)
        return self._trades[start : bisect_right(self._trades, last_id, key=lambda trade: trade.id)]

    def columns(self, first_id: int, last_id: int) -> Columns:
        """The same as columns, mantissas at the listing's scales."""
        found = self.trades(first_id, last_id)
        prices = [parse_mantissa(trade.price, self.listing.price_scale) for trade in found]
        sizes = [parse_mantissa(trade.size, self.listing.size_scale) for trade in found]
        return Columns(
            np.array([trade.id for trade in found], np.int64),
            np.array([trade.time for trade in found], np.int64),
            np.array(prices, np.int64),
            np.array(sizes, np.int64),
            np.array([trade.buyer_is_maker for trade in found], np.bool_),
        )

    def last_trade(self, now: int) -> SimTrade | None:
        """The last trade served with a time before ``now``; None if there is none."""
        id = self.last_id(now)
        return self.trades(id, id)[0] if id else None

    def trade_of_agg(self, agg_id: int) -> int:
        """Each recorded trade counts as one aggregate of the same id."""
        return agg_id


class _Snapshot(msgspec.Struct):
    lastUpdateId: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class _Diff(msgspec.Struct):
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]


class RecordedBook:
    """What a recording tells of one book: its first snapshot, kept up to date by its diffs.

    ``last_id`` is 0 until a snapshot was seen. Diffs before it are kept, as some of them follow it.
    """

    def __init__(self) -> None:
        self.last_id = 0
        self._early: deque[_Diff] = deque(maxlen=1000)
        self._sides: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def restart(self, body: bytes) -> None:
        """Begin again from a recorded REST answer, unless the book is already beyond it."""
        snapshot = msgspec.json.decode(body, type=_Snapshot)
        if snapshot.lastUpdateId <= self.last_id:
            return
        self.last_id = snapshot.lastUpdateId
        self._sides = dict(snapshot.bids), dict(snapshot.asks)
        for diff in self._early:
            self._take(diff)
        self._early.clear()

    def apply(self, data: bytes) -> None:
        """Take a recorded diff; what lies before the snapshot changes nothing."""
        diff = msgspec.json.decode(data, type=_Diff)
        if self.last_id:
            self._take(diff)
        else:
            self._early.append(diff)

    def _take(self, diff: _Diff) -> None:
        if diff.u <= self.last_id:
            return
        self.last_id = diff.u
        for side, changes in zip(self._sides, (diff.b, diff.a), strict=True):
            for price, size in changes:
                if Decimal(size):
                    side[price] = size
                else:
                    side.pop(price, None)

    def snapshot(self, limit: int) -> dict[str, Any]:
        """The body of a REST answer with up to ``limit`` levels per side."""
        bids = sorted(self._sides[0].items(), key=lambda level: Decimal(level[0]), reverse=True)
        asks = sorted(self._sides[1].items(), key=lambda level: Decimal(level[0]))
        return {"lastUpdateId": self.last_id, "bids": bids[:limit], "asks": asks[:limit]}


def _guessed(symbol: str) -> Listing:
    quotes = ("USDT", "USDC", "FDUSD", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "USD")
    quote = next((q for q in quotes if symbol.endswith(q) and symbol != q), "")
    return Listing(symbol, symbol.removesuffix(quote), quote, 8, 8, 1.0, 1.0)
