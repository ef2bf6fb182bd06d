"""From the bus into the tapes: the lane of live trades, and beside it that of repair."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import structlog

from tapewick._engine_announcer import Announcer
from tapewick._engine_committer import Committer
from tapewick._engine_opener import Opener
from tapewick._engine_patience import Patience
from tapewick.clock import Clock
from tapewick.engine.tape import Engine, Tape
from tapewick.errors import Fenced, ModelError
from tapewick.model import Gap, Health, Message, Refused, TradeBatch, Wanted
from tapewick.protocols import Delivery, Store
from tapewick.provisional import Provisional
from tapewick.repair import missing_part

__all__ = ["Reader"]

log = structlog.get_logger()

AGAIN = 1.0  # seconds between two complaints that the bus loses messages


class Reader:
    """Reads deliveries into the tapes of ``engine`` and hands them to ``committer``.

    ``max_pending``: bytes of new trades not yet committed at which it stops reading, ``max_repair``: of those, bytes
    of repaired ones. ``new``: how many trades were.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        clock: Clock,
        patience: Patience,
        *,
        committer: Committer,
        out: Announcer,
        provisional: Provisional | None,
        max_pending: int,
        max_repair: int,
    ) -> None:
        self._store, self._engine, self._clock, self._patience = store, engine, clock, patience
        self._committer, self._out, self._provisional = committer, out, provisional
        self._max_pending, self._max_repair = max_pending, max_repair
        self._complained = 0.0
        self.new = 0

    async def live(self, deliveries: AsyncIterator[Delivery], opener: Opener) -> None:
        """Take in what venues and programs send."""
        engine, committer = self._engine, self._committer
        async for delivery in deliveries:
            if delivery.lost:
                self._missed()
            if not opener.put_off(delivery):
                await self._handle(delivery.message)
                committer.done(delivery)
            while engine.pending_bytes + opener.held_bytes >= self._max_pending:
                await committer.next()

    async def repairs(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Take in what repair brings, no more of it per commit than ``max_repair`` bytes."""
        committer = self._committer
        async for delivery in deliveries:
            if delivery.lost:
                self._missed()
            message = delivery.message
            if isinstance(message, TradeBatch):
                await self._repair(message)
                committer.repair_bytes += message.nbytes
            elif isinstance(message, Gap | Wanted) and (tape := self._engine.tapes.get(message.instrument)):
                self._note(tape, message)
            committer.done(delivery)
            while committer.repair_bytes >= self._max_repair:
                await committer.next()

    async def take(self, delivery: Delivery) -> None:
        """Take in trades that waited for their tape."""
        assert isinstance(delivery.message, TradeBatch)
        await self._ingest(delivery.message)
        self._committer.done(delivery)

    def _missed(self) -> None:
        """The bus let go of messages before they were read: the holes are its doing, and what is missing is said
        again, for that may be what was lost."""
        now = time.monotonic()
        if now - self._complained < AGAIN:
            return
        self._complained = now
        log.warning("the bus lost messages before they were read; what they held is a gap to repair")
        for tape in self._engine.tapes.values():
            tape.disconnected("bus")
        self._out.want_all()

    def _note(self, tape: Tape, message: Gap | Wanted) -> None:
        """What the repair lane says of a range, or what somebody wants beside what the tape lacks."""
        if isinstance(message, Gap):
            tape.gaps.report(message)
        else:
            tape.ask(message)
        self._engine.touch(tape.instrument.id)
        self._committer.wake()  # the lane hears of it with the next commit

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

    async def _repair(self, batch: TradeBatch) -> None:
        """Take in a page, of its aggregates what the tape lacks. Between that look at the tape and this step nothing
        is awaited."""
        if not await self._fits(batch):
            return
        if (tape := self._engine.tapes.get(batch.instrument)) is not None:
            part = partial(missing_part, batch, tape, self._store, self._committer.now)
            batch = await self._patience.insist(part)
        self._take_in(batch)

    async def _ingest(self, batch: TradeBatch) -> None:
        if await self._fits(batch):
            self._take_in(batch)

    async def _fits(self, batch: TradeBatch) -> bool:
        """Whether the tape has the digits of ``batch``, given more of them where they can be had; else it is counted
        out."""
        tape = self._engine.tapes.get(batch.instrument)
        if tape is not None and tape.widened(batch) is not None:
            await asyncio.shield(self._widen(batch))  # rows in the store and in memory change together
            tape = self._engine.tapes.get(batch.instrument)
            if tape is not None and tape.widened(batch) is not None:
                self._engine.rejects["overflow"] += len(batch)
                return False
        return True

    def _take_in(self, batch: TradeBatch) -> None:
        new = self._engine.ingest(batch, self._clock.now())
        self.new += new
        if new and self._provisional is not None:
            self._provisional.changed(batch.instrument)

    async def _widen(self, batch: TradeBatch) -> None:
        """Give an instrument more digits, everywhere; nothing changes if its numbers would not fit."""
        async with self._committer.lock:
            tape = self._engine.tapes.get(batch.instrument)
            if tape is None or (scales := tape.widened(batch)) is None:  # given up meanwhile, or done
                return
            tape.expect(scales)  # the other lane goes on
            try:
                await self._committer.once()
                if self._engine.tapes.get(batch.instrument) is tape and await self._rescale(tape, scales):
                    self._out.instrument(tape.instrument)
            finally:
                tape.expect(None)

    async def _rescale(self, tape: Tape, scales: tuple[int, int]) -> bool:
        """Rescale what is stored of a tape and what it has taken in since; whether that was done."""
        id = tape.instrument.id
        try:
            tape.rescale(await self._patience.insist(partial(self._store.rescale, id, *scales, owner=tape.owner)))
        except ModelError as error:
            log.warning("scale refused", instrument=id, cause=str(error))
        except Fenced as error:
            self._committer.refused(error.instruments)
        except OverflowError as error:  # by sums of what came meanwhile: the tape is not what is stored any more
            log.warning("the tape is opened anew", instrument=id, cause=str(error))
            self._committer.refused(Refused({id}, {id}))
        else:
            return True
        return False
