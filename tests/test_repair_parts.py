"""Aggregates that repair brings for ids a tape holds in part: counted once, whatever comes or lags meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.intake import Intake
from tapewick.model import Head, Instrument, TradeBatch, Wanted
from tapewick.protocols import Store
from tapewick.refetch import refetch
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore, migrate
from tapewick.timeframe import SECOND
from tests.engines import PATIENCE, T0
from tests.parts.postgres import PostgresServer

OWN = Instrument(id="sim:X", venue="sim", symbol="X", price_scale=2, size_scale=3)
MINUTE = 1


def records(*spans: tuple[int, int], **more: Any) -> TradeBatch:
    """Records of the ids first..last; each id has the size 10, all are traded at one time."""
    first, last = np.array(spans, np.int64).reshape(-1, 2).T.copy()
    n = len(first)
    columns: dict[str, Any] = {
        "instrument": OWN.id, "trade_id": last, "first_id": first, "count": (last - first + 1).astype(np.int32),
        "ts_event": np.full(n, T0), "ts_recv": np.full(n, T0), "price": np.full(n, 100),
        "size": (last - first + 1) * 10, "side": np.ones(n, np.int8), "price_scale": 2, "size_scale": 3,
    }  # fmt: skip
    return TradeBatch(**(columns | more))


def raw(first: int, last: int) -> TradeBatch:
    return records(*((id, id) for id in range(first, last + 1)))


class Interrupted(DuckDBStore):
    """Its readers of trades are held up by ``first``, once."""

    first: Callable[[], Awaitable[None]] | None = None

    async def trades(self, instrument: str, **window: Any) -> tuple[TradeBatch, Head]:
        found = await super().trades(instrument, **window)
        if self.first is not None:
            first, self.first = self.first, None
            await first()
        return found


@asynccontextmanager
async def engine(store: Store) -> AsyncIterator[tuple[MemoryBus, EngineRole]]:
    made = Engine()
    async with MemoryBus() as bus, EngineRole(bus, store, made, ManualClock(T0 + SECOND), interval=0.001) as role:
        await bus.publish("trades", OWN)
        yield bus, role


async def settled(bus: MemoryBus) -> None:
    for topic in ("trades", "repairs"):
        await asyncio.wait_for(bus.settled(topic), PATIENCE)


async def assert_each_once(store: Store, last: int) -> None:
    """Ids 1..last are there, each counted once."""
    found, _ = await store.trades(OWN.id)
    assert (int(found.size.sum()), int(found.count.sum())) == (10 * last, last)
    rows, _ = await store.candles(OWN.id, MINUTE)
    assert (int(rows["volume_lo"].sum()), int(rows["trades"].sum())) == (10 * last, last)
    assert (await store.coverage(OWN.id)).ranges[:, :2].tolist() == [[1, last]]


async def test_trades_that_arrive_while_the_store_is_asked_are_not_in_the_remainder(tmp_path: Path) -> None:
    async with Interrupted(tmp_path) as store, engine(store) as (bus, role):
        await bus.publish("trades", raw(1, 3))
        await bus.publish("trades", raw(7, 9))
        await settled(bus)

        async def meanwhile() -> None:
            await bus.publish("trades", raw(4, 5))  # late, over the live lane
            async with asyncio.timeout(PATIENCE):
                while role.trades < 8:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

        store.first = meanwhile
        await bus.publish("repairs", records((3, 6), late=True, covers=((4, 6),)))
        await settled(bus)
        await assert_each_once(store, 9)


async def test_digits_that_come_while_the_store_is_asked_count_in_the_remainder(tmp_path: Path) -> None:
    async with Interrupted(tmp_path) as store, engine(store) as (bus, role):
        await bus.publish("trades", raw(1, 3))
        await settled(bus)

        async def meanwhile() -> None:
            later = records((7, 7))
            later.price, later.price_scale, later.size, later.size_scale = later.price * 10, 3, later.size * 100, 5
            await bus.publish("trades", later)
            await asyncio.wait_for(bus.settled("trades"), PATIENCE)

        store.first = meanwhile
        await bus.publish("repairs", records((3, 6), late=True, covers=((4, 6),)))
        await settled(bus)
        found, _ = await store.trades(OWN.id)
        assert found.size_scale == 5 and int(found.size.sum()) == 7000
        assert (await store.coverage(OWN.id)).ranges[:, :2].tolist() == [[1, 7]]


async def test_a_live_aggregate_over_the_edge_of_the_tape_leaves_a_hole_that_repair_fills(tmp_path: Path) -> None:
    async with DuckDBStore(tmp_path) as store, engine(store) as (bus, role):
        await bus.publish("trades", raw(1, 5))
        await bus.publish("trades", records((1, 2), (3, 7), (8, 9)))
        await settled(bus)
        assert (await store.coverage(OWN.id)).ranges[:, :2].tolist() == [[1, 5], [8, 9]]
        assert role._engine.rejects["partial"] == 1
        await bus.publish("repairs", records((3, 7), late=True, covers=((6, 7),)))
        await settled(bus)
        await assert_each_once(store, 9)


class Venue:
    """Gives every trade of the range."""

    venue = "sim"

    async def fetch(self, wanted: Wanted) -> AsyncGenerator[TradeBatch, None]:
        for low, high in wanted.ranges:
            page = raw(low, high)
            page.late, page.covers = True, ((low, high),)
            yield page


@pytest.fixture
async def behind(postgres: PostgresServer) -> AsyncIterator[PostgresStore]:
    """A store that holds ids 1..30, and whose replica stands still from there on."""
    names = [f"{kind}{uuid4().hex[:8]}" for kind in ("primary", "stale")]
    await asyncio.to_thread(postgres.sql, f"CREATE DATABASE {names[0]}")
    dsn = postgres.dsn(names[0])
    await migrate(dsn)
    async with PostgresStore(dsn) as store, engine(store) as (bus, _):
        await bus.publish("trades", raw(1, 30))
        await settled(bus)
    await asyncio.to_thread(postgres.sql, f"CREATE DATABASE {names[1]} TEMPLATE {names[0]}")
    try:
        async with PostgresStore(dsn, read_dsn=postgres.dsn(names[1])) as store:
            yield store
    finally:
        for name in names:
            await asyncio.to_thread(postgres.sql, f"DROP DATABASE {name} WITH (FORCE)")


async def test_what_must_be_known_of_this_moment_is_not_asked_of_a_replica(behind: PostgresStore) -> None:
    async with engine(behind) as (bus, _):
        await bus.publish("trades", raw(31, 33))
        await bus.publish("trades", raw(37, 60))
        await settled(bus)
        assert (await behind.coverage(OWN.id)).seq == len((await behind.trades(OWN.id))[0]) == 30
        assert (await behind.coverage(OWN.id, primary=True)).seq == 57
        await bus.publish("repairs", records((33, 36), late=True, covers=((34, 36),)))
        await settled(bus)
        outcome = await Intake(bus, behind, PATIENCE).store(raw(50, 65))
        assert outcome.new.tolist() == [id > 60 for id in range(50, 66)] and not outcome.other.any()
    found, _ = await behind.trades(OWN.id, primary=True)
    assert (int(found.size.sum()), int(found.count.sum()), len(found)) == (650, 65, 63)
    state = await behind.coverage(OWN.id, primary=True)
    assert state.ranges[:, :2].tolist() == [[1, 65]]
    told = await refetch(behind, Venue(), OWN.id, (1, 65))
    assert (told.compared, told.restored, told.differing, told.refused) == (65, 0, 0, 0)
    assert len((await behind.trades(OWN.id, primary=True))[0]) == 63
