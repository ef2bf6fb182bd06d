"""Books and quotes as streams: what one reader has not taken yet, bounded."""

from __future__ import annotations

import asyncio
from collections import deque

from tapewick.books import Books, BookView
from tapewick.model import BookUpdate, Quote

__all__ = ["BookReader", "QuoteReader", "differs"]

HELD_BYTES = 1 << 20  # updates kept for one reader; beyond that it gets the whole book again
HELD_QUOTES = 1024  # quotes kept for one reader; beyond that the oldest go


class BookReader:
    """A ``BookListener``: a snapshot first, then each update of the same run, or only the state of a
    book that is not live."""

    def __init__(self, view: BookView) -> None:
        self._view = view
        self._queue: list[BookUpdate] = [view.update()]
        self._size = 0
        self._ready = asyncio.Event()
        self._ready.set()

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        self._view = view
        update = view.update() if update is None or update.snapshot else update
        self._size += update.nbytes
        if update.snapshot or self._size > HELD_BYTES:
            update = view.update()  # what was not taken is in it
            self._queue.clear()
            self._size = update.nbytes
        self._queue.append(update)
        self._ready.set()

    def quoted(self, quote: Quote) -> None:
        """Not part of the book."""

    async def take(self) -> list[BookUpdate]:
        """What has come, once something has."""
        await self._ready.wait()
        self._ready.clear()
        updates, self._queue, self._size = self._queue, [], 0
        return updates


class QuoteReader:
    """A ``BookListener``: best bid and ask whenever a price or size of them changes."""

    def __init__(self, books: Books, id: str) -> None:
        self._books, self._id = books, id
        self._queue: deque[Quote] = deque(maxlen=HELD_QUOTES)
        self._last: Quote | None = None
        self._ready = asyncio.Event()
        self._look()

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        self._look()

    def quoted(self, quote: Quote) -> None:
        self._look()

    def _look(self) -> None:
        quote = self._books.quote(self._id)
        if quote is not None and (self._last is None or differs(quote, self._last)):
            self._last = quote
            self._queue.append(quote)
            self._ready.set()

    async def take(self) -> list[Quote]:
        """What has come, once something has."""
        await self._ready.wait()
        self._ready.clear()
        quotes = list(self._queue)
        self._queue.clear()
        return quotes


def differs(one: Quote, other: Quote) -> bool:
    """Whether two quotes show other prices or sizes."""
    fields = ("bid", "bid_size", "ask", "ask_size", "price_scale", "size_scale")
    return any(getattr(one, name) != getattr(other, name) for name in fields)
