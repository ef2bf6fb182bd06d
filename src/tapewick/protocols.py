"""THE MAP: the five things tapewick is made of, and what each promises.

    Source ──events──► Bus ──► engine ──► Store        (role collect, role engine)
                        │                   │
                        └──► Market ◄───────┘ ──► Gateway ──► clients

One more implementation is one file, one line in ``registry.py`` and a pass of the contract
suite. Everything flows in column batches; lifecycles are ``async with``; queues are
bounded in bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from tapewick.model import (
    I64,
    BookUpdate,
    Candles,
    Event,
    Floor,
    Head,
    Instrument,
    Lease,
    Message,
    TapeCommit,
    TapeState,
    TradeBatch,
    Wanted,
)
from tapewick.scans import Announcement, Order, OrderEvent, OrderFilter, Placed, ScanCommit, Scanned, Seen

__all__ = [
    "Bus",
    "Delivery",
    "Gateway",
    "Market",
    "Repairer",
    "ScanStore",
    "Source",
    "Store",
    "Subscription",
    "Watching",
]


class Source(Protocol):
    """Where trades come from. ``pull`` sources wait when the system is full; others drop
    whole batches (the ledger sees the hole) because their reader must never wait."""

    name: str
    pull: bool

    def events(self) -> AsyncGenerator[Event, None]:
        """Instruments before their first trade, batches as one wake-up delivered them, health.

        Ends when the source is exhausted; a live source reconnects and never ends.
        """
        ...


@runtime_checkable
class Watching(Source, Protocol):
    """A source that takes up more symbols, and lets go of some, while it runs."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is collected now."""
        ...

    def watch(self, symbols: Sequence[str]) -> None:
        """Collect these too; one the venue does not list is told as health. Raises ``ConfigError``."""
        ...

    def unwatch(self, symbols: Sequence[str]) -> None:
        """Collect these no more; unknown ones are passed over."""
        ...


class Repairer(Protocol):
    """A source that can also fetch what a tape lacks. ``venue`` is the prefix of its instrument ids."""

    venue: str

    def fetch(self, wanted: Wanted) -> AsyncGenerator[TradeBatch, None]:
        """Pages of the wanted trades, each with the ``covers`` it proves and no clock.

        Ends when every range has been answered; raises ``SourceError`` when the venue does not
        answer, after pages that stand.
        """
        ...


class Delivery(Protocol):
    """One message off the bus; ``lost`` tells that older ones were dropped before it."""

    message: Message
    lost: bool

    def ack(self) -> None:
        """The message's effects are durable."""
        ...


class Subscription(Protocol):
    """Deliveries until the bus or the subscription is closed."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Delivery: ...
    async def close(self) -> None:
        """End it; of a group, what was acknowledged has been noted when it returns."""
        ...


class Bus(Protocol):
    """At-least-once transport between roles. Never the truth: the store is."""

    @property
    def trouble(self) -> str | None:
        """Why the bus does not work at the moment; None while it does."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def publish(self, topic: str, message: Message) -> None:
        """Send, waiting while the topic's byte bound is reached."""
        ...

    def offer(self, topic: str, message: Message) -> bool:
        """Send without waiting; False (and nothing sent) when the byte bound is reached."""
        ...

    def subscribe(
        self, topics: Sequence[str], *, group: str | None = None, partitions: Collection[int] | None = None
    ) -> Subscription:
        """Messages from now on. With ``group`` each message goes to one member and blocks
        publishers until taken; without, every subscriber sees all and may find ``lost``.

        ``partitions`` (``model.partition_of``; None: all) are the member's alone: the order within an
        instrument is kept, and what an earlier member did not acknowledge comes again. What names no
        instrument comes once for each partition or once."""
        ...

    async def settled(self, topic: str) -> None:
        """Return once every message sent to the groups of ``topic`` has been acknowledged."""
        ...


