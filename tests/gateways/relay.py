"""Whole servers in one process for relay tests: the simulated venue, and any number of ours behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.gateways.binance import Options, Rules
from tapewick.gateways.http import HttpGateway
from tapewick.market import Market
from tapewick.roles import EngineRole, collect
from tapewick.sim.venue import SimVenue
from tapewick.sources.binance import BinanceSource
from tapewick.stores.duckdb import DuckDBStore

SYMBOL = "BTCUSDT"


class Server:
    """One of our servers that collects from somewhere; ``id`` is its instrument."""

    def __init__(self, venue: str, bus: MemoryBus, store: DuckDBStore, market: Market, gateway: HttpGateway) -> None:
        self.id = f"{venue}:{SYMBOL}"
        self.bus, self.store, self.market, self.gateway = bus, store, market, gateway
        self.source: BinanceSource | None = None
        self._collecting: asyncio.Task[None] | None = None

    @property
    def rest_url(self) -> str:
        return self.gateway.url

    @property
    def ws_url(self) -> str:
        return self.gateway.url.replace("http", "ws", 1)

    def collect(self, rest_url: str, ws_url: str, **options: Any) -> None:
        """Begin to collect from a venue at these addresses."""
        venue = self.id.partition(":")[0]
        self.source = BinanceSource((SYMBOL,), venue=venue, rest_url=rest_url, ws_url=ws_url, retry_cap=0.05, **options)
        self._collecting = asyncio.create_task(collect(self.source, self.bus))

    async def stop_collecting(self) -> None:
        """Collect nothing more; everything collected is committed."""
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.wait({self._collecting})
            self._collecting = None
        await self.bus.settled("trades")

    async def count(self) -> int:
        """How many trades are committed."""
        known = [instrument.id for instrument in await self.store.instruments()]
        return (await self.store.head(self.id)).seq if self.id in known else 0

    async def last_id(self) -> int:
        """The highest trade id that is covered."""
        ranges = (await self.store.coverage(self.id)).ranges
        return int(ranges[-1, 1]) if len(ranges) else 0


async def until(holds: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait for what ``holds()`` (a coroutine) answers to be true; its answer."""
    async with asyncio.timeout(seconds):
        while True:
            if answer := await holds():
                return answer
            await asyncio.sleep(0.02)


@asynccontextmanager
async def server(folder: Path, venue: str) -> AsyncIterator[Server]:
    """A server with an empty tape."""
    clock = RealClock()
    async with (
        DuckDBStore(folder) as store,
        MemoryBus() as bus,
        EngineRole(bus, store, Engine(), clock, interval=0.005),
        Market(bus, store, clock) as market,
        HttpGateway(market, port=0, binance=Options(weight_per_min=10**6, rules=Rules())) as gateway,
    ):
        made = Server(venue, bus, store, market, gateway)
        try:
            yield made
        finally:
            await made.stop_collecting()


@asynccontextmanager
async def relayed(
    folder: Path, *, rate: float = 150.0, **options: Any
) -> AsyncIterator[tuple[SimVenue, Server, Server]]:
    """The venue, a server that collects from it, and one that collects from that server's Binance gateway."""
    async with (
        SimVenue((SYMBOL,), seed=7, rate=rate) as venue,
        server(folder / "first", "binance") as first,
        server(folder / "second", "binance") as second,
    ):
        first.collect(venue.rest_url, venue.ws_url, **options)
        await until(lambda: _some(first, 50))
        second.collect(first.rest_url, first.ws_url, **options)
        yield venue, first, second


async def _some(one: Server, count: int) -> bool:
    return await one.count() >= count
