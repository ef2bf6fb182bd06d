"""The engine role between a real bus and a real store: lanes, acknowledgement, trouble, hand-over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tapewick import metrics
from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.errors import ConfigError, StoreError
from tapewick.model import (
    CandleBatch,
    Event,
    Head,
    Health,
    Instrument,
    Quote,
    TapeCommit,
    TradeBatch,
    Wanted,
    partition_of,
)
from tapewick.protocols import Delivery, Store
from tapewick.roles import EngineRole, collect
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND

BTC = Instrument(id="sim:BTCUSDT", venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=5)
T0 = 1_723_161_240 * SECOND


def trades(first: int, last: int, **more: Any) -> TradeBatch:
    """Ids first..last, one per second."""
    id = np.arange(first, last + 1, dtype=np.int64)
    n = len(id)
    columns: dict[str, Any] = {
        "instrument": BTC.id, "trade_id": id, "first_id": id, "count": np.ones(n, np.int32),
        "ts_event": T0 + id * SECOND, "ts_recv": T0 + id * SECOND, "price": 6_000_000 + id,
        "size": np.full(n, 100, np.int64),
        "side": np.ones(n, np.int8), "price_scale": 2, "size_scale": 5,
    }  # fmt: skip
    return TradeBatch(**(columns | more))


@asynccontextmanager
async def running(folder: Path, store: Store | None = None) -> AsyncIterator[tuple[MemoryBus, Store, EngineRole]]:
    async with MemoryBus() as bus, store or DuckDBStore(folder) as opened:
        role = EngineRole(bus, opened, Engine(), RealClock())
        yield bus, opened, role


async def until(deliveries: AsyncIterator[Delivery], kind: type, count: int = 1) -> list[Any]:
    """The next ``count`` messages of a kind."""
    found: list[Any] = []
    async with asyncio.timeout(20):
        async for delivery in deliveries:
            if isinstance(delivery.message, kind):
                found.append(delivery.message)
                if len(found) == count:
                    return found
    raise AssertionError("the bus ended")


async def test_the_durable_lane_speaks_only_after_the_commit(tmp_path: Path) -> None:
    async with running(tmp_path) as (bus, store, role):
        tape = bus.subscribe(["tape"])
        async with role:
            await bus.publish("trades", BTC)
            await bus.publish("trades", trades(1, 130))
            (batch,) = await until(tape, TradeBatch)
            assert batch.seq.tolist() == list(range(1, 131))
            stored, head = await store.trades(BTC.id)
            assert len(stored) == 130 and head.seq == 130 and head.epoch == batch.epoch
            await asyncio.wait_for(bus.settled("trades"), 60)


async def test_both_lanes_and_the_head(tmp_path: Path) -> None:
    async with running(tmp_path) as (bus, store, role):
        candles, heads = bus.subscribe(["candles"]), bus.subscribe(["head"])
        async with role:
            await bus.publish("trades", BTC)
            await bus.publish("trades", trades(1, 130))
            provisional, durable = await until(candles, CandleBatch, 2)
            assert provisional.provisional and provisional.pos == 0
            assert provisional.rows["tf"].tolist() == list(range(18))
            assert not durable.provisional and durable.pos == 1
            minutes, head = await store.candles(BTC.id, 1)
            assert minutes["trades"].tolist() == [59, 60, 11] and head.pos == 1
            assert _same(durable, minutes)
            while (await until(heads, Head))[0].seq != 130:
                continue


def _same(batch: CandleBatch, minutes: np.ndarray[Any, Any]) -> bool:
    """Equal but for what a commit did to a row, which is news, not state."""
    mine = batch.rows[batch.rows["tf"] == 1]
    names = [n for n in mine.dtype.names or () if n not in ("change", "reason", "reserved", "number")]
    return all((mine[n] == minutes[n]).all() for n in names)


async def test_a_restart_goes_on_where_the_store_is(tmp_path: Path) -> None:
    for first, last in ((1, 70), (50, 130), (1, 130)):
        async with running(tmp_path) as (bus, store, role), role:
            await bus.publish("trades", BTC)
            await bus.publish("trades", trades(first, last))
            await asyncio.wait_for(bus.settled("trades"), 60)
            _, head = await store.trades(BTC.id)
            assert head.seq == last
    async with DuckDBStore(tmp_path, read_only=True) as store:
        minutes, _ = await store.candles(BTC.id, 1)
        assert minutes["trades"].tolist() == [59, 60, 11]
        state = await store.coverage(BTC.id)
        assert state.ranges[:, :2].tolist() == [[1, 130]]


async def test_a_hole_is_stored_and_wanted_at_the_next_start(tmp_path: Path) -> None:
    async with running(tmp_path) as (bus, store, role):
        wanted = bus.subscribe(["wanted"])
        async with role:
            await bus.publish("trades", BTC)
            await bus.publish("trades", trades(1, 10))
            await bus.publish("trades", trades(20, 30))
            (want,) = await until(wanted, Wanted)
            assert want.ranges == ((11, 19),)
    async with running(tmp_path) as (bus, store, role):
        wanted = bus.subscribe(["wanted"])
        async with role:
            assert (await until(wanted, Wanted))[0].ranges == ((11, 19),)
            await bus.publish("trades", trades(11, 19, late=True))
            await asyncio.wait_for(bus.settled("trades"), 60)
        gaps = (await store.coverage(BTC.id)).gaps
        assert [g.state for g in gaps if g.state != "closed"] == []


async def test_more_digits_widen_everything_that_is_stored(tmp_path: Path) -> None:
    async with running(tmp_path) as (bus, store, role), role:
        await bus.publish("trades", BTC)
        await bus.publish("trades", trades(1, 3))
        wide = trades(4, 4, price_scale=4, price=np.array([600_000_055]))
        await bus.publish("trades", wide)
        await asyncio.wait_for(bus.settled("trades"), 60)
        stored, _ = await store.trades(BTC.id)
        assert stored.price_scale == 4
        assert stored.price.tolist() == [600_000_100, 600_000_200, 600_000_300, 600_000_055]


class Failing(DuckDBStore):
    """A store whose disk is full for a while."""

    failures = 2

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        if self.failures:
            self.failures -= 1
            raise StoreError("no space left on the device; free some")
        return await super().commit(group)


async def test_a_store_in_trouble_loses_nothing_and_shows_it(tmp_path: Path) -> None:
    async with running(tmp_path, Failing(tmp_path)) as (bus, store, role), role:
        await bus.publish("trades", BTC)
        await bus.publish("trades", trades(1, 5))
        while role.trouble is None:  # noqa: ASYNC110  # there is no event for it: probes poll it too
            await asyncio.sleep(0.01)
        assert "no space left" in role.trouble
        await asyncio.wait_for(bus.settled("trades"), 60)
        assert role.trouble is None
        assert len((await store.trades(BTC.id))[0]) == 5


async def test_a_taken_over_tape_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path) as (bus, store, role), role:
        await bus.publish("trades", BTC)
        await bus.publish("trades", trades(1, 5))
        await asyncio.wait_for(bus.settled("trades"), 60)
        await store.claim([BTC.id])  # another engine
        await bus.publish("trades", trades(6, 9))
        await asyncio.wait_for(bus.settled("trades"), 60)
        assert len((await store.trades(BTC.id))[0]) == 5
        assert "took sim:BTCUSDT over" in (role.trouble or "")


async def test_an_instrument_of_a_foreign_partition_is_not_opened(tmp_path: Path) -> None:
    mine = partition_of(BTC.id, 16)
    async with MemoryBus() as bus, DuckDBStore(tmp_path) as store:
        shard = (1 - mine % 2, 2)
        async with EngineRole(bus, store, Engine(), RealClock(), shard=shard) as role:
            assert role.owned == frozenset(range(shard[0], 16, 2))
            await bus.publish("trades", BTC)
            await bus.publish("trades", trades(1, 5))
            await asyncio.wait_for(bus.settled("trades"), 60)
            assert await store.instruments() == [] and role.trades == 0


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2)])
async def test_a_shard_that_cannot_be_is_refused(tmp_path: Path, shard: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="0 <= i < n"):
        EngineRole(MemoryBus(), DuckDBStore(tmp_path), Engine(), RealClock(), shard=shard)


class Events:
    """A source of given events."""

    name = "given"

    def __init__(self, events: Sequence[Event], *, pull: bool) -> None:
        self.pull, self._events = pull, events

    async def events(self) -> Any:
        for event in self._events:
            yield event


async def test_a_pull_source_waits_and_a_push_source_drops_whole_batches() -> None:
    batches = [trades(i * 100 + 1, i * 100 + 100) for i in range(10)]
    async with MemoryBus(max_bytes=20_000) as bus:
        reader = bus.subscribe(["trades"], group="engine")
        await collect(Events(batches, pull=False), bus)
        kept = []
        while True:
            try:
                kept.append((await asyncio.wait_for(anext(reader), 1)).message)
            except TimeoutError:
                break
        assert kept == batches[: len(kept)] and 0 < len(kept) < 10

        waiting = asyncio.create_task(collect(Events(batches, pull=True), bus))
        got = [(await anext(reader)).message for _ in range(10)]
        await asyncio.wait_for(waiting, 60)
        assert got == batches


async def test_a_push_source_goes_on_with_its_books_while_no_trade_fits() -> None:
    """What it says beside trades waits for room, and goes before any later trade."""
    batches = [trades(i * 100 + 1, i * 100 + 100) for i in range(10)]
    down = Health(source="given", state="disconnected", ts=1, detail="cut")
    quote = Quote(
        instrument=BTC.id, update_id=1, bid=1, bid_size=1, ask=2, ask_size=1, ts_event=1, ts_recv=1, price_scale=2,
        size_scale=5,
    )  # fmt: skip
    async with MemoryBus(max_bytes=20_000) as bus:
        reader, books = bus.subscribe(["trades"], group="engine"), bus.subscribe(["books"])
        collecting = asyncio.create_task(collect(Events([*batches, down, quote, batches[0]], pull=False), bus))
        async with asyncio.timeout(20):
            assert (await anext(books)).message == quote
            assert not collecting.done()
            kept = [(await anext(reader)).message]
            while kept[-1] is not down:
                kept.append((await anext(reader)).message)
            await collecting
        assert kept[:-1] == batches[: len(kept) - 1] and 1 < len(kept) < 10


async def test_what_a_source_refuses_is_counted_by_reason() -> None:
    def counted(reason: str) -> float:
        return metrics.REGISTRY.get_sample_value("tapewick_quarantined_total", {"reason": reason}) or 0.0

    source = Events([trades(1, 2), trades(3, 4)], pull=False)
    source.rejects = Counter(malformed=3, oversize=1)  # type: ignore[attr-defined]
    before = counted("malformed"), counted("oversize")
    async with MemoryBus() as bus:
        bus.subscribe(["trades"], group="engine")
        await collect(source, bus)
    assert (counted("malformed"), counted("oversize")) == (before[0] + 3, before[1] + 1)


async def test_health_goes_to_people_and_to_the_engine() -> None:
    down = Health(source="given", state="disconnected", ts=1, detail="cut")
    async with MemoryBus() as bus:
        people, engine = bus.subscribe(["health"]), bus.subscribe(["trades"], group="engine")
        await collect(Events([down], pull=False), bus)
        assert (await anext(people)).message == down
        assert (await anext(engine)).message == down


@pytest.mark.parametrize("count", [1, 3])
async def test_what_was_read_is_committed_before_the_role_ends(tmp_path: Path, count: int) -> None:
    async with running(tmp_path) as (bus, store, role):
        async with role:
            await bus.publish("trades", BTC)
            for i in range(count):
                await bus.publish("trades", trades(i * 10 + 1, i * 10 + 10))
            while role.trades < count * 10:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert len((await store.trades(BTC.id))[0]) == count * 10
