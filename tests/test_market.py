"""History and live data as one stream, over a real engine, store and bus."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.channel import HELD_BYTES, Batch, Channel
from tapewick.clock import ManualClock
from tapewick.engine.candles import fold
from tapewick.engine.tape import Engine
from tapewick.errors import BadRequest, NotFound
from tapewick.market import Market, Window
from tapewick.model import CandleBatch, Health, State, TradeBatch
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import BY_INDEX, BY_NAME, MINUTE, SECOND
from tests.gateways.rig import BTC, STEP, T0, batch, instrument

M1 = BY_NAME["1m"]
TRADES = Channel.parse(f"trade@{BTC}")
CANDLES = Channel.parse(f"candle@{BTC}@1m")


class Parts:
    """An engine on one bus and a market on another; ``relay`` decides what gets across."""

    def __init__(
        self, inner: MemoryBus, outer: MemoryBus, store: DuckDBStore, market: Market, clock: ManualClock
    ) -> None:
        self.inner, self.outer, self.store, self.market, self.clock = inner, outer, store, market, clock
        self.keep = 1.0
        self._dice = random.Random(7)

    async def relay(self) -> None:
        async for delivery in self.inner.subscribe(["tape", "candles", "head", "instruments"]):
            message = delivery.message
            topic = "tape" if isinstance(message, TradeBatch) else "candles"
            if isinstance(message, TradeBatch | CandleBatch):
                if self._dice.random() < self.keep:
                    self.outer.offer(topic, message)
            else:
                self.outer.offer("head", message)

    async def tell(self, first: int, count: int, *, clock: int = 0, late: bool = False) -> None:
        await self.inner.publish("trades", batch(first, count, clock=clock, late=late))
        await self.inner.settled("trades")

    async def announce(self) -> None:
        """The engine's heads of this second."""
        self.clock.advance(1)
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def parts(folder: Path, max_bytes: int = 16 << 20) -> AsyncIterator[Parts]:
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with (
        DuckDBStore(folder) as store,
        MemoryBus() as inner,
        MemoryBus(max_bytes) as outer,
        EngineRole(inner, store, Engine(), clock, interval=0.001),
    ):
        await inner.publish("trades", instrument())
        await inner.settled("trades")
        async with Market(outer, store, clock) as market:
            made = Parts(inner, outer, store, market, clock)
            task = asyncio.create_task(made.relay())
            await asyncio.sleep(0)
            yield made
            task.cancel()


async def collect(stream: AsyncIterator[Batch], last: int) -> list[int]:
    """Seqs a watch yields, up to ``last``."""
    seqs: list[int] = []
    async with asyncio.timeout(30):
        async for one in stream:
            assert isinstance(one, TradeBatch) and one.seq is not None
            seqs += one.seq.tolist()
            if seqs[-1] >= last:
                return seqs
    raise AssertionError("the stream ended")


