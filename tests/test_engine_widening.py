"""An instrument gets more digits while trades go on: what comes meanwhile keeps its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.model import Instrument
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND
from tests.engines import PATIENCE, T0, instruments, trades

[OWN] = instruments(1)
WIDE = 8


class Slow(DuckDBStore):
    """A store whose rescale waits for ``go`` once it has begun."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def rescale(
        self, instrument: str, price_scale: int, size_scale: int, *, owner: int | None = None
    ) -> Instrument:
        self.begun.set()
        await self.go.wait()
        return await super().rescale(instrument, price_scale, size_scale, owner=owner)


class Running(NamedTuple):
    bus: MemoryBus
    store: Slow
    engine: Engine
    role: EngineRole

    async def taken(self, count: int) -> None:
        """Return once the tape has so many trades, committed or not."""
        async with asyncio.timeout(PATIENCE):
            while self.role.trades < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def sent(self, *ids: int, topic: str = "trades", **more: Any) -> None:
        await self.bus.publish(topic, trades(OWN.id, *ids, **more))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    clock, engine = ManualClock(T0 + 86_400 * SECOND), Engine()
    async with Slow(folder) as store, MemoryBus() as bus, EngineRole(bus, store, engine, clock, interval=0.001) as role:
        await bus.publish("trades", OWN)
        try:
            yield Running(bus, store, engine, role)
        finally:
            store.go.set()


def sized(count: int, size: int) -> np.ndarray[Any, Any]:
    return np.full(count, size, np.int64)


async def test_live_trades_keep_their_size_while_a_page_of_repair_brings_more_digits(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.sent(101, 110, size=sized(10, 100_000))
        await run.bus.settled("trades")
        await run.sent(1, 50, topic="repairs", size=sized(50, 7), size_scale=WIDE, late=True)
        await asyncio.wait_for(run.store.begun.wait(), PATIENCE)
        await run.sent(111, 120, size=sized(10, 100_000))  # at the scale that is about to end
        await run.taken(20)
        run.store.go.set()
        for topic in ("trades", "repairs"):
            await asyncio.wait_for(run.bus.settled(topic), PATIENCE)
        await run.sent(121, 125, size=sized(5, 100_000))
        await asyncio.wait_for(run.bus.settled("trades"), PATIENCE)
        found, _ = await run.store.trades(OWN.id)
        live = found.trade_id > 100
        assert found.size_scale == WIDE and len(found) == 75
        assert set(found.size[live].tolist()) == {100_000_000} and set(found.size[~live].tolist()) == {7}
        rows, _ = await run.store.candles(OWN.id, 1)
        assert int(rows["volume_lo"].sum()) == int(found.size.sum()) and int(rows["volume_hi"].sum()) == 0


async def test_a_trade_too_large_for_the_new_digits_is_counted_out_and_no_other_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.sent(101, 110)
        await run.bus.settled("trades")
        await run.sent(1, 50, topic="repairs", size=sized(50, 7), size_scale=WIDE, late=True)
        await asyncio.wait_for(run.store.begun.wait(), PATIENCE)
        await run.sent(111, 113, size=np.array([5, 2**60, 6]))
        await run.taken(12)
        run.store.go.set()
        for topic in ("trades", "repairs"):
            await asyncio.wait_for(run.bus.settled(topic), PATIENCE)
        found, _ = await run.store.trades(OWN.id)
        assert sorted(found.trade_id.tolist()) == [*range(1, 51), *range(101, 112), 113]
        assert found.size[found.trade_id > 110].tolist() == [5000, 6000]
        assert run.engine.rejects["overflow"] == 1
        assert (await run.store.coverage(OWN.id)).ranges[:, :2].tolist() == [[1, 50], [101, 111], [113, 113]]


async def test_sums_too_large_for_the_new_digits_open_the_tape_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.sent(101, 110)
        await run.bus.settled("trades")
        await run.sent(1, 50, topic="repairs", size=sized(50, 7), size_scale=13, late=True)
        await asyncio.wait_for(run.store.begun.wait(), PATIENCE)
        await run.sent(111, 200, size=sized(90, 2**33), price=sized(90, 2**62))
        await run.taken(100)
        run.store.go.set()
        for topic in ("trades", "repairs"):
            await asyncio.wait_for(run.bus.settled(topic), PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while (await run.store.coverage(OWN.id)).ranges[-1, 1] != 310:
                await run.sent(301, 310)  # until somebody reads again: this bus keeps nothing, and leaves a hole
                await asyncio.sleep(0.01)
        found, _ = await run.store.trades(OWN.id)
        assert found.trade_id.tolist() == [*range(101, 111), *range(301, 311)]
        assert found.size.tolist() == [(100 + id % 11) * 10**8 for id in found.trade_id.tolist()]
        assert [(gap.left_id, gap.right_id) for gap in (await run.store.coverage(OWN.id)).gaps] == [(110, 301)]


@pytest.mark.parametrize("announcements", [1, 5])
async def test_a_changed_status_is_written_once(tmp_path: Path, announcements: int) -> None:
    async with running(tmp_path) as run:
        run.store.go.set()
        await run.sent(1, 5)
        await run.sent(6, 9, size_scale=WIDE)
        await asyncio.wait_for(run.bus.settled("trades"), PATIENCE)
        written = []
        put = run.store.put_instrument

        async def noted(instrument: Instrument) -> Instrument:
            written.append(instrument)
            return await put(instrument)

        run.store.put_instrument = noted  # type: ignore[method-assign]
        halted = Instrument(**{**{name: getattr(OWN, name) for name in OWN.__struct_fields__}, "status": "break"})
        for _ in range(announcements):
            await run.bus.publish("trades", halted)
            await asyncio.wait_for(run.bus.settled("trades"), PATIENCE)
        assert len(written) == 1
        own = run.engine.tapes[OWN.id].instrument
        assert (own.status, own.price_scale, own.size_scale) == ("break", 2, WIDE)
        await run.sent(10, 12)
        await asyncio.wait_for(run.bus.settled("trades"), PATIENCE)
        found, _ = await run.store.trades(OWN.id)
        assert found.size[-3:].tolist() == [(100 + id % 11) * 1000 for id in (10, 11, 12)]
