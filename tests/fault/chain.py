"""The whole chain behind a simulated venue, each role on a bus connection of its own as if it were a process of its
own: collector with repair lane, engine, gateway, and a client that resumes. Store and bus are real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2

from tapewick import metrics
from tapewick.client import Candle, Client, Notice, Rows, StreamGap, Trade
from tapewick.engine.tape import Engine
from tapewick.errors import SourceError, StoreError
from tapewick.gateways.http import HttpGateway
from tapewick.leases import Leases
from tapewick.market import Market
from tapewick.model import TapeState
from tapewick.protocols import Bus, Store
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole, collect
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_repair import BinanceRepairer
from tapewick.sources.binance import BinanceSource
from tests.buses.rig import BusRig
from tests.fault.rig import opened

__all__ = ["Chain", "Reader", "counted", "gauge", "running"]

UNLIMITED = 10**9
PATIENCE = 150.0  # seconds for whatever must happen at last, on a machine that does much else


def counted(name: str, **labels: str) -> float:
    """A counter's value by now."""
    return metrics.REGISTRY.get_sample_value(f"tapewick_{name}_total", labels) or 0.0


def gauge(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"tapewick_{name}", labels)


class Reader:
    """A client on the trades and minutes of one instrument, through whatever happens to its connection."""

    def __init__(self, url: str, id: str) -> None:
        self._url, self.id = url, id
        self.trades: list[Trade] = []
        self.candles: dict[int, Candle] = {}
        self.gaps: list[StreamGap] = []
        self.forgiving = False  # it may be told that the tape was begun anew
        self._positions: dict[str, str] = {}

    @property
    def seqs(self) -> list[int]:
        return [trade.seq for trade in self.trades]

    async def follow(self) -> None:
        """Read for ever. Raises ``AssertionError`` for anything that is not exact."""
        channels = [f"trade@{self.id}", f"candle@{self.id}@1m"]
        async with Client(self._url, timeout=PATIENCE) as client:
            while True:
                since: Any = dict(self._positions) or None
                stream = client.stream(*channels, "health", snapshot=1, since=since)
                try:
                    async for item in stream:
                        self._take(item)
                        self._positions |= stream.positions
                except SourceError:  # the first connection of a new stream failed
                    await asyncio.sleep(0.1)
                finally:
                    stream.close()

    def _take(self, item: Any) -> None:
        if isinstance(item, Notice):
            return
        if isinstance(item, StreamGap) and self.forgiving and item.reason == "epoch":
            self.gaps.append(item)
            self.trades.clear()
            self.candles.clear()
            return
        assert isinstance(item, Rows), f"told that records are missing: {item}"
        for row in item.rows:
            if isinstance(row, Trade):
                assert not self.trades or row.seq == self.trades[-1].seq + 1, f"{self.trades[-1].seq}, then {row.seq}"
                self.trades.append(row)
            elif isinstance(row, Candle):
                if row.state != "open":
                    self.candles[row.open_time] = row


