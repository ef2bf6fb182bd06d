"""The embedded store: one DuckDB file in the data folder, owned by one process.

Trades are appended, open candles replaced, closed ones upserted, heads moved by one fenced
update; a commit group is one transaction and one fdatasync. Views named ``v_*`` show the
same data with decimals and timestamps to any SQL client.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
import numpy.typing as npt

from tapewick.clock import Clock, RealClock
from tapewick.errors import NotFound, StoreError
from tapewick.model import I64, BookUpdate, Candles, Floor, Head, Instrument, Lease, TapeCommit, TapeState, TradeBatch
from tapewick.stores import _duckdb_books as books
from tapewick.stores import _duckdb_leases as leases
from tapewick.stores import _duckdb_read as reads
from tapewick.stores import _duckdb_write as writes
from tapewick.stores._duckdb_check import problems
from tapewick.stores._duckdb_file import FILE, DuckDBFile, migrate, set_wal_aside
from tapewick.stores._duckdb_names import holds, numbered
from tapewick.stores._duckdb_rows import instruments, trade_batch
from tapewick.stores._duckdb_scans import DuckDBScans
from tapewick.stores._likeness import unlike
from tapewick.stores._rows import Known, Window, merged

__all__ = ["FILE", "DuckDBStore", "migrate", "set_wal_aside"]


class DuckDBStore(DuckDBScans):
    """``protocols.Store`` on ``<folder>/tape.duckdb``.

    ``async with`` opens it (``StoreBusy``: another process owns it; ``StoreDamaged``: it
    cannot be read) and ends with a checkpoint. ``read_only`` needs an existing file that
    nobody writes.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        read_only: bool = False,
        memory_limit: str = "128MB",
        threads: int = 1,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or RealClock()
        self._file = DuckDBFile(Path(folder), read_only=read_only, memory_limit=memory_limit, threads=threads)
        self._known: dict[str, Known] = {}
        self._leases = leases.LeaseTable()

    async def __aenter__(self) -> Self:
        await self._file.open()
        try:
            stored = await self._file.read(instruments)
        except BaseException:
            await self._file.close()
            raise
        self._known = {instrument.id: (number, instrument) for number, instrument in stored}
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._file.close()

    async def instruments(self) -> list[Instrument]:
        return [instrument for _, instrument in self._known.values()]

    async def put_instrument(self, instrument: Instrument) -> Instrument:
        """Insert or update; scales, id_kind and granularity of a known instrument are kept."""
        known = self._known.get(instrument.id)
        if known is not None and known[1] == merged(instrument, known[1]):
            return known[1]
        return self._remember(await self._file.write(partial(writes.put_instrument, wanted=instrument)))

    async def claim(self, instruments: Sequence[str]) -> list[TapeState]:
        """Take ownership (raises each head's ``owner``) and return what to restart from."""
        wanted = [self._find(id) for id in dict.fromkeys(instruments)]

        def job(connection: duckdb.DuckDBPyConnection) -> list[TapeState]:
            writes.raise_owners(connection, [number for number, _ in wanted])
            return reads.states(connection, wanted, rows=True, every_gap=False)

        return await self._file.write(job) if wanted else []

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        """Write all in one durable transaction; the instruments refused because their head moved."""
        if not group:
            return frozenset()
        return await self._file.write(partial(writes.commit, group=group, now=self._clock.now()))

    async def rescale(
        self, instrument: str, price_scale: int, size_scale: int, *, owner: int | None = None
    ) -> Instrument:
        """Widen an instrument's scales and rescale everything stored, in one transaction."""
        number, _ = self._find(instrument)
        job = partial(writes.rescale, number=number, price_scale=price_scale, size_scale=size_scale, owner=owner)
        return self._remember(await self._file.write(job))

    async def load_candles(self, number: int, keys: I64, windows: I64) -> Candles:
        """Tape rows with ``keys``, plus incomplete closed ones that overlap ``windows``."""
        return await self._file.read(partial(reads.load_candles, number=number, keys=keys, windows=windows))

    async def holds(self, instrument: str, names: I64) -> npt.NDArray[np.bool_]:
        """Which of ``names`` (n, 2) belong to trades the tape was ever given."""
        number, _ = self._find(instrument)
        return await self._file.read(partial(holds, number=number, names=names))

    async def unlike(self, instrument: str, batch: TradeBatch, since: int = 0) -> npt.NDArray[np.bool_]:
        """Which trades of ``batch`` the tape has under their ids with other values."""
        number, _ = self._find(instrument)
        found, scales = await self._file.read(partial(numbered, number=number, batch=batch, since=since))
        return unlike(batch, found, scales, (await self.floor(instrument, 0)).time)

    async def put_imported(self, instrument: str, rows: Candles) -> None:
        """Replace import rows of the same (tf, open_time)."""
        number, _ = self._find(instrument)
        if len(rows):
            await self._file.write(partial(writes.put_imported, number=number, rows=rows))

    async def head(self, instrument: str) -> Head:
        number, _ = self._find(instrument)

        def job(connection: duckdb.DuckDBPyConnection) -> Head:
            [(_, found)] = instruments(connection, "number = ?", [number])
            return reads.head(connection, number, found)

        return await self._file.read(job)

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
        """Trades with seq > ``since`` and ``start`` ≤ ts_event < ``end``, ascending by seq; of this file always."""
        number, _ = self._find(instrument)
        window = Window(start, end, limit, newest and limit > 0)

        def job(connection: duckdb.DuckDBPyConnection) -> tuple[TradeBatch, Head]:
            [(_, found)] = instruments(connection, "number = ?", [number])
            head = reads.head(connection, number, found)
            return trade_batch(reads.trades(connection, number, since, head.seq, window), found, head), head

        return await self._file.read(job)

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
        number, _ = self._find(instrument)
        window = Window(start, end, limit, newest and limit > 0)

        def job(connection: duckdb.DuckDBPyConnection) -> tuple[Candles, Head]:
            [(_, found)] = instruments(connection, "number = ?", [number])
            head = reads.head(connection, number, found)
            if since_pos is not None:
                return reads.changed_candles(connection, number, tf, since_pos, window), head
            return reads.candles(connection, number, tf, window), head

        return await self._file.read(job)

    async def floor(self, instrument: str, tf: int) -> Floor:
        """Nothing: the embedded store keeps everything."""
        self._find(instrument)
        return Floor()

    async def coverage(self, instrument: str, *, primary: bool = False) -> TapeState:
        """Ranges, all gaps, head: a read-only ``TapeState`` without rows."""
        wanted = [self._find(instrument)]
        states = await self._file.read(partial(reads.states, wanted=wanted, rows=False, every_gap=True))
        return states[0]

    async def put_books(self, rows: Sequence[BookUpdate]) -> None:
        """Store whole books in one transaction; one of a known instrument and time is left as it is."""
        wanted = [(self._find(row.instrument)[0], row) for row in rows]
        if wanted:
            await self._file.write(partial(books.put_books, rows=wanted))

    async def book_at(self, instrument: str, at: int) -> BookUpdate | None:
        """The newest stored book whose time is not after ``at`` (ns)."""
        number, _ = self._find(instrument)
        return await self._file.read(partial(books.book_at, number=number, instrument=instrument, at=at))

    async def lease(self, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
        """Renew what ``holder`` holds, take what is free of ``take``; every lease that holds, in this process."""
        if self._file.read_only:
            raise StoreError(f"{self._file.folder} was opened read-only")
        return self._leases.lease(holder, take, ttl)

    async def release(self, holder: str, names: Collection[str]) -> None:
        """Let go of those of ``names`` that ``holder`` holds."""
        self._leases.release(holder, names)

    async def watched(self) -> list[str]:
        """Instruments somebody asked to be collected at run time."""
        return await self._file.read(leases.watched)

    async def watch(self, instrument: str, wanted: bool) -> None:
        """Ask for an instrument to be collected, or no longer."""
        await self._file.write(partial(leases.watch, instrument=instrument, wanted=wanted))

    async def check(self) -> list[str]:
        """Problems found by looking for broken invariants, for ``doctor``; empty when there are none."""
        return await self._file.read(problems)

    async def renew_epochs(self) -> None:
        """Give every tape a new epoch: needed after committed data was lost or restored.

        A position of the old epoch is then refused instead of naming another trade.
        """
        await self._file.write(writes.renew_epochs)

    def _remember(self, stored: Known) -> Instrument:
        self._known[stored[1].id] = stored
        return stored[1]

    def _find(self, id: str) -> Known:
        if id not in self._known:
            raise NotFound(f"there is no instrument {id!r}; /v1/instruments lists those there are")
        return self._known[id]
