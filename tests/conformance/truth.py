"""What is true of the simulated venue, from its market alone: trades by id, bars and statistics as plain folds.

Bars are folded here, in decimals and one trade at a time, and not asked of the venue: its own
bars are under test as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from tapewick.sim.book import Book
from tapewick.sim.market import LISTING, Listing, Market, SimTrade

__all__ = ["STEPS", "Truth", "fold"]

ZERO = Decimal(0)
STEPS = {"1s": 1_000, "1m": 60_000, "5m": 300_000, "1h": 3_600_000}


def fold(trades: Sequence[SimTrade]) -> dict[str, Any]:
    """A bar's values over ``trades``, which are in order of id and at least one."""
    prices = [Decimal(trade.price) for trade in trades]
    sizes = [Decimal(trade.size) for trade in trades]
    quotes = [price * size for price, size in zip(prices, sizes, strict=True)]
    bought = [not trade.buyer_is_maker for trade in trades]
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": sum(sizes, ZERO),
        "quote_volume": sum(quotes, ZERO),
        "trades": len(trades),
        "taker_buy_volume": sum((size for size, taken in zip(sizes, bought, strict=True) if taken), ZERO),
        "taker_buy_quote_volume": sum((quote for quote, taken in zip(quotes, bought, strict=True) if taken), ZERO),
        "first_id": trades[0].id,
        "last_id": trades[-1].id,
    }


class Truth:
    """One symbol of a venue started with these parameters."""

    def __init__(self, symbol: str, *, seed: int, rate: float, origin: int) -> None:
        self.origin = origin
        self.listing: Listing = LISTING[symbol]
        self._market = Market(self.listing, seed=seed, rate=rate, origin=origin)
        self._book = Book(self._market)

    def trade(self, id: int) -> SimTrade:
        return self._market.trades(id, id)[0]

    def between(self, first_id: int, last_id: int) -> list[SimTrade]:
        return self._market.trades(first_id, last_id)

    def during(self, start: int, end: int) -> list[SimTrade]:
        """The trades between two times, UTC ms, the end left out."""
        return self.between(self._market.first_id_at(start), self._market.last_id(end))

    def bar(self, open_time: int, step: int, trades: int | None = None) -> dict[str, Any]:
        """The bar that opens at ``open_time`` and lasts ``step`` ms, or what its first ``trades`` made of it.

        Without any it stands at the last trade before it, in the venue's way: nothing traded, ids -1.
        """
        first, end = self._market.first_id_at(open_time), self._market.first_id_at(open_time + step)
        if trades is not None:
            end = min(end, first + trades)
        if end > first:
            return fold(self.between(first, end - 1))
        last = Decimal(self.trade(first - 1).price)
        prices = dict.fromkeys(("open", "high", "low", "close"), last)
        sums = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
        return prices | dict.fromkeys(sums, ZERO) | {"trades": 0, "first_id": -1, "last_id": -1}

    def levels(self, update_id: int, count: int) -> dict[str, list[tuple[Decimal, Decimal]]] | None:
        """The best ``count`` levels of each side at an update id; None if no state of the book has this id."""
        step = self._book.step_of(update_id)
        if self._book.last_id(step) != update_id:
            return None
        return {
            name: [self._level(price, size) for price, size in list(side.items())[:count]]
            for name, side in self._book.levels(step)._asdict().items()
        }

    def best(self, start: int, end: int) -> set[tuple[Decimal, ...]]:
        """Every best bid, its size, best ask, its size between two times, UTC ms."""
        steps = range(self._book.step_at(start), self._book.step_at(end) + 1)
        bests = {self._book.best(step) for step in steps}
        return {(*self._level(b.bid, b.bid_size), *self._level(b.ask, b.ask_size)) for b in bests}

    def _level(self, price: int, size: int) -> tuple[Decimal, Decimal]:
        return Decimal(price).scaleb(-self.listing.price_scale), Decimal(size).scaleb(-self.listing.size_scale)

    @cached_property
    def volumes(self) -> dict[Decimal, int]:
        """Volume since the origin -> id of the last trade it counts, as far as needed for a test's minutes."""
        told: dict[Decimal, int] = {}
        total = Decimal(0)
        for trade in self.between(1, self._market.last_id(self.origin + 3_600_000)):
            total += Decimal(trade.size)
            told[total] = trade.id
        return told
