"""All streams somebody reads, each with the feed that fills it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import structlog

from tapewick import metrics
from tapewick.errors import StoreError
from tapewick.gateways._binance_books import Chain, Differences, Quotes, Snapshot, TopLevels
from tapewick.gateways._binance_days import Desk, TickerFeed, TickersFeed
from tapewick.gateways._binance_fanout import Reader, Stream
from tapewick.gateways._binance_feeds import Bars, Feed, Seconds, ShiftedBars, TradeFeed
from tapewick.gateways._binance_names import Name, parsed
from tapewick.gateways._binance_query import busy
from tapewick.gateways._binance_symbols import Listed, Symbols
from tapewick.market import Market

__all__ = ["Streams"]

log = structlog.get_logger()

PULSE = 1.0
TURNS = 50  # ms a snapshot waits for the differences to come up to it
LOOK_AGAIN = 5  # pulses between two looks for symbols that were not there


@dataclass(eq=False, slots=True)
class _Entry:
    """A stream and its feed; None: nothing can fill it, or nothing yet."""

    stream: Stream
    name: Name | None
    feed: Feed | None = None
    opening: asyncio.Task[None] | None = None


class Streams:
    """Streams by name, made when first subscribed to and ended with their last reader.

    As at the venue, a name that means nothing can be subscribed to and stays silent; one whose symbol
    comes later begins to flow then.
    """

    def __init__(self, market: Market, symbols: Symbols, *, aggregate_raw: bool) -> None:
        self._market, self._symbols, self._aggregate_raw = market, symbols, aggregate_raw
        self._entries: dict[str, _Entry] = {}
        self.chains: dict[str, Chain] = {}
        self._sent: dict[str, int] = {}  # highest trade id sent, by stream, as long as the gateway lives
        self._desk = Desk(market)
        self._pulse: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the work that is done every second."""
        self._pulse = asyncio.create_task(self._beat(), name="binance streams")
        self._pulse.add_done_callback(_ended)

    @property
    def trouble(self) -> str | None:
        """Why streams no longer flow; None while they do."""
        if self._pulse is None or not self._pulse.done() or self._pulse.cancelled():
            return None
        return "the streams of the Binance protocol have ended; restart the gateway"

    async def stop(self) -> None:
        """End all feeds."""
        tasks = [task for task in (self._pulse, *(entry.opening for entry in self._entries.values())) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in self._entries.values():
            self._close(entry)
        self._entries.clear()

    async def join(self, reader: Reader, name: str) -> None:
        """Send ``name`` to ``reader`` from now on. Raises ``StoreError``, and nothing is sent."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(Stream(name), parsed(name))
            entry.opening = asyncio.create_task(self._open(entry), name=f"open {name[:40]}")
        entry.stream.join(reader)
        metrics.subscriptions.inc()
        try:
            assert entry.opening is not None
            await asyncio.shield(entry.opening)
        except BaseException:
            self.leave(reader, name)
            raise

    def leave(self, reader: Reader, name: str) -> None:
        """Send nothing more of ``name``."""
        entry = self._entries.get(name)
        if entry is None or reader not in entry.stream.readers:
            return
        entry.stream.leave(reader)
        metrics.subscriptions.dec()
        if not entry.stream.readers:
            del self._entries[name]
            self._close(entry)

    async def snapshot(self, id: str, limit: int) -> Snapshot | None:
        """The book as the difference streams of an instrument have told it; None if nobody reads them.

        It waits a moment for what the market's book has taken already. Raises ``Refused`` while another
        run has not caught up with what was told.
        """
        chain = self.chains.get(id)
        if chain is None or not chain.readers:
            return None
        book, _ = self._market.books_of(id)
        wanted = book.last_id or book.seq
        for _ in range(TURNS):
            if chain.last >= wanted and not chain.lagging:
                break
            await asyncio.sleep(0.001)
        if chain.lagging:
            raise busy("the order book starts anew")
        return chain.snapshot(limit)

    def reform(self, reader: Reader, names: Iterable[str]) -> None:
        """The reader's framing has changed."""
        for name in names:
            if (entry := self._entries.get(name)) is not None and reader in entry.stream.readers:
                entry.stream.leave(reader)
                entry.stream.join(reader)

    async def _open(self, entry: _Entry) -> None:
        feed = await self._feed(entry.stream, entry.name)
        if feed is None:
            return
        try:
            await feed.open()
        except BaseException:
            feed.close()
            raise
        entry.feed = feed

    async def _feed(self, stream: Stream, name: Name | None) -> Feed | None:
        """What fills ``stream``; None while nothing can."""
        if name is None:
            return None
        if not name.symbol:
            return TickersFeed(self._market, self._desk, self._symbols, stream, name)
        listed = await self._symbols.streamed(name.symbol)
        if listed is None:
            return None
        market = self._market
        if name.kind in ("depth", "levels"):
            return self._book(stream, name, listed)
        if name.kind == "bookTicker":
            return Quotes(market, listed, stream)
        if name.tf is not None:
            return self._bars(stream, name, listed)
        if name.kind in ("trade", "aggTrade"):
            raw = listed.instrument.granularity == "raw"
            serves = raw if name.kind == "trade" else (self._aggregate_raw or not raw)
            return TradeFeed(market, listed, stream, self._sent) if serves else None
        return TickerFeed(market, self._desk, listed, stream, name)

    def _bars(self, stream: Stream, name: Name, listed: Listed) -> Feed:
        assert name.tf is not None
        if name.tf.index == 0:
            return Seconds(self._market, listed, stream, name.tf)
        if name.zone and (name.tf.calendar or name.zone % name.tf.length):
            return ShiftedBars(self._market, listed, stream, name)
        return Bars(self._market, listed, stream, name.tf)

    def _book(self, stream: Stream, name: Name, listed: Listed) -> Feed:
        chain = self.chains.get(listed.id)
        if chain is None:
            chain = self.chains[listed.id] = Chain(self._market, listed.id)
        if name.kind == "levels":
            return TopLevels(self._market, chain, listed, stream, name.levels, name.every)
        return Differences(chain, listed, stream, name.every, self._market.now)

    @staticmethod
    def _close(entry: _Entry) -> None:
        if entry.opening is not None:
            entry.opening.cancel()
        if entry.feed is not None:
            entry.feed.close()
            entry.feed = None

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        beats, due = 0, loop.time()
        while True:
            due = max(due + PULSE, loop.time())
            await asyncio.sleep(due - loop.time())
            beats += 1
            for name, entry in list(self._entries.items()):
                if self._entries.get(name) is entry:  # it may have ended while another was waited for
                    await self._tick(entry, look=beats % LOOK_AGAIN == 0)

    async def _tick(self, entry: _Entry, *, look: bool) -> None:
        opened = entry.opening is not None and entry.opening.done()
        try:
            if entry.feed is not None:
                await entry.feed.tick()
            elif look and opened and entry.name is not None:
                # Not waited for: its last reader may leave meanwhile, and that cancels it.
                entry.opening = asyncio.create_task(self._open(entry), name=f"open {entry.stream.name[:40]}")
                entry.opening.add_done_callback(partial(_opened, entry.stream.name))
        except asyncio.CancelledError:
            pulse = asyncio.current_task()
            if pulse is None or pulse.cancelling():
                raise
            log.info("what a stream waited for was given up", stream=entry.stream.name[:80])
        except Exception as error:
            _failed(entry.stream.name, error)


def _ended(pulse: asyncio.Task[None]) -> None:
    if not pulse.cancelled():
        log.error("the streams of the Binance protocol have ended", exc_info=pulse.exception())


def _opened(name: str, opening: asyncio.Task[None]) -> None:
    if not opening.cancelled() and (error := opening.exception()) is not None:
        _failed(name, error)


def _failed(name: str, error: BaseException) -> None:
    if isinstance(error, StoreError):
        log.error("a stream could not be read", stream=name[:80], cause=str(error))
    else:
        log.error("a stream failed", stream=name[:80], exc_info=error)
