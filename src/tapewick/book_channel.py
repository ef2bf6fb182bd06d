"""What the channels made from one order book have in common."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from tapewick.books import BookView
from tapewick.channel import Channel
from tapewick.market import Market
from tapewick.model import BookUpdate, Quote
from tapewick.readers import Readers

__all__ = ["BookChannel"]


class BookChannel(Readers):
    """Readers of ``book``, ``book_top`` or ``bbo`` of one instrument: a ``BookListener`` of its book.

    ``_timer``: when what has changed is written, None while nothing waits.
    """

    def __init__(self, market: Market, channel: Channel) -> None:
        super().__init__(channel)
        self._market = market
        self._timer: asyncio.Handle | None = None

    async def open(self) -> None:
        self._market.listen_book(self.channel.instrument, self)

    def close(self) -> None:
        self._market.leave_book(self.channel.instrument, self)
        self._unset()

    @abstractmethod
    def book(self, view: BookView, update: BookUpdate | None) -> None: ...

    def quoted(self, quote: Quote) -> None:
        """Not part of the book."""

    def _unset(self) -> None:
        """Nothing waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _view(self) -> BookView:
        return self._market.books_of(self.channel.instrument)[0]
