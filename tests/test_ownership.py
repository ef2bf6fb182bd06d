"""Processes on one store agree on the partitions, and partitions without an engine are told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tapewick import metrics
from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.errors import ConfigError
from tapewick.model import Health
from tapewick.ownership import LOOK, check_partitions, partitions_name, shard_name, unowned, watch_owners
from tapewick.stores.duckdb import DuckDBStore


class Naps(ManualClock):
    """Tells when its only sleeper has begun to sleep."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await super().sleep(seconds)

    async def look(self) -> None:
        """Have it wake, look, and sleep again."""
        self.asleep.clear()
        self.advance(LOOK)
        await asyncio.wait_for(self.asleep.wait(), 60)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBStore]:
    async with DuckDBStore(tmp_path) as store:
        yield store


async def test_another_number_of_partitions_is_refused_while_anybody_runs_with_his(store: DuckDBStore) -> None:
    await store.lease("collect-a", [partitions_name(16, "collect-a")], 60.0)
    await check_partitions(store, 16)
    with pytest.raises(ConfigError, match=r"engine\.partitions is 8 here and 16 in collect-a"):
        await check_partitions(store, 8)
    await store.release("collect-a", [partitions_name(16, "collect-a")])
    await check_partitions(store, 8)


async def test_looking_renews_nothing_and_shortens_nothing(store: DuckDBStore) -> None:
    """A process that serves and owns partitions looks for those without an owner: its own leases stay as they are."""
    await store.lease("serve-a", ["engine/0", "engine/1"], 60.0)
    async with MemoryBus() as bus:
        clock = Naps(0)
        watching = asyncio.create_task(watch_owners(store, bus, clock, count=2))
        await asyncio.wait_for(clock.asleep.wait(), 60)
        await clock.look()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    assert all(one.left > 30 for one in (await store.lease("another", [], 1.0)).values())


def test_leases_and_shards_own_partitions_and_nothing_else_does() -> None:
    assert unowned(["repair/sim", "engine/member/x", partitions_name(4, "x"), "books"], 4) == {0, 1, 2, 3}
    assert unowned(["engine/0", "engine/2"], 4) == {1, 3}
    assert unowned([shard_name((1, 2), "x"), "engine/0"], 4) == {2}
    assert unowned([shard_name((0, 2), "x"), shard_name((1, 2), "y")], 4) == set()


async def test_partitions_without_an_engine_are_told_once_they_last_and_so_is_their_end(store: DuckDBStore) -> None:
    clock = Naps(1_000)
    async with MemoryBus() as bus:
        heard = bus.subscribe(["health"])
        await store.lease("engine-a", ["engine/0"], 3600.0)
        watching = asyncio.create_task(watch_owners(store, bus, clock, count=2))
        await asyncio.wait_for(clock.asleep.wait(), 60)
        assert metrics.REGISTRY.get_sample_value("tapewick_partitions_unowned") == 0, "it may change hands just now"
        await clock.look()
        assert metrics.REGISTRY.get_sample_value("tapewick_partitions_unowned") == 1
        await clock.look()  # it is told once
        await store.lease("engine-a", ["engine/1"], 3600.0)
        await clock.look()
        assert metrics.REGISTRY.get_sample_value("tapewick_partitions_unowned") == 0
        missing, back = [(await asyncio.wait_for(anext(heard), 60)).message for _ in range(2)]
        assert isinstance(missing, Health) and isinstance(back, Health)
        assert (missing.source, missing.state) == ("engines", "stale") and "1 of 2 partitions" in missing.detail
        assert (back.source, back.state) == ("engines", "connected")
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