class Chain:
    """The running parts, and how to wait for what they do; see ``tests.fault.truth.Collected``."""

    def __init__(self, venue: SimVenue, symbols: Sequence[str], store: Store) -> None:
        self.venue, self.symbols, self.store = venue, tuple(symbols), store
        self.buses: list[Bus] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.collectors: list[asyncio.Task[None]] = []
        self.role: EngineRole
        self.engine: Engine
        self.market: Market
        self.gateway: HttpGateway
        self.reader: Reader

    def id(self, symbol: str) -> str:
        return f"sim:{symbol}"

    @property
    def trouble(self) -> str | None:
        """What readiness is told, as by ``serve``."""
        return self.role.trouble or next((bus.trouble for bus in self.buses if bus.trouble), None)

    def collect(self, symbols: Sequence[str]) -> None:
        """Begin to collect from the venue."""
        clock = self.venue.clock
        source = BinanceSource(
            symbols, venue="sim", rest_url=self.venue.rest_url, ws_url=self.venue.ws_url, limit=UNLIMITED, clock=clock,
            retry_cap=2.0,
        )  # fmt: skip
        self.begin(collect(source, self.buses[0]), "collect")
        self.collectors.append(self.tasks[-1])

    async def end(self, task: asyncio.Task[None]) -> None:
        """End one of the parts."""
        self.tasks.remove(task)
        task.cancel()
        await asyncio.wait({task})

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks.append(asyncio.create_task(work, name=name))

    def alive(self) -> None:
        """Raise what ended one of the parts that must go on."""
        for task in self.tasks:
            if task.done():
                task.result()
                raise AssertionError(f"{task.get_name()} ended")

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for ``holds()``; what failed meanwhile is raised."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.alive()
                await asyncio.sleep(0.01)

    async def states(self) -> list[TapeState] | None:
        """The stored tape of each instrument; None while the store does not answer or lacks one."""
        try:
            known = {instrument.id for instrument in await self.store.instruments()}
            wanted = [self.id(symbol) for symbol in self.symbols]
            return [await self.store.coverage(id) for id in wanted] if known.issuperset(wanted) else None
        except StoreError:
            return None

    async def until_stored(self, holds: Callable[[TapeState], bool]) -> None:
        """Wait until ``holds`` is true of every stored tape."""
        async with asyncio.timeout(PATIENCE):
            while not ((states := await self.states()) and all(map(holds, states))):
                self.alive()
                await asyncio.sleep(0.05)

    async def until_grown(self, trades: int = 100) -> None:
        """Wait until every tape has so many trades more than now, or in all while nothing can be asked."""
        before = {state.instrument.id: state.seq for state in await self.states() or ()}
        await self.until_stored(lambda state: state.seq >= before.get(state.instrument.id, 0) + trades)

    async def until_whole(self) -> None:
        """Wait until every tape holds, without a hole, all that has happened on the venue by now."""
        sent = {self.id(symbol): self.venue.truth(symbol)[-1].id for symbol in self.symbols}
        await self.until_stored(
            lambda state: (
                not opened(state) and len(state.ranges) == 1 and int(state.ranges[0, 1]) >= sent[state.instrument.id]
            )
        )

    async def settle(self) -> None:
        """Collect no more; return when what was collected is stored without a hole and the client has it."""
        await self.until_whole()
        while self.collectors:
            await self.end(self.collectors.pop())
        before: list[int] | None = None
        async with asyncio.timeout(PATIENCE):
            while before != (now := [(await self.store.head(self.id(symbol))).seq for symbol in self.symbols]):
                before = now  # a server that was emptied does not know what of before is still being worked off
                await self.buses[0].settled("trades")
                await asyncio.sleep(1)
        await self.until_stored(lambda state: not opened(state))
        await self.until(lambda: self.trouble is None)
        await self.until_read()

    async def until_read(self) -> None:
        """The client's trades are those on the tape from its first one on, each once, and its minutes the stored."""
        head = await self.store.head(self.reader.id)
        await self.until(lambda: self.reader.trades and self.reader.seqs[-1] >= head.seq)
        async with Client(self.gateway.url, timeout=PATIENCE) as client:
            stored = await client.trades(self.reader.id, since=self.reader.seqs[0] - 1, limit=0)
            assert self.reader.trades == list(stored.rows), "event for event what is stored"
            first = min(self.reader.candles, default=None)
            if first is not None:
                async with asyncio.timeout(PATIENCE):
                    while await self._minutes(client, first) != self.reader.candles:
                        self.alive()
                        await asyncio.sleep(0.05)

    async def _minutes(self, client: Client, first: int) -> dict[int, Candle]:
        table = await client.candles(self.reader.id, "1m", start=first, limit=0)
        return {row.open_time: row for row in table.rows if row.state != "open"}

    async def ready(self) -> tuple[int, str]:
        """What ``/health/ready`` answers: status and body."""
        async with httpx2.AsyncClient(base_url=self.gateway.url, timeout=PATIENCE) as client:
            answer = await client.get("/health/ready")
        return answer.status_code, answer.text

    async def until_ready(self, status: int = 200) -> str:
        """Wait for that answer; what it says."""
        async with asyncio.timeout(PATIENCE):
            while (told := await self.ready())[0] != status:
                self.alive()
                await asyncio.sleep(0.05)
        return told[1]

    async def told(self, source: str, state: str) -> str:
        """Wait until clients are shown ``source`` in ``state``; the detail."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for row in await self._conditions():
                    if (row.get("source"), row.get("state")) == (source, state):
                        return str(row["detail"])
                self.alive()
                await asyncio.sleep(0.05)

    async def _conditions(self) -> list[dict[str, Any]]:
        """The rows of channel health, as REST shows them."""
        async with httpx2.AsyncClient(base_url=self.gateway.url, timeout=PATIENCE) as client:
            rows: list[dict[str, Any]] = (await client.get("/health")).json()["conditions"]
        return rows


@asynccontextmanager
async def running(
    venue: SimVenue,
    symbols: Sequence[str],
    *,
    buses: Sequence[BusRig],
    store: Store,
    options: dict[str, Any] | None = None,
    max_pending: int = 8 << 20,
    leased: bool = False,
) -> AsyncIterator[Chain]:
    """Everything, collecting. ``buses``: one for all roles, or those of collector, engine and gateway; ``options`` of
    each. ``leased``: the engine would share its partitions with others."""
    clock = venue.clock
    rigs = list(buses) if len(buses) == 3 else [buses[0]] * 3
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        chain = Chain(venue, symbols, store)
        for rig in rigs:
            if rig.network or not chain.buses:
                chain.buses.append(await stack.enter_async_context(rig.open(**(options or {}))))
        collecting, engine_bus, gateway_bus = chain.buses if len(chain.buses) == 3 else chain.buses * 3
        repairer = await stack.enter_async_context(
            BinanceRepairer(venue="sim", rest_url=venue.rest_url, clock=clock, limit=UNLIMITED)
        )
        lane = RepairLane([repairer], collecting, clock=clock)
        chain.engine = Engine()
        leases = await stack.enter_async_context(Leases(store, ttl=2)) if leased else None
        chain.role = EngineRole(engine_bus, store, chain.engine, clock, max_pending=max_pending, leases=leases)
        await stack.enter_async_context(chain.role)
        chain.market = await stack.enter_async_context(Market(gateway_bus, store, clock))
        chain.gateway = await stack.enter_async_context(
            HttpGateway(chain.market, port=0, readiness=lambda: chain.trouble)
        )
        chain.reader = Reader(chain.gateway.url, chain.id(symbols[0]))
        stack.push_async_callback(_cancelled, chain.tasks)
        chain.begin(lane.run(), "repair")
        chain.begin(chain.role.failed(), "engine")
        chain.collect(symbols)
        await chain.until_stored(lambda state: state.seq > 0)
        chain.begin(chain.reader.follow(), "reader")
        await chain.until(lambda: chain.reader.trades)
        yield chain


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
