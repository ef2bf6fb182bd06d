"""Connections to PostgreSQL, the transactions on them, and what their errors mean: the only file that imports asyncpg.

Writes go to the server ``dsn`` names, reads to ``read_dsn`` where there is one. Every job is one
transaction: a read sees one consistent snapshot, a write happens whole or not at all. When a
connection is lost at the end of a write its outcome is not known; whoever retries must find out.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tapewick.errors import ConfigError, MissingExtra, StoreBusy, StoreDamaged, StoreError

if TYPE_CHECKING:
    from asyncpg import Connection, Pool

try:
    import asyncpg
except ImportError:
    raise MissingExtra("PostgreSQL (setting store.kind)", "postgres") from None

# It logs a traceback per attempt to reconnect; whoever needs the store is told by an error.
logging.getLogger("asyncpg").setLevel(logging.CRITICAL)

__all__ = ["Database", "Wanted", "single", "translate"]

T = TypeVar("T")
Job = Callable[["Connection"], Awaitable[T]]

CONNECT = 10.0  # seconds to reach the server
COMMAND = 60.0  # seconds one statement may take
WAIT = 30.0  # seconds to wait for a free connection
SESSION = {
    "application_name": "tapewick",
    "jit": "off",
    "lock_timeout": "5s",  # how long a statement waits for what another has locked, before that is told and tried again
    # After which a transaction whose process stands still is ended and its rows are free again.
    "idle_in_transaction_session_timeout": "15s",
}


class Wanted(NamedTuple):
    """Which servers, and how many connections to each."""

    dsn: str
    read_dsn: str = ""
    pool_min: int = 2
    pool_max: int = 10


class Database:
    """The pools while open. Raises ``ConfigError`` for a malformed DSN, ``StoreError`` and its kin for the rest."""

    def __init__(self, wanted: Wanted, *, read_only: bool) -> None:
        if not wanted.dsn and not (read_only and wanted.read_dsn):
            raise ConfigError(
                "store.kind is postgres and store.dsn is empty: give it postgresql://user:password@host:port/database"
            )
        self.wanted, self.read_only = wanted, read_only
        self.trouble: str | None = None
        """Why reads are not answered, as of a few seconds ago; None while they are."""
        self._write_pool: Pool | None = None
        self._read_pool: Pool | None = None
        self._strays: set[asyncio.Future[Any]] = set()

    async def open(self) -> None:
        """Connect. A reader of its own server needs only that."""
        own = self.wanted
        try:
            if not (self.read_only and own.read_dsn):
                self._write_pool = await self._pool(own.dsn)
            self._read_pool = await self._pool(own.read_dsn) if own.read_dsn else self._write_pool
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Wait for what is under way, then disconnect."""
        pools = {id(pool): pool for pool in (self._write_pool, self._read_pool) if pool is not None}
        self._write_pool = self._read_pool = None
        for pool in pools.values():
            try:
                await asyncio.wait_for(pool.close(), CONNECT)
            except TimeoutError:
                pool.terminate()

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` in a transaction on the primary. When this returns it is durable."""
        if self.read_only:
            raise StoreError("the store was opened read-only")
        return await self._run(self._write_pool, self.wanted.dsn, job, isolation="read_committed", readonly=False)

    async def read(self, job: Job[T], *, primary: bool = False) -> T:
        """Run ``job`` on a snapshot. ``primary``: of the server that is written, whatever replicas there are."""
        pool, dsn = self._read_pool, self.wanted.read_dsn or self.wanted.dsn
        if primary and self._write_pool is not None:
            pool, dsn = self._write_pool, self.wanted.dsn
        return await self._run(pool, dsn, job, isolation="repeatable_read", readonly=True)

    async def _run(self, pool: Pool | None, dsn: str, job: Job[T], *, isolation: str, readonly: bool) -> T:
        """Who is cancelled does not wait for the driver: it asks the server to stop what it does, which one that stands
        still does not answer either."""
        work = asyncio.ensure_future(self._transact(pool, dsn, job, isolation=isolation, readonly=readonly))
        try:
            return await asyncio.shield(work)
        finally:
            if not work.done():
                work.cancel()
                self._strays.add(work)
                work.add_done_callback(self._over)

    def _over(self, work: asyncio.Future[Any]) -> None:
        self._strays.discard(work)
        if not work.cancelled():
            work.exception()  # nobody waits for it

    async def _transact(self, pool: Pool | None, dsn: str, job: Job[T], *, isolation: str, readonly: bool) -> T:
        if pool is None:
            raise StoreError("the store is not open")
        try:
            async with pool.acquire(timeout=WAIT) as connection:
                try:
                    async with connection.transaction(isolation=isolation, readonly=readonly), _alive(connection):
                        return await job(connection)
                except _ERRORS as error:
                    if _broken(error):
                        with suppress(asyncpg.InterfaceError):  # the driver has let go of it already
                            connection.terminate()  # whatever it still waits for: the pool makes another
                    raise
        except _ERRORS as hiding:
            cause = _cause(hiding)
            if _stale(cause):
                await pool.expire_connections()  # they were made to a server or a schema that is no more
            raise translate(cause, dsn) from cause

    async def _pool(self, dsn: str) -> Pool:
        async with single(dsn) as connection:
            forgetful = await connection.fetchval("SHOW synchronous_commit") == "off"
        # An acknowledged commit is on disk, whatever the server's default is; stronger settings stay.
        settings = SESSION | ({"synchronous_commit": "on"} if forgetful else {})
        async with _translated(dsn):
            return await asyncpg.create_pool(
                dsn,
                min_size=self.wanted.pool_min,
                max_size=self.wanted.pool_max,
                timeout=CONNECT,
                command_timeout=COMMAND,
                server_settings=settings,
            )


@asynccontextmanager
async def _alive(connection: Connection) -> AsyncIterator[None]:
    """End what is done inside when the connection is lost.

    The driver waits for good where it was told to pause sending a COPY and the server then goes away.
    """
    loop, inside, lost = asyncio.get_running_loop(), True, False

    def end(_: object) -> None:
        nonlocal lost
        if inside and not bound.expired():
            lost = True
            bound.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as bound:
            connection.add_termination_listener(end)
            try:
                yield
            finally:
                inside = False
                with suppress(asyncpg.InterfaceError):  # the pool has taken the lost connection back
                    connection.remove_termination_listener(end)
    except TimeoutError:
        if lost:
            raise ConnectionResetError("it was lost while rows were sent") from None
        raise


@asynccontextmanager
async def single(dsn: str) -> AsyncIterator[Connection]:
    """One connection outside the pools, for work on the schema: nothing remembers what it has seen."""
    async with _translated(dsn):
        try:
            connection = await asyncpg.connect(dsn, timeout=CONNECT, server_settings={"application_name": "tapewick"})
        except ValueError as error:  # a port that is no number; a certificate that is refused is a ValueError too
            if isinstance(error, OSError):
                raise
            raise _malformed() from error
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT)


@asynccontextmanager
async def _translated(dsn: str) -> AsyncIterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise translate(error, dsn) from error


_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.InternalClientError,
    OSError,
    TimeoutError,
)
# SQL states, or the first two characters of their class, and what to do about them.
_MEANINGS: dict[str, tuple[type[StoreError], str]] = {
    "28": (StoreError, "PostgreSQL at {place} refuses the user: check user and password in store.dsn"),
    "3D000": (StoreError, "there is no such database at {place}: create it (createdb), or name another in store.dsn"),
    "42501": (
        StoreError,
        "the user of {place} lacks rights: grant it tapewick_writer; where there are no tables yet, "
        "their owner must run `tapewick migrate up` first (store.migrate_dsn)",
    ),
    "42P01": (StoreError, "the schema at {place} is missing or older: run `tapewick migrate up`"),
    "42703": (StoreError, "the schema at {place} is older than this tapewick: run `tapewick migrate up`"),
    "53100": (StoreError, "the disk of PostgreSQL at {place} is full: free some space; nothing acknowledged is lost"),
    "53300": (StoreError, "PostgreSQL at {place} has no connection left: lower store.pool_max or raise its limit"),
    "53": (StoreError, "PostgreSQL at {place} lacks resources"),
    "25P03": (StoreBusy, "PostgreSQL at {place} ended a transaction that stood still for too long: it is retried"),
    "25006": (StoreError, "PostgreSQL at {place} is read-only: point store.dsn at the primary"),
    "55P03": (
        StoreBusy,
        "another session keeps rows or a table locked at {place}: it is retried; where that lasts, look in "
        "pg_stat_activity for one that is idle in transaction, and end it",
    ),
    "40": (StoreBusy, "another process changed the same rows at {place}: it is retried"),
    "57P04": (StoreError, "the database at {place} was dropped"),
    "57": (StoreError, "PostgreSQL at {place} is starting or stopping: it is retried"),
    "08": (StoreError, "the connection to PostgreSQL at {place} was lost: see that it runs"),
    "XX001": (StoreDamaged, "PostgreSQL at {place} found damaged data: restore it from a backup"),
    "XX002": (StoreDamaged, "PostgreSQL at {place} found a damaged index: REINDEX it, or restore a backup"),
}


def _cause(error: BaseException) -> BaseException:
    """What went wrong first: leaving the transaction of a lost connection fails too, and hides why it was lost."""
    before = error.__context__
    while isinstance(error, asyncpg.InterfaceError) and isinstance(before, _ERRORS):
        error, before = before, before.__context__
    return error


def _broken(error: BaseException) -> bool:
    """Whether the connection is of no use after ``error``; the server's own errors leave it sound."""
    return not isinstance(error, asyncpg.PostgresError) or getattr(error, "sqlstate", "")[:2] in ("08", "57")


def _stale(error: BaseException) -> bool:
    return getattr(error, "sqlstate", "") in ("25006", "0A000", "42P01") or isinstance(
        error, asyncpg.exceptions.OutdatedSchemaCacheError
    )


def translate(error: BaseException, dsn: str) -> StoreError | ConfigError:
    """The error to raise for one of the driver's, saying what to do next; never the DSN, which holds a password."""
    place = _place(dsn)
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return _malformed()
    state = getattr(error, "sqlstate", None) or ""
    said = (str(error).splitlines() or [""])[0] or type(error).__name__
    for key in (state, state[:2]):
        if key in _MEANINGS:
            kind, text = _MEANINGS[key]
            return kind(f"{text.format(place=place)} ({said})")
    if isinstance(error, TimeoutError):
        return StoreError(f"PostgreSQL at {place} does not answer in time: see that it runs and is not overloaded")
    if isinstance(error, ssl.SSLError):
        return StoreError(f"PostgreSQL at {place} does not prove who it is: check sslrootcert in store.dsn ({said})")
    if isinstance(error, OSError):
        return StoreError(f"PostgreSQL at {place} cannot be reached: start it, or correct store.dsn ({said})")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.exceptions.InternalClientError):
        return StoreError(f"the connection to PostgreSQL at {place} was lost: see that it runs ({said})")
    return StoreError(f"PostgreSQL at {place} failed: {said}")


def _malformed() -> ConfigError:
    return ConfigError("store.dsn is malformed: write postgresql://user:password@host:port/database?sslmode=…")


def _place(dsn: str) -> str:
    """Host, port and database: what a message may name."""
    return dsn.partition("://")[2].rpartition("@")[2].partition("?")[0] or "its default address"
