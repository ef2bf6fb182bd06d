"""Several repair lanes, one lease: a venue is asked by one of them, and by another once that one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.leases import Leases
from tapewick.model import TradeBatch, Wanted
from tapewick.repair import RepairLane
from tapewick.stores.duckdb import DuckDBStore

pytestmark = pytest.mark.timeout(120)

ID = "sim:BTCUSDT"


class Fetcher:
    """Notes what it is asked for, and answers with nothing."""

    venue = "sim"

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.news = asyncio.Event()

    async def fetch(self, wanted: Wanted) -> AsyncGenerator[TradeBatch, None]:
        self.asked += wanted.ranges
        self.news.set()
        batch = TradeBatch.empty(ID)
        batch.covers = wanted.ranges
        yield batch


@asynccontextmanager
async def lane(store: DuckDBStore, bus: MemoryBus, holder: str) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher()
    async with Leases(store, holder=holder, ttl=5.0) as leases:
        own = RepairLane([], bus, leases=leases)
        running = asyncio.create_task(own.run())
        await asyncio.sleep(0)
        own.add(fetcher)  # as for a venue that is watched at run time
        try:
            yield fetcher
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def wants(bus: MemoryBus, low: int, high: int) -> None:
    await bus.publish("wanted", Wanted(instrument=ID, ranges=((low, high),)))


async def test_one_lane_asks_the_venue_and_another_goes_on_where_it_ends(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path) as store, MemoryBus() as bus, asyncio.timeout(60):
        repairs = bus.subscribe(["repairs"])
        reader = asyncio.create_task(_taken(repairs))
        async with lane(store, bus, "second") as second:
            async with lane(store, bus, "first") as first:
                both = [asyncio.create_task(one.news.wait()) for one in (first, second)]
                await wants(bus, 1, 10)
                done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                assert len(done) == 1 and first.asked + second.asked == [(1, 10)], "nobody else asks"
                for task in waiting:
                    task.cancel()
                asked = len(second.asked)
            second.news.clear()
            await wants(bus, 1, 20)
            await second.news.wait()
            assert second.asked[asked:][-1][1] == 20, "what the other was told it knows too"
        reader.cancel()


async def _taken(deliveries: AsyncIterator[object]) -> None:
    async for _ in deliveries:
        pass
