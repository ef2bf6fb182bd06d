"""Live data from Binance: which addresses, which streams, what an instrument is. No reconnecting
(``net/websocket.py``), no parsing (``engine.Decoder``), no book arithmetic (``engine/book.py``), no repair
of what was missed (``_binance_repair.py``), no question about silent markets (``_binance_silences.py``).

The source never gives up: an unreachable or refusing venue becomes ``Health`` events with the
cause and the remedy, and it tries again for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

from tapewick import metrics
from tapewick.clock import Clock, RealClock
from tapewick.engine import Decoder, DepthGroup, QuoteGroup, Rest
from tapewick.errors import ConfigError, SourceError
from tapewick.model import BookUpdate, Event, Health, Instrument, TradeBatch
from tapewick.net.backoff import Backoff
from tapewick.net.inbox import Inbox, Thrift, Wakeup
from tapewick.net.venue_client import VenueClient
from tapewick.net.websocket import MAX_STREAMS, Feed, LinkChange, LinkEnded, StreamsBegun, StreamsRefused
from tapewick.sources._binance_advice import Reports, advised
from tapewick.sources._binance_batches import Batches
from tapewick.sources._binance_books import Books, Fetched
from tapewick.sources._binance_listing import PRODUCTS, addresses, checked, listed
from tapewick.sources._binance_silences import Silences
from tapewick.sources._binance_streams import Channel, Streams, channel_of
from tapewick.sources._binance_time import VenueTime, headers
from tapewick.watchdog import Watchdog

__all__ = ["PRODUCTS", "BinanceSource"]

STREAMS_PER_CONNECTION = MAX_STREAMS
TICK = 1.0
LISTING_EVERY = 3600.0


class _Tick(NamedTuple):
    """The venue's clock (ns) at this place in the order of events."""

    clock: int


Control: TypeAlias = (
    LinkChange
    | LinkEnded
    | StreamsBegun
    | StreamsRefused
    | Fetched
    | _Tick
    | Instrument
    | Health
    | BookUpdate
    | TradeBatch
)


