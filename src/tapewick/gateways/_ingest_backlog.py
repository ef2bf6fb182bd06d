"""Trades that were taken while the store, or the bus to it, was away: on disk until they are stored.

They are drained in order as soon as the store answers, and removed from the disk only after it was seen to hold them.
Those of an instrument that cannot be stored though others can, as where its engine is gone, stay and let the others go
first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from tapewick import metrics
from tapewick.errors import StoreError, TapewickError, Unavailable
from tapewick.gateways._ingest_records import joined, packed, readable
from tapewick.intake import Intake, NoRoom
from tapewick.model import Instrument, TradeBatch
from tapewick.spool import Spool

__all__ = ["Backlog"]

log = structlog.get_logger()
T = TypeVar("T")

AT_ONCE = 16  # instruments
FIRST, LAST = 0.1, 2.0  # seconds between two attempts
LAST_TRY = 10.0  # the same for an instrument that is stuck
RESEND, LAST_RESEND = 20.0, 600.0  # seconds after which what has not arrived is put on the bus again
ADOPT = 15.0  # seconds between two looks for what processes that ended have left
RETRY_AFTER = 5


class _Pending(NamedTuple):
    """A record on its way to the disk."""

    instrument: str
    record: bytes
    written: asyncio.Future[bool]


class _Stuck:
    """Why trades of an instrument alone cannot be stored, and when (monotonic) that is tried again."""

    def __init__(self, cause: str) -> None:
        self.cause, self._pause = cause, FIRST
        self.due = time.monotonic() + FIRST

    def still(self, cause: str) -> None:
        """It was tried in vain."""
        self.cause, self._pause = cause, min(self._pause * 2, LAST_TRY)
        self.due = time.monotonic() + self._pause


class _Sending:
    """Until when (monotonic) a batch need not be put on the bus again: after ever longer pauses only, as a bus whose
    engines are gone must not fill up with it."""

    def __init__(self) -> None:
        self.due, self.pause = 0.0, RESEND

    def sent(self) -> None:
        self.due, self.pause = time.monotonic() + self.pause, min(self.pause * 2, LAST_RESEND)


class Backlog:
    """What waits in ``spool`` for ``intake``; ``away`` tells why the store is away, None while it is not."""

    def __init__(self, spool: Spool, intake: Intake, away: Callable[[], str | None]) -> None:
        self._spool, self._intake, self._away = spool, intake, away
        self._disk = ThreadPoolExecutor(1, "spool")
        self._pending: list[_Pending] = []
        self._filled = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._broken = ""
        self.cause: str | None = None
        """Why what waits cannot be stored; None while it can, as far as is known."""
        self._stuck: dict[str, _Stuck] = {}
        self._held: dict[Path, set[str] | None] = {}
        """Of which instruments the segments hold trades that wait; None where that is not known yet."""
        self._done: dict[Path, set[str]] = {}
        """Of which instruments a segment holds stored trades too, as it could not be rewritten."""
        self._sendings: dict[tuple[Path, str, int], _Sending] = {}

    def stuck(self, instrument: str) -> str | None:
        """Why trades of this instrument alone cannot be stored: its engine is gone; None while they can."""
        stuck = self._stuck.get(instrument)
        return None if stuck is None else stuck.cause

    @property
    def trouble(self) -> str | None:
        """That trades wait on disk, and why; None when none do, or only those of instruments that are stuck."""
        size = self._spool.nbytes
        if not size or not (self._broken or self.cause or any(map(self._moves, self._held.values()))):
            return None
        return f"{size:,} bytes of trades wait on disk: {self._broken or self.cause or 'they are being stored'}"

    async def start(self) -> None:
        """Take over what was left, and begin to drain. Raises ``StoreError``."""
        left = await self._do(self._spool.adopt)
        self._held = dict.fromkeys(self._spool.segments)
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
        self._pending.append(_Pending(instrument.id, packed(instrument, batch), written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="spool-write")
        if alone:
            self._stuck.setdefault(instrument.id, _Stuck(cause))
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
                count, path = await self._do(lambda records=[one.record for one in group]: self._append(records))  # type: ignore[misc]
            except StoreError as error:
                for one in group:
                    if not one.written.done():  # else who waited has gone
                        one.written.set_exception(error)
            else:
                if count:
                    held = self._held.get(path) or set()
                    self._held[path] = held | {one.instrument for one in group[:count]}
                for place, one in enumerate(group):
                    if not one.written.done():
                        one.written.set_result(place < count)
            self._filled.set()  # where nothing was kept too: whether the store is away is to be found out
            metrics.spool_bytes.set(self._spool.nbytes)

    def _append(self, records: Sequence[bytes]) -> tuple[int, Path]:
        return self._spool.append(records), self._spool.written

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(ADOPT)
            with contextlib.suppress(StoreError):  # the drain tells of a disk that fails
                if await self._do(self._spool.adopt):
                    self._filled.set()

    async def _drain(self) -> None:
        while True:
            self._filled.clear()
            if (found := self._next()) is None:
                await self._rest()
            else:
                await self._work(*found)
            metrics.spool_bytes.set(self._spool.nbytes)

    def _moves(self, held: set[str] | None) -> bool:
        """Whether a segment of these instruments may hold trades that can be stored."""
        return held is None or not held <= self._stuck.keys()

    def _next(self) -> tuple[Path, bool] | None:
        """The segment to work on, and whether what is stuck is tried again: where nothing else can be stored."""
        self._held = {path: self._held.get(path) for path in self._spool.segments}
        for path, held in self._held.items():
            if self._moves(held):
                return path, False
        waiting: set[str] = set().union(*(held or () for held in self._held.values()))
        now = time.monotonic()  # what was told just now may still be on its way to the disk
        self._stuck = {id: stuck for id, stuck in self._stuck.items() if id in waiting or stuck.due > now}
        self._done = {path: done for path, done in self._done.items() if path in self._held}
        self._sendings = {key: one for key, one in self._sendings.items() if key[0] in self._held}
        due = self._due(waiting)
        return next(((path, True) for path, held in self._held.items() if held and held & due), None)

    async def _rest(self) -> None:
        """Wait for news, or until it is time to try again what is stuck."""
        self.cause = None
        due = min((stuck.due for stuck in self._stuck.values()), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else max(due - time.monotonic(), 0.0)):
                await self._filled.wait()

    async def _work(self, path: Path, again: bool) -> None:
        """Have stored what can be of a segment, and leave of it what cannot."""
        records = await self._insist(lambda: self._do(lambda: self._spool.read(path))) or []
        found, done = readable(records), self._done.pop(path, set())
        kept = [one for one in found if one.instrument.id not in done]
        ids = {one.instrument.id for one in kept}
        self._held[path] = ids
        tried = self._due(ids) if again else ids - self._stuck.keys()
        gate = asyncio.Semaphore(AT_ONCE)
        groups = joined([one for one in kept if one.instrument.id in tried])
        stored = await asyncio.gather(*(self._store(gate, path, *group) for group in groups))
        left = ids - {own.id for (own, _), well in zip(groups, stored, strict=True) if well}
        self._held[path] = left
        rest = [one.record for one in kept if one.instrument.id in left]
        if not await self._tidied(rest, strange=len(found) < len(records)):
            self._done[path] = done | (ids - left)

    def _due(self, ids: set[str]) -> set[str]:
        """Of stuck instruments those to try again now, not too many: what is not stuck waits for them."""
        now = time.monotonic()
        due = sorted((stuck.due, id) for id in ids if (stuck := self._stuck.get(id)) and stuck.due <= now)
        return {id for _, id in due[:AT_ONCE]}

    async def _tidied(self, rest: Sequence[bytes], *, strange: bool) -> bool:
        """Leave ``rest`` of the segment that was read; False where the disk did not let it."""

        def drop() -> None:
            self._spool.drop(rest=rest, keep=strange)

        if not rest:
            await self._insist(lambda: self._do(drop))
            return True
        try:
            await self._do(drop)
        except StoreError as error:  # as on a full disk: it takes the room it has until it is worked on again
            log.warning("what is stored stays on disk beside what is not", cause=str(error))
            return False
        return True

    async def _store(
        self, gate: asyncio.Semaphore, path: Path, instrument: Instrument, batches: Sequence[TradeBatch]
    ) -> bool:
        """Whether all are stored; else their instrument is stuck."""
        async with gate:
            for number, batch in enumerate(batches):
                sending = self._sendings.setdefault((path, instrument.id, number), _Sending())
                try:
                    await self._insist(partial(self._bring, instrument, batch, sending), alone=True)
                except Unavailable as error:
                    self._set_aside(instrument.id, str(error))
                    return False
                metrics.spool_drained.inc(len(batch))
            if self._stuck.pop(instrument.id, None) is not None:
                log.info("what waited of an instrument is being stored", instrument=instrument.id)
            return True

    def _set_aside(self, instrument: str, cause: str) -> None:
        if (stuck := self._stuck.get(instrument)) is None:
            self._stuck[instrument] = _Stuck(cause)
            log.warning("trades of an instrument stay on disk, others do not", instrument=instrument, cause=cause)
        else:
            stuck.still(cause)

    async def _insist(self, work: Callable[[], Awaitable[T]], *, alone: bool = False) -> T:
        """Do ``work`` until it succeeds. Raises ``Unavailable`` where it is about one instrument ``alone`` and fails
        though the store is not away."""
        delay = FIRST
        while True:
            try:
                result = await work()
            except TapewickError as error:
                if alone and self._away() is None and type(error) is Unavailable:
                    self.cause = None
                    raise
                self.cause = str(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST)
            else:
                self.cause = None
                return result

    async def _do(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, job)

    async def _bring(self, instrument: Instrument, batch: TradeBatch, sending: _Sending) -> None:
        """Have a batch stored. Raises as ``Intake.store`` does, ``Unavailable`` too while the store is away."""
        if (cause := self._away()) is not None:
            raise Unavailable(cause, retry_after=RETRY_AFTER)
        await self._intake.register(instrument)
        waits = time.monotonic() < sending.due
        if not waits:
            sending.sent()
        try:
            outcome = await self._intake.store(batch, sent=waits)
        except NoRoom:
            sending.due = 0.0
            raise
        if outcome.other.any():  # its sender was told that it is queued, and is gone
            ids = batch.trade_id[outcome.other]
            metrics.ingest_trades.labels("conflict").inc(len(ids))
            log.error(
                "trades that waited on disk are not stored: their ids are on the tape with other values",
                instrument=instrument.id,
                ids=ids[:20].tolist(),
                count=len(ids),
            )
