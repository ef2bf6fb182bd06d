"""Book differences, top levels and best prices, from the one book the market follows per instrument.

Update ids are the upstream venue's, so every replica prints the same, and REST and streams agree. A
difference always begins with the id behind the last one sent. When the upstream book starts anew, the next
difference leads from the state clients hold to the new one; when its ids do not go on (another id space),
no difference can say so and the sockets are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple, Protocol

import numpy as np
import structlog

from tapewick.gateways import _binance_rows as rows
from tapewick.gateways._binance_fanout import Stream
from tapewick.gateways._binance_symbols import Listed
from tapewick.market import Market
from tapewick.model import I64, BookUpdate, Quote

__all__ = ["Chain", "Differences", "Quotes", "Snapshot", "TopLevels", "update_id"]

log = structlog.get_logger()

BEHIND = 10.0  # seconds a new run may lag behind what was sent before the sockets are closed
RETRY = 1.0
FAST = 0.1  # seconds between the pushes of the streams that a snapshot waits for
Side = dict[int, int]


def update_id(update: BookUpdate) -> int:
    """The venue's id, or the position in the run where it gives none."""
    return update.last_id or update.seq


class ChainReader(Protocol):
    """Who is told of each step of a book."""

    def stepped(self, bids: Side, asks: Side, update: BookUpdate) -> None:
        """Levels changed (size 0: gone) and the book now stands at ``update``."""
        ...

    def broken(self) -> None:
        """The next steps do not continue the ones before."""
        ...

    def hurry(self) -> None:
        """Somebody is about to read the book over REST: send at once what would be sent soon."""
        ...


class Snapshot(NamedTuple):
    """Prices and sizes of both sides, best first, at update ``last_id``."""

    last_id: int
    bids: tuple[I64, I64]
    asks: tuple[I64, I64]
    scales: tuple[int, int]


class Chain:
    """One instrument's book as a chain of differences that never jumps, whatever happens upstream."""

    def __init__(self, market: Market, id: str) -> None:
        self._market, self._id = market, id
        self._loop = asyncio.get_running_loop()
        self.readers: set[ChainReader] = set()
        self.behind = BEHIND
        self._task: asyncio.Task[None] | None = None
        self._sent: tuple[Side, Side] | None = None  # levels as of ``last``
        self._book: tuple[Side, Side] = {}, {}  # levels as of the newest update
        self._scales = (0, 0)
        self._lagging: float | None = None
        self.last = 0

    @property
    def lagging(self) -> bool:
        """Whether the newest run's ids have not reached what was sent."""
        return self._lagging is not None

    def join(self, reader: ChainReader) -> None:
        self.readers.add(reader)
        if self._task is None:
            self._task = self._loop.create_task(self._follow(), name=f"book {self._id}")

    def leave(self, reader: ChainReader) -> bool:
        """Tell ``reader`` nothing more; whether nobody is left, and following has ended."""
        self.readers.discard(reader)
        if self.readers or self._task is None:
            return not self.readers
        self._task.cancel()
        self._task = self._sent = self._lagging = None
        return True

    async def _follow(self) -> None:
        while True:
            try:
                updates: AsyncGenerator[BookUpdate, None] = self._market.watch_book(self._id)
                async with aclosing(updates):
                    async for update in updates:
                        self.take(update)
            except Exception:
                log.exception("a book cannot be followed", instrument=self._id)
            await asyncio.sleep(RETRY)

    def snapshot(self, limit: int) -> Snapshot | None:
        """The best ``limit`` levels of each side as differences have told them; None while nothing is followed.

        Some clients apply every difference that comes after their snapshot without looking at its ids. So a
        snapshot is never ahead of the differences; the fast ones are sent up to it first.
        """
        if self._sent is None or not self.readers:
            return None
        for reader in tuple(self.readers):
            reader.hurry()
        bids = sorted(self._sent[0].items(), reverse=True)[:limit]
        asks = sorted(self._sent[1].items())[:limit]
        return Snapshot(self.last, _columns(bids), _columns(asks), self._scales)

    def take(self, update: BookUpdate) -> None:
        """The next update: a whole book, a difference to the one before, or only a change of state."""
        if update.state != "live":
            return
        bids, asks = _side(update.bid_price, update.bid_size), _side(update.ask_price, update.ask_size)
        if update.snapshot:
            self._book = bids, asks
        else:
            for side, news in zip(self._book, (bids, asks), strict=True):
                _apply(side, news)
        scales = (update.price_scale, update.size_scale)
        if self._sent is None or (scales != self._scales and self._scales != (0, 0)):
            self._start(update, told=self._sent is not None)
            return
        at = update_id(update)
        if update.snapshot or self._lagging is not None or at <= self.last:
            bids, asks = (_difference(old, new) for old, new in zip(self._sent, self._book, strict=True))
        if at <= self.last:
            self._lag(update, same=not bids and not asks)
            return
        self._lagging = None
        self._step(bids, asks, update)

    def _start(self, update: BookUpdate, *, told: bool) -> None:
        """Begin anew; what was sent before cannot be continued."""
        self._sent = dict(self._book[0]), dict(self._book[1])
        self._scales = (update.price_scale, update.size_scale)
        self.last, self._lagging = update_id(update), None
        if told:
            for reader in tuple(self.readers):
                reader.broken()

    def _step(self, bids: Side, asks: Side, update: BookUpdate) -> None:
        assert self._sent is not None
        _apply(self._sent[0], bids)
        _apply(self._sent[1], asks)
        for reader in tuple(self.readers):
            reader.stepped(bids, asks, update)
        self.last = update_id(update)

    def _lag(self, update: BookUpdate, *, same: bool) -> None:
        """Ids did not rise: another run may lag a little; one that does not catch up has other ids."""
        if same:
            self._lagging = None
            return
        now = self._loop.time()
        if self._lagging is None:
            self._lagging = now
        if now - self._lagging >= self.behind:
            self._start(update, told=True)


