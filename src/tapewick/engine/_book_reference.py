"""The price levels of one order book and the venue's chain of updates, in Python.

Test oracle and fallback of the native ``Levels``: same API, same results.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TypeAlias

import numpy as np

from tapewick.decimals import INT64_MAX
from tapewick.engine._depth import DepthGroup
from tapewick.model import I64

__all__ = ["Applied", "Followed", "Levels"]

BACKWARDS = 5_000_000_000  # ns of event time: ids that low this late were given anew
MOST_LEVELS = 100_000  # per side

Applied: TypeAlias = tuple[int, int, int, int, int, int, int]
"""An applied frame: first id, last id, ts_event, ts_recv, and where its bids begin and its bids and asks end."""

Followed: TypeAlias = tuple[list[Applied], int, str, int]
"""Frames applied, index of the frame that ended it (the group's length if none), why, and how many were old."""


class _Side:
    """Sizes by price, and the prices ascending."""

    __slots__ = ("prices", "sizes")

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.prices: list[int] = []

    def set(self, price: int, size: int) -> None:
        if size:
            if price not in self.sizes:
                insort(self.prices, price)
            self.sizes[price] = size
        elif price in self.sizes:
            del self.sizes[price]
            del self.prices[bisect_left(self.prices, price)]

    def rescale(self, price_factor: int, size_factor: int) -> None:
        self.sizes = {price * price_factor: size * size_factor for price, size in self.sizes.items()}
        self.prices = [price * price_factor for price in self.prices]

    def fits(self, price_factor: int, size_factor: int) -> bool:
        return all(
            abs(price) * price_factor <= INT64_MAX and abs(size) * size_factor <= INT64_MAX
            for price, size in self.sizes.items()
        )


class Levels:
    """Bids and asks of one book as mantissas. For one thread at a time."""

    def __init__(self) -> None:
        self._bids, self._asks = _Side(), _Side()

    def __len__(self) -> int:
        return len(self._bids.prices) + len(self._asks.prices)

    def put(self, bid_price: I64, bid_size: I64, ask_price: I64, ask_size: I64) -> None:
        """Set levels in their order; size 0 removes one, and does nothing where there is none.

        Raises ``ValueError`` where prices and sizes of a side differ in number.
        """
        if len(bid_price) != len(bid_size) or len(ask_price) != len(ask_size):
            raise ValueError("prices and sizes of a side must have the same length")
        _set(self._bids, bid_price, bid_size)
        _set(self._asks, ask_price, ask_size)

    def load(self, bid_price: I64, bid_size: I64, ask_price: I64, ask_size: I64) -> None:
        """Replace everything; as ``put`` into an empty book."""
        before = self._bids, self._asks
        self.clear()
        try:
            self.put(bid_price, bid_size, ask_price, ask_size)
        except ValueError:
            self._bids, self._asks = before
            raise

    def clear(self) -> None:
        """Forget every level."""
        self._bids, self._asks = _Side(), _Side()

    def best(self) -> tuple[int, int, int, int] | None:
        """Best bid, its size, best ask, its size; None while a side is empty."""
        if not self._bids.prices or not self._asks.prices:
            return None
        bid, ask = self._bids.prices[-1], self._asks.prices[0]
        return bid, self._bids.sizes[bid], ask, self._asks.sizes[ask]

    def crossed(self) -> bool:
        """Whether the best bid is not below the best ask."""
        best = self.best()
        return best is not None and best[0] >= best[2]

    def levels(self, n: int = 0) -> tuple[I64, I64, I64, I64]:
        """Prices and sizes of the ``n`` best bids and asks (0: all), best first."""
        bids = self._bids.prices[: -n - 1 : -1] if n > 0 else self._bids.prices[::-1]
        asks = self._asks.prices[:n] if n > 0 else self._asks.prices
        return (
            np.array(bids, np.int64),
            np.array([self._bids.sizes[price] for price in bids], np.int64),
            np.array(asks, np.int64),
            np.array([self._asks.sizes[price] for price in asks], np.int64),
        )

    def rescale(self, price_factor: int, size_factor: int) -> bool:
        """Multiply everything; False where a value does not fit 64 bits, and the levels are then void.

        Raises ``ValueError`` for factors below 1.
        """
        if price_factor < 1 or size_factor < 1:
            raise ValueError("scales are only ever widened: factors must be at least 1")
        if not self._bids.fits(price_factor, size_factor) or not self._asks.fits(price_factor, size_factor):
            return False
        self._bids.rescale(price_factor, size_factor)
        self._asks.rescale(price_factor, size_factor)
        return True

    def follow(self, group: DepthGroup, start: int, id: int, fresh: bool, futures: bool, ts: int) -> Followed:
        """Apply the frames from ``start`` on while they continue ``id``.

        ``fresh``: ``id`` is a snapshot's, ``ts`` the event time reached (ns). Old frames are passed over.
        Ends at the frame that does not follow (``gap``), whose ids began anew (``restarted``), or that
        left the book ``crossed`` or ``overgrown``; in the last two cases its levels have been set.
        """
        rows = _rows(group)
        applied: list[Applied] = []
        dropped = 0
        for i in range(start, len(rows)):
            first, last, prev, ts_event, ts_recv, at, bid_end, ask_end = rows[i]
            if last < id or (last == id and not (futures and fresh)):
                if ts_event > ts + BACKWARDS:
                    return applied, i, "restarted", dropped
                dropped += 1
                continue
            if not _follows(first, prev, id, fresh, futures):
                return applied, i, "gap", dropped
            _set(self._bids, group.price[at:bid_end], group.size[at:bid_end])
            _set(self._asks, group.price[bid_end:ask_end], group.size[bid_end:ask_end])
            if len(self._bids.prices) > MOST_LEVELS or len(self._asks.prices) > MOST_LEVELS:
                return applied, i, "overgrown", dropped
            if self.crossed():
                return applied, i, "crossed", dropped
            id, ts, fresh = last, max(ts, ts_event), False
            applied.append((first, last, ts_event, ts_recv, at, bid_end, ask_end))
        return applied, max(start, len(rows)), "", dropped


def _follows(first: int, prev: int, id: int, fresh: bool, futures: bool) -> bool:
    if not futures:
        return first <= id + 1
    return 0 <= prev <= id if fresh else prev == id


def _rows(group: DepthGroup) -> list[tuple[int, ...]]:
    ends = group.ask_end.tolist()
    starts = [0, *ends[:-1]]
    columns = [c.tolist() for c in (group.first_id, group.last_id, group.prev_id, group.ts_event, group.ts_recv)]
    try:
        rows = list(zip(*columns, starts[: len(ends)], group.bid_end.tolist(), ends, strict=True))
    except ValueError:
        rows = [(0,) * 5 + (1, 0, 0)]
    most = len(group.price)
    if len(group.size) != most or not all(0 <= row[5] <= row[6] <= row[7] <= most for row in rows):
        raise ValueError("the columns of a depth group do not fit each other")
    return rows


def _set(side: _Side, prices: I64, sizes: I64) -> None:
    for price, size in zip(prices.tolist(), sizes.tolist(), strict=True):
        side.set(price, size)
