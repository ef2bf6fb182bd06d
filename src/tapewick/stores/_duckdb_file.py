"""One DuckDB file: opening it, its writer thread, its readers, and what its errors mean.

All writes run on one thread with one connection, in the order they were submitted; reads
run on a few threads with a cursor each. Every job is one transaction, so what a read
returns is one consistent snapshot and a write happens whole or not at all.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import duckdb

from tapewick.errors import SchemaOlder, StoreBusy, StoreDamaged, StoreError
from tapewick.stores import _duckdb_log
from tapewick.stores._migrations import LEDGER, load, plan

__all__ = ["FILE", "DuckDBFile", "migrate", "set_wal_aside", "translate"]

FILE = "tape.duckdb"
READERS = 3
T = TypeVar("T")
Job = Callable[[duckdb.DuckDBPyConnection], T]

_open_here: set[Path] = set()  # DuckDB would share one database between two owners in one process


class DuckDBFile:
    """``<folder>/tape.duckdb`` while open. Raises ``StoreBusy``, ``StoreDamaged`` or ``StoreError``."""

    def __init__(self, folder: Path, *, read_only: bool, memory_limit: str, threads: int) -> None:
        self.folder, self.read_only = folder, read_only
        self._settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
            # Nothing is fetched at run time and no file outside the folder is touched.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
        }
        self._database: duckdb.DuckDBPyConnection | None = None
        self._cursors: list[duckdb.DuckDBPyConnection] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._generation = 0
        self._reading = threading.Semaphore(READERS)
        self._writer = ThreadPoolExecutor(1, "duckdb-writer")
        self._readers = ThreadPoolExecutor(READERS, "duckdb-reader")

    async def open(self) -> None:
        """Open or create the file and bring its schema up to date."""
        try:
            await self._submit(self._writer, self._open)
        except BaseException:
            self._writer.shutdown()
            self._readers.shutdown()
            raise

    async def close(self) -> None:
        """Finish what was submitted, checkpoint, release the file."""
        await asyncio.to_thread(self._readers.shutdown)
        try:
            await self._submit(self._writer, self._close)
        finally:
            await asyncio.to_thread(self._writer.shutdown)

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` in a transaction on the writer thread. When this returns it is durable."""
        if self.read_only:
            raise StoreError(f"{self.folder} was opened read-only")
        return await self._submit(self._writer, functools.partial(self._write, job))

    async def read(self, job: Job[T]) -> T:
        """Run ``job`` on a snapshot, on a reader thread."""
        return await self._submit(self._readers, functools.partial(self._read, job))

    async def _submit(self, pool: ThreadPoolExecutor, job: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, job)
        except duckdb.Error as error:
            raise translate(error, self.folder) from error
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            raise StoreError(f"the store in {self.folder} is not open") from error

    # ── the writer thread ──

    def _open(self) -> None:
        path = self.folder.resolve() / FILE
        if self.read_only and not path.exists():
            raise StoreError(f"there is no {FILE} in {self.folder}: `tapewick demo` or `tapewick replay` creates one")
        if not self.read_only:
            if path in _open_here:
                raise StoreBusy(_busy(self.folder))
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"cannot create {self.folder}: {error.strerror}; choose another --data") from error
        try:
            self._connect(path)
            self._migrate()
        except BaseException:
            self._release()
            raise
        if not self.read_only:
            _open_here.add(path)

    def _connect(self, path: Path) -> None:
        if (damage := _duckdb_log.check(path.with_name(f"{FILE}.wal"))) is not None:
            raise StoreDamaged(_damaged(self.folder, damage))
        self._database = duckdb.connect(str(path), read_only=self.read_only, config=self._settings)
        self._generation += 1

    def _migrate(self) -> None:
        database = self._connection()
        if not self.read_only:
            run_steps(database)
        elif plan(known := load("duckdb"), found := applied(database)):
            command = f"tapewick migrate up --data {self.folder}"
            raise SchemaOlder(f"in {self.folder}", max(found, default=0), len(known), command)

    def _write(self, job: Job[T]) -> T:
        if self._database is None:
            self._connect(self.folder.resolve() / FILE)
        try:
            return _transaction(self._connection(), job)
        except duckdb.FatalException:
            # DuckDB refuses everything after a failed checkpoint: a fresh handle on the file
            # recovers what was committed, so that the same write can be tried again.
            self._release()
            try:
                self._connect(self.folder.resolve() / FILE)
            except duckdb.Error:
                pass  # the cause is still there: the first error tells it, the next write tries again
            raise

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._database is None:
            raise StoreError(f"the store in {self.folder} is not open")
        return self._database

    def _close(self) -> None:
        try:
            if self._database is not None and not self.read_only:
                self._database.execute("CHECKPOINT")
        finally:
            self._release()
            if not self.read_only:
                _open_here.discard(self.folder.resolve() / FILE)

    def _release(self) -> None:
        for _ in range(READERS):  # a cursor is not closed under a running read
            self._reading.acquire()
        try:
            for cursor in self._cursors:
                cursor.close()
            self._cursors.clear()
            if self._database is not None:
                self._database.close()
            self._database = None
        finally:
            self._reading.release(READERS)

    # ── reader threads ──

    def _read(self, job: Job[T]) -> T:
        with self._reading:
            return _transaction(self._cursor(), job)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        local = self._local
        if getattr(local, "generation", 0) != self._generation:
            with self._lock:
                local.cursor = self._connection().cursor()
                self._cursors.append(local.cursor)
                local.generation = self._generation
        cursor: duckdb.DuckDBPyConnection = local.cursor
        return cursor


