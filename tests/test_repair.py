"""The repair lane between a real bus, store, engine and the simulated venue: holes close, whatever went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapewick import metrics
from tapewick.buses.memory import MemoryBus
from tapewick.clock import Clock, ManualClock, RealClock
from tapewick.engine.tape import Engine
from tapewick.errors import Disconnected, SourceError
from tapewick.model import Candles, Gap, Health, Instrument, TapeState, TradeBatch, Wanted
from tapewick.protocols import Repairer
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole, collect
from tapewick.sim.market import Market
from tapewick.sim.venue import SimVenue
from tapewick.sources._binance_repair import BinanceRepairer
from tapewick.sources.binance import BinanceSource
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import STORED

pytestmark = pytest.mark.timeout(120)

BTC = Instrument(id="sim:BTCUSDT", venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=5)
ORIGIN = 1_767_225_600_000
HOUR = 3_600_000
MS = 1_000_000
VALUES = (
    "open_time", "open", "high", "low", "close", "volume_lo", "quote_volume_lo", "taker_buy_volume_lo",
    "taker_buy_quote_volume_lo", "trades", "first_ts", "last_ts",
)  # fmt: skip


def batch(market: Market, low: int, high: int, **more: Any) -> TradeBatch:
    """The trades of these ids as they would come live."""
    rows = market.trades(low, high)
    id = np.array([row.id for row in rows], np.int64)
    fields: dict[str, Any] = {
        "instrument": BTC.id, "trade_id": id, "first_id": id, "count": np.ones(len(id), np.int32),
        "ts_event": np.array([row.time for row in rows], np.int64) * MS, "ts_recv": np.zeros(len(id), np.int64),
        "price": np.array([int(row.price.replace(".", "")) for row in rows], np.int64),
        "size": np.array([int(row.size.replace(".", "")) for row in rows], np.int64),
        "side": np.array([-1 if row.buyer_is_maker else 1 for row in rows], np.int8),
        "price_scale": 2, "size_scale": 5, "source": "sim",
    }  # fmt: skip
    return TradeBatch(**(fields | more))


@dataclass
class Running:
    """One process's worth of parts."""

    bus: MemoryBus
    store: DuckDBStore
    engine: Engine
    tasks: list[asyncio.Task[None]]

    async def until(self, holds: Callable[[TapeState], bool]) -> TapeState:
        """The stored tape once ``holds`` is true of it; what failed meanwhile is raised."""
        while True:
            for task in self.tasks:
                if task.done():
                    task.result()
            if any(one.id == BTC.id for one in await self.store.instruments()):
                state = await self.store.coverage(BTC.id)
                if holds(state):
                    return state
            await asyncio.sleep(0.01)

    async def feed(self, *batches: TradeBatch) -> None:
        """Publish as live trades and wait for their commit."""
        await self.bus.publish("trades", BTC)
        for each in batches:
            await self.bus.publish("trades", each)
        await self.bus.settled("trades")


