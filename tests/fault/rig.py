"""One process's worth of real parts behind the simulated venue: sources, bus, engine, repair, store, market.

Everything shares the venue's clock; sockets are real, on loopback.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from tapewick.buses.memory import MemoryBus
from tapewick.engine.tape import Engine
from tapewick.market import Market
from tapewick.model import BookUpdate, Event, Gap, Health, Instrument, TapeState
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole, collect
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_repair import BinanceRepairer
from tapewick.sources.binance import BinanceSource
from tapewick.stores.duckdb import DuckDBStore

__all__ = ["Collector", "Rig", "opened", "running", "seed"]

UNLIMITED = 10**9


def seed() -> int:
    """TAPEWICK_SEED, or a random one; printed, so that a failure can be replayed."""
    chosen = int(os.environ.get("TAPEWICK_SEED", random.randrange(2**31)))
    print(f"seed {chosen}: TAPEWICK_SEED={chosen} replays it")  # noqa: T201  # shown by pytest on a failure
    return chosen


class Collector:
    """A ``Source`` that passes on what a ``BinanceSource`` yields, remembering its order book runs and health."""

    pull = False

    def __init__(self, source: BinanceSource, bus: MemoryBus) -> None:
        self.source, self.name = source, source.name
        self.runs: set[str] = set()
        self.health: list[Health] = []
        self.instruments: list[Instrument] = []
        self.task = asyncio.create_task(collect(self, bus), name=f"collect {source.name}")

    async def events(self) -> AsyncGenerator[Event, None]:
        async with aclosing(self.source.events()) as events:
            async for event in events:
                if isinstance(event, BookUpdate):
                    self.runs.add(event.run)
                elif isinstance(event, Health):
                    self.health.append(event)
                elif isinstance(event, Instrument):
                    self.instruments.append(event)
                yield event

    async def kill(self) -> None:
        """End it as it stands; nothing is said any more."""
        self.task.cancel()
        await asyncio.wait({self.task})


class Rig:
    """The running parts, and how to wait for what they do."""

    def __init__(
        self,
        venue: SimVenue,
        symbols: Sequence[str],
        *,
        bus: MemoryBus,
        store: DuckDBStore,
        engine: Engine,
        market: Market,
    ) -> None:
        self.venue, self.symbols = venue, tuple(symbols)
        self.bus, self.store, self.engine, self.market = bus, store, engine, market
        self.tasks: list[asyncio.Task[None]] = []
        self.collectors: list[Collector] = []

    @property
    def ids(self) -> list[str]:
        return [self.id(symbol) for symbol in self.symbols]

    def id(self, symbol: str) -> str:
        """The instrument of one of the venue's symbols."""
        return f"sim:{symbol}"

    def collect(
        self, *, books: bool = False, redundant: bool = False, idle: float = 10.0, retry_cap: float = 60.0
    ) -> Collector:
        """Begin to collect from the venue; ``idle`` in real seconds."""
        source = BinanceSource(
            self.symbols,
            venue="sim",
            rest_url=self.venue.rest_url,
            ws_url=self.venue.ws_url,
            books=books,
            redundant=redundant,
            limit=UNLIMITED,
            clock=self.venue.clock,
            idle=idle,
            retry_cap=retry_cap,
        )
        self.collectors.append(Collector(source, self.bus))
        return self.collectors[-1]

    async def stop_collecting(self) -> None:
        """Collect nothing more; what was collected is committed, and what it lacks is repaired."""
        for collector in self.collectors:
            await collector.kill()
        self.collectors.clear()
        await self.bus.settled("trades")
        await self.until_stored(lambda state: not opened(state))

    def alive(self) -> None:
        """Raise what ended one of the parts that must go on."""
        for task in (*self.tasks, *(collector.task for collector in self.collectors)):
            if task.done():
                task.result()
                raise AssertionError(f"{task.get_name()} ended")
        assert self.market.trouble is None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for ``holds()``; what failed meanwhile is raised."""
        while not holds():
            self.alive()
            await asyncio.sleep(0.01)

    async def states(self) -> dict[str, TapeState]:
        """The stored tape of each instrument that has one."""
        known = {instrument.id for instrument in await self.store.instruments()}
        return {id: await self.store.coverage(id) for id in self.ids if id in known}

    async def until_stored(self, holds: Callable[[TapeState], bool]) -> dict[str, TapeState]:
        """Wait until ``holds`` is true of every stored tape."""
        while True:
            self.alive()
            states = await self.states()
            if len(states) == len(self.symbols) and all(map(holds, states.values())):
                return states
            await asyncio.sleep(0.05)

    async def until_covered(self) -> dict[str, TapeState]:
        """Wait until every tape holds, without a hole, all that has happened on the venue by now."""
        sent = {f"sim:{symbol}": self.venue.truth(symbol)[-1].id for symbol in self.symbols}
        return await self.until_stored(
            lambda state: len(state.ranges) > 0 and int(state.ranges[0, 1]) >= sent[state.instrument.id]
        )

    async def until_whole(self) -> dict[str, TapeState]:
        """``until_covered``, and until nothing that came later is missing either."""
        await self.until_covered()
        return await self.until_stored(lambda state: not opened(state) and len(state.ranges) == 1)


def opened(state: TapeState) -> list[Gap]:
    return [gap for gap in state.gaps if gap.state != "closed"]


@asynccontextmanager
async def running(
    folder: Path,
    venue: SimVenue,
    symbols: Sequence[str],
    *,
    store: DuckDBStore | None = None,
    max_bytes: int = 16 << 20,
    max_pending: int = 8 << 20,
) -> AsyncIterator[Rig]:
    """Everything but a collector, on the data in ``folder``."""
    clock, engine = venue.clock, Engine()
    async with AsyncExitStack() as stack:
        opened_store = await stack.enter_async_context(store or DuckDBStore(folder))
        bus = await stack.enter_async_context(MemoryBus(max_bytes))
        repairer = await stack.enter_async_context(
            BinanceRepairer(venue="sim", rest_url=venue.rest_url, clock=clock, limit=UNLIMITED)
        )
        lane = RepairLane([repairer], bus, clock=clock)
        role = await stack.enter_async_context(EngineRole(bus, opened_store, engine, clock, max_pending=max_pending))
        market = await stack.enter_async_context(Market(bus, opened_store, clock))
        rig = Rig(venue, symbols, bus=bus, store=opened_store, engine=engine, market=market)
        rig.tasks = [
            asyncio.create_task(lane.run(), name="repair"),
            asyncio.create_task(role.failed(), name="engine"),
        ]
        try:
            yield rig
        finally:
            ending = [*rig.tasks, *(collector.task for collector in rig.collectors)]
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)