def _transaction(connection: duckdb.DuckDBPyConnection, job: Job[T]) -> T:
    connection.begin()
    try:
        result = job(connection)
        connection.commit()
    except BaseException:
        try:
            connection.rollback()
        except duckdb.Error:
            pass  # a failed commit and a fatal error have ended the transaction already
        raise
    return result


def run_steps(connection: duckdb.DuckDBPyConnection, target: int | None = None) -> list[str]:
    """Bring the schema to version ``target`` (default the newest); the labels of the steps that ran."""
    connection.execute(LEDGER)
    steps = plan(load("duckdb"), applied(connection), target)
    for step in steps:
        _transaction(connection, functools.partial(duckdb.DuckDBPyConnection.execute, query=step.sql))
    return [step.label for step in steps]


def migrate(folder: Path, target: int | None = None) -> list[str]:
    """Take a folder nobody has open to schema version ``target``, up or down; what was done.

    Going down drops what the undone versions added, data included.
    """
    try:
        with duckdb.connect(str(folder / FILE)) as connection:
            return run_steps(connection, target)
    except duckdb.Error as error:
        raise translate(error, folder) from error


def applied(connection: duckdb.DuckDBPyConnection) -> dict[int, str]:
    """The schema's applied migrations, number → checksum."""
    try:
        return dict(connection.execute("SELECT number, checksum FROM schema_migrations").fetchall())
    except duckdb.CatalogException:
        return {}


def set_wal_aside(folder: Path) -> Path | None:
    """Rename a write-ahead log that cannot be replayed, for ``doctor``; its new path, None if there is none.

    What only the log held is then missing from the tape: repair brings it back by id.
    """
    log = folder / f"{FILE}.wal"
    if not log.exists():
        return None
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if f"{log.name}.damaged-{n}" not in taken)
    return log.rename(folder / f"{log.name}.damaged-{number}")


_BUSY = ("Could not set lock", "onflicting lock", "different configuration", "already attached")
_FULL = ("No space left", "File too large", "Disk quota exceeded", "out of disk space")
_DENIED = ("Permission denied", "Read-only file system", "Operation not permitted", "Is a directory")
_DAMAGED = (
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "orrupt",
    "replaying WAL",
    "does not match stored checksum",
    "erialization Error",
)


def _busy(folder: Path) -> str:
    return f"{folder} is in use by another tapewick: use --url http://… to ask the running server, or stop it"


def _damaged(folder: Path, said: str) -> str:
    return f"{folder / FILE} cannot be read: run `tapewick doctor --data {folder}` ({said})"


def translate(error: duckdb.Error, folder: Path) -> StoreError:
    """The error to raise for one of DuckDB's, saying what to do next."""
    text = str(error)
    said = text.splitlines()[0] if text else type(error).__name__

    def has(signs: tuple[str, ...]) -> bool:
        return any(sign in text for sign in signs)

    if has(_BUSY):
        return StoreBusy(_busy(folder))
    if has(_FULL):
        return StoreError(f"the disk that holds {folder} is full: free some space and try again ({said})")
    if has(_DENIED):
        return StoreError(f"{folder / FILE} cannot be opened: check its permissions or choose another --data ({said})")
    if "database file with version number" in text:
        return StoreError(f"{folder / FILE} was written by a newer DuckDB: upgrade the duckdb package ({said})")
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreError(f"DuckDB ran out of memory: raise the store's memory limit ({said})")
    if has(_DAMAGED) or isinstance(error, duckdb.FatalException | duckdb.InternalException):
        return StoreDamaged(_damaged(folder, said))
    return StoreError(f"the store in {folder} failed: {said}")