class BinanceSource:
    """Live data of ``symbols`` at one market kind of Binance, or at whatever speaks its protocol.

    ``wished``: symbols to collect where the venue lists them, as ``watch`` does.
    ``venue`` is the prefix of instrument ids and picks the ``Product``. ``rest_url`` / ``ws_url`` replace
    its addresses; the product's own others stay as fallback only beside one of them. ``stream``: raw trades or
    the venue's aggregates. ``books``: also order books of ``book_levels`` levels and best bids and asks.
    ``spare``: further channels, whose frames are handed raw to ``on_spare`` and are never data here.
    ``redundant``: everything over two connections. ``microseconds``: ask for times in µs. ``share`` of
    ``limit``: the request weight per minute that is ours. ``tap`` and ``snapshot_tap`` are given raw frames
    and REST books for a recording.

    Counters: ``rejects`` (quarantined by reason), ``others`` (frames that are nothing wanted, by kind),
    ``jumps`` (holes seen in ids, by instrument). ``clock_offset``: venue minus local time in ns.
    """

    pull = False

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        venue: str = "binance",
        wished: Sequence[str] = (),
        rest_url: str | None = None,
        ws_url: str | None = None,
        stream: Literal["trade", "aggTrade"] = "trade",
        books: bool = False,
        book_levels: int = 1000,
        spare: Sequence[Channel] = (),
        on_spare: Callable[[Rest], None] | None = None,
        redundant: bool = False,
        microseconds: bool = False,
        share: float = 0.5,
        limit: int = 6000,
        tap: Callable[[Wakeup], None] | None = None,
        snapshot_tap: Callable[[str, bytes, int], None] | None = None,
        clock: Clock | None = None,
        idle: float = 60.0,
        retry_cap: float = 60.0,
    ) -> None:
        if venue not in PRODUCTS and not (rest_url and ws_url):
            raise ConfigError(f"{venue!r} is no venue of this source; use one of {' '.join(PRODUCTS)}")
        self.name = venue
        self.rejects: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self._product = PRODUCTS.get(venue, PRODUCTS["binance"])
        self._wanted = dict.fromkeys(checked(symbol) for symbol in symbols)
        self._configured = tuple(self._wanted)
        if not self._wanted and not wished:
            raise ConfigError(f"no symbol to collect: name at least one, as in {venue}:BTCUSDT")
        self._rest_urls = addresses(rest_url, self._product.rest)
        self._ws_urls = addresses(ws_url, self._product.ws)
        self._stream: Literal["trade", "aggTrade"] = stream
        self._query = "?timeUnit=MICROSECOND" if microseconds else ""
        self._headers = headers(self._product, microseconds=microseconds)
        self._redundant, self._tap = redundant, tap
        self._weights = {"share": share, "limit": limit}
        self._clock = clock or RealClock()
        self._time = VenueTime(f"{self._product.root}/time", self._clock, self.rejects)
        self._idle = idle
        self._retry_cap = retry_cap
        self._spare, self._on_spare = tuple(spare), on_spare
        self._instruments: dict[str, Instrument] = {}
        self._decoder = Decoder(books=books or bool(spare))
        self._batches = Batches(venue)
        self._ticking = False
        self._wishes: asyncio.Queue[list[str]] = asyncio.Queue()
        self.watch(wished)
        self._streams: Streams | None = None
        self.watchdog = Watchdog(venue)
        self.inbox: Inbox[Control] = Inbox()
        metrics.watch_queue(f"frames of {venue}", self.inbox, lambda inbox: inbox.size)
        self._reports = Reports(venue, self._clock, self.inbox.put)
        self._silences = Silences(
            self._product, venue, stream, self._clock, self.inbox.put, self.rejects, retry_cap=retry_cap
        )
        self.books: Books | None = None
        if books:
            put = self.inbox.put
            self.books = Books(
                self._product,
                venue,
                self._clock,
                put,
                levels=book_levels,
                retry_cap=retry_cap,
                snapshot_tap=snapshot_tap,
            )

    @property
    def addresses(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """REST and WebSocket base addresses in the order they are tried."""
        return self._rest_urls, self._ws_urls

    @property
    def clock_offset(self) -> int:
        return self._time.offset

    @property
    def jumps(self) -> Counter[str]:
        return self._batches.jumps

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is collected now."""
        return tuple(self._wanted)

    def watch(self, symbols: Sequence[str]) -> None:
        """Collect ``symbols`` too. One the venue does not list is reported as health and left out.

        Raises ``ConfigError`` for what cannot be a symbol.
        """
        fresh = [symbol for symbol in dict.fromkeys(map(checked, symbols)) if symbol not in self._wanted]
        self._wanted.update(dict.fromkeys(fresh))
        if fresh:
            self._wishes.put_nowait(fresh)

    def unwatch(self, symbols: Sequence[str]) -> None:
        """Collect ``symbols`` no longer."""
        for symbol in map(checked, symbols):
            self._wanted.pop(symbol, None)
            self._drop(symbol)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Instruments, then batches, books and quotes, clock ticks each second, and health; never ends.

        Raises ``ConfigError`` when the venue does not list a symbol. Nothing the network does
        is raised.
        """
        work = asyncio.create_task(self._run())
        work.add_done_callback(self._ended)
        thrift = Thrift()
        try:
            while True:
                item = await self.inbox.get()
                count = 0
                for event in self._translated(item):
                    count += 1
                    yield event
                thrift.spend(count)
                await thrift.rest()
        finally:
            work.cancel()
            await asyncio.wait({work})

    # From what the network brings to events.

    def _translated(self, item: Wakeup | Control) -> Iterable[Event]:
        if isinstance(item, Wakeup):
            return self._decoded(item)
        if isinstance(item, _Tick):
            self._ticking = False
            return self._ticks(item.clock)
        if isinstance(item, LinkChange):
            return self._link_changed(item)
        if isinstance(item, LinkEnded):
            return self._link_ended(item)
        if isinstance(item, StreamsBegun):
            return self._streams_begun(item)
        if isinstance(item, Fetched):
            return self.books.fetched(item) if self.books is not None else ()
        if isinstance(item, StreamsRefused):
            detail = f"{item.detail}: {', '.join(item.streams[:5])}"
            return (Health(source=f"{self.name} streams", state="refused", ts=item.ts, detail=detail),)
        return (item,)

    def _link_changed(self, item: LinkChange) -> Iterable[Event]:
        self.rejects["oversize"] += item.feed.take_oversize()
        up = item.state == "connected"
        if self._streams is not None:
            pairs = [(self._id(symbol), channel) for symbol, channel in self._streams.carried(item.feed)]
            self.watchdog.linked(up, item.ts, pairs)
        if up:
            self._batches.reconnected()
        detail = item.detail if up else advised(item.detail, item.status)
        return (Health(source=self.name, state=item.state, ts=item.ts, detail=detail),)

    def _streams_begun(self, item: StreamsBegun) -> Iterable[Event]:
        found = (channel_of(stream) for stream in item.streams)
        symbols = (each[0] for each in found if each is not None and each[1] == self._stream)
        self._silences.expect(symbol for symbol in symbols if symbol in self._instruments)
        return ()

    def _link_ended(self, item: LinkEnded) -> Iterable[Event]:
        if self.books is None or self._streams is None:
            return ()
        symbols = {symbol for symbol, channel in self._streams.carried(item.feed) if channel == "depth"}
        return self.books.link_ended(item.feed, item.link, symbols)

    def _ticks(self, clock: int) -> Iterator[Event]:
        for instrument in self._instruments.values():
            yield TradeBatch.empty(instrument.id, clock=clock, source=self.name)
        now = self._clock.now()
        if self.books is not None:
            yield from self.books.wholes(now)
        findings = self.watchdog.check(now)
        for change in findings.changes:
            yield change.health()
            if self.books is not None and (change.channel, change.state) == ("depth", "stale"):
                yield from self.books.silent(change.instrument.partition(":")[2], change.detail)
        if findings.resubscribe and self._streams is not None:
            self._streams.resubscribe((id.partition(":")[2], channel) for id, channel in findings.resubscribe)

    def _decoded(self, wakeup: Wakeup) -> list[Event]:
        decoded = self._decoder.frames(wakeup.frames, wakeup.recv)
        if decoded.rejects:
            self.rejects.update(decoded.rejects)
        if decoded.others:
            self.others.update(decoded.others)
            if any("serverShutdown" in kind for kind in decoded.others):
                wakeup.feed.renew()
        recv = int(decoded.last_recv)
        events: list[Event] = []
        for group in decoded.groups:
            instrument = self._instruments.get(group.symbol)
            if instrument is None or group.kind != self._stream:
                self.others[f"unwanted {group.kind}"] += len(group.trade_id)
                continue
            self.watchdog.saw(instrument.id, group.kind, recv)
            self._silences.heard(group.symbol)
            events.append(self._batches.trades(instrument.id, group, recv + self._time.offset))
        if self.books is not None:
            self._add_books(events, self.books, wakeup, decoded.depth, decoded.quotes)
        for rest in decoded.rest:
            self._hand_over(rest)
        return events

    def _add_books(
        self, events: list[Event], books: Books, wakeup: Wakeup, depth: list[DepthGroup], quotes: list[QuoteGroup]
    ) -> None:
        for changes in depth:
            self.watchdog.saw(self._id(changes.symbol), "depth", int(changes.ts_recv[-1]))
            events += books.depth(wakeup.feed, wakeup.link, changes)
        for best in quotes:
            instrument = self._instruments.get(best.symbol)
            if instrument is not None:
                self.watchdog.saw(instrument.id, "bookTicker", int(best.ts_recv[-1]))
                if (quote := self._batches.quote(instrument.id, best)) is not None:
                    events.append(quote)

    def _hand_over(self, rest: Rest) -> None:
        found = channel_of(rest.stream)
        if self._on_spare is None or found is None:
            self.others[rest.kind] += 1
            return
        self.watchdog.saw(self._id(found[0]), found[1], rest.ts_recv)
        self._on_spare(rest)

    def _id(self, symbol: str) -> str:
        return f"{self.name}:{symbol}"

    # What runs beside the consumer.

    def _ended(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.inbox.fail(error)

    async def _run(self) -> None:
        """List the instruments, then stream them; each failure to list is told and retried."""
        rest = VenueClient(
            self._rest_urls,
            clock=self._clock,
            share=self._weights["share"],
            limit=int(self._weights["limit"]),
            attempts=2,
            retry_cap=self._retry_cap,
            on_state=self._reports.circuit,
            headers=self._headers,
        )
        backoff = Backoff(cap=self._retry_cap)
        async with rest:
            while True:
                try:
                    found = await self._listed(rest, self._configured) if self._configured else []
                except SourceError as error:
                    self._reports.failed(error)
                    await self._clock.sleep(backoff.delay(getattr(error, "retry_after", None)))
                else:
                    break
            self._require(found)
            self._reports.flowing = True
            self._announce(found)
            await self._time.measure(rest)
            await self._streamed(rest)

    async def _streamed(self, rest: VenueClient) -> None:
        """Run the feeds, the clock, the books and the hourly listing until cancelled."""
        async with asyncio.TaskGroup() as group:

            def opened(path: str) -> Feed:
                feed = self._feed(path)
                group.create_task(feed.run())
                return feed

            channels: list[Channel] = [self._stream, *self._spare]
            channels += ["depth", "bookTicker"] if self.books is not None else []
            self._streams = Streams(self._product, channels, opened, STREAMS_PER_CONNECTION)
            self._collect(self._configured)
            group.create_task(self._tick())
            group.create_task(self._time.keep(rest))
            group.create_task(self._keep_listing(rest))
            group.create_task(self._grant(rest))
            group.create_task(self._silences.run(rest))
            if self.books is not None:
                group.create_task(self.books.run(rest))

    def _feed(self, path: str) -> Feed:
        return Feed(
            [f"{base}{path}/stream{self._query}" for base in self._ws_urls],
            self.inbox,
            tap=self._tap,
            redundant=self._redundant,
            tell_links=True,
            clock=self._clock,
            idle=self._idle,
            backoff=Backoff(cap=self._retry_cap),
        )

    def _collect(self, symbols: Iterable[str]) -> None:
        """Open the streams of listed ``symbols``."""
        assert self._streams is not None
        listed = [symbol for symbol in symbols if symbol in self._instruments]
        self._streams.add(listed)
        now = self._clock.now()
        for feed in self._streams:
            for symbol, channel in self._streams.carried(feed):
                self.watchdog.expect(self._id(symbol), channel, now)

    def _drop(self, symbol: str) -> None:
        if self._streams is None or self._instruments.pop(symbol, None) is None:
            return
        self._silences.heard(symbol)
        for feed in self._streams:
            for name, channel in self._streams.carried(feed):
                if name == symbol:
                    self.watchdog.forget(self._id(symbol), channel)
        self._streams.remove([symbol])
        if self.books is not None:
            for update in self.books.remove(symbol):
                self.inbox.put(update)

    async def _grant(self, rest: VenueClient) -> None:
        """Begin to collect what was wished for while running."""
        backoff = Backoff(cap=self._retry_cap)
        while True:
            wished = await self._wishes.get()
            try:
                found = await self._listed(rest, wished)
            except SourceError as error:
                self._reports.failed(error)
                self._wishes.put_nowait(wished)
                await self._clock.sleep(backoff.delay(getattr(error, "retry_after", None)))
                continue
            backoff.reset()
            self._announce(instrument for instrument in found if instrument.symbol in self._wanted)
            self._collect(symbol for symbol in wished if symbol in self._wanted)
            for symbol in set(wished) - {instrument.symbol for instrument in found}:
                self._wanted.pop(symbol, None)
                self._reports.unlisted(symbol)

    async def _tick(self) -> None:
        """Put the venue's time in line each second, also while disconnected: it closes candles."""
        while True:
            await self._clock.sleep(TICK)
            if not self._ticking:
                self._ticking = True
                self.inbox.put(_Tick(self._time.now))

    async def _keep_listing(self, rest: VenueClient) -> None:
        """Announce changes of status or scale within the hour."""
        while True:
            await self._clock.sleep(LISTING_EVERY)
            try:
                self._announce(await self._listed(rest, list(self._wanted)))
            except SourceError:
                self.rejects["listing"] += 1

    # Instruments.

    def _announce(self, found: Iterable[Instrument]) -> None:
        for instrument in found:
            if self._instruments.get(instrument.symbol) != instrument:
                self._instruments[instrument.symbol] = instrument
                self._decoder.set_scale(instrument.symbol, instrument.price_scale, instrument.size_scale)
                if self.books is not None:
                    self.books.add(instrument)
                self.inbox.put(instrument)

    def _require(self, found: Iterable[Instrument]) -> None:
        missing = set(self._configured) - {instrument.symbol for instrument in found}
        if missing:
            raise ConfigError(
                f"{self.name} does not list {' '.join(sorted(missing))}; write symbols as the venue does "
                f"(BTCUSDT) and correct the source or the setting that names them"
            )

    async def _listed(self, rest: VenueClient, symbols: Sequence[str]) -> list[Instrument]:
        granularity: Literal["raw", "agg"] = "raw" if self._stream == "trade" else "agg"
        return await listed(rest, self._product, symbols, venue=self.name, granularity=granularity)
