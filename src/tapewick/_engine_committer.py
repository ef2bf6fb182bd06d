"""From the tapes to the store: commit groups, and the acknowledgement of what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from tapewick import metrics
from tapewick._engine_announcer import Announcer
from tapewick._engine_patience import Patience
from tapewick.engine.tape import Engine
from tapewick.errors import NotFound
from tapewick.model import Instrument, Refused, TradeBatch, partition_of
from tapewick.pace import Pace
from tapewick.protocols import Delivery, Store
from tapewick.provisional import Provisional

__all__ = ["Committer"]


class Committer:
    """Commits what the tapes of ``engine`` took in, one group at a time, at ``pace``.

    ``fenced`` is told the instruments that the store refused; it says whether they are to be acknowledged all the
    same. ``taken``: trades that were new only because the store said so.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        patience: Patience,
        pace: Pace,
        *,
        out: Announcer,
        provisional: Provisional | None,
        fenced: Callable[[Refused], bool],
        partitions: int,
    ) -> None:
        self._store, self._engine, self._patience, self._pace = store, engine, patience, pace
        self._out, self._provisional, self._fenced, self._partitions = out, provisional, fenced, partitions
        self._unacked: list[Delivery] = []
        self._doubted: list[Delivery] = []  # whose trades wait until the store was asked about them
        self._forsaken: set[int] = set()
        self._dirty, self._committed = asyncio.Event(), asyncio.Event()
        self.lock = asyncio.Lock()
        """Held during a commit, and by whoever changes tapes between two."""
        self.repair_bytes = 0
        self.taken = 0

    def done(self, delivery: Delivery) -> None:
        """Acknowledge with the next commit that holds what it brought."""
        message = delivery.message
        waits = isinstance(message, TradeBatch) and self._engine.waits(message.instrument)
        (self._doubted if waits else self._unacked).append(delivery)
        self._dirty.set()

    def forsake(self, partitions: Collection[int]) -> None:
        """Acknowledge nothing of these ``partitions``: their owner must get it again."""
        self._forsaken.update(partitions)

    def restart(self) -> None:
        """Everything that was read before is settled: what comes now is of new subscriptions."""
        self._unacked, self._doubted = [], []
        self._forsaken.clear()

    def refused(self, instruments: frozenset[str]) -> None:
        """The store says that these tapes are somebody else's, or not there as they were."""
        if not self._fenced(instruments if isinstance(instruments, Refused) else Refused(instruments)):
            self.forsake({partition_of(id, self._partitions) for id in instruments})

    async def next(self) -> None:
        """Return after a commit that begins soon."""
        self._committed.clear()
        self._pace.hurry()
        await self._committed.wait()

    async def now(self) -> None:
        """Return after a commit of all that was taken in until now. It goes on where its caller is cancelled."""
        await asyncio.shield(self._alone())

    async def _alone(self) -> None:
        async with self.lock:
            await self.once()

    def wake(self) -> None:
        """Have ``run`` look, though nothing may have come."""
        self._pace.hurry()
        self._dirty.set()

    async def run(self) -> None:
        """Commit whenever something has come; after ``stopping`` once more at most."""
        while True:
            await self._dirty.wait()
            for _ in range(2):  # sockets are written between turns: open candles leave before this work
                await asyncio.sleep(0)
            self._dirty.clear()
            self._pace.begin()
            await self._alone()
            self._committed.set()
            if self._patience.stopping and not self._dirty.is_set():
                return
            if not self._patience.stopping:
                await self._pace.rest()

    async def once(self) -> None:
        """One commit; ``lock`` must be held, and nothing may cancel it halfway."""
        await self._settle()
        while need := self._engine.missing():
            for tape, keys, windows in need:
                tape.load(await self._patience.insist(partial(self._store.load_candles, tape.number, keys, windows)))
        acks, self._unacked, self.repair_bytes = self._unacked, [], 0
        group = self._engine.take()
        if group:
            with metrics.commit_seconds.time():
                fenced = await self._patience.insist(partial(self._store.commit, group))
            metrics.commits.inc()
            for commit in group:
                if commit.instrument not in fenced:
                    self._out.publish(commit)
            if fenced:
                self.refused(fenced)
        self._out.count()
        for delivery in acks if not self._forsaken else filter(self._kept, acks):
            delivery.ack()

    def _kept(self, delivery: Delivery) -> bool:
        """Whether a delivery is not of a forsaken partition."""
        message = delivery.message
        id = message.id if isinstance(message, Instrument) else message.instrument
        return not id or partition_of(id, self._partitions) not in self._forsaken

    async def _settle(self) -> None:
        """Ask the store about trades that only it can tell apart, and take in those it does not know."""
        deliveries, self._doubted = self._doubted, []
        for tape, names in self._engine.doubtful():
            try:
                known = await self._patience.insist(partial(self._store.holds, tape.instrument.id, names))
            except NotFound:
                self.refused(Refused({tape.instrument.id}, {tape.instrument.id}))
                continue
            new = self._engine.settle(tape, known)
            self.taken += new
            if new and self._provisional is not None:
                self._provisional.changed(tape.instrument.id)
        self._unacked += deliveries
