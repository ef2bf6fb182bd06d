"""Who does what among several processes: names that one of them holds at a time, by leases in the store.

A lease runs out by the store's clock; its holder counts the same seconds by a clock of its own, from before it asked,
and stops earlier than the store gives the name away. A holder that stood still and does not know it yet is not
stopped by this: what it must not do, the store itself refuses (``Fenced``).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Set
from contextlib import asynccontextmanager
from typing import Any, Self

import structlog

from tapewick import metrics
from tapewick._shares import fair_share
from tapewick.clock import Clock, ElapsedClock
from tapewick.errors import LeaseLost, StoreError
from tapewick.model import Lease
from tapewick.protocols import Store

__all__ = ["Leases"]

log = structlog.get_logger()

LOOK = 1.0  # seconds between two looks at most: who waits for a name has it that soon after it was given back
FAREWELL = 3.0  # seconds that giving everything back may take at the end
SECOND = 1e9


class Leases:
    """The leases of one process, while its context is open. One task renews them, every third of ``ttl`` (seconds) or
    second; at the end all are given back. ``holder``: a name no other process has, of 64 characters at most.
    """

    def __init__(self, store: Store, *, holder: str = "", ttl: float = 10.0, clock: Clock | None = None) -> None:
        self._store, self._ttl, self._clock = store, ttl, clock or ElapsedClock()
        self.holder = (holder or f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}")[:64]
        self._wanted: set[str] = set()
        self._held: dict[str, int] = {}  # until when, by our clock
        self._terms: Counter[str] = Counter()  # how many times each was had anew
        self._giving: set[str] = set()  # no longer ours, which the store must be told
        self._standing: dict[str, Lease] = {}  # what the store said last
        self._bodies: dict[str, asyncio.Timeout] = {}
        self._uses: dict[str, asyncio.Lock] = {}
        self._news, self._poked = asyncio.Event(), asyncio.Event()
        self._begun = self._ended = 0
        self._task: asyncio.Task[None] | None = None
        self._strays: set[asyncio.Future[Any]] = set()
        self.trouble: str | None = "leases are not renewed: the store has not answered yet"
        """Why leases are not renewed; None while they are."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="leases")
        self._task.add_done_callback(lambda _: self._tell())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        names = self._held.keys() | self._giving | self._wanted
        self._held.clear()
        self._count()
        giving = asyncio.ensure_future(self._store.release(self.holder, names))
        await asyncio.wait({giving}, timeout=FAREWELL)
        if not giving.done():
            self._abandon(giving)
            log.warning("leases are not given back: they run out by themselves", seconds=self._ttl)
        elif isinstance(error := giving.exception(), StoreError):
            log.warning("leases are not given back: they run out by themselves", seconds=self._ttl, cause=str(error))
        else:
            giving.result()

    def holds(self, name: str) -> bool:
        """Whether ``name`` is ours now, by our own clock."""
        return self._held.get(name, 0) > self._clock.now()

    async def renewed(self) -> bool:
        """Return after a renewal that begins now: whether the store answered, and ``holds`` is what it says."""
        before = self._begun
        self._poke()
        while self._ended <= before:
            await self._hear()
        return self.trouble is None

    @asynccontextmanager
    async def sole(self, name: str) -> AsyncIterator[None]:
        """Wait until this process holds ``name``, and hold it for the block.

        Where the lease is lost the block is cancelled and ``LeaseLost`` raised.
        """
        async with self._uses.setdefault(name, asyncio.Lock()):
            try:
                self._want([name])
                while not self.holds(name):
                    await self._hear()
                try:
                    async with asyncio.timeout(None) as bound:
                        self._bodies[name] = bound
                        yield
                except TimeoutError:
                    if bound.expired():
                        raise LeaseLost(f"the lease {name!r} was lost: another process may hold it") from None
                    raise
            finally:
                self._bodies.pop(name, None)
                self._give([name])

    async def guarded(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work()`` whenever and only while this process holds ``name``: cancelled when the lease is lost, begun
        again when it is had again. Never returns; raises what work raises. Work that has ended is not begun again
        while the lease lasts."""
        while True:
            try:
                async with self.sole(name):
                    await work()
                    await asyncio.Event().wait()
            except LeaseLost as error:
                log.warning("stopped", work=name, cause=str(error))

    async def share(self, group: str, count: int) -> AsyncGenerator[frozenset[int], None]:
        """The fair share of the leases ``group/0 … group/count-1`` among all live members of ``group``.

        Yields the numbers held at every change. What a member has too many of it gives back only when the consumer
        comes for the next value, having closed what is not in the one before. What is lost for a moment is missing
        from one value at least. Closing the generator gives everything back.
        """
        names = [f"{group}/{at}" for at in range(count)]
        told: dict[int, int] = {}  # by number, in which term
        try:
            while True:
                keep = self._claimed(group, names)
                surplus = {at for at, name in enumerate(names) if self.holds(name)} - keep
                terms = {at: self._terms[names[at]] for at in keep}
                anew = {at for at in told.keys() & keep if told[at] != terms[at]}
                self._give([names[at] for at in surplus - told.keys()])
                if anew or told.keys() != keep:
                    told = {at: terms[at] for at in keep - anew}
                    yield frozenset(told)
                    self._give([names[at] for at in surplus])
                else:
                    await self._hear()
        finally:
            self._give([f"{group}/member/{self.holder}", *names])

    def _claimed(self, group: str, names: list[str]) -> set[int]:
        """Which of ``names`` to keep; the free ones that we should have are asked for."""
        member = f"{group}/member/"
        mine = {at for at, name in enumerate(names) if self.holds(name)}
        if not self.holds(member + self.holder):
            self._want([member + self.holder])
            return mine
        members = sorted(name for name in self._standing if name.startswith(member))
        free = {at for at, name in enumerate(names) if name not in self._standing} - mine
        rank = members.index(member + self.holder)
        keep, take = fair_share(len(names), len(members), rank, mine=mine, free=free)
        self._wanted -= {name for at, name in enumerate(names) if at not in mine}
        self._want([names[at] for at in sorted(take)])
        return keep

    # -- what is wanted ------------------------------------------------------------------------

    def _want(self, names: Collection[str]) -> None:
        if not self._wanted.issuperset(names):
            self._wanted.update(names)
            self._poke()

    def _give(self, names: Collection[str]) -> None:
        self._wanted.difference_update(names)
        given = [name for name in names if self._held.pop(name, None) is not None]
        if given:
            self._giving.update(given)
            self._count()
            self._poke()

    def _poke(self) -> None:
        """Have the store asked at once."""
        self._poked.set()

    def _tell(self) -> None:
        """Wake everybody who waits for a change."""
        self._news.set()
        self._news = asyncio.Event()

    async def _hear(self) -> None:
        """Return when something may have changed. Raises what ended the task that renews."""
        if self._task is None or self._task.done():
            if self._task is not None and not self._task.cancelled():
                self._task.result()
            raise StoreError("leases are not renewed: their context is not open")
        await self._news.wait()

    def _count(self) -> None:
        metrics.leases_held.set(len(self._held))

    # -- the one task --------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            self._poked.clear()
            self._begun += 1
            answered = await self._turn()
            self._ended = self._begun
            self._tell()
            pause = min(self._ttl / 3, LOOK)
            if answered:  # a dead holder's lease is looked at when it has run out
                ends = [one.left for one in self._standing.values() if one.holder != self.holder]
                pause = max(min([pause, *(left + 0.005 for left in ends)]), 0.01)
            poked = asyncio.ensure_future(self._poked.wait())
            try:
                await self._until(self._clock.now() + int(pause * SECOND), poked if answered else None)
            finally:
                poked.cancel()

    async def _turn(self) -> bool:
        """Ask the store once; whether it answered in time. What runs out meanwhile is lost meanwhile."""
        call = asyncio.ensure_future(self._ask(frozenset(self._giving), frozenset(self._wanted)))
        try:
            await self._until(self._clock.now() + int(self._ttl * SECOND), call)
        finally:
            if not call.done():
                self._abandon(call)
        if not call.done() or call.cancelled():
            self._failed("it does not answer in time")
            return False
        if isinstance(error := call.exception(), StoreError):
            self._failed(str(error))
            return False
        self._settle(*call.result())
        return True

    async def _ask(self, giving: frozenset[str], take: frozenset[str]) -> tuple[int, dict[str, Lease]]:
        """What stands in the store now, and a time by our clock that is not later."""
        if giving:
            await self._store.release(self.holder, giving)
            self._giving -= giving
        asked = self._clock.now()
        return asked, await self._store.lease(self.holder, take, self._ttl)

    def _settle(self, asked: int, standing: dict[str, Lease]) -> None:
        if self.trouble is not None and self._ended > 0:
            log.warning("leases are renewed again", holder=self.holder)
        self.trouble, self._standing, now = None, standing, self._clock.now()
        mine = {name: asked + int(one.left * SECOND) for name, one in standing.items() if one.holder == self.holder}
        if gone := self._held.keys() - mine.keys():
            others = sorted({standing[name].holder for name in gone & standing.keys()})
            self._lose(gone, f"held by {', '.join(others)}" if others else "they had run out")
        self._giving |= mine.keys() - self._wanted
        for name in mine.keys() & self._wanted - self._giving:
            if mine[name] > now:
                self._terms[name] += name not in self._held
                self._held[name] = mine[name]
        self._count()
        if self._giving:
            self._poke()

    def _failed(self, cause: str) -> None:
        trouble = f"leases are not renewed: {cause}"
        if self.trouble != trouble:
            log.error("leases are not renewed; trying on", holder=self.holder, cause=cause)
        self.trouble = trouble

    def _expire(self) -> None:
        """Lose what has run out by our own clock."""
        now = self._clock.now()
        if ended := {name for name, end in self._held.items() if end <= now}:
            self._lose(ended, "they could not be renewed in time")
            self._tell()

    def _lose(self, names: Set[str], cause: str) -> None:
        metrics.leases_lost.inc(len(names))
        log.error("leases lost", names=sorted(names), holder=self.holder, cause=cause)
        for name in names:
            del self._held[name]
            if (body := self._bodies.pop(name, None)) is not None:
                body.reschedule(asyncio.get_running_loop().time())
        self._count()

    async def _until(self, end: int, other: asyncio.Future[Any] | None) -> None:
        """Return at ``end`` (ns, by our clock), or when ``other`` is done. What runs out before is lost at its time."""
        while (now := self._clock.now()) < end and not (other is not None and other.done()):
            next = min([end, *self._held.values()])
            timer = asyncio.ensure_future(self._clock.sleep(max(0, next - now) / SECOND))
            try:
                await asyncio.wait({timer} if other is None else {timer, other}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
            self._expire()

    def _abandon(self, call: asyncio.Future[Any]) -> None:
        """Cancel without waiting: on a server that hangs even that may take long."""
        call.cancel()
        self._strays.add(call)

        def over(done: asyncio.Future[Any]) -> None:
            self._strays.discard(done)
            if not done.cancelled():
                done.exception()

        call.add_done_callback(over)
