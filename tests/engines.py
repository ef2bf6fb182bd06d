"""Several engines in one test: each in a thread with a loop of its own, so that one can be paused, or killed, anywhere.

They share a real Redis and a real PostgreSQL. What each committed is written down; at the end the tapes must equal
those of one engine that nobody disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from tapewick.buses.memory import MemoryBus
from tapewick.buses.redis import RedisBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.errors import StoreError
from tapewick.leases import Leases
from tapewick.model import Instrument, Lease, TapeCommit, TradeBatch
from tapewick.protocols import Bus, Store
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import SECOND

T0 = 1_723_161_240 * SECOND
PATIENCE = 90
VALUES = (
    "open_time", "open", "high", "low", "close", "volume_lo", "volume_hi", "quote_volume_lo", "quote_volume_hi",
    "taker_buy_volume_lo", "taker_buy_volume_hi", "trades", "first_id", "last_id", "first_ts", "last_ts", "first_key",
    "state", "complete",
)  # fmt: skip

Commit = tuple[str, str, int, int, int]  # engine, instrument, owner, pos before and after


def instruments(count: int) -> list[Instrument]:
    return [
        Instrument(id=f"sim:S{at}", venue="sim", symbol=f"S{at}", price_scale=2, size_scale=5) for at in range(count)
    ]


def trades(id: str, first: int, last: int, **more: Any) -> TradeBatch:
    """Ids first..last, 7 a second; everything follows from the id."""
    ids = np.arange(first, last + 1, dtype=np.int64)
    n = len(ids)
    columns: dict[str, Any] = {
        "instrument": id, "trade_id": ids, "first_id": ids, "count": np.ones(n, np.int32),
        "ts_event": T0 + ids * SECOND // 7, "ts_recv": T0 + ids * SECOND // 7, "price": 6_000_000 + ids * 37 % 1000,
        "size": 100 + ids % 11, "side": np.where(ids % 3 == 0, -1, 1).astype(np.int8),
        "price_scale": 2, "size_scale": 5,
    }  # fmt: skip
    return TradeBatch(**(columns | more))


class Noting(PostgresStore):
    """Writes down every commit that the store admitted; refuses to write while ``away`` is set."""

    def __init__(self, dsn: str, name: str, history: list[Commit], away: threading.Event) -> None:
        super().__init__(dsn, pool_min=1, pool_max=4)
        self._name, self._history, self._away = name, history, away

    async def lease(self, holder: str, take: Collection[str], ttl: float) -> dict[str, Lease]:
        if self._away.is_set():
            raise StoreError("the server is away; start it")
        return await super().lease(holder, take, ttl)

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        if self._away.is_set():
            raise StoreError("the server is away; start it")
        fenced = await super().commit(group)
        self._history.extend(
            (self._name, part.instrument, part.owner, part.expected_pos, part.head.pos)
            for part in group
            if part.instrument not in fenced
        )
        return fenced


class EngineProcess(threading.Thread):
    """One engine with bus, store and leases of its own."""

    def __init__(self, name: str, dsn: str, url: str, bus: str, history: list[Commit], **options: Any) -> None:
        super().__init__(name=name, daemon=True)
        self._dsn, self._url, self._bus, self._history = dsn, url, bus, history
        self._ttl: float = options.pop("ttl", 1.5)
        self._leased: bool = options.pop("leased", True)
        self._options = options
        self._ready, self._gate = threading.Event(), threading.Event()
        self._gate.set()
        self.away = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.role: EngineRole | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            try:
                runner.run(self._serve())
            except BaseException as error:  # told by whoever joins
                self.error = error
            finally:
                self._ready.set()

    async def _serve(self) -> None:
        self._asked = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            store = await enter(Noting(self._dsn, self.name, self._history, self.away))
            bus = await enter(RedisBus(self._url, name=self._bus))
            leases = await enter(Leases(store, ttl=self._ttl)) if self._leased else None
            role = EngineRole(bus, store, Engine(), RealClock(), interval=0.001, leases=leases, **self._options)
            self.role = await enter(role)
            self._ready.set()
            stop, failed = asyncio.create_task(self._asked.wait()), asyncio.create_task(role.failed())
            await asyncio.wait({stop, failed}, return_when=asyncio.FIRST_COMPLETED)
            for task in (stop, failed):
                task.cancel()
            if failed.done() and not failed.cancelled():
                failed.result()

    async def begin(self) -> EngineProcess:
        self.start()
        await asyncio.to_thread(self._ready.wait, PATIENCE)
        assert self.role is not None, self.error
        return self

    async def end(self) -> None:
        """A clean stop."""
        self.loop.call_soon_threadsafe(self._asked.set)
        await asyncio.to_thread(self.join, PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error

    def pause(self) -> None:
        """Stand still wherever it is, until ``resume``."""
        self._gate.clear()
        self.loop.call_soon_threadsafe(self._gate.wait)

    def resume(self) -> None:
        self._gate.set()

    def kill(self) -> None:
        """Stand still for good; its connections are closed as the system closes those of the dead."""
        stopped = threading.Event()

        def die() -> None:
            stopped.set()
            self._gate.wait()

        self._gate.clear()
        self.loop.call_soon_threadsafe(die)
        assert stopped.wait(PATIENCE)
        for key in list(self.loop._selector.get_map().values()):  # type: ignore[attr-defined]
            if key.fd == self.loop._ssock.fileno():  # type: ignore[attr-defined]
                continue
            with contextlib.suppress(OSError), socket.socket(fileno=socket.dup(key.fd)) as link:
                link.shutdown(socket.SHUT_RDWR)

    async def bury(self) -> None:
        """Let a dead one's thread end, whatever it then does."""
        self.resume()
        with contextlib.suppress(BaseException):
            await self.end()


