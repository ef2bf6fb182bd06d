"""Trades that were taken while the store, or the bus to it, was away: on disk until they are stored.

They are drained in order as soon as the store answers, and removed from the disk only after it was seen to hold them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import structlog

from tapewick import metrics
from tapewick.errors import StoreError, TapewickError, Unavailable, WireError
from tapewick.intake import Intake, NoRoom
from tapewick.model import Instrument, TradeBatch
from tapewick.spool import Spool
from tapewick.wire import decode, encode

__all__ = ["Backlog", "joined", "packed", "unpacked"]

log = structlog.get_logger()
T = TypeVar("T")

MOST = 5000  # trades that are brought to the store at once
AT_ONCE = 16  # instruments
FIRST, LAST = 0.1, 2.0  # seconds between two attempts
RESEND, LAST_RESEND = 20.0, 600.0  # seconds after which what has not arrived is put on the bus again
ADOPT = 15.0  # seconds between two looks for what processes that ended have left
RETRY_AFTER = 5
COLUMNS = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side", "key")


def packed(instrument: Instrument, batch: TradeBatch) -> bytes:
    """A batch and its instrument as one record."""
    head = encode(instrument)
    return len(head).to_bytes(4, "little") + head + encode(batch)


def unpacked(record: bytes) -> tuple[Instrument, TradeBatch]:
    """What ``packed`` made. Raises ``WireError``."""
    size = int.from_bytes(record[:4], "little")
    instrument, batch = decode(record[4 : 4 + size]), decode(record[4 + size :])
    if not isinstance(instrument, Instrument) or not isinstance(batch, TradeBatch):
        raise WireError("a record of the spool holds no trades")
    return instrument, batch


def joined(records: Sequence[tuple[Instrument, TradeBatch]]) -> list[tuple[Instrument, list[TradeBatch]]]:
    """Per instrument its batches in order, each trade once, as few and large as may be."""
    found: dict[str, tuple[Instrument, list[TradeBatch]]] = {}
    for instrument, batch in records:
        found.setdefault(instrument.id, (instrument, []))[1].append(batch)
    return [(instrument, list(_parts(batches))) for instrument, batches in found.values()]


def _parts(batches: Sequence[TradeBatch]) -> Iterator[TradeBatch]:
    group: list[TradeBatch] = []
    for batch in batches:
        alike = bool(group) and _kind(group[0]) == _kind(batch)
        if group and not (alike and sum(map(len, group)) + len(batch) <= MOST):
            yield _join(group)
            group = []
        group.append(batch)
    if group:
        yield _join(group)


def _kind(batch: TradeBatch) -> tuple[int, int, bool]:
    return batch.price_scale, batch.size_scale, batch.key is None


def _join(batches: Sequence[TradeBatch]) -> TradeBatch:
    names = [field.name for field in fields(batches[0]) if field.name in COLUMNS]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in names
        if getattr(batches[0], name) is not None
    }
    whole = replace(batches[0], **columns)
    _, first = np.unique(whole.names, axis=0, return_index=True)
    return whole if len(first) == len(whole) else whole.select(np.sort(first))


class Backlog:
    """What waits in ``spool`` for ``intake``; ``away`` tells why the store is away, None while it is not."""

    def __init__(self, spool: Spool, intake: Intake, away: Callable[[], str | None]) -> None:
        self._spool, self._intake, self._away = spool, intake, away
        self._disk = ThreadPoolExecutor(1, "spool")
        self._pending: list[tuple[bytes, asyncio.Future[bool]]] = []
        self._filled = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._broken = ""
        self.cause: str | None = None
        """Why what waits cannot be stored; None while it can, as far as is known."""
        self._stuck: dict[str, str] = {}

    def stuck(self, instrument: str) -> str | None:
        """Why trades of this instrument alone cannot be stored: its engine is gone; None while they can."""
        return self._stuck.get(instrument)

    @property
    def trouble(self) -> str | None:
        """That trades wait on disk, and why; None when none do, or only those of instruments that are stuck."""
        size = self._spool.nbytes
        if not size or (self._stuck and self.cause is None and not self._broken):
            return None
        return f"{size:,} bytes of trades wait on disk: {self._broken or self.cause or 'they are being stored'}"

    async def start(self) -> None:
        """Take over what was left, and begin to drain. Raises ``StoreError``."""
        left = await self._do(self._spool.adopt)
        for path in await self._do(self._spool.kept):
            log.warning("a damaged segment of trades was set aside and is still there", path=str(path))
        if left:
            log.warning("trades wait on disk since before the start", bytes=left)
        self._filled.set()
        self._tasks = [
            asyncio.create_task(self._drain(), name="spool-drain"),
            asyncio.create_task(self._look(), name="spool-look"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = f"they are stored after a restart only ({error!r})"
            log.error("trades on disk are not stored any more: restart the process", exc_info=error)

    async def close(self) -> None:
        """Stop; what waits stays on disk for the next start."""
        tasks = [*self._tasks, *([] if self._writing is None else [self._writing])]
        for task in self._tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if size := self._spool.nbytes:
            log.warning("trades stay on disk; they are stored after the next start", bytes=size)
        await self._do(self._spool.close)
        self._disk.shutdown()

    async def keep(self, instrument: Instrument, batch: TradeBatch, cause: str, *, alone: bool = False) -> None:
        """Have the trades on disk when this returns. ``cause``: why they are not stored; ``alone``: others may be.

        Raises ``Unavailable`` where there is no room, or the disk fails.
        """
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((packed(instrument, batch), written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="spool-write")
        if alone:
            self._stuck.setdefault(instrument.id, cause)
        else:
            self.cause = self.cause or cause
        try:
            kept = await written
        except StoreError as error:
            raise Unavailable(f"nothing can be stored now: {cause}; {error}", retry_after=RETRY_AFTER) from error
        if not kept:
            raise Unavailable(
                f"nothing can be stored now: {cause}; and the spool is full (ingest.spool_bytes)",
                retry_after=RETRY_AFTER,
            )

    async def _write(self) -> None:
        """Bring what is pending to the disk: all that has come meanwhile with one fdatasync."""
        while self._pending:
            group, self._pending = self._pending, []
            try:
                count = await self._do(lambda records=[one for one, _ in group]: self._spool.append(records))  # type: ignore[misc]
            except StoreError as error:
                for _, written in group:
                    if not written.done():  # else who waited has gone
                        written.set_exception(error)
            else:
                for place, (_, written) in enumerate(group):
                    if not written.done():
                        written.set_result(place < count)
                self._filled.set()
            metrics.spool_bytes.set(self._spool.nbytes)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(ADOPT)
            with contextlib.suppress(StoreError):  # the drain tells of a disk that fails
                if await self._do(self._spool.adopt):
                    self._filled.set()

    async def _drain(self) -> None:
        while True:
            self._filled.clear()
            records = await self._insist(lambda: self._do(self._spool.oldest))
            if records is None:
                self.cause = None
                self._stuck.clear()
                metrics.spool_bytes.set(0)
                await self._filled.wait()
                continue
            sound, strange = _decoded(records)
            gate = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._store(gate, *one) for one in joined(sound)))
            await self._insist(lambda keep=strange: self._do(lambda: self._spool.drop(keep=keep)))  # type: ignore[misc]
            metrics.spool_bytes.set(self._spool.nbytes)

    async def _store(self, gate: asyncio.Semaphore, instrument: Instrument, batches: Sequence[TradeBatch]) -> None:
        async with gate:
            for batch in batches:
                await self._insist(_Delivery(self._intake, self._away, instrument, batch), instrument.id)
                metrics.spool_drained.inc(len(batch))

    async def _insist(self, work: Callable[[], Awaitable[T]], instrument: str = "") -> T:
        """Do ``work``, which may be about one ``instrument``, until it succeeds."""
        delay = FIRST
        while True:
            try:
                result = await work()
            except TapewickError as error:
                if instrument and self._away() is None and type(error) is Unavailable:
                    self._stuck[instrument], self.cause = str(error), None
                else:
                    self.cause = str(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST)
            else:
                self.cause = None
                self._stuck.pop(instrument, None)
                return result

    async def _do(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, job)


class _Delivery:
    """A batch on its way to the store, called again until it is there.

    It is put on the bus again after ever longer pauses only: a bus whose engines are gone must not fill up with it.
    """

    def __init__(
        self, intake: Intake, away: Callable[[], str | None], instrument: Instrument, batch: TradeBatch
    ) -> None:
        self._intake, self._away, self._instrument, self._batch = intake, away, instrument, batch
        self._due, self._pause = 0.0, RESEND

    async def __call__(self) -> None:
        if (cause := self._away()) is not None:
            raise Unavailable(cause, retry_after=RETRY_AFTER)
        await self._intake.register(self._instrument)
        now = time.monotonic()
        sent = now < self._due
        if not sent:
            self._due, self._pause = now + self._pause, min(self._pause * 2, LAST_RESEND)
        try:
            outcome = await self._intake.store(self._batch, sent=sent)
        except NoRoom:
            self._due = 0.0
            raise
        if outcome.other.any():  # its sender was told that it is queued, and is gone
            ids = self._batch.trade_id[outcome.other]
            metrics.ingest_trades.labels("conflict").inc(len(ids))
            log.error(
                "trades that waited on disk are not stored: their ids are on the tape with other values",
                instrument=self._instrument.id,
                ids=ids[:20].tolist(),
                count=len(ids),
            )


def _decoded(records: Sequence[bytes]) -> tuple[list[tuple[Instrument, TradeBatch]], bool]:
    """The batches of sound records, and whether some are none that this version knows."""
    found, strange = [], False
    for record in records:
        try:
            found.append(unpacked(record))
        except WireError as error:
            strange = True
            log.error("a record of the spool cannot be read: its segment is kept aside", cause=str(error))
    return found, strange
