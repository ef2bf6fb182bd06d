"""The roles that move data: ``collect`` brings a source to the bus, ``engine`` brings the bus to the store.

Two lanes leave the engine. Provisional: open candles at once, newest value only. Durable:
numbered trades and changed candles after the commit that holds them. The store is the
truth and the outbox; a bus message is acknowledged after the commit with its effects.

Two lanes enter it. Live trades come on topic ``trades``; what the engine asked its venues for, by
topic ``wanted``, comes back on topic ``repairs``, whose queue is its own: repaired trades can fill
it and wait, live ones neither wait behind them nor are dropped for them, and no commit takes more
than ``max_repair`` bytes of repair along.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Self, TypeVar

import structlog

from tapewick import metrics
from tapewick.clock import Clock
from tapewick.engine.tape import Engine, Tape
from tapewick.errors import BusError, ModelError, StoreDamaged, StoreError
from tapewick.model import (
    BookUpdate,
    CandleBatch,
    Gap,
    Head,
    Health,
    Instrument,
    Message,
    Quote,
    TapeCommit,
    TradeBatch,
    Wanted,
)
from tapewick.pace import Pace
from tapewick.protocols import Bus, Delivery, Source, Store
from tapewick.repair import missing_part

__all__ = ["EngineRole", "collect"]

log = structlog.get_logger()

T = TypeVar("T")

WANTED_EVERY = 60  # seconds between two announcements of what is missing, while something is
STATES = ("open", "repairing", "unrepairable")


async def collect(source: Source, bus: Bus) -> None:
    """Publish everything ``source`` yields until it ends.

    A pull source waits while the bus is full. From any other source whole batches are
    dropped and counted: their reader must never wait, and the ledger records the hole.
    What the source itself refused, by its counter ``rejects``, is counted as quarantined.
    """
    told: Counter[str] = Counter()
    async with aclosing(source.events()) as events:
        async for event in events:
            _count_refused(source, told)
            if isinstance(event, BookUpdate | Quote):
                bus.offer("books", event)
                continue
            if isinstance(event, Health):
                bus.offer("health", event)
            if source.pull or not isinstance(event, TradeBatch):
                if not bus.offer("trades", event):  # a network bus confirms what is published: not one by one
                    await bus.publish("trades", event)
                await asyncio.sleep(0)  # a pull source may never suspend by itself
            elif not bus.offer("trades", event):
                metrics.dropped_batches.labels(source.name).inc()
    _count_refused(source, told)


def _count_refused(source: Source, told: Counter[str]) -> None:
    """Bring the metric from ``told``, which is updated, to what the source counts."""
    rejects: Counter[str] | None = getattr(source, "rejects", None)
    if rejects and rejects != told:
        for reason, count in (rejects - told).items():
            metrics.quarantined.labels(reason).inc(count)
        told.update(rejects - told)


class EngineRole:
    """Owns tapes: dedupes, numbers, folds, commits, announces.

    ``interval``: seconds at least between commit starts (``pace``). ``max_pending``: bytes of new
    trades not yet committed at which the role stops reading the bus, ``max_repair``: of those, bytes of
    repaired ones. ``provisional``: whether open candles are announced as they change.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        engine: Engine,
        clock: Clock,
        *,
        interval: float = 0.02,
        max_pending: int = 8 << 20,
        max_repair: int = 1 << 20,
        provisional: bool = True,
    ) -> None:
        self._bus, self._store, self._engine, self._clock = bus, store, engine, clock
        self._pace, self._max_pending, self._provisional = Pace(interval), max_pending, provisional
        self._max_repair, self._repair_bytes = max_repair, 0
        self._unacked: list[Delivery] = []
        self._announced: list[tuple[Delivery, Instrument]] = []
        self._held: dict[str, list[Delivery]] = {}  # by instruments whose tapes are being opened
        self._held_bytes = 0
        self._arrived = asyncio.Event()
        self._dirty = asyncio.Event()
        self._committed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._heads: dict[str, Head] = {}
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.trouble: str | None = "the engine is starting"
        """Why the engine is not ready; None while all is well."""
        self.trades = 0
        self._counted: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        known = [instrument.id for instrument in await self._store.instruments()]
        self._engine.add(await self._store.claim(known))
        deliveries = self._bus.subscribe(["trades"], group="engine")
        repairs = self._bus.subscribe(["repairs"], group="engine")
        self._heads.update((id, tape.head) for id, tape in self._engine.tapes.items())
        self._tasks = [
            asyncio.create_task(self._read(deliveries), name="engine-read"),
            asyncio.create_task(self._read_repairs(repairs), name="engine-repairs"),
            asyncio.create_task(self._announce_heads(), name="engine-heads"),
            asyncio.create_task(self._announce_wanted(), name="engine-wanted"),
            asyncio.create_task(self._opens(), name="engine-open"),
            asyncio.create_task(self._commits(), name="engine-commit"),
        ]
        self.trouble = None
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Commit what was read, then stop."""
        self._stopping = True
        self._pace.hurry()
        *readers, opener, committer = self._tasks
        for task in readers:
            task.cancel()
        self._arrived.set()
        await asyncio.wait({*readers, opener})
        self._dirty.set()
        outcome = await asyncio.gather(opener, committer, *readers, return_exceptions=True)
        self._offer_heads()
        for failure in outcome[:2]:
            if exc[0] is None and isinstance(failure, Exception):
                raise failure

    async def failed(self) -> None:
        """Return never; raises what ended one of the role's tasks."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise BusError("the bus ended while the engine was running")

    async def _read(self, deliveries: AsyncIterator[Delivery]) -> None:
        async for delivery in deliveries:
            if not self._put_off(delivery):
                await self._handle(delivery.message)
                self._done(delivery)
            while self._engine.pending_bytes + self._held_bytes >= self._max_pending:
                await self._next_commit()

    async def _read_repairs(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Take in what repair brings, no more of it per commit than ``max_repair`` bytes."""
        async for delivery in deliveries:
            message = delivery.message
            if isinstance(message, TradeBatch):
                tape = self._engine.tapes.get(message.instrument)
                if tape is not None:
                    part = partial(missing_part, message, tape, self._store, self._commit_now)
                    message = await self._insist(part)
                await self._ingest(message)
                self._repair_bytes += message.nbytes
            elif isinstance(message, Gap | Wanted) and (tape := self._engine.tapes.get(message.instrument)):
                self._note(tape, message)
            self._done(delivery)
            while self._repair_bytes >= self._max_repair:
                await self._next_commit()

    async def _next_commit(self) -> None:
        self._committed.clear()
        self._pace.hurry()
        await self._committed.wait()

    def _note(self, tape: Tape, message: Gap | Wanted) -> None:
        """What the repair lane says of a range, or what somebody wants beside what the tape lacks."""
        if isinstance(message, Gap):
            tape.gaps.report(message)
        else:
            tape.ask(message)
        self._pace.hurry()  # the lane hears of it with the next commit
        self._engine.touch(tape.instrument.id)

    async def _commit_now(self) -> None:
        async with self._lock:
            await self._commit_once()

    def _done(self, delivery: Delivery) -> None:
        """Acknowledge with the next commit."""
        self._unacked.append(delivery)
        self._dirty.set()

    def _put_off(self, delivery: Delivery) -> bool:
        """Keep an announcement, and trades that wait for one, until ``_opens`` has opened the tapes."""
        message = delivery.message
        if isinstance(message, Instrument):
            tape = self._engine.tapes.get(message.id)
            if tape is not None and tape.instrument.status == message.status:
                return False
            self._announced.append((delivery, message))
            if tape is None:
                self._held.setdefault(message.id, [])
            self._arrived.set()
            return True
        if isinstance(message, TradeBatch) and message.instrument in self._held:
            self._held[message.instrument].append(delivery)
            self._held_bytes += message.nbytes
            return True
        return False

    async def _handle(self, message: Message) -> None:
        if isinstance(message, TradeBatch):
            await self._ingest(message)
        elif isinstance(message, Health) and not message.instrument:
            for tape in self._engine.tapes.values():
                if tape.instrument.venue != message.source:
                    continue
                if message.state == "disconnected":
                    tape.disconnected()
                elif message.state == "connected":
                    tape.gaps.retry(given_up=True)
                    self._engine.touch(tape.instrument.id)

    async def _ingest(self, batch: TradeBatch) -> None:
        tape = self._engine.tapes.get(batch.instrument)
        if tape is not None and (scales := tape.widened(batch)) is not None and not await self._widen(batch, *scales):
            self._engine.rejects["overflow"] += len(batch)
            return
        new = self._engine.ingest(batch, self._clock.now())
        self.trades += new
        if new and self._provisional and tape is not None and (live := tape.live()) is not None:
            self._bus.offer("candles", live)

    async def _opens(self) -> None:
        """Enter what was announced, and open new tapes: all that wait in one claim.

        A venue announces its instruments one by one, and a claim costs as much for one as for a hundred.
        """
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            announced, self._announced = self._announced, []
            await self._enter({instrument.id: instrument for _, instrument in announced})
            for delivery, _ in announced:
                self._done(delivery)
            if self._stopping and not self._announced:
                return

    async def _enter(self, announced: dict[str, Instrument]) -> None:
        stored = [await self._store.put_instrument(instrument) for instrument in announced.values()]
        fresh = [id for id in announced if id not in self._engine.tapes]
        if fresh:
            self._engine.add(await self._store.claim(fresh))
            self._heads.update((id, self._engine.tapes[id].head) for id in fresh)
        for instrument in stored:
            self._bus.offer("instruments", instrument)
        for id in fresh:
            await self._release(id)

    async def _release(self, id: str) -> None:
        """Ingest the trades that waited for their tape."""
        while waiting := self._held[id]:
            delivery = waiting.pop(0)
            assert isinstance(delivery.message, TradeBatch)
            self._held_bytes -= delivery.message.nbytes
            await self._ingest(delivery.message)
            self._done(delivery)
        del self._held[id]

    async def _widen(self, batch: TradeBatch, price_scale: int, size_scale: int) -> bool:
        """Give an instrument more digits, everywhere; False if its numbers would not fit."""
        async with self._lock:
            await self._commit_once()
            tape = self._engine.tapes[batch.instrument]
            try:
                instrument = await self._store.rescale(batch.instrument, price_scale, size_scale)
            except ModelError as error:
                log.warning("scale refused", instrument=batch.instrument, cause=str(error))
                return False
            tape.rescale(instrument)
        self._bus.offer("instruments", instrument)
        return True

    async def _commits(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(0)  # sockets are written between turns: open candles leave before this work
            self._dirty.clear()
            self._pace.begin()
            async with self._lock:
                await self._commit_once()
            self._committed.set()
            if self._stopping and not self._dirty.is_set():
                return
            if not self._stopping:
                await self._pace.rest()

    async def _commit_once(self) -> None:
        while need := self._engine.missing():
            for tape, keys, windows in need:
                tape.load(await self._insist(partial(self._store.load_candles, tape.number, keys, windows)))
        acks, self._unacked, self._repair_bytes = self._unacked, [], 0
        group = self._engine.take()
        if group:
            with metrics.commit_seconds.time():
                fenced = await self._insist(partial(self._store.commit, group))
            metrics.commits.inc()
            if fenced:
                log.error("fenced: another engine owns these instruments", instruments=sorted(fenced))
                self._engine.drop(fenced)
            for commit in group:
                if commit.instrument not in fenced:
                    self._publish(commit)
        self._count()
        for delivery in acks:
            delivery.ack()

    def _count(self) -> None:
        """Bring the metrics up to date: once per commit, never per trade."""
        rejects = self._engine.rejects
        for reason, count in (rejects - self._counted).items():
            if reason == "duplicate":
                metrics.duplicates.inc(count)
            else:
                metrics.quarantined.labels(reason).inc(count)
        self._counted = rejects.copy()

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` until the store lets us: what was taken from the tapes must be written."""
        delay = 0.1
        while True:
            try:
                result = await work()
            except StoreDamaged:
                raise
            except StoreError as error:
                if self._stopping and delay > 2:
                    raise
                if self.trouble is None:
                    log.error("the store refuses writes; trying on", cause=str(error))
                self.trouble = str(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
            else:
                self.trouble = None
                return result

    def _publish(self, commit: TapeCommit) -> None:
        """Announce a commit that is in the store, and by that make its positions public."""
        tape = self._engine.tapes[commit.instrument]
        tape.committed = commit.head
        for batch in commit.trades:
            metrics.trades.inc(len(batch))
            self._bus.offer("tape", batch)
        if len(commit.rows):
            own = tape.instrument
            rows = CandleBatch(
                instrument=commit.instrument,
                rows=commit.rows,
                price_scale=own.price_scale,
                size_scale=own.size_scale,
                epoch=commit.head.epoch,
                pos=commit.head.pos,
            )
            self._bus.offer("candles", rows)
        if commit.gaps:
            self._want(tape)
        self._heads[commit.instrument] = commit.head

    def _want(self, tape: Tape) -> None:
        """Announce what is missing; no range at all ends earlier wishes."""
        id, states = tape.instrument.id, tape.gaps.states
        for state in STATES:
            metrics.gaps_open.labels(id, state).set(states[state])
        self._bus.offer("wanted", tape.wanted() or Wanted(instrument=id, ranges=()))

    async def _announce_wanted(self) -> None:
        while True:
            for tape in self._engine.tapes.values():
                if tape.open_gaps:
                    self._want(tape)
            await self._clock.sleep(WANTED_EVERY)

    async def _announce_heads(self) -> None:
        while True:
            self._offer_heads()
            await self._clock.sleep(1)

    def _offer_heads(self) -> None:
        for head in self._heads.values():
            self._bus.offer("head", head)
        self._heads.clear()
