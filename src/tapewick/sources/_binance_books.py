"""The order books of one source: which connection feeds them, when their REST snapshots are fetched.

Frames of one connection drive a book. What a second one brings (during a hand-over, or with redundant
connections) waits, bounded, and takes over where the first one ends: its frames then overlap
what was applied, so the book goes on without a snapshot.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from ulid import ULID

from tapewick.clock import Clock
from tapewick.engine import DepthGroup
from tapewick.engine.book import BookSync, parse_snapshot
from tapewick.errors import BadPayload, SourceError
from tapewick.model import BookUpdate, Instrument
from tapewick.net.backoff import Backoff
from tapewick.net.venue_client import Priority, VenueClient
from tapewick.sources._binance_listing import Product

__all__ = ["Books", "Fetched"]

WHOLE_EVERY = 5 * 10**9  # ns between two whole books of one instrument
FETCHES = 4  # snapshots asked for at the same time
TRIES = 5  # snapshots without success after which a book counts as stale, not as starting
JITTER = 1.0  # seconds over which books that broke together are fetched again
WAITING_BYTES = 1 << 20  # per instrument: frames of a second connection


class Fetched(NamedTuple):
    """A REST book, or why there is none, put in line behind the frames that came before it."""

    symbol: str
    body: bytes
    error: str
    ts: int


class _Entry:
    """One instrument's book; ``standby``: what other connections brought beyond it, by connection."""

    def __init__(self, symbol: str, sync: BookSync, backoff: Backoff) -> None:
        self.symbol, self.sync, self.backoff = symbol, sync, backoff
        self.next_whole = self.tries = 0
        self.standby: dict[int, deque[DepthGroup]] = {}
        self.fetching = False


