"""All the simulated venue knows of one symbol: its trades, its book, its bars, its last 24 hours."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from tapewick.sim.bars import MINUTE, Bar, Bars
from tapewick.sim.book import Book, Levels
from tapewick.sim.market import Market
from tapewick.sim.numerals import amount
from tapewick.sim.recorded import Recorded

__all__ = ["DAY", "Symbol", "Tape", "Top"]

Tape: TypeAlias = Market | Recorded
DAY = 86_400_000


class Top(NamedTuple):
    """Best prices and sizes as the venue prints them, and the update id of the book they stand for."""

    update_id: int
    bid: str
    bid_size: str
    ask: str
    ask_size: str


class Symbol:
    """One symbol; ``book`` is None where a recording is served."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.name = tape.listing.symbol
        self.bars = Bars(tape)
        self.book = Book(tape) if isinstance(tape, Market) else None

    def at(self, now: int) -> int:
        """The symbol's own time when the venue's is ``now``: a recording is always as old as it is."""
        return now if isinstance(self.tape, Market) else self.tape.now()

    def day(self, now: int) -> Bar:
        """The last 24 hours as one bar; its window begins on a whole minute."""
        start = now - DAY
        return self.bars.bar(start - start % MINUTE, now, now)

    def price(self, mantissa: int) -> str:
        return amount(mantissa, self.tape.listing.price_scale)

    def size(self, mantissa: int) -> str:
        return amount(mantissa, self.tape.listing.size_scale)

    def value(self, mantissa: int) -> str:
        """A product of price and size."""
        return amount(mantissa, self.tape.listing.price_scale + self.tape.listing.size_scale)

    def rows(self, levels: dict[int, int], limit: int | None = None) -> list[tuple[str, str]]:
        """Levels as the venue prints them."""
        return [(self.price(price), self.size(size)) for price, size in list(levels.items())[:limit]]

    def snapshot(self, limit: int, now: int) -> dict[str, Any] | None:
        """The body of a depth answer; None while a recording has not told its book."""
        if isinstance(self.tape, Recorded):
            return self.tape.book.snapshot(limit) if self.tape.book.last_id else None
        assert self.book is not None
        step = self.book.step_at(now)
        bids, asks = self.book.levels(step)
        return {
            "lastUpdateId": self.book.last_id(step),
            "bids": self.rows(bids, limit),
            "asks": self.rows(asks, limit),
        }

    def top(self, now: int) -> Top:
        """The best prices of this moment; zeros while a recording has not told its book."""
        if self.book is not None:
            step = self.book.step_at(now)
            bid, bid_size, ask, ask_size = self.book.best(step)
            return Top(
                self.book.last_id(step), self.price(bid), self.size(bid_size), self.price(ask), self.size(ask_size)
            )
        body = self.snapshot(1, now) or {"lastUpdateId": 0, "bids": [], "asks": []}
        nothing = amount(0, 8), amount(0, 8)
        bid_row, ask_row = (body[side][0] if body[side] else nothing for side in ("bids", "asks"))
        return Top(body["lastUpdateId"], *bid_row, *ask_row)

    def book_at(self, update_id: int) -> Levels:
        """The book after the newest update not above ``update_id``."""
        assert self.book is not None, "a recording has no book to ask for"
        return self.book.levels(self.book.step_of(update_id))