async def test_an_unknown_instrument_names_the_known_ones(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        assert [one.id for one in await p.market.instruments()] == [BTC]
        with pytest.raises(NotFound, match=BTC):
            await p.market.instrument("sim:NOPE")


async def test_the_open_candle_is_as_new_as_the_last_announcement(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 50)
        live = CandleBatch(
            instrument=BTC,
            rows=fold(batch(1, 60), M1),
            price_scale=2,
            size_scale=3,
            provisional=True,
        )
        live.rows["last_seq"] = 60
        p.outer.offer("candles", live)
        await asyncio.sleep(0.01)
        answer = await p.market.candles(BTC, M1, Window(newest=True))
        assert answer.batch.rows["trades"].tolist() == [60], "announced, not yet committed"
        await p.tell(51, 600, clock=T0 + 63 * SECOND)
        await asyncio.sleep(0.01)
        rows = (await p.market.candles(BTC, M1, Window(newest=True))).batch.rows
        assert rows["trades"].tolist() == [599, 51]
        assert rows["state"].tolist() == [State.CLOSED, State.OPEN]


async def test_windows_of_candles(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 3000)
        opens = [T0 + i * MINUTE for i in range(6)]

        async def read(**window: object) -> list[int]:
            answer = await p.market.candles(BTC, M1, Window(**window))  # type: ignore[arg-type]
            return answer.batch.rows["open_time"].tolist()  # type: ignore[no-any-return]

        assert await read() == opens
        assert await read(limit=2, newest=True) == opens[-2:]
        assert await read(limit=2) == opens[:2]
        assert await read(start=opens[2], limit=2) == opens[2:4]
        assert await read(start=opens[4] + 1, limit=0) == opens[5:]
        assert await read(end=opens[2], limit=1, newest=True) == opens[1:2]


async def test_empty_buckets_are_filled_but_not_across_a_gap(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 300)
        quiet = batch(301, 299)
        quiet.ts_event += 10 * MINUTE  # ids go on: nothing is missing, it was quiet
        await p.inner.publish("trades", quiet)
        await p.inner.settled("trades")
        prev = (await p.market.candles(BTC, M1, Window(start=T0, limit=100), fill="prev")).batch.rows
        assert len(prev) == 11 and prev["filled"].tolist() == [0] + [1] * 9 + [0]
        assert set(prev["close"][1:10].tolist()) == {int(prev["close"][0])}
        inside = (await p.market.candles(BTC, M1, Window(start=T0 + 5 * MINUTE, limit=2), fill="null")).batch.rows
        assert inside["filled"].tolist() == [2, 2]
        assert inside["open_time"].tolist() == [T0 + 5 * MINUTE, T0 + 6 * MINUTE]
        newest = (await p.market.candles(BTC, M1, Window(limit=3, newest=True), fill="prev")).batch.rows
        assert newest["open_time"].tolist() == [T0 + i * MINUTE for i in (8, 9, 10)]
        jump = batch(700, 10)
        jump.ts_event += 20 * MINUTE  # ids 600 to 699 are missing
        await p.inner.publish("trades", jump)
        await p.inner.settled("trades")
        holed = (await p.market.candles(BTC, M1, Window(start=T0, limit=100), fill="prev")).batch.rows
        assert (T0 + 15 * MINUTE) not in holed["open_time"].tolist()


async def test_filling_from_the_beginning_of_time_starts_with_the_first_candle(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 300)
        for tf in (M1, BY_INDEX[0]):
            for mode in ("prev", None):
                found = await p.market.candles(BTC, tf, Window(start=0, limit=3), fill=mode)  # type: ignore[arg-type]
                assert found.batch.rows["open_time"].tolist()[0] == T0


async def test_quiet_seconds_are_filled_wherever_the_window_begins(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 10)
        quiet = batch(11, 5)
        quiet.ts_event += 5 * MINUTE
        await p.inner.publish("trades", quiet)
        await p.inner.settled("trades")
        window = Window(start=T0 + 2 * MINUTE, limit=4)
        rows = (await p.market.candles(BTC, BY_INDEX[0], window, fill="prev")).batch.rows
        last = (await p.market.candles(BTC, BY_INDEX[0], Window(start=0, limit=9))).batch.rows[-1]
        assert rows["open_time"].tolist() == [T0 + 2 * MINUTE + i * SECOND for i in range(4)]
        assert set(rows["close"].tolist()) == {int(last["close"])} and set(rows["filled"].tolist()) == {1}


async def test_seconds_are_folded_from_trades(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 1000)
        expected = fold(batch(1, 1000), BY_INDEX[0])
        whole = (await p.market.candles(BTC, BY_INDEX[0], Window(start=T0, limit=1000))).batch.rows
        for name in ("open_time", "open", "high", "low", "close", "volume_lo", "quote_volume_lo", "trades", "first_id"):
            assert whole[name].tolist() == expected[name].tolist()
        newest = (await p.market.candles(BTC, BY_INDEX[0], Window(limit=3, newest=True))).batch.rows
        assert newest["open_time"].tolist() == expected["open_time"][-3:].tolist()


async def test_of_too_many_trades_the_newest_whole_minutes_are_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path) as p:
        dense = batch(1, 12_000)
        dense.ts_event[:] = T0 + dense.trade_id * (MINUTE // 3000) - 1
        await p.inner.publish("trades", dense)
        await p.inner.settled("trades")
        everything = fold(dense, BY_INDEX[0])["trades"].tolist()
        monkeypatch.setattr("tapewick.history.MOST_TRADES", 7000)
        cut = (await p.market.candles(BTC, BY_INDEX[0], Window(limit=200, newest=True))).batch.rows
        assert cut["trades"].tolist() == everything[-120:]
        monkeypatch.undo()
        rows = (await p.market.candles(BTC, BY_INDEX[0], Window(limit=200, newest=True))).batch.rows
        assert rows["trades"].tolist() == everything[-200:]


async def test_late_trades_do_not_hide_the_newest_seconds(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        for first in (50_001, 1, 6001):  # what was missed comes last, and is more than one read takes
            await p.tell(first, 6000, late=first < 50_000)
        expected = fold(batch(50_001, 6000), BY_INDEX[0])["open_time"]
        rows = (await p.market.candles(BTC, BY_INDEX[0], Window(limit=10, newest=True))).batch.rows
        assert rows["open_time"].tolist() == expected[-10:].tolist()
        far = (await p.market.candles(BTC, BY_INDEX[0], Window(limit=len(expected) + 3, newest=True))).batch.rows
        older = fold(batch(1, 12_000), BY_INDEX[0])["open_time"][-3:].tolist()
        assert far["open_time"].tolist() == older + expected.tolist()


async def test_bounds_cut_no_second_apart(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 200)
        whole = (await p.market.candles(BTC, BY_INDEX[0], Window(start=T0, limit=100))).batch.rows
        start, end = T0 + 2 * SECOND + SECOND // 2, T0 + 7 * SECOND + SECOND // 2
        for newest in (False, True):
            rows = (await p.market.candles(BTC, BY_INDEX[0], Window(start, end, 100, newest))).batch.rows
            inside = (whole["open_time"] >= start) & (whole["open_time"] < end)
            assert rows["trades"].tolist() == whole["trades"][inside].tolist()
            assert rows["open_time"].tolist() == whole["open_time"][inside].tolist()


async def test_too_many_trades_for_one_answer_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapewick.history.MOST_TRADES", 100)
    async with parts(tmp_path) as p:
        await p.tell(1, 500)
        with pytest.raises(BadRequest, match="narrow"):
            await p.market.candles(BTC, BY_INDEX[0], Window(start=T0, limit=1000))


async def test_watch_joins_history_and_live_while_trades_arrive(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 2500)

        async def publish() -> None:
            for first in range(2501, 5001, 25):
                await p.tell(first, 25)

        publisher = asyncio.create_task(publish())
        async with aclosing(p.market.watch(TRADES, since=0)) as stream:
            assert await collect(stream, 5000) == list(range(1, 5001))
        await publisher


async def test_lost_announcements_are_filled_from_the_store(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 10)
        p.keep = 0.3
        async with aclosing(p.market.watch(TRADES, since=10)) as stream:

            async def publish() -> None:
                for first in range(11, 1511, 10):
                    await p.tell(first, 10)
                await p.announce()

            publisher = asyncio.create_task(publish())
            assert await collect(stream, 1510) == list(range(11, 1511))
            await publisher


async def test_a_bus_that_drops_is_made_good(tmp_path: Path) -> None:
    async with parts(tmp_path, max_bytes=4000) as p:
        await p.tell(1, 10)
        async with aclosing(p.market.watch(TRADES, since=0)) as stream:
            reader = asyncio.create_task(collect(stream, 3010))
            for first in range(11, 3011, 100):
                await p.tell(first, 100)
            await p.announce()
            assert await reader == list(range(1, 3011))


async def test_a_slow_watcher_is_served_from_the_store_again(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 10)
        async with aclosing(p.market.watch(TRADES, since=0)) as stream:
            first = await anext(stream)
            assert len(first.rows if isinstance(first, CandleBatch) else first) == 10
            waiting = asyncio.ensure_future(anext(stream))
            await p.tell(11, 1)
            got = await waiting
            assert isinstance(got, TradeBatch) and got.trade_id.tolist() == [11]
            for start in range(12, 40_012, 4000):  # far more than a reader may hold
                await p.tell(start, 4000)
            assert 40_000 * 61 > 2 * HELD_BYTES
            assert await collect(stream, 40_011) == list(range(12, 40_012))


async def test_watched_candles_reduce_to_what_is_stored(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 700, clock=T0 + 60 * SECOND)
        p.keep = 0.6
        held: dict[int, tuple[int, ...]] = {}
        names = ["pos", "open", "high", "low", "close", "trades", "state", "rev"]
        async with aclosing(p.market.watch(CANDLES, since=0)) as stream:

            async def publish() -> None:
                for first in range(701, 4001, 100):
                    await p.tell(first, 100, clock=T0 + first * STEP + 3 * SECOND, late=first % 300 == 1)
                await p.announce()

            publisher = asyncio.create_task(publish())
            target = None
            async with asyncio.timeout(30):
                async for one in stream:
                    assert isinstance(one, CandleBatch)
                    if one.provisional:
                        continue
                    for row in one.rows:
                        held[int(row["open_time"])] = max(
                            held.get(int(row["open_time"]), (-1,)), tuple(int(row[name]) for name in names)
                        )
                    if publisher.done():
                        target = target or (await p.store.head(BTC)).pos
                        if max(value[0] for value in held.values()) >= target:
                            break
        stored, _ = await p.store.candles(BTC, M1.index)
        assert held == {int(r["open_time"]): tuple(int(r[name]) for name in names) for r in stored}


async def test_pages_of_changes_never_cut_a_commit(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 3000, clock=T0 + 400 * SECOND)
        everything, _ = await p.store.candles(BTC, M1.index, since_pos=0)
        seen: list[tuple[int, int]] = []
        offset, more = 0, True
        while more:
            page = await p.market.page(CANDLES, offset, limit=2)
            assert isinstance(page.batch, CandleBatch)
            seen += page.batch.rows[["pos", "open_time"]].tolist()
            offset, more = page.offset, page.more
        assert sorted(seen) == sorted(everything[["pos", "open_time"]].tolist())


async def test_a_page_of_changes_is_bounded_however_small(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        for first in range(1, 6001, 300):  # many commits of several rows each
            await p.tell(first, 300)
        everything, _ = await p.store.candles(BTC, M1.index, since_pos=0)
        answer, more = await p.market.changes(BTC, M1, 0, limit=1)
        assert more and 1 <= len(answer.batch.rows) < len(everything)


async def test_age_of_data_and_health_of_sources(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        assert p.market.data_age_ms(BTC) is None
        await p.tell(1, 10)
        await asyncio.sleep(0.01)
        assert p.market.data_age_ms(BTC) == 86_400 * 1000 - 1000
        p.outer.offer("health", Health(source="binance", state="disconnected", ts=T0, detail="reset"))
        await asyncio.sleep(0.01)
        assert p.market.health()["binance", ""].detail == "reset"


async def test_changes_of_seconds_are_none(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        await p.tell(1, 10)
        answer, more = await p.market.changes(BTC, BY_INDEX[0], 0)
        assert not len(answer.batch.rows) and not more
        assert np.array_equal(answer.head.pos, (await p.store.head(BTC)).pos)