class Store(Protocol):
    """Durable tapes. Reads see committed data only."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    async def instruments(self) -> list[Instrument]:
        """Every instrument the store knows."""
        ...

    async def put_instrument(self, instrument: Instrument) -> Instrument:
        """Insert or update; scales, id_kind and granularity of a known instrument are kept."""
        ...

    async def claim(self, instruments: Sequence[str]) -> list[TapeState]:
        """Take ownership (raises each head's ``owner``) and return what to restart from."""
        ...

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        """Write all in one durable transaction; the instruments refused because their head moved, as ``model.Refused``
        where the store may have been restored under the engine."""
        ...

    async def rescale(
        self, instrument: str, price_scale: int, size_scale: int, *, owner: int | None = None
    ) -> Instrument:
        """Widen an instrument's scales and rescale everything stored, in one transaction.

        ``owner``: what the head must have, else ``Fenced`` is raised and nothing done."""
        ...

    async def load_candles(self, number: int, keys: I64, windows: I64) -> Candles:
        """Tape rows with keys (k, 2: tf index, open_time), plus incomplete closed ones that
        overlap ``windows`` (j, 2: from, to ns)."""
        ...

    async def holds(self, instrument: str, names: I64) -> npt.NDArray[np.bool_]:
        """Which of ``names`` (n, 2) belong to trades the tape was ever given: ``TapeCommit.names`` of all commits."""
        ...

    async def unlike(self, instrument: str, batch: TradeBatch, since: int = 0) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch``, whose numbered ids are on the tape, are there with other values; ``since``: their
        seqs are all higher. What retention has let go of is like them."""
        ...

    async def put_imported(self, instrument: str, rows: Candles) -> None:
        """Replace import rows of the same (tf, open_time)."""
        ...

    async def head(self, instrument: str) -> Head:
        """How far the tape is stored. Raises ``NotFound`` for an instrument the store does not know."""
        ...

    async def trades(
        self,
        instrument: str,
        *,
        since: int | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int = 0,
        newest: bool = False,
        primary: bool = False,
    ) -> tuple[TradeBatch, Head]:
        """Trades with seq > ``since`` and ``start`` ≤ ts_event < ``end``, ascending by seq.

        ``limit`` 0 = all; ``newest`` takes the last ``limit`` instead of the first. ``primary``: all that is
        committed, where reads may else be answered by a replica that is behind.
        """
        ...

    async def candles(
        self,
        instrument: str,
        tf: int,
        *,
        start: int | None = None,
        end: int | None = None,
        since_pos: int | None = None,
        limit: int = 0,
        newest: bool = False,
    ) -> tuple[Candles, Head]:
        """Rows with ``start`` ≤ open_time < ``end`` ascending by open_time: the tape row where
        complete, else the import row, else the tape row. ``since_pos``: rows with a higher pos, by pos."""
        ...

    async def floor(self, instrument: str, tf: int) -> Floor:
        """What retention has let go of a timeframe's candles, with ``tf`` 0 of the trades."""
        ...

    async def coverage(self, instrument: str, *, primary: bool = False) -> TapeState:
        """Ranges, gaps, head: a read-only ``TapeState`` without rows; ``primary`` as for ``trades``."""
        ...

    async def put_books(self, rows: Sequence[BookUpdate]) -> None:
        """Store whole books (snapshots) in one transaction, at most one per instrument and time."""
        ...

    async def book_at(self, instrument: str, at: int) -> BookUpdate | None:
        """The newest stored book whose time is not after ``at`` (ns); None if there is none."""
        ...

    async def lease(self, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
        """Renew what ``holder`` holds and has not lost, take those of ``take`` that are free or expired, for ``ttl``
        seconds of the store's clock; every lease that holds now, by name. Never has a name two holders."""
        ...

    async def release(self, holder: str, names: Collection[str]) -> None:
        """Let go of those of ``names`` that ``holder`` holds."""
        ...

    async def watched(self) -> list[str]:
        """Ids of the instruments somebody asked to be collected at run time; durable."""
        ...

    async def watch(self, instrument: str, wanted: bool) -> None:
        """Enter an instrument in that list, or take it off; durable."""
        ...


@runtime_checkable
class ScanStore(Protocol):
    """What scanners found, in the same database. A ``component`` is one contract's scanner."""

    async def scanned(self, component: str) -> Scanned | None:
        """What a scanner restarts from; None before its first step."""
        ...

    async def events_of(self, component: str, orders: Collection[str]) -> list[OrderEvent]:
        """Canonical events of these orders (of "" the raw ones) by block and log index."""
        ...

    async def commit_scan(self, step: ScanCommit, *, holder: str) -> int:
        """Store a step in one durable transaction; the number of the newest announcement.

        Raises ``Fenced``, and stores nothing, unless ``holder`` holds the lease ``scan/COMPONENT`` by the store's
        clock, the stored cursor is the one the step expects, and no RESET or RECOVERY was ordered that the step does
        not follow upon."""
        ...

    async def said(self, component: str, seq: int) -> None:
        """Remember that a bus took all announcements up to number ``seq``; a lower one than known changes nothing."""
        ...

    async def orders(
        self, component: str, *, status: str = "", user: str = "", limit: int = 100, offset: int = 0
    ) -> list[Order]:
        """Newest first."""
        ...

    async def placed_orders(self, wanted: OrderFilter) -> list[Placed]:
        """Orders of all components that ``wanted`` describes, newest first, with how final each is."""
        ...

    async def seen_events(self, component: str, order_id: str) -> list[Seen]:
        """Events of one order with how final each is, by block and log index."""
        ...

    async def order_log(self, component: str, since: int, limit: int) -> list[Announcement]:
        """What was announced after number ``since``, ascending; numbers have no hole."""
        ...


class Market(Protocol):
    """All a gateway sees: stored history and live data as one stream (``market.py``)."""

    async def instruments(self) -> list[Instrument]:
        """Every instrument a client may ask for."""
        ...

    async def instrument(self, id: str) -> Instrument:
        """The one called ``id``. Raises ``NotFound``."""
        ...


class Gateway(Protocol):
    """A client surface, mounted while its context is open."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