class Differences:
    """A ``depthUpdate`` stream: steps of the chain, joined to one event per ``every`` seconds."""

    def __init__(self, chain: Chain, listed: Listed, stream: Stream, every: float, now: Callable[[], int]) -> None:
        self._chain, self._listed, self._stream, self._every, self._now = chain, listed, stream, every, now
        self._loop = asyncio.get_running_loop()
        self._bids: Side = {}
        self._asks: Side = {}
        self._first = 0
        self._update: BookUpdate | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        self._chain.join(self)

    def close(self) -> None:
        self._chain.leave(self)
        self._cancel()

    async def tick(self) -> None:
        """Differences have their own pace."""

    def stepped(self, bids: Side, asks: Side, update: BookUpdate) -> None:
        if self._update is None:
            self._first = self._chain.last + 1
        self._bids.update(bids)
        self._asks.update(asks)
        self._update = update
        if self._loop.time() >= self._due:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self._flush)

    def broken(self) -> None:
        self._cancel()
        self._bids, self._asks, self._update = {}, {}, None
        self._stream.end("the order book starts anew")

    def hurry(self) -> None:
        if self._every <= FAST:
            self._flush()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._cancel()
        update, first = self._update, self._first
        if update is None:
            return
        scales = (update.price_scale, update.size_scale)
        bids, asks = _text(self._bids, -1, scales), _text(self._asks, 1, scales)
        self._bids, self._asks, self._update = {}, {}, None
        self._due = self._loop.time() + self._every
        last, ts = update_id(update), update.ts_event or self._now()
        self._stream.events(lambda unit: [rows.depth_event(self._listed, first, last, bids, asks, ts, unit)])


class TopLevels:
    """A partial depth stream: the best levels, whenever they may have changed, at most every ``every`` seconds."""

    def __init__(self, market: Market, chain: Chain, listed: Listed, stream: Stream, levels: int, every: float) -> None:
        self._market, self._chain, self._listed, self._stream = market, chain, listed, stream
        self._levels, self._every = levels, every
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        self._chain.join(self)
        self._push()

    def close(self) -> None:
        self._chain.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    async def tick(self) -> None:
        """Levels have their own pace."""

    def stepped(self, bids: Side, asks: Side, update: BookUpdate) -> None:
        if self._loop.time() >= self._due:
            self._push()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._due, self._push)

    def broken(self) -> None:
        """A partial book stands for itself."""

    def hurry(self) -> None:
        """A partial book is not followed by differences."""

    def _push(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        book, _ = self._market.books_of(self._listed.id)
        if not book.live:
            return
        self._due = self._loop.time() + self._every
        found, scales = book.levels(self._levels), (book.price_scale, book.size_scale)
        bids = rows.levels(found.bid_price, found.bid_size, *scales)
        asks = rows.levels(found.ask_price, found.ask_size, *scales)
        body = rows.depth(book.last_id or book.seq, bids, asks)
        self._stream.value(lambda unit: [body])


class Quotes:
    """A bookTicker stream: every best bid and ask as the venue announced it."""

    def __init__(self, market: Market, listed: Listed, stream: Stream) -> None:
        self._market, self._listed, self._stream = market, listed, stream
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=f"quotes {self._listed.id}")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def tick(self) -> None:
        """Quotes are sent as they come."""

    async def _follow(self) -> None:
        while True:
            try:
                quotes: AsyncGenerator[Quote, None] = self._market.watch_quotes(self._listed.id)
                async with aclosing(quotes):
                    async for quote in quotes:
                        self._send(quote)
            except Exception:
                log.exception("quotes cannot be followed", instrument=self._listed.id)
            await asyncio.sleep(RETRY)

    def _send(self, quote: Quote) -> None:
        body = rows.quote_event(self._listed, quote)
        self._stream.value(lambda unit: [body])


def _columns(side: list[tuple[int, int]]) -> tuple[I64, I64]:
    pairs = np.array(side, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _side(prices: I64, sizes: I64) -> Side:
    return dict(zip(prices.tolist(), sizes.tolist(), strict=True))


def _apply(side: Side, news: Side) -> None:
    for price, size in news.items():
        if size:
            side[price] = size
        else:
            side.pop(price, None)


def _difference(old: Side, new: Side) -> Side:
    """What turns ``old`` into ``new``; size 0 for levels that are gone."""
    changed = {price: size for price, size in new.items() if old.get(price) != size}
    changed.update((price, 0) for price in old if price not in new)
    return changed


def _text(side: Side, sign: int, scales: tuple[int, int]) -> str:
    """Changed levels, best first: bids fall (-1), asks rise (1)."""
    prices = np.array(sorted(side, key=lambda price: sign * price), np.int64)
    sizes = np.array([side[price] for price in prices.tolist()], np.int64)
    return rows.levels(prices, sizes, *scales)