class Books:
    """Sync machines by symbol. ``put`` queues a ``Fetched`` for the consumer, who gives it to ``fetched``.

    ``levels``: depth of the REST books. ``snapshot_tap``: is given symbol, body and time of every REST book.
    Nothing here waits; snapshots are fetched by ``run``.
    """

    def __init__(
        self,
        product: Product,
        source: str,
        clock: Clock,
        put: Callable[[Any], None],
        *,
        levels: int = 1000,
        retry_cap: float = 60.0,
        snapshot_tap: Callable[[str, bytes, int], None] | None = None,
    ) -> None:
        self._product, self._source, self._clock, self._put = product, source, clock, put
        self._levels, self._retry_cap, self._tap = levels, retry_cap, snapshot_tap
        self._entries: dict[str, _Entry] = {}
        self._instruments: dict[str, Instrument] = {}
        self._owner: dict[Any, int] = {}
        self._links: dict[Any, set[int]] = {}
        self._due: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self._run = str(ULID())
        self.rejects: Counter[str] = Counter()

    @property
    def counters(self) -> Counter[str]:
        """What all books together counted (``BookSync.counters``)."""
        total: Counter[str] = Counter()
        for entry in self._entries.values():
            total.update(entry.sync.counters)
        return total

    def add(self, instrument: Instrument) -> None:
        """Keep a book of ``instrument`` as soon as frames of it come."""
        self._instruments[instrument.symbol] = instrument

    def remove(self, symbol: str) -> list[BookUpdate]:
        """Keep it no longer; the update that says so."""
        self._instruments.pop(symbol, None)
        entry = self._entries.pop(symbol, None)
        return [] if entry is None else entry.sync.lost("no longer collected")

    # From frames to updates.

    def depth(self, feed: Any, link: int, group: DepthGroup) -> list[BookUpdate]:
        """Take the depth frames of one symbol that connection ``link`` of ``feed`` brought."""
        instrument = self._instruments.get(group.symbol)
        if instrument is None:
            return []
        self._links.setdefault(feed, set()).add(link)
        owner = self._owner.setdefault(feed, link)
        entry = self._entries.get(group.symbol) or self._open(instrument)
        if link != owner:
            self._hold(entry, link, group)
            return []
        return self._watched(entry, entry.sync.depth(group))

    def fetched(self, item: Fetched) -> list[BookUpdate]:
        """Take a REST book, or the news that there is none."""
        entry = self._entries.get(item.symbol)
        if entry is None:
            return []
        entry.fetching = False
        updates: list[BookUpdate] = []
        if not item.error:
            sync = entry.sync
            try:
                snapshot = parse_snapshot(item.body, sync.price_scale, sync.size_scale)
            except BadPayload:
                self.rejects["snapshot"] += 1
            else:
                updates = sync.snapshot(snapshot, item.ts)
        if entry.sync.state == "live":
            entry.backoff.reset()
            entry.tries, entry.next_whole = 0, item.ts + WHOLE_EVERY
        elif entry.tries >= TRIES and entry.sync.state == "syncing":
            why = item.error or "every one was older than the changes that wait for it"
            updates = entry.sync.lost(f"no usable snapshot after {entry.tries} tries, trying on: {why}")
        return self._watched(entry, updates)

    def link_ended(self, feed: Any, link: int, symbols: Iterable[str]) -> list[BookUpdate]:
        """A connection delivers no more: another one takes its books over, or they are lost."""
        links = self._links.get(feed, set())
        links.discard(link)
        entries = [entry for symbol in symbols if (entry := self._entries.get(symbol)) is not None]
        for entry in entries:
            if link != self._owner.get(feed):
                entry.standby.pop(link, None)
        if link != self._owner.get(feed):
            return []
        if links:
            self._owner[feed] = heir = min(links)
            return [update for entry in entries for update in self._take_over(entry, heir)]
        del self._owner[feed]
        return [update for entry in entries for update in entry.sync.lost("the connection ended")]

    def silent(self, symbol: str, detail: str) -> list[BookUpdate]:
        """The changes of ``symbol`` stay away, while its connection lives: its book is not what the venue has."""
        entry = self._entries.get(symbol)
        return [] if entry is None else entry.sync.lost(detail)

    def wholes(self, now: int) -> Iterator[BookUpdate]:
        """Whole books that are due: a reader that joins late, or has missed an update, starts from these."""
        for entry in self._entries.values():
            if now >= entry.next_whole and (whole := entry.sync.whole(now)) is not None:
                entry.next_whole = now + WHOLE_EVERY
                yield whole

    def _open(self, instrument: Instrument) -> _Entry:
        sync = BookSync(
            instrument.id,
            price_scale=instrument.price_scale,
            size_scale=instrument.size_scale,
            rule="spot" if self._product.root == "/api/v3" else "futures",
            run=f"{self._run}-{len(self._entries)}",
            source=self._source,
        )
        entry = self._entries[instrument.symbol] = _Entry(instrument.symbol, sync, Backoff(cap=self._retry_cap))
        return entry

    def _hold(self, entry: _Entry, link: int, group: DepthGroup) -> None:
        waiting = entry.standby.setdefault(link, deque())
        waiting.append(group)
        while waiting and int(waiting[0].last_id[-1]) <= entry.sync.last_id:
            waiting.popleft()
        while sum(each.nbytes for each in waiting) > WAITING_BYTES:
            waiting.popleft()

    def _take_over(self, entry: _Entry, heir: int) -> list[BookUpdate]:
        waiting = entry.standby.pop(heir, deque())
        return [update for group in waiting for update in self._watched(entry, entry.sync.depth(group))]

    # Snapshots.

    def _watched(self, entry: _Entry, updates: list[BookUpdate]) -> list[BookUpdate]:
        """``updates``, after asking for a snapshot where the book wants one."""
        if entry.sync.wants_snapshot and not entry.fetching:
            entry.fetching = True
            wait = entry.backoff.delay() if entry.tries else 0.0
            if entry.sync.state == "stale":  # what broke many books at once must not fetch all of them at once
                wait += random.random() * min(JITTER, self._retry_cap)
            entry.tries += 1
            self._due.put_nowait((entry.symbol, wait))
        return updates

    async def run(self, rest: VenueClient) -> None:
        """Fetch the snapshots that are wanted until cancelled."""
        limit = asyncio.Semaphore(FETCHES)
        async with asyncio.TaskGroup() as group:
            while True:
                symbol, wait = await self._due.get()
                group.create_task(self._fetch(rest, symbol, wait, limit))

    async def _fetch(self, rest: VenueClient, symbol: str, wait: float, limit: asyncio.Semaphore) -> None:
        if wait:
            await self._clock.sleep(wait)
        body, error = b"", ""
        async with limit:
            try:
                body = bytes(
                    await rest.get(
                        f"{self._product.root}/depth",
                        msgspec.Raw,
                        {"symbol": symbol, "limit": self._levels},
                        weight=weight_of(self._product, self._levels),
                        priority=Priority.BOOK,
                    )
                )
            except SourceError as failure:
                self.rejects["snapshot"] += 1
                error = str(failure)
        now = self._clock.now()
        if body and self._tap is not None:
            self._tap(symbol, body, now)
        self._put(Fetched(symbol, body, error, now))


def weight_of(product: Product, levels: int) -> int:
    """Request weight of a REST book with ``levels`` levels."""
    if product.root == "/api/v3":
        return next((weight for most, weight in ((100, 5), (500, 25), (1000, 50)) if levels <= most), 250)
    return next((weight for most, weight in ((50, 2), (100, 5), (500, 10)) if levels <= most), 20)