def wider(batch: TradeBatch) -> TradeBatch:
    """The same trades told with a digit more."""
    return dataclasses.replace(batch, price=batch.price * 10, price_scale=batch.price_scale + 1)


async def reference(
    folder: Path, fed: dict[Instrument, int], wide: Set[Instrument], tfs: Sequence[int]
) -> dict[str, list[Any]]:
    """What one engine that nobody disturbs makes of ids 1..n of each instrument."""
    async with MemoryBus() as bus, DuckDBStore(folder) as store:
        async with EngineRole(bus, store, Engine(), RealClock()):
            for one, last in fed.items():
                await bus.publish("trades", one)
                batch = trades(one.id, 1, last)
                await bus.publish("trades", wider(batch) if one in wide else batch)
            await asyncio.wait_for(bus.settled("trades"), PATIENCE)
        return {one.id: await _candles(store, one.id, tfs) for one in fed}


async def _candles(store: Store, id: str, tfs: Sequence[int]) -> list[Any]:
    return [(await store.candles(id, tf))[0][list(VALUES)].tolist() for tf in tfs]


async def same_as_undisturbed(store: Store, folder: Path, feeder: Feeder) -> None:
    """Every trade once, one range of coverage, candles as the undisturbed engine's."""
    tfs = (1, 3, 7, 14)
    expected = await reference(folder, feeder.fed, feeder.wide, tfs)
    for one, last in feeder.fed.items():
        batch, head = await store.trades(one.id)
        assert sorted(batch.trade_id.tolist()) == list(range(1, last + 1))
        assert batch.seq is not None and batch.seq.tolist() == list(range(1, last + 1)) and head.seq == last
        assert (await store.coverage(one.id)).ranges[:, :2].tolist() == [[1, last]]
        assert await _candles(store, one.id, tfs) == expected[one.id]


def one_writer_at_a_time(history: Sequence[Commit]) -> None:
    """No owner's number was ever used by two engines, and no commit of an earlier owner came after a later one's."""
    users: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    chains: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for name, instrument, owner, before, after in history:
        users[instrument, owner].add(name)
        chains[instrument].append((after, before, owner))
    assert all(len(names) == 1 for names in users.values()), users
    for chain in chains.values():
        chain.sort()
        owners = [owner for _, _, owner in chain]
        assert owners == sorted(owners)
        assert all(earlier[0] <= later[1] < later[0] for earlier, later in zip(chain, chain[1:], strict=False))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110  # it happens in other threads
            await asyncio.sleep(0.01)


def whole(*engines: EngineProcess, partitions: int = 16) -> bool:
    """Whether these own all partitions between them, evenly."""
    owned = [engine.role.owned for engine in engines if engine.role is not None]
    sizes = [len(one) for one in owned]
    return (
        frozenset().union(*owned) == frozenset(range(partitions))
        and sum(sizes) == partitions
        and (max(sizes) - min(sizes) <= 1)
    )


class Feeder:
    """Publishes the trades of ``count`` instruments, and remembers how far each is."""

    def __init__(self, bus: Bus, count: int) -> None:
        self._bus = bus
        self.fed = dict.fromkeys(instruments(count), 0)
        self.wide: set[Instrument] = set()

    async def announce(self) -> None:
        for one in self.fed:
            await self._bus.publish("trades", one)

    async def grow(self) -> None:
        """One more instrument, announced and traded at once."""
        one = instruments(len(self.fed) + 1)[-1]
        await self._bus.publish("trades", one)
        await self._bus.publish("trades", trades(one.id, 1, 5))
        self.fed[one] = 5

    def widen(self, one: Instrument) -> None:
        """From now on the trades of ``one`` have a digit more."""
        self.wide.add(one)

    async def feed(self, size: int = 20) -> None:
        """The next trades of each instrument."""
        for one, last in self.fed.items():
            batch = trades(one.id, last + 1, last + size)
            await self._bus.publish("trades", wider(batch) if one in self.wide else batch)
            self.fed[one] = last + size

    async def feed_until(self, true: Callable[[], bool], *, pause: float = 0.02) -> None:
        """Go on feeding until something has come to pass, and a little longer."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                await self.feed(3)
                await asyncio.sleep(pause)
        await self.feed()

    async def settled(self) -> None:
        await asyncio.wait_for(self._bus.settled("trades"), PATIENCE)
