"""How things stand: instruments, order books, quotes, the health of streams.

``Market`` adds the past. Books travel on a subscription of their own: a flood of updates must not push
trades out of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Self

import structlog

from tapewick.book_readers import BookReader, QuoteReader
from tapewick.books import BookListener, Books, BookView
from tapewick.clock import Clock
from tapewick.conditions import Condition, ConditionListener
from tapewick.errors import NotFound, StoreError
from tapewick.live import BURST, Feed, Live
from tapewick.model import NO_TIME, BookUpdate, Health, Instrument, Quote
from tapewick.protocols import Bus, Delivery, Store

__all__ = ["Present"]

log = structlog.get_logger()

TOPICS = ("tape", "candles", "head", "instruments", "health", "wanted")


class Present:
    """The present of all instruments, from ``bus``; ``clock`` tells how old data is."""

    def __init__(self, bus: Bus, store: Store, clock: Clock) -> None:
        self._bus, self._store, self._clock = bus, store, clock
        self._live = Live(store)
        self._books = Books(clock.now)
        self._books.listen("", self._live.conditions)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        deliveries = self._bus.subscribe(TOPICS)
        books = self._bus.subscribe(("books",))
        for instrument in await self._store.instruments():
            self._live.know(instrument)
        self._tasks = [
            asyncio.create_task(self._live.run(deliveries), name="market"),
            asyncio.create_task(self._follow_books(books), name="market-books"),
            asyncio.create_task(self._watch_silence(), name="market-silence"),
            asyncio.create_task(self._watch_gaps(), name="market-gaps"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._live.stop()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and exc[0] is None:
                raise outcome

    @property
    def trouble(self) -> str | None:
        """Why live data no longer flows; None while it does."""
        return "the live feed has ended; restart the gateway" if any(task.done() for task in self._tasks) else None

    # -- instruments ---------------------------------------------------------------------------

    async def instruments(self) -> list[Instrument]:
        """Every instrument with a tape, by id."""
        for instrument in await self._store.instruments():
            self._live.know(instrument)
        return sorted((feed.instrument for feed in self._live.feeds.values()), key=lambda i: i.id)

    async def instrument(self, id: str) -> Instrument:
        """The instrument ``id``. Raises ``NotFound``, naming the known ones when they are few."""
        return (await self._feed(id)).instrument

    async def _feed(self, id: str) -> Feed:
        if id not in self._live.feeds:
            known = [instrument.id for instrument in await self.instruments()]
            if id not in self._live.feeds:
                hint = f"known: {' '.join(known)}" if 0 < len(known) <= 20 else "GET /v1/instruments lists them"
                raise NotFound(f"no instrument {id[:80]!r}; {hint}", field="instrument")
        return self._live.feeds[id]

    def now(self) -> int:
        """The clock's time in ns."""
        return self._clock.now()

    def data_age_ms(self, id: str) -> int | None:
        """Milliseconds from the newest trade seen to now; None if none was seen."""
        feed = self._live.feeds.get(id)
        if feed is None or feed.newest == NO_TIME:
            return None
        return max(0, self._clock.now() - feed.newest) // 1_000_000

    # -- books ---------------------------------------------------------------------------------

    async def book(self, id: str) -> BookView:
        """The order book of ``id``; its ``state`` tells whether it is live. Raises ``NotFound`` for an unknown
        instrument, and for one whose book nobody collects."""
        await self._feed(id)
        view = self._books.view(id)
        if id not in self._books.views:
            raise NotFound(
                f"no order book of {id} has been collected since the start; collect it from a source that offers "
                "depth, or ask for a stored one with ?at=TIME"
            )
        return view

    async def stored_book(self, id: str, at: int) -> BookUpdate:
        """The stored book at or before ``at`` (ns). Raises ``NotFound`` when there is none so old."""
        await self._feed(id)
        found = await self._store.book_at(id, at)
        if found is None:
            raise NotFound(
                f"no book of {id} was stored at or before this time; books.store_interval_s sets how often they are",
                field="at",
            )
        return found

    async def quote(self, id: str) -> Quote:
        """Best bid and ask: as the venue announces them, or from the live book where that is newer.

        Raises ``NotFound`` for an unknown instrument, and while neither is known.
        """
        await self._feed(id)
        quote = self._books.quote(id)
        if quote is None:
            raise NotFound(f"no best bid and ask of {id} is known; collect its depth or quotes and try again")
        return quote

    def books_of(self, id: str) -> tuple[BookView, Quote | None]:
        """Book and best bid and ask of a known instrument, as far as they are known."""
        return self._books.view(id), self._books.quote(id)

    def listen_book(self, id: str, listener: BookListener) -> None:
        """Tell ``listener`` of each change of the book and quotes of a known instrument, from now on."""
        self._books.listen(id, listener)

    def leave_book(self, id: str, listener: BookListener) -> None:
        """Tell it nothing more."""
        self._books.leave(id, listener)

    async def watch_book(self, id: str) -> AsyncGenerator[BookUpdate, None]:
        """The book as a snapshot, then every update of the same run; a snapshot again when the run changes, when
        updates were missed, and for a reader that fell far behind.

        While the book is not live, only updates that say so (``state``, ``detail``) come.
        """
        await self._feed(id)
        reader = BookReader(self._books.view(id))
        self._books.listen(id, reader)
        try:
            while True:
                for update in await reader.take():
                    yield update
        finally:
            self._books.leave(id, reader)

    async def watch_quotes(self, id: str) -> AsyncGenerator[Quote, None]:
        """Best bid and ask as ``quote`` knows them, now if known and after each change of a price or size."""
        await self._feed(id)
        reader = QuoteReader(self._books, id)
        self._books.listen(id, reader)
        try:
            while True:
                for quote in await reader.take():
                    yield quote
        finally:
            self._books.leave(id, reader)

    async def _follow_books(self, deliveries: AsyncIterator[Delivery]) -> None:
        taken = 0
        async for delivery in deliveries:
            if delivery.lost:
                self._books.lost()
            message = delivery.message
            if isinstance(message, BookUpdate | Quote) and message.instrument in self._live.feeds:
                if isinstance(message, BookUpdate):
                    self._books.take(message)
                else:
                    self._books.take_quote(message)
            delivery.ack()
            taken += 1
            if taken % BURST == 0:
                await asyncio.sleep(0)

    async def _watch_silence(self) -> None:
        while True:
            await self._clock.sleep(1)
            self._books.check()
            self._live.conditions.check(self._clock.now())

    # -- conditions ----------------------------------------------------------------------------

    def health(self) -> dict[tuple[str, str], Health]:
        """The last word of each (source, instrument) about its connection; instrument "": the whole source."""
        return self._live.conditions.streams

    async def listen_health(self, listener: ConditionListener) -> list[Condition]:
        """Tell ``listener`` of changes from now on; how things stand. Raises ``NotFound``."""
        if listener.instrument:
            await self._feed(listener.instrument)
        conditions = self._live.conditions
        conditions.listen(listener)
        return await self.conditions(listener.instrument)

    def leave_health(self, listener: ConditionListener) -> None:
        """Tell it nothing more."""
        self._live.conditions.leave(listener)

    async def conditions(self, id: str) -> list[Condition]:
        """How streams, gaps and books of ``id`` (of all with "") stand."""
        conditions = self._live.conditions
        for one in conditions.unknown([id] if id else list(self._live.feeds)):
            with suppress(NotFound):  # a store that was restored lacks it until its engine or its collector notices
                conditions.gaps(one, (await self._store.coverage(one)).gaps)
        return conditions.rows(id)

    async def _watch_gaps(self) -> None:
        """Read gaps again where they may have changed, at most once a second."""
        conditions = self._live.conditions
        while True:
            for id in await conditions.doubtful():
                try:
                    gaps = (await self._store.coverage(id)).gaps
                    if conditions.follows(id):
                        conditions.gaps(id, gaps)
                except (StoreError, NotFound) as error:
                    log.error("cannot read the gaps", instrument=id, cause=str(error))
                    conditions.hint(id)
            await asyncio.sleep(1)
