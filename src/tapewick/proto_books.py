"""Order books and best bids and asks as protobuf: ``Book`` and ``Quote`` messages in frames.

``book`` sends a snapshot, then what changed among the best ``levels``; ``book_top`` the whole best levels
each time, ``bbo`` the best bid and ask, both conflated.
"""

from __future__ import annotations

from tapewick import wire
from tapewick.book_channel import BookChannel
from tapewick.book_readers import differs
from tapewick.books import BookView
from tapewick.channel import Channel
from tapewick.ladder import EMPTY, Levels, changes
from tapewick.market import Market
from tapewick.model import BookUpdate, Quote
from tapewick.outbox import Limits

__all__ = ["BookReaders", "QuoteReaders", "whole_book"]


def whole_book(view: BookView, levels: int) -> BookUpdate:
    """The best ``levels`` of a book as they are; of one that is not live the last ones known, ``state`` says so."""
    shown = view.levels(levels) if view.run else EMPTY
    return _update(view, view.seq, view.first_id, shown, snapshot=True)


def _update(view: BookView, prev_seq: int, first_id: int, shown: Levels, *, snapshot: bool = False) -> BookUpdate:
    return BookUpdate(
        instrument=view.instrument,
        run=view.run,
        prev_seq=prev_seq,
        seq=view.seq,
        state=view.state,
        snapshot=snapshot,
        first_id=first_id,
        last_id=view.last_id,
        ts_event=view.ts_event,
        ts_recv=view.ts_recv,
        **shown._asdict(),
        price_scale=view.price_scale,
        size_scale=view.size_scale,
        source=view.source,
        detail=view.detail,
    )


class BookReaders(BookChannel):
    """``book`` and ``book_top``; who does not keep up gets the whole book again. ``every``: each ``book_top`` is
    sent, also to readers that do not keep up."""

    def __init__(self, market: Market, channel: Channel, limits: Limits, levels: int, *, every: bool = False) -> None:
        super().__init__(market, channel)
        self._limits, self._depth, self._every = limits, levels, every
        self._held: Levels | None = None  # what the readers hold; None: they wait for a snapshot
        self._run, self._seq, self._state, self._scales = "", 0, "", (0, 0)
        self._first_id, self._due = 0, 0.0

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        if not self._groups:
            return
        self._first_id = self._first_id or (0 if update is None else update.first_id)
        if update is None:
            self._flush()
        elif self._timer is None:
            top = self.channel.kind == "book_top" and self._loop.time() < self._due
            self._timer = self._loop.call_at(self._due, self._flush) if top else self._loop.call_soon(self._flush)

    async def _present(self) -> bytes:
        self._flush()
        view = self._view
        if self._held is None or self._seq != view.seq:
            self._hold(view, view.levels(self._depth))
        return self._frame("snapshot", whole_book(view, self._depth))

    def _hold(self, view: BookView, levels: Levels) -> None:
        self._held = levels if view.live else None
        self._run, self._seq, self._state, self._first_id = view.run, view.seq, view.state, 0
        self._scales = view.price_scale, view.size_scale

    def _frame(self, type: str, update: BookUpdate, kind: str = "") -> bytes:
        return wire.frame(type, update, channel=self.name, ts=self._market.now(), kind=kind)

    def _flush(self) -> None:
        """Bring the readers to where the book is."""
        self._unset()
        view = self._view
        if not any(self._groups.values()) or (view.run, view.seq, view.state) == (self._run, self._seq, self._state):
            return
        self._due = self._loop.time() + self._limits.flush_s
        levels = view.levels(self._depth)
        held, seq, first = self._held, self._seq, self._first_id
        same = view.run == self._run and (view.price_scale, view.size_scale) == self._scales
        self._hold(view, levels)
        if self.channel.kind == "book_top":
            write = self._write if self._every else self._write_latest
            write(self._frame("update", whole_book(view, self._depth)))
        elif not view.live:
            self._write(self._frame("update", _update(view, view.seq, view.first_id, EMPTY), "state"))
        elif held is None or not same:
            self._write(self._frame("snapshot", whole_book(view, self._depth)))
        else:
            self._write(self._frame("update", _update(view, seq, first, changes(held, levels)), "delta"))


class QuoteReaders(BookChannel):
    """``bbo``: the first change at once, then the newest every ``flush_s``. ``every``: each of them is sent."""

    def __init__(self, market: Market, channel: Channel, limits: Limits, *, every: bool = False) -> None:
        super().__init__(market, channel)
        self._limits, self._every = limits, every
        self._shown: Quote | None = None
        self._due = 0.0

    def book(self, view: BookView, update: BookUpdate | None) -> None:
        self._changed()

    def quoted(self, quote: Quote) -> None:
        self._changed()

    def _changed(self) -> None:
        if self._groups and self._timer is None:
            self._timer = self._loop.call_at(max(self._due, self._loop.time()), self._flush)

    async def _present(self) -> bytes:
        _, self._shown = self._market.books_of(self.channel.instrument)
        return self._frame("snapshot", self._shown)

    def _frame(self, type: str, quote: Quote | None) -> bytes:
        return wire.frame(type, quote, channel=self.name, ts=self._market.now())

    def _flush(self) -> None:
        self._timer = None
        _, quote = self._market.books_of(self.channel.instrument)
        if quote is not None and (self._shown is None or differs(quote, self._shown)):
            self._shown = quote
            self._due = self._loop.time() + self._limits.flush_s
            write = self._write if self._every else self._write_latest
            write(self._frame("update", quote))
