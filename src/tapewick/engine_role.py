"""The role ``engine``: owns tapes, and brings the bus to the store.

Two lanes leave the engine. Provisional: open candles at once, newest value only. Durable:
numbered trades and changed candles after the commit that holds them. The store is the
truth and the outbox; a bus message is acknowledged after the commit with its effects.

Two lanes enter it. Live trades come on topic ``trades``; what the engine asked its venues for, by
topic ``wanted``, comes back on topic ``repairs``, whose queue is its own: repaired trades can fill
it and wait, live ones neither wait behind them nor are dropped for them, and no commit takes more
than ``max_repair`` bytes of repair along.

Several engines share the instruments by partition. An engine reads only its own; at every change it commits, ends its
subscriptions and subscribes again, so that one engine with all partitions is one reader and one commit group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Set
from typing import Any, Self

import structlog

from tapewick import metrics
from tapewick._engine_announcer import Announcer
from tapewick._engine_committer import Committer
from tapewick._engine_opener import Opener
from tapewick._engine_patience import Patience
from tapewick._engine_reader import Reader
from tapewick.clock import Clock
from tapewick.engine.tape import Engine
from tapewick.errors import BusError, ConfigError, Fenced, Rewound, StoreError
from tapewick.leases import Leases
from tapewick.model import Instrument, Refused, partition_of
from tapewick.net.backoff import Backoff
from tapewick.pace import Pace
from tapewick.protocols import Bus, Store, Subscription
from tapewick.provisional import Provisional

__all__ = ["GROUP", "EngineRole"]

log = structlog.get_logger()

GROUP = "engine"
"""Under which name engines share partitions, in the store and on the bus."""
LOOK = 30.0  # seconds between two looks whether the store still has every instrument
CALM = 30.0  # seconds after which a partition that was taken back counts as quiet again


class EngineRole:
    """Owns tapes: dedupes, numbers, folds, commits, announces.

    ``interval``: seconds at least between commit starts (``pace``). ``max_pending``: bytes of new
    trades not yet committed at which the role stops reading the bus, ``max_repair``: of those, bytes of
    repaired ones. ``provisional``: whether open candles are announced as they change.

    Which of the ``partitions``: with ``leases`` a fair share among all engines that have them; with ``shard`` (i, n)
    those p with p % n == i, for good; else all. An engine without leases that is fenced gives the tapes up, and one
    with a shard fails (``Fenced``). Where the store was restored under it, an engine takes its tapes up again from what
    is there, and one with a shard fails (``Rewound``).
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
        leases: Leases | None = None,
        shard: tuple[int, int] | None = None,
        partitions: int = 16,
    ) -> None:
        if shard is not None and (leases is not None or not 0 <= shard[0] < shard[1]):
            raise ConfigError("a shard is i/n with 0 <= i < n, and needs no leases: give one of the two")
        self._bus, self._store, self._engine, self._clock = bus, store, engine, clock
        self._leases, self._shard, self._partitions = leases, shard, partitions
        self._patience, self._quiet = Patience(), asyncio.Lock()
        self._wire(Provisional(bus, engine.tapes) if provisional else None, interval, max_pending, max_repair)
        metrics.watch_queue("engine: not committed", engine, lambda engine: engine.pending_bytes)
        self.owned: frozenset[int] = frozenset()
        """The partitions whose tapes are this engine's now."""
        self._subscriptions: list[Subscription] = []
        self._readers: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._refused: set[int] = set()
        self._was_refused, self._ended = asyncio.Event(), asyncio.Event()
        self._given_up: set[str] = set()
        self._dropped: dict[str, Instrument] = {}  # of tapes the store may have lost
        self._closing = False
        self._share = None if leases is None else leases.share(GROUP, partitions)

    def _wire(self, lane: Provisional | None, interval: float, max_pending: int, max_repair: int) -> None:
        """Make the parts and have them know each other."""
        store, engine, clock = self._store, self._engine, self._clock
        self._out = Announcer(self._bus, engine, clock, trouble=lambda: self._patience.trouble)
        self._committer = Committer(
            store, engine, self._patience, Pace(interval),
            out=self._out, provisional=lane, fenced=self._on_fenced, partitions=self._partitions,
        )  # fmt: skip
        self._reader = Reader(
            store, engine, clock, self._patience,
            committer=self._committer, out=self._out, provisional=lane, max_pending=max_pending, max_repair=max_repair,
        )  # fmt: skip
        self._opener = Opener(
            store, engine, self._patience,
            out=self._out, owns=self._owns, holds=lambda id: self._holds(self._partition(id)), quiet=self._quiet,
            take=self._reader.take, done=self._committer.done,
        )  # fmt: skip

    @property
    def trades(self) -> int:
        """How many trades were new."""
        return self._reader.new + self._committer.taken

    @property
    def trouble(self) -> str | None:
        """Why the engine is not ready; None while all is well."""
        if not self._tasks:
            return "the engine is starting"
        if self._patience.trouble is None and self._given_up:
            some = ", ".join(sorted(self._given_up)[:3])
            return f"another engine took {some} over: stop one of the two, or have them share (run engine)"
        return self._patience.trouble or (None if self._leases is None else self._leases.trouble)

    async def __aenter__(self) -> Self:
        if self._share is None:
            number, count = self._shard or (0, 1)
            await self._arrange(frozenset(range(number, self._partitions, count)))
        works: list[tuple[str, Coroutine[Any, Any, None]]] = [
            ("heads", self._out.keep_telling()),
            ("wanted", self._out.keep_wanting()),
            ("open", self._opener.run()),
            ("commit", self._committer.run()),
            ("reclaim", self._reclaim()),
            ("look", self._look()),
        ]
        if self._share is not None:
            works += [("own", self._take_part(self._share))]
        self._tasks = [asyncio.create_task(work, name=f"engine-{name}") for name, work in works]
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Commit what was read, then stop; leases go last."""
        self._patience.stopping = True
        telling, wanting, opener, committer, *owning = self._tasks
        async with self._quiet:  # no change of hands is under way, and none begins
            self._closing = True
            await self._halt()
        for task in (telling, wanting):
            task.cancel()
        self._opener.wake()
        await asyncio.wait({opener})
        self._committer.wake()
        outcome = await asyncio.gather(opener, committer, return_exceptions=True)
        await self._unsubscribe()
        self._out.tell_heads()
        for task in owning:
            task.cancel()
        await asyncio.gather(telling, wanting, *owning, return_exceptions=True)
        if self._share is not None:
            await self._share.aclose()
        for failure in outcome:
            if exc[0] is None and isinstance(failure, Exception):
                raise failure

    async def failed(self) -> None:
        """Return never; raises what ended one of the role's tasks."""
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({*self._tasks, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        for task in (*self._tasks, *self._readers):
            if task.done() and not task.cancelled():
                task.result()
        raise BusError("the bus ended while the engine was running")

    # -- which tapes are ours ------------------------------------------------------------------

    def _partition(self, instrument: str) -> int:
        return partition_of(instrument, self._partitions)

    def _owns(self, instrument: str) -> bool:
        return self._partition(instrument) in self.owned

    def _holds(self, partition: int) -> bool:
        """Whether a partition may be ours, whatever we have made of it."""
        return self._leases is None or self._leases.holds(f"{GROUP}/{partition}")

    async def _take_part(self, share: AsyncIterator[frozenset[int]]) -> None:
        """Own what the leases say. What is no longer in a value is closed when the next is asked for."""
        async for owned in share:
            async with self._quiet:
                if not self._closing:
                    await self._arrange(owned)
            if self._closing:  # who asked for the next value would say that this is closed
                await asyncio.Event().wait()

    async def _reclaim(self) -> None:
        """Take partitions again whose commits the store refused though they are ours.

        The store was restored, or an engine that had not noticed its end took them. If the leases are not
        ours, whoever has them has the tapes.
        """
        backoff, last = Backoff(base=0.2, cap=10.0), self._clock.now()
        while True:
            await self._was_refused.wait()
            if self._clock.now() - last > CALM * 1e9:
                backoff.reset()
            await asyncio.sleep(backoff.delay())
            if self._leases is not None:
                await self._leases.renewed()
            async with self._quiet:
                if self._closing:
                    return
                self._was_refused.clear()
                await self._arrange(frozenset(partition for partition in self.owned if self._holds(partition)))
            last = self._clock.now()

    async def _look(self) -> None:
        """Notice that the store was restored and lacks instruments nobody trades at the moment."""
        while True:
            await self._clock.sleep(LOOK)
            ours = set(self._engine.tapes)
            try:
                gone = ours - {one.id for one in await self._store.instruments()}
            except StoreError:
                continue  # who writes is told
            async with self._committer.lock:
                if gone := gone & self._engine.tapes.keys():
                    self._committer.refused(Refused(gone, gone))

    def _on_fenced(self, refused: Refused) -> bool:
        """These tapes are not as we know them: drop them. Whether what they brought is to be acknowledged."""
        taken, rewound = refused - refused.rewound, refused.rewound
        if taken:
            log.error("fenced: another engine owns these instruments", instruments=sorted(taken))
            metrics.fenced.inc(len(taken))
        if rewound:
            log.error("the store has lost what it had acknowledged", instruments=sorted(rewound))
        self._dropped |= {id: self._engine.tapes[id].instrument for id in rewound & self._engine.tapes.keys()}
        self._drop(refused)
        if self._shard is not None:
            raise Fenced(taken) if taken else Rewound(rewound)
        if self._leases is None:
            self._given_up |= taken
        again = rewound if self._leases is None else refused
        if not again:
            return True
        self._refused |= {self._partition(id) for id in again}
        self._was_refused.set()
        for task in self._readers:  # what comes for them now has no tape
            task.cancel()
        return False

    async def _arrange(self, owned: frozenset[int]) -> None:
        """Own exactly ``owned``, and open anew what the store refused; ``_quiet`` must be held.

        What leaves is committed first where it is still ours; what was lost is dropped as it is, and its deliveries
        are not acknowledged: whoever owns it gets them.
        """
        if owned == self.owned and not self._refused and not any(task.done() for task in self._readers):
            return
        gone = self.owned - owned
        closing = frozenset(partition for partition in gone if self._holds(partition))
        lost = gone - closing | self._refused
        self.owned -= lost
        self._committer.forsake(lost)
        self._dropped |= {id: self._engine.tapes[id].instrument for id in self._tapes(self._refused)}
        self._drop(self._tapes(lost))
        await self._halt()
        await self._committer.now()
        lost |= self._refused  # that commit may have found out about more
        self._dropped |= {id: self._engine.tapes[id].instrument for id in self._tapes(self._refused)}
        self._refused = set()
        self._drop(self._tapes(closing | lost))
        self.owned -= closing | lost
        await self._unsubscribe()
        self._committer.restart()
        self._opener.forget()
        await self._open(owned - self.owned)
        self._subscribe()
        log.info("partitions", owned=sorted(self.owned), lost=sorted(lost), closed=sorted(closing))

    def _tapes(self, partitions: Set[int]) -> list[str]:
        return [id for id in self._engine.tapes if self._partition(id) in partitions]

    async def _open(self, partitions: frozenset[int]) -> None:
        """Claim the tapes of ``partitions``. One whose lease runs out meanwhile is left alone."""

        async def claim() -> frozenset[int]:
            ours = frozenset(partition for partition in partitions if self._holds(partition))
            if ours:
                known = {one.id for one in await self._store.instruments()}
                for id in self._dropped.keys() - known:  # who collects them says so again, but later
                    if self._partition(id) in ours:
                        self._out.instrument(await self._store.put_instrument(self._dropped[id]))
                        known.add(id)
                ids = sorted(id for id in known - self._given_up if self._partition(id) in ours)
                self._engine.add(await self._store.claim(ids))
                self._out.opened(ids)
            return ours

        # At the start there is nobody yet to be told of trouble: what is wrong ends the process.
        self.owned |= await (self._patience.insist(claim) if self._tasks else claim())
        self._dropped.clear()

    def _drop(self, instruments: Collection[str]) -> None:
        """Give tapes up, with what they did not commit."""
        self._engine.drop(instruments)
        self._out.dropped(instruments)

    # -- reading -------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        """Read the partitions that are ours, one reader per lane."""
        metrics.partitions_owned.set(len(self.owned))
        if not self.owned:
            return
        chosen = None if len(self.owned) == self._partitions else sorted(self.owned)
        live, repairs = (
            self._bus.subscribe([topic], group=GROUP, partitions=chosen) for topic in ("trades", "repairs")
        )
        self._subscriptions = [live, repairs]
        works = (("read", self._reader.live(live, self._opener)), ("repairs", self._reader.repairs(repairs)))
        self._readers = [asyncio.create_task(work, name=f"engine-{name}") for name, work in works]
        for task in self._readers:
            task.add_done_callback(self._reader_ended)

    def _reader_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._ended.set()

    async def _halt(self) -> None:
        """Stop reading. What was handed over and not taken in comes again."""
        for task in self._readers:
            task.cancel()
        if self._readers:
            await asyncio.wait(self._readers)

    async def _unsubscribe(self) -> None:
        """End the subscriptions; what was acknowledged has been noted when this returns."""
        await asyncio.gather(*(one.close() for one in self._subscriptions))
        self._subscriptions, self._readers = [], []
