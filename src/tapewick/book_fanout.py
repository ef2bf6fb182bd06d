"""Channels ``book``, ``book_top`` and ``bbo``: from one book to many readers.

The book of a channel is its best ``levels``, exactly: what leaves them is removed, what enters them is
added, so a client that applies every delta holds at each ``seq`` the same levels as we do.
"""

from __future__ import annotations

from tapewick.book_channel import BookChannel
from tapewick.book_frames import book_json, delta_json, quote_json, state_json
from tapewick.book_readers import differs
from tapewick.books import BookView
from tapewick.channel import Channel
from tapewick.ladder import EMPTY, Levels, changes
from tapewick.market import Market
from tapewick.model import BookUpdate, Quote
from tapewick.outbox import Limits

__all__ = ["BookFanout", "LatestBook"]


class BookFanout(BookChannel):
    """``book``: a snapshot, then deltas; readers that do not keep up get a snapshot again."""

    def __init__(self, market: Market, channel: Channel, levels: int) -> None:
        super().__init__(market, channel)
        self._depth = levels
        self._held: Levels | None = None  # what the readers hold; None: they wait for a snapshot
        self._run, self._seq, self._scales = "", 0, (0, 0)  # of what they hold
        self._first_id = 0  # of the first update they have not got; 0 if there is none

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        if update is None:
            self._held = None
            self._write(self._head("update", self._market.now(), b',"kind":"state"') + state_json(view) + b"]}")
            return
        self._first_id = self._first_id or update.first_id
        if self._timer is None and self._groups:
            self._timer = self._loop.call_soon(self._flush)

    async def _present(self) -> bytes:
        self._flush(whole=True)
        view = self._view
        levels = view.levels(self._depth)
        self._hold(view, levels)
        return self._snapshot(view, levels)

    def _snapshot(self, view: BookView, levels: Levels) -> bytes:
        return self._head("snapshot", self._market.now()) + book_json(view, levels) + b"]}"

    def _hold(self, view: BookView, levels: Levels) -> None:
        self._held = levels if view.live else None
        self._run, self._seq, self._first_id = view.run, view.seq, 0
        self._scales = view.price_scale, view.size_scale

    def _flush(self, *, whole: bool = False) -> None:
        """Bring the readers to where the book is. ``whole``: even if none of their levels changed."""
        self._unset()
        view = self._view
        if not view.live or not any(self._groups.values()):
            return
        levels = view.levels(self._depth)
        same = view.run == self._run and (view.price_scale, view.size_scale) == self._scales
        if self._held is None or not same:
            self._hold(view, levels)
            self._write(self._snapshot(view, levels))
        elif view.seq != self._seq:
            changed = changes(self._held, levels)
            if changed or whole:
                text = delta_json(view, self._seq, self._first_id, changed)
                self._hold(view, levels)
                self._write(self._head("update", self._market.now(), b',"kind":"delta"') + text + b"]}")


class LatestBook(BookChannel):
    """``book_top`` (the whole best ``levels``) and ``bbo`` (``levels`` 0): the first change at once, then
    the newest every ``flush_s``; changes of state at once. ``every``: also to readers that do not keep up."""

    def __init__(
        self, market: Market, channel: Channel, limits: Limits, levels: int = 0, *, every: bool = False
    ) -> None:
        super().__init__(market, channel)
        self._limits, self._depth, self._every = limits, levels, every
        self._shown: tuple[str, Levels] | Quote | None = None
        self._due = 0.0

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        if update is None:
            self._due = 0.0
        self._changed()

    def quoted(self, quote: Quote) -> None:
        if not self._depth:
            self._changed()

    def _changed(self) -> None:
        if not self._groups:
            return
        if self._loop.time() >= self._due:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self._flush)

    async def _present(self) -> bytes:
        self._flush()
        self._news()  # what this reader is shown is known to all
        return self._head("snapshot", self._market.now()) + self._data() + b"]}"

    def _flush(self) -> None:
        self._unset()
        if self._groups and self._news():
            self._due = self._loop.time() + self._limits.flush_s
            write = self._write if self._every else self._write_latest
            write(self._head("update", self._market.now()) + self._data() + b"]}")

    def _news(self) -> bool:
        """Whether what would be shown differs from what was."""
        view, quote = self._market.books_of(self.channel.instrument)
        before = self._shown
        if not self._depth:
            self._shown = quote
            if quote is None or not isinstance(before, Quote):
                return quote is not before
            return differs(quote, before)
        levels = view.levels(self._depth)
        self._shown = view.state, levels
        return not isinstance(before, tuple) or before[0] != view.state or bool(changes(before[1], levels))

    def _data(self) -> bytes:
        view, quote = self._market.books_of(self.channel.instrument)
        if self._depth:
            return book_json(view, view.levels(self._depth) if view.run else EMPTY)
        return b"" if quote is None else quote_json(quote)
