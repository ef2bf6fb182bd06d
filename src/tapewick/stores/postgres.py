"""The shared store: PostgreSQL, plain or with TimescaleDB, for roles in several processes.

The same tables, rules and answers as the embedded store. Several engines may be connected: an
instrument's head has one owner, and every commit of anybody else is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from tapewick.clock import Clock, RealClock
from tapewick.errors import ModelError, NotFound, StoreBusy
from tapewick.model import I64, BookUpdate, Candles, Floor, Head, Instrument, Lease, TapeCommit, TapeState, TradeBatch
from tapewick.stores import _postgres_books as books
from tapewick.stores import _postgres_leases as leases
from tapewick.stores import _postgres_read as reads
from tapewick.stores import _postgres_replica as replica
from tapewick.stores import _postgres_retention as retention
from tapewick.stores import _postgres_schema as schema
from tapewick.stores import _postgres_write as writes
from tapewick.stores._likeness import unlike
from tapewick.stores._postgres_check import problems
from tapewick.stores._postgres_freeing import freeing
from tapewick.stores._postgres_names import holds, numbered
from tapewick.stores._postgres_pool import Database, Wanted, single
from tapewick.stores._postgres_rows import instruments as stored_instruments
from tapewick.stores._postgres_scans import PostgresScans
from tapewick.stores._postgres_schema import Level
from tapewick.stores._rows import Known, Window, trade_batch

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["PostgresStore", "lacking", "migrate"]

T = TypeVar("T")


class PostgresStore(PostgresScans):
    """``protocols.Store`` on the database ``dsn`` names.

    ``async with`` connects and brings the schema up to date, for which the user must own the tables (or
    ``migrate_dsn`` names one who does). ``read_dsn``: a replica for reads. ``read_only``: nothing is written,
    not even the schema. Raises ``ConfigError`` for a malformed DSN, ``StoreError`` where it cannot connect.
    """

    def __init__(
        self,
        dsn: str,
        *,
        read_dsn: str = "",
        migrate_dsn: str = "",
        pool_min: int = 2,
        pool_max: int = 10,
        read_only: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or RealClock()
        self._migrate_dsn = migrate_dsn or dsn
        self._database = Database(Wanted(dsn, read_dsn, pool_min, pool_max), read_only=read_only)
        self._known: dict[str, Known] = {}
        self.level = Level("plain")
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._bring_up_to_date()
        await self._database.open()
        try:
            await self._learn()
            self.level = await self._database.read(schema.detect)
        except BaseException:
            await self._database.close()
            raise
        self._watching = asyncio.create_task(replica.watched(self._database), name="store-watch")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        await self._database.close()

    @property
    def trouble(self) -> str | None:
        """Why reads are not answered at the moment; None while they are."""
        return self._database.trouble

    async def replica_lag(self) -> float:
        """Seconds by which reads lag behind commits; 0 where reads go to the server that is written."""
        return await replica.lag(self._database)

    async def _bring_up_to_date(self) -> None:
        own = self._database
        async with single(own.wanted.read_dsn or own.wanted.dsn if own.read_only else own.wanted.dsn) as connection:
            older = await schema.behind(connection)
        if older is None:
            return
        if own.read_only:
            raise older
        await migrate(self._migrate_dsn)

    async def _learn(self) -> None:
        # Of the primary: what an engine does not know of it cannot claim, and a replica may be behind. All anew: of a
        # store that was restored meanwhile, an instrument may be gone and its number another's.
        found = await self._database.read(stored_instruments, primary=True)
        self._known = {instrument.id: (number, instrument) for number, instrument in found}

    async def instruments(self) -> list[Instrument]:
        await self._learn()  # another process may have added some
        return [instrument for _, instrument in self._known.values()]

    async def put_instrument(self, instrument: Instrument) -> Instrument:
        """Insert or update; scales, id_kind and granularity of a known instrument are kept."""
        return self._remember(await self._database.write(partial(writes.put_instrument, wanted=instrument)))

    async def claim(self, instruments: Sequence[str]) -> list[TapeState]:
        """Take ownership (raises each head's ``owner``) and return what to restart from."""
        wanted = [await self._find(id) for id in dict.fromkeys(instruments)]
        server = 0

        async def job(connection: Connection) -> list[TapeState]:
            nonlocal server
            server = connection.get_server_pid()
            numbers = [number for number, _ in wanted]
            await writes.raise_owners(connection, numbers)
            # From here on nobody else changes these tapes; what others changed until now is read, scales too.
            fresh = dict(await stored_instruments(connection, "number = ANY($1)", numbers))
            if any(number not in fresh or fresh[number].id != known.id for number, known in wanted):
                self._known = {}
                raise StoreBusy("the store was restored or emptied at this moment: it is read again")
            known = [(number, fresh[number]) for number in numbers]
            return await reads.states(connection, known, rows=True, every_gap=False)

        if not wanted:
            return []
        async with freeing(self._database, lambda: server):
            states = await self._database.write(job)
        for state in states:
            self._remember((state.number, state.instrument))
        return states

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        """Write all in one durable transaction; the instruments refused because their head moved."""
        if not group:
            return frozenset()
        if len({part.number for part in group}) != len(group):
            raise ModelError("a commit group holds one part per instrument")
        return await self._database.write(partial(writes.commit, group=group, now=self._clock.now()))

    async def rescale(
        self, instrument: str, price_scale: int, size_scale: int, *, owner: int | None = None
    ) -> Instrument:
        """Widen an instrument's scales and rescale everything stored, in one transaction."""
        number, _ = await self._find(instrument)
        job = partial(
            writes.rescale, number=number, id=instrument, price_scale=price_scale, size_scale=size_scale, owner=owner
        )
        return self._remember(await self._database.write(job))

    async def load_candles(self, number: int, keys: I64, windows: I64) -> Candles:
        """Tape rows with ``keys``, plus incomplete closed ones that overlap ``windows``."""
        job = partial(reads.load_candles, key=number, keys=keys, windows=windows)
        return await self._database.read(job, primary=True)

    async def holds(self, instrument: str, names: I64) -> npt.NDArray[np.bool_]:
        """Which of ``names`` (n, 2) belong to trades the tape was ever given; asked of the primary."""
        return await self._of(instrument, partial(holds, id=instrument, names=names), primary=True)

    async def unlike(self, instrument: str, batch: TradeBatch, since: int = 0) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch`` the tape has under their ids with other values; asked of the primary."""
        job = partial(numbered, id=instrument, batch=batch, since=since)
        found, scales = await self._of(instrument, job, primary=True)
        return unlike(batch, found, scales, (await self.floor(instrument, 0)).time)

    async def put_imported(self, instrument: str, rows: Candles) -> None:
        """Replace import rows of the same (tf, open_time)."""
        number, _ = await self._find(instrument)
        if len(rows):
            await self._database.write(partial(writes.put_imported, number=number, rows=rows))

    async def head(self, instrument: str) -> Head:
        return (await self._of(instrument, partial(reads.head, id=instrument)))[1]

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
        """Trades with seq > ``since`` and ``start`` ≤ ts_event < ``end``, ascending by seq; ``primary``: not of a
        replica."""
        window = Window(start, end, limit, newest and limit > 0)

        async def job(connection: Connection, number: int) -> tuple[TradeBatch, Head]:
            found, head = await reads.head(connection, number, instrument)
            return trade_batch(await reads.trades(connection, number, since, head.seq, window), found, head), head

        return await self._of(instrument, job, primary=primary)

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
        """Rows ascending by open_time, or with ``since_pos`` the changed ones by pos."""
        window = Window(start, end, limit, newest and limit > 0)

        async def job(connection: Connection, number: int) -> tuple[Candles, Head]:
            _, head = await reads.head(connection, number, instrument)
            if since_pos is not None:
                return await reads.changed_candles(connection, number, tf, since_pos, window), head
            return await reads.candles(connection, number, tf, window), head

        return await self._of(instrument, job)

    async def floor(self, instrument: str, tf: int) -> Floor:
        """What ``expire`` has let go of a timeframe's candles, with ``tf`` 0 of the trades."""

        async def job(connection: Connection, number: int) -> Floor:
            await reads.head(connection, number, instrument)
            return await retention.floor(connection, number, tf)

        return await self._of(instrument, job)

    async def coverage(self, instrument: str, *, primary: bool = False) -> TapeState:
        """Ranges, all gaps, head: a read-only ``TapeState`` without rows; ``primary``: not of a replica."""

        async def job(connection: Connection, number: int) -> TapeState:
            found, _ = await reads.head(connection, number, instrument)
            return (await reads.states(connection, [(number, found)], rows=False, every_gap=True))[0]

        try:
            return await self._of(instrument, job, primary=primary)
        except NotFound:  # of a replica that is behind: the primary has it, or this raises
            if primary:
                raise
            number, known = await self._find(instrument)
            return TapeState(instrument=known, number=number, epoch="", owner=0)

    async def put_books(self, rows: Sequence[BookUpdate]) -> None:
        """Store whole books in one transaction; one of a known instrument and time is left as it is."""
        wanted = [((await self._find(row.instrument))[0], row) for row in rows]
        if wanted:
            await self._database.write(partial(books.put_books, rows=wanted))

    async def book_at(self, instrument: str, at: int) -> BookUpdate | None:
        """The newest stored book whose time is not after ``at`` (ns)."""

        async def job(connection: Connection, number: int) -> BookUpdate | None:
            await reads.head(connection, number, instrument)
            return await books.book_at(connection, number, instrument, at)

        return await self._of(instrument, job)

    async def lease(self, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
        """Renew what ``holder`` holds, take what is free of ``take``, by the server's clock; every lease that holds."""
        return await self._database.write(partial(leases.lease, holder=holder, take=take, ttl=ttl))

    async def release(self, holder: str, names: Collection[str]) -> None:
        """Let go of those of ``names`` that ``holder`` holds."""
        if names:
            await self._database.write(partial(leases.release, holder=holder, names=names))

    async def watched(self) -> list[str]:
        """Instruments somebody asked to be collected at run time, as the primary has them."""
        return await self._database.read(leases.watched, primary=True)

    async def watch(self, instrument: str, wanted: bool) -> None:
        """Ask for an instrument to be collected, or no longer."""
        await self._database.write(partial(leases.watch, instrument=instrument, wanted=wanted))

    async def expire(self, *, trades: int = 0, minutes: int = 0, books: int = 0) -> dict[str, int]:
        """Let go of trades, of candles under an hour and of books older than that many ns before their
        tape's watermark (0 keeps them); rows deleted per table. Of several processes one does it."""
        keep = retention.Keep(trades, minutes, books)
        async with single(self._migrate_dsn) as connection:
            return await retention.expire(connection, keep, self.level)

    async def check(self) -> list[str]:
        """Problems found by looking for broken invariants, for ``doctor``; empty when there are none."""
        return await self._database.read(problems)

    async def renew_epochs(self) -> None:
        """Give every tape a new epoch: needed after committed data was lost or restored.

        A position of the old epoch is then refused instead of naming another trade.
        """
        await self._database.write(writes.renew_epochs)

    def _remember(self, stored: Known) -> Instrument:
        self._known[stored[1].id] = stored
        return stored[1]

    async def _of(self, id: str, job: Callable[[Connection, int], Awaitable[T]], *, primary: bool = False) -> T:
        """Read about one instrument by its number; where that is not its own any more, by the one it has now.

        Raises ``NotFound`` for an instrument there is none of.
        """
        number, _ = await self._find(id)
        try:
            return await self._database.read(partial(_numbered, job=job, number=number), primary=primary)
        except NotFound:
            await self._learn()
            number, _ = await self._find(id)
        return await self._database.read(partial(_numbered, job=job, number=number), primary=primary)

    async def _find(self, id: str) -> Known:
        if id not in self._known:
            await self._learn()
        if id not in self._known:
            raise NotFound(f"there is no instrument {id!r}; /v1/instruments lists those there are")
        return self._known[id]


async def _numbered(connection: Connection, job: Callable[[Connection, int], Awaitable[T]], number: int) -> T:
    return await job(connection, number)


async def lacking(dsn: str, *, writer: str, reader: str = "") -> list[str]:
    """What is to be done yet for the users of the DSNs ``writer`` and ``reader`` to have their rights in the schema of
    ``dsn``, its owner's; a line each."""
    named = {schema.WRITER: urlsplit(writer).username, schema.READER: urlsplit(reader).username}
    async with single(dsn) as connection:
        owner = await connection.fetchval("SELECT current_user")
        users = {group: unquote(user) for group, user in named.items() if user and unquote(user) != owner}
        return await schema.lacking(connection, users)


async def migrate(dsn: str, target: int | None = None) -> list[str]:
    """Take the database to schema version ``target``, up or down; what was done.

    Going down drops what the undone versions added, data included.
    """
    async with single(dsn) as connection:
        return await schema.run_steps(connection, target)