@asynccontextmanager
async def running(
    folder: Path,
    repairers: list[Repairer],
    *,
    source: BinanceSource | None = None,
    attempts: int = 1000,
    clock: Clock | None = None,
    cap: float = 0.05,
) -> AsyncIterator[Running]:
    """Engine, store, bus and lane; with ``source`` also live trades."""
    engine = Engine(attempts=attempts)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(DuckDBStore(folder))
        bus = await stack.enter_async_context(MemoryBus())
        lane = RepairLane(repairers, bus, base=0.01, cap=cap)
        role = await stack.enter_async_context(EngineRole(bus, store, engine, clock or RealClock(), interval=0.001))
        tasks = [asyncio.create_task(lane.run()), asyncio.create_task(role.failed())]
        if source is not None:
            tasks.append(asyncio.create_task(collect(source, bus)))
        try:
            yield Running(bus, store, engine, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def opened(state: TapeState) -> list[Gap]:
    return [gap for gap in state.gaps if gap.state != "closed"]


def whole(state: TapeState) -> bool:
    return len(state.ranges) == 1 and not opened(state)


async def candles(store: DuckDBStore) -> dict[str, Candles]:
    return {tf.name: (await store.candles(BTC.id, tf.index))[0] for tf in STORED}


async def assert_truth(store: DuckDBStore, market: Market, folder: Path) -> None:
    """Every stored candle equals that of a tape which never missed a trade; so does every trade."""
    (low, high) = (await store.coverage(BTC.id)).ranges[0, :2].tolist()
    async with running(folder / "truth", []) as never:
        await never.feed(batch(market, low, high))
        wanted = await candles(never.store)
        truth, _ = await never.store.trades(BTC.id)
    got = await candles(store)
    for tf, rows in wanted.items():
        for name in VALUES:
            assert rows[name].tolist() == got[tf][name].tolist(), (tf, name)
    trades, _ = await store.trades(BTC.id)
    order = np.argsort(trades.trade_id)
    for name in ("trade_id", "ts_event", "price", "size", "side"):
        assert getattr(trades, name)[order].tolist() == getattr(truth, name).tolist(), name


def still(rate: float = 5.0, after: int = HOUR) -> tuple[ManualClock, SimVenue]:
    """A venue whose time moves only by hand."""
    clock = ManualClock((ORIGIN + after) * MS)
    return clock, SimVenue(["BTCUSDT"], rate=rate, origin=ORIGIN, clock=clock)


def repairer(venue: SimVenue, **more: Any) -> BinanceRepairer:
    options: dict[str, Any] = {"venue": "sim", "rest_url": venue.rest_url, "limit": 10**9, "attempts": 1}
    return BinanceRepairer(**(options | more))


async def test_skipped_ids_and_cut_connections_leave_no_hole(tmp_path: Path) -> None:
    async with SimVenue(["BTCUSDT"], rate=400.0) as venue, repairer(venue) as one:
        source = BinanceSource(["BTCUSDT"], venue="sim", rest_url=venue.rest_url, ws_url=venue.ws_url, retry_cap=0.05)
        async with running(tmp_path, [one], source=source) as run:
            for fault in range(6):
                seq = (await run.until(lambda state: state.seq > 0)).seq
                if fault % 3 == 2:
                    venue.drop_connections()
                else:
                    venue.skip_ids(7 + fault)
                await run.until(lambda state, seq=seq: state.seq > seq + 60)  # type: ignore[misc]
            state = await run.until(whole)
            reasons = {gap.reason for gap in state.gaps}
            assert reasons <= {"stream", "reconnect"} and "stream" in reasons
        async with DuckDBStore(tmp_path) as store:
            state = await store.coverage(BTC.id)
            assert whole(state) and state.seq == state.ranges[0, 1] - state.ranges[0, 0] + 1
            await assert_truth(store, venue.markets()["BTCUSDT"], tmp_path)


async def test_an_hour_offline_is_back_after_a_restart(tmp_path: Path) -> None:
    clock, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        last = market.last_id(venue.now())
        async with running(tmp_path, [one], clock=clock) as run:
            await run.feed(batch(market, 1, last))
        clock.advance(3600)
        now = market.last_id(venue.now())
        assert now > last + 10_000
        async with running(tmp_path, [one], clock=clock) as run:
            await run.feed(batch(market, now - 9, now, clock=clock.now()))
            state = await run.until(whole)
            assert state.ranges[:, :2].tolist() == [[1, now]] and state.seq == now
            assert {gap.reason for gap in state.gaps} == {"restart"}
            trades, _ = await run.store.trades(BTC.id, since=last + 10)
            assert trades.trade_id[0] == last + 1  # repaired trades come later on the tape
            await assert_truth(run.store, market, tmp_path)
            hours = (await candles(run.store))["1h"]
            assert (hours["complete"][1:-1] == 1).all() and len(hours) >= 2


async def test_a_raw_tape_is_filled_from_aggregates_where_raw_trades_are_absent(tmp_path: Path) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        several = next(t for t in market.trades(2000, 3000) if t.agg_last - t.agg_first == 3)
        low, high = several.agg_first + 2, several.agg_last + 700  # the hole begins inside an aggregate
        venue.refuse(404, on="rest", count=1)
        async with running(tmp_path, [one]) as run:
            await run.feed(batch(market, 1, low - 1), batch(market, high + 1, 4000))
            state = await run.until(whole)
            assert state.ranges[:, :2].tolist() == [[1, 4000]]
            async with running(tmp_path / "truth", []) as never:
                await never.feed(batch(market, 1, 4000))
                wanted = await candles(never.store)
            got = await candles(run.store)
            for tf, rows in wanted.items():
                for name in VALUES:
                    assert rows[name].tolist() == got[tf][name].tolist(), (tf, name)
            trades, _ = await run.store.trades(BTC.id)
            assert len(trades) < 4000 == int(trades.count.sum())
            part = trades.select(np.flatnonzero(trades.trade_id == several.agg_last))
            assert (part.first_id.tolist(), part.count.tolist()) == ([low], [2])


async def test_ids_a_firewall_turns_down_hold_up_no_others(tmp_path: Path) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        venue.refuse(403, on="rest", count=1)
        async with running(tmp_path, [one]) as run:
            await run.feed(batch(market, 1, 100), batch(market, 201, 300), batch(market, 401, 500))
            state = await run.until(lambda state: len(state.ranges) == 2)
            assert state.ranges[:, :2].tolist() == [[1, 100], [201, 500]]  # the same request is not sent for 5 minutes
            assert "/api/v3/aggTrades" not in venue.requests


@pytest.mark.parametrize("trouble", ["429", "503", "html", "cut"])
async def test_a_venue_in_trouble_is_asked_again_and_the_gap_closes_alone(tmp_path: Path, trouble: Any) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        if trouble.isdigit():
            venue.refuse(int(trouble), retry_after=0, on="rest")
        else:
            venue.damage(trouble, count=1_000_000)
        async with running(tmp_path, [one]) as run:
            await run.feed(batch(market, 1, 10), batch(market, 2_500, 2_600))
            state = await run.until(lambda state: any(gap.attempts >= 2 for gap in opened(state)))
            (gap,) = opened(state)
            assert (gap.left_id, gap.right_id, gap.reason) == (10, 2_500, "stream")
            assert metrics.REGISTRY.get_sample_value(
                "tapewick_gaps_open", {"instrument": BTC.id, "state": gap.state}
            ) is not None  # fmt: skip
            asked = len(venue.requests)
            venue.refuse(None, on="rest")
            await run.until(whole)
            assert asked < 200  # bounded, not a storm
            await assert_truth(run.store, market, tmp_path)


async def test_what_cannot_be_had_is_given_up_and_tried_again_after_a_restart(tmp_path: Path) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        venue.refuse(400, on="rest")
        async with running(tmp_path, [one], attempts=3) as run:
            await run.feed(batch(market, 1, 600), batch(market, 1_500, 1_600))
            state = await run.until(lambda state: any(gap.state == "unrepairable" for gap in state.gaps))
            assert [(gap.attempts, gap.state) for gap in opened(state)] == [(3, "unrepairable")]
            await run.feed(batch(market, 1_601, 1_700))
            asked = len(venue.requests)
            await run.feed(batch(market, 1_701, 1_800))
            assert 3 <= asked <= 6 and len(venue.requests) == asked  # one may have been on its way
            minutes = (await candles(run.store))["1m"]
            hole = (market.time_of(600), market.time_of(1_500))
            inside = (minutes["last_ts"] // MS >= hole[0]) & (minutes["open_time"] // MS <= hole[1])
            assert inside.any() and (minutes["complete"][inside] == 0).all()
            await run.bus.publish("trades", Health(source="sim", state="connected", ts=1))
            await run.until(lambda state: len(venue.requests) > asked)  # the venue is back: another try
        venue.refuse(None, on="rest")
        async with running(tmp_path, [one], attempts=3) as run:
            await run.until(whole)
            await assert_truth(run.store, market, tmp_path)


async def test_what_was_given_up_is_tried_again_when_somebody_asks(tmp_path: Path) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        venue.refuse(400, on="rest")
        async with running(tmp_path, [one], attempts=1) as run:
            await run.feed(batch(market, 1, 10), batch(market, 50, 60))
            await run.until(lambda state: any(gap.state == "unrepairable" for gap in state.gaps))
            venue.refuse(None, on="rest")
            await run.bus.publish("repairs", Wanted(instrument=BTC.id, ranges=()))
            await run.until(whole)


async def test_ids_before_the_tape_are_fetched_when_asked_for(tmp_path: Path) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        async with running(tmp_path, [one]) as run:
            await run.feed(batch(market, 5_000, 5_100))
            await run.bus.publish("repairs", Wanted(instrument=BTC.id, ranges=((2_000, 4_999),)))
            state = await run.until(lambda state: whole(state) and state.ranges[0, 0] == 2_000)
            assert {gap.reason for gap in state.gaps} == {"backfill"}
            await assert_truth(run.store, market, tmp_path)


class Dying:
    """A repairer whose process dies after ``pages`` pages."""

    venue = "sim"

    def __init__(self, inner: BinanceRepairer, pages: int) -> None:
        self._inner, self._left = inner, pages
        self.dead = asyncio.Event()

    async def fetch(self, wanted: Wanted) -> AsyncGenerator[TradeBatch, None]:
        pages = self._inner.fetch(wanted)
        try:
            async for page in pages:
                if not self._left:
                    self.dead.set()
                    await asyncio.Event().wait()
                self._left -= 1
                yield page
        finally:
            await pages.aclose()


async def test_a_crash_between_pages_goes_on_where_the_commit_was(tmp_path: Path) -> None:
    _, venue = still()
    async with venue, repairer(venue) as one:
        market = venue.markets()["BTCUSDT"]
        dying = Dying(one, 3)
        async with running(tmp_path, [dying]) as run:
            await run.feed(batch(market, 1, 10), batch(market, 9_001, 9_010))
            await dying.dead.wait()
            state = await run.until(lambda state: state.ranges[0, 1] == 3_010)
            (gap,) = opened(state)
            assert (gap.left_id, gap.right_id, gap.state) == (3_010, 9_001, "repairing")
        venue.requests.clear()
        async with running(tmp_path, [one]) as run:
            await run.until(whole)
            assert venue.requests.count("/api/v3/historicalTrades") == 6  # nothing that was committed is asked again
            await assert_truth(run.store, market, tmp_path)


class Scripted:
    """A repairer that answers each call with the next of ``answers``."""

    venue = "sim"

    def __init__(self, *answers: TradeBatch | SourceError | None) -> None:
        self._answers = list(answers)
        self.asked: list[Wanted] = []

    async def fetch(self, wanted: Wanted) -> AsyncGenerator[TradeBatch, None]:
        self.asked.append(wanted)
        answer = self._answers.pop(0) if self._answers else Disconnected("gone")
        if isinstance(answer, SourceError):
            raise answer
        if answer is not None:
            yield answer


async def test_all_holes_oldest_first_and_instruments_in_turn() -> None:
    async with MemoryBus() as bus:
        script = Scripted(*[None] * 100)
        lane = RepairLane([script], bus, base=1000.0, cap=1000.0)
        engine = bus.subscribe(["repairs"], group="engine")
        for id, ranges in (("sim:A", ((1, 2), (5, 6))), ("sim:B", ((3, 4),)), ("other:C", ((1, 9),))):
            await bus.publish("wanted", Wanted(instrument=id, ranges=ranges))
        task = asyncio.create_task(lane.run())
        said: list[tuple[str, int, int, str]] = []
        while len(said) < 4:
            message = (await anext(engine)).message
            assert isinstance(message, Gap)
            said.append((message.instrument, message.left_id, message.right_id, message.state))
        task.cancel()
        await asyncio.wait({task})
    # Answers that end early are failures: each instrument now waits, and the next one had its turn.
    assert said == [
        ("sim:A", 0, 3, "repairing"), ("sim:A", 0, 3, "open"),
        ("sim:B", 2, 5, "repairing"), ("sim:B", 2, 5, "open"),
    ]  # fmt: skip
    assert [wanted.ranges for wanted in script.asked] == [((1, 2),), ((3, 4),)]


async def test_pages_that_never_reach_the_tape_count_as_a_failure() -> None:
    clock, venue = still()
    page = batch(Market(venue.markets()["BTCUSDT"].listing, seed=1, rate=5.0, origin=ORIGIN), 5, 9)
    page.covers = ((5, 9),)
    async with MemoryBus() as bus:
        lane = RepairLane([Scripted(page, None)], bus, clock=clock, base=1000.0, cap=1000.0)
        engine = bus.subscribe(["repairs"], group="engine")
        task = asyncio.create_task(lane.run())
        await bus.publish("wanted", Wanted(instrument=BTC.id, ranges=((5, 9),)))
        first, second = (await anext(engine)).message, (await anext(engine)).message
        assert isinstance(first, Gap) and first.state == "repairing" and isinstance(second, TradeBatch)
        clock.advance(59)
        await bus.publish("wanted", Wanted(instrument=BTC.id, ranges=((5, 9),)))  # as it is announced each minute
        await asyncio.sleep(0)
        clock.advance(2)
        third = (await anext(engine)).message
        assert isinstance(third, Gap) and (third.state, third.left_id, third.right_id) == ("open", 4, 10)
        task.cancel()
        await asyncio.wait({task})


async def test_live_trades_do_not_wait_behind_repaired_ones(tmp_path: Path) -> None:
    """A full repair queue neither delays nor drops a live batch: they have a queue of their own."""
    _, venue = still()
    async with venue:
        market = venue.markets()["BTCUSDT"]
        async with MemoryBus(max_bytes=200_000) as bus, DuckDBStore(tmp_path) as store:
            engine = Engine()
            async with EngineRole(bus, store, engine, RealClock(), max_repair=100_000):
                await bus.publish("trades", BTC)
                await bus.publish("trades", batch(market, 1, 1))
                await bus.settled("trades")
                low = 2
                while bus.offer("repairs", batch(market, low, low + 499, late=True)):
                    low += 500
                assert bus.offer("trades", batch(market, 17_000, 17_000))
                while engine.tapes[BTC.id].ranges[-1, 1] < 17_000:  # noqa: ASYNC110  # nothing tells when it is read
                    await asyncio.sleep(0)
                assert engine.tapes[BTC.id].ranges[0, 1] < low - 1  # repair was not through yet
                await asyncio.wait_for(bus.settled("repairs"), 30)
                assert engine.tapes[BTC.id].ranges[0, 1] == low - 1


@pytest.fixture(scope="module")
def market() -> Market:
    return still()[1].markets()["BTCUSDT"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dropped=st.sets(st.integers(2, 899), min_size=1, max_size=300), data=st.data())
def test_P3_dropped_ids_make_exactly_their_candles_incomplete_until_repaired(
    market: Market, dropped: set[int], data: st.DataObject
) -> None:
    truth, made = _engine(market), _engine(market)
    all_ids = batch(market, 1, 900)
    truth.ingest(all_ids, 2**62)
    kept = np.flatnonzero(~np.isin(all_ids.trade_id, list(dropped)))
    made.ingest(all_ids.select(kept), 2**62)
    wanted, holed = _rows(truth), _rows(made)
    ids, times = all_ids.trade_id, all_ids.ts_event
    slack = 2_000 * MS
    for key, row in holed.items():
        if key not in wanted or not row["state"]:
            continue
        end = key[1] + (60_000 * MS if key[0] == 1 else 0)
        if key[0] != 1:
            continue
        before, after = ids[times < key[1] - slack], ids[times >= end + slack]
        span = range(int(before[-1]) if len(before) else 1, int(after[0]) + 1) if len(after) else range(0)
        proven = bool(wanted[key]["complete"]) and not dropped.intersection(span)
        assert row["complete"] == int(proven), key
    holes = made.tapes[BTC.id].wanted()
    assert holes is not None
    missing = [id for low, high in holes.ranges for id in range(low, high + 1)]
    assert missing == sorted(dropped)
    pages = list(holes.ranges)
    for low, high in data.draw(st.permutations(pages)):
        page = batch(market, low, high, late=True)
        page.covers = ((low, high),)
        made.ingest(page, 2**62)
        if data.draw(st.booleans()):
            holed |= _rows(made)
    holed |= _rows(made)
    assert made.tapes[BTC.id].wanted() is None
    for key, row in wanted.items():
        for name in VALUES:
            assert row[name] == holed[key][name], (key, name)
        assert row["complete"] == holed[key]["complete"], key


def _engine(market: Market) -> Engine:
    engine = Engine(keep=2**60)
    engine.add([TapeState(instrument=BTC, number=1, epoch="E", owner=1)])
    return engine


def _rows(engine: Engine) -> dict[tuple[int, int], Any]:
    return {(int(row["tf"]), int(row["open_time"])): row for group in engine.take() for row in group.rows}
