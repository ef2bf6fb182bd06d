"""An invented order book: the book of any time, computed from the market and its seed alone.

Time since the market's origin is cut into steps of 20 ms. The book after a step is a function of that
step: the best prices lie around the last trade, the levels behind them come and go each at its own
pace. A diff between two steps is their difference, so diffs of any cadence chain by construction, and
nothing is computed unless somebody asks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tapewick.sim.market import Market

__all__ = ["STEP_MS", "Best", "Book", "Levels"]

STEP_MS = 20
CELLS = 400  # places for a level on each side; one in eight is empty at any time
REACH = 0.003  # how far from the best price the book goes, as a share of it
IDS_PER_STEP = 8
FIRST_ID = 1_000
KEPT = 64
MOST_STEPS = 50  # of a pause longer than this second only the outcome is told: nobody was served in between
_MASK = 2**64 - 1


class Best(NamedTuple):
    """Best prices and their sizes as mantissas."""

    bid: int
    bid_size: int
    ask: int
    ask_size: int


class Levels(NamedTuple):
    """Price to size, both mantissas, best level first."""

    bids: dict[int, int]
    asks: dict[int, int]

    def since(self, old: Levels) -> Levels:
        """What changed since ``old``, best first; size 0 removes a level."""
        return Levels(_changes(old.bids, self.bids, down=True), _changes(old.asks, self.asks, down=False))


class Book:
    """The books of one market, by step. Step ``k`` ends at ``time(k)``; -1 is the book at the origin."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._start = market.origin - market.origin % 1000
        listing = market.listing
        self._cell = max(1, round(listing.price * 10.0**listing.price_scale * REACH / CELLS))
        self._unit = max(1, round(listing.size * 10.0**listing.size_scale * 4))
        self._salt = market.salt
        self._cache: OrderedDict[int, Levels] = OrderedDict()

    def step_at(self, now: int) -> int:
        """The newest step that has ended at ``now`` (UTC ms)."""
        return max((now - self._start) // STEP_MS - 1, -1)

    def time(self, step: int) -> int:
        """UTC ms at which ``step`` ends; trades before it are reflected."""
        return self._start + (step + 1) * STEP_MS

    def last_id(self, step: int) -> int:
        """The update id of the book after ``step``; each step takes several."""
        return FIRST_ID + IDS_PER_STEP * (step + 1) + _mix(self._salt, step, 1) % (IDS_PER_STEP - 2)

    def step_of(self, update_id: int) -> int:
        """The newest step whose ``last_id`` is not above ``update_id``; at least -1."""
        step = (update_id - FIRST_ID) // IDS_PER_STEP
        while step > -1 and self.last_id(step) > update_id:
            step -= 1
        return max(step, -1)

    def best(self, step: int) -> Best:
        """Best bid and ask after ``step``: one of them is the last trade's price."""
        price, maker = self._market.last_price(self.time(step))
        spread = 1 + _mix(self._salt, step // 25, 2) % 3
        bid = max(price if maker else price - spread, 1)
        pace = step // 15
        return Best(
            bid,
            1 + _mix(self._salt, bid, 3 + pace) % self._unit,
            bid + spread,
            1 + _mix(self._salt, bid + spread, 4 + pace) % self._unit,
        )

    def levels(self, step: int) -> Levels:
        """All levels after ``step``; some hundred per side, never crossed."""
        if (kept := self._cache.get(step)) is not None:
            self._cache.move_to_end(step)
            return kept
        best = self.best(step)
        low = np.arange(best.bid // self._cell, max(best.bid // self._cell - CELLS, -1), -1)
        high = np.arange(best.ask // self._cell, best.ask // self._cell + CELLS)
        bids, bid_sizes = self._side(0, low, step)
        asks, ask_sizes = self._side(1, high, step)
        below, above = (bids > 0) & (bids < best.bid), asks > best.ask
        made = Levels(
            {best.bid: best.bid_size} | dict(zip(bids[below].tolist(), bid_sizes[below].tolist(), strict=True)),
            {best.ask: best.ask_size} | dict(zip(asks[above].tolist(), ask_sizes[above].tolist(), strict=True)),
        )
        self._cache[step] = made
        if len(self._cache) > KEPT:
            self._cache.popitem(last=False)
        return made

    def changes(self, before: int, step: int) -> Levels:
        """Every level that changed after step ``before`` up to ``step``, as it is then; size 0 removes it.

        Also one that went and came back: a snapshot taken in between shows it otherwise.
        """
        after = self.levels(step)
        touched: tuple[dict[int, int], dict[int, int]] = ({}, {})
        old = self.levels(before)
        for number in range(max(before + 1, step - MOST_STEPS), step + 1):
            new = self.levels(number)
            for seen, changed in zip(touched, new.since(old), strict=True):
                seen.update(changed)
            old = new
        bids, asks = (
            {price: now.get(price, 0) for price in sorted(seen, reverse=down)}
            for seen, now, down in zip(touched, after, (True, False), strict=True)
        )
        return Levels(bids, asks)

    def _side(
        self, side: int, cells: npt.NDArray[np.int64], step: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Price and size of the level in each cell that has one at ``step``."""
        own = _mixed(cells, self._salt + side)
        price = cells * self._cell + (own % np.uint64(self._cell)).astype(np.int64)
        # Each level is replaced at its own pace, every 0.5 s to every 32 s, and at its own moment.
        period = np.int64(25) << ((own >> np.uint64(8)) % np.uint64(7)).astype(np.int64)
        epoch = (step + (own >> np.uint64(16)).astype(np.int64) % period) // period
        now = _mixed(epoch * np.int64(1_000_003) + cells, self._salt + side + 2)
        present = now % np.uint64(8) != 0
        size = 1 + ((now >> np.uint64(3)) % np.uint64(self._unit)).astype(np.int64)
        return price[present], size[present]


def _changes(old: dict[int, int], new: dict[int, int], *, down: bool) -> dict[int, int]:
    changed = dict(new.items() - old.items())
    changed.update(dict.fromkeys(old.keys() - new.keys(), 0))
    return {price: changed[price] for price in sorted(changed, reverse=down)}


def _mix(salt: int, *values: int) -> int:
    """A 61-bit draw from integers."""
    bits = salt
    for value in values:
        bits = ((bits ^ (value & _MASK)) * 0xBF58476D1CE4E5B9) & _MASK
        bits ^= bits >> 31
    return bits >> 3


def _mixed(values: npt.NDArray[np.int64], salt: int) -> npt.NDArray[np.uint64]:
    """A 61-bit draw per value."""
    bits = values.astype(np.uint64) ^ np.uint64(salt & _MASK)
    for shift, factor in ((32, 0xBF58476D1CE4E5B9), (29, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return (bits ^ (bits >> np.uint64(31))) >> np.uint64(3)
