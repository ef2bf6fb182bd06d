"""All a gateway sees: stored history and live data as one stream.

``Market`` answers history from the store, completed by the open candles the engine
announces, and ``watch`` goes from history to live without hole or duplicate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Self

from tapewick.channel import Batch, Channel, Listener, Page, Reader, span
from tapewick.clock import Clock
from tapewick.errors import NotFound
from tapewick.history import FAR, CandleAnswer, Fill, History, Price, Window
from tapewick.intake import Intake
from tapewick.model import CandleBatch, Floor, Head, TapeState, Wanted
from tapewick.protocols import Bus, ScanStore, Store
from tapewick.watches import Watches

__all__ = ["FAR", "CandleAnswer", "Fill", "Market", "Price", "Window"]

PAGE = 1000  # records a resume reads at once


class Market(History):
    """History from ``store``, live data from ``bus``; ``clock`` tells how old data is.

    The past is in ``History``; instruments, books, quotes and health are in ``Present``.
    """

    def __init__(self, bus: Bus, store: Store, clock: Clock) -> None:
        super().__init__(bus, store, clock)
        self._watches = Watches(bus, store, self.health)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._tasks.append(asyncio.create_task(self._watches.follow(), name="market-watches"))
        return self

    async def head(self, id: str) -> Head:
        """How far the tape of ``id`` is committed."""
        await self._feed(id)
        return await self._store.head(id)

    async def standing(self, id: str) -> Head:
        """Where live data of ``id`` begin for who comes now: how far they were forwarded to those who listen already,
        without asking the store; without any, its head."""
        feed = await self._feed(id)
        live = feed.listeners and feed.epoch and feed.filling is None
        return feed.head if live else await self._store.head(id)

    async def floor(self, channel: Channel) -> Floor:
        """What the store has let go of a channel's records."""
        await self._feed(channel.instrument)
        return await self._store.floor(channel.instrument, 0 if channel.tf is None else channel.tf.index)

    async def coverage(self, id: str) -> TapeState:
        """Id ranges the tape holds completely, gaps and head."""
        await self._feed(id)
        return await self._store.coverage(id)

    async def repair(self, wanted: Wanted) -> None:
        """Have the engine ask the venue for these ids; without any, again for all that the tape lacks."""
        await self._feed(wanted.instrument)
        await self._bus.publish("repairs", wanted)

    def intake(self, patience: float = 10.0) -> Intake:
        """The way in for trades of other programs; ``patience``: seconds they may take to be committed."""
        return Intake(self._bus, self._store, patience)

    def watches(self) -> Watches:
        """What is collected at run time."""
        return self._watches

    def scans(self) -> ScanStore:
        """On-chain orders. Raises ``NotFound`` where the store keeps none."""
        if not isinstance(self._store, ScanStore):
            raise NotFound("this store keeps no on-chain orders")
        return self._store

    # -- history and live, joined --------------------------------------------------------------

    async def attach(self, channel: Channel, listener: Listener) -> Head:
        """Forward live data of ``channel`` to ``listener`` from the returned head on.

        Load history after attaching and drop from the live data what it holds (``Seam``): then
        nothing is missing and nothing comes twice. Raises ``NotFound``.
        """
        await self._feed(channel.instrument)
        return await self._live.attach(channel, listener)

    def detach(self, channel: Channel, listener: Listener) -> None:
        """Forward nothing more."""
        self._live.detach(channel, listener)

    def forwarded(self, id: str) -> Head:
        """How far live data of a known instrument has been forwarded."""
        return self._live.feeds[id].head

    async def page(self, channel: Channel, after: int, limit: int = PAGE) -> Page:
        """The next durable records of ``channel`` after offset ``after``, by offset."""
        if channel.tf is None:
            trades, _ = await self.trades(channel.instrument, since=after, limit=limit)
            return Page(trades, max(after, span(trades)[1]), len(trades) >= limit)
        answer, more = await self.changes(channel.instrument, channel.tf, after, limit)
        return Page(answer.batch, max(after, span(answer.batch)[1]), more)

    async def snapshot(self, channel: Channel, count: int, start: int | None = None) -> Page:
        """The newest ``count`` records (from ``start`` ns on: the first), and the offset they stand for.

        Trades from a time on: the tape behind that place, late ones with older times too, so that none of their
        offsets is missing.
        """
        newest, since = start is None, None
        if channel.tf is None:
            if start is not None:
                first, head = await self.trades(channel.instrument, start=start, limit=1)
                since = span(first)[0] - 1 if len(first) else head.seq
            trades, head = await self.trades(channel.instrument, since=since, limit=count, newest=newest)
            return Page(trades, span(trades)[1] if len(trades) else head.seq, not newest and len(trades) >= count)
        answer = await self.candles(channel.instrument, channel.tf, Window(start, None, count, newest))
        while not newest and not len(answer.batch.rows) and answer.reached < answer.head.watermark:
            answer = await self.candles(channel.instrument, channel.tf, Window(answer.reached, None, count))
        rows = len(answer.batch.rows)
        more = not newest and rows > 0 and (rows >= count or answer.reached < answer.head.watermark)
        return Page(answer.batch, answer.head.pos, more)

    async def watch(
        self, channel: Channel, *, since: int | None = None, snapshot: int = 1
    ) -> AsyncGenerator[Batch, None]:
        """Stored records after offset ``since`` (or the newest ``snapshot`` ones), then live ones.

        Durable batches come without hole or duplicate, provisional open candles in between.
        A reader that falls ``HELD_BYTES`` behind is served from the store again.
        """
        reader = Reader()
        await self.attach(channel, reader)
        offset = since
        try:
            while True:
                reader.rewind()
                page = await (self.snapshot(channel, snapshot) if offset is None else self.page(channel, offset))
                offset = page.offset
                if span(page.batch)[1] >= 0:
                    yield page.batch
                if page.more or reader.seam.broken:
                    continue
                reader.settle(offset)
                while (batches := await reader.take()) is not None:
                    for batch in batches:
                        if not (isinstance(batch, CandleBatch) and batch.provisional):
                            offset = span(batch)[1]
                        yield batch
                offset = None if reader.new_epoch else offset
        finally:
            self.detach(channel, reader)
