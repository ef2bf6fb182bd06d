"""What is let go, what stays, and that nothing below a floor comes back."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tapewick.config import load
from tapewick.errors import ConfigError, NotFound
from tapewick.model import Floor, State, TapeState, TradeBatch
from tapewick.settings import Settings
from tapewick.stores._postgres_schema import WRITER
from tapewick.stores.postgres import PostgresStore, migrate
from tapewick.timeframe import BY_NAME
from tests.contract.tapes import HOUR, MINUTE, T0, fresh, row, trades, whole_book, write
from tests.parts.postgres import PostgresServer

HOURS, DAYS = 3600 * 10**9, 86_400 * 10**9
QUARTER = BY_NAME["15m"].index


@pytest.fixture(params=["postgres", "timescale"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    found: PostgresServer = request.getfixturevalue(request.param)
    return found


def at(state: TapeState, times: list[int], *, late: bool = False) -> TradeBatch:
    batch = trades(state, len(times), late=late)
    batch.ts_event = np.array(times, np.int64)
    return batch


async def thirty_days(store: PostgresStore, symbol: str) -> TapeState:
    """A tape of a trade an hour, its candles and books; the watermark at the end of day 30."""
    [state] = await fresh(store, symbol)
    for day in range(30):
        start = T0 + day * DAYS
        rows = [row(start, tf, state=State.FINAL) for tf in (MINUTE, QUARTER, HOUR)]
        batch = at(state, [start + hour * HOURS for hour in range(24)])
        await write(store, state, batch, np.concatenate(rows), watermark=T0 + (day + 1) * DAYS)
    await store.put_books([whole_book(T0 + day * DAYS, f"sim:{symbol}") for day in range(30)])
    return state


async def held(store: PostgresStore, id: str) -> tuple[list[int], list[int], list[int]]:
    """Seqs of the trades, and the days of the minutes and of the hours that are there."""
    batch, _ = await store.trades(id)
    assert batch.seq is not None
    days = []
    for tf in (MINUTE, HOUR):
        rows, _ = await store.candles(id, tf)
        days.append([(t - T0) // DAYS for t in rows["open_time"].tolist()])
    return batch.seq.tolist(), days[0], days[1]


async def test_each_tier_goes_at_its_age_and_the_hours_stay(server: PostgresServer) -> None:
    async with PostgresStore(server.database()) as store:
        state = await thirty_days(store, "AAA")
        await thirty_days(store, "BBB")
        await write(store, state, at(state, [T0 + HOURS], late=True), watermark=T0 + 30 * DAYS)  # repaired, on day 0
        assert sum((await store.expire()).values()) == 0
        done = await store.expire(trades=10 * DAYS, minutes=20 * DAYS, books=5 * DAYS)
        whole = 480 + 480  # of both tapes
        if server.root is None:
            assert done == {"trades": whole, "candles": 40, "books": 50, "chunks": 0}
        else:  # most go with their chunk, without being touched
            assert done["chunks"] > 0 and done["trades"] < whole and done["candles"] == 40
        late = 721
        assert await held(store, "sim:AAA") == ([*range(481, 721), late], list(range(10, 30)), list(range(30)))
        assert await held(store, "sim:BBB") == (list(range(481, 721)), list(range(10, 30)), list(range(30)))
        assert await store.book_at("sim:AAA", T0 + 24 * DAYS) is None
        assert await store.book_at("sim:AAA", T0 + 25 * DAYS) is not None
        again = await store.expire(trades=10 * DAYS, minutes=20 * DAYS, books=5 * DAYS)
        assert sum(again.values()) == 0
        batch, head = await store.trades("sim:AAA", limit=3)
        assert batch.seq is not None and batch.seq.tolist() == [481, 482, 483] and head.seq == late


async def test_a_late_trade_below_a_floor_makes_no_candle_that_looks_whole(postgres: PostgresServer) -> None:
    async with PostgresStore(postgres.database()) as store:
        state = await thirty_days(store, "AAA")
        await store.expire(trades=10 * DAYS, minutes=20 * DAYS)
        rows = [row(T0 + DAYS, tf, state=life, close=77) for tf, life in ((MINUTE, 0), (QUARTER, 1), (HOUR, 1))]
        await write(store, state, at(state, [T0 + DAYS], late=True), np.concatenate(rows), watermark=T0 + 30 * DAYS)
        seqs, minutes, hours = await held(store, "sim:AAA")
        assert (seqs[-1], minutes, hours) == (721, list(range(10, 30)), list(range(30)))
        found, _ = await store.candles("sim:AAA", HOUR, start=T0 + DAYS, limit=1)
        assert found["close"].tolist() == [77]
        assert len((await store.candles("sim:AAA", QUARTER))[0]) == 20
        await write(store, state, None, row(T0 + 12 * DAYS, close=78), watermark=T0 + 30 * DAYS)  # above it
        found, _ = await store.candles("sim:AAA", MINUTE, start=T0 + 12 * DAYS, limit=1)
        assert found["close"].tolist() == [78]


async def test_what_was_let_go_of_is_told_by_its_newest_change(postgres: PostgresServer) -> None:
    async with PostgresStore(postgres.database()) as store:
        state = await thirty_days(store, "AAA")
        [first], _ = await store.candles("sim:AAA", MINUTE, limit=1)
        made = int(first["pos"])
        assert await store.floor("sim:AAA", MINUTE) == await store.floor("sim:AAA", 0) == Floor()
        await store.expire(trades=10 * DAYS, minutes=20 * DAYS)
        assert await store.floor("sim:AAA", MINUTE) == (T0 + 10 * DAYS, made)
        assert await store.floor("sim:AAA", 0) == (T0 + 20 * DAYS, 480)
        assert await store.floor("sim:AAA", HOUR) == Floor()
        # A repair of day 12 comes late: when that day is let go of, its newest change is the floor.
        repaired = row(T0 + 12 * DAYS, close=78)
        repaired["pos"] = made + 7
        await write(store, state, None, repaired, watermark=T0 + 30 * DAYS)
        await store.expire(minutes=15 * DAYS)
        assert await store.floor("sim:AAA", MINUTE) == (T0 + 15 * DAYS, made + 7)
        assert await store.floor("sim:AAA", QUARTER) == (T0 + 15 * DAYS, made)
        await store.expire(minutes=20 * DAYS)
        assert await store.floor("sim:AAA", MINUTE) == (T0 + 15 * DAYS, made + 7), "it never sinks"
        with pytest.raises(NotFound):
            await store.floor("sim:ZZZ", MINUTE)


async def test_a_quiet_tape_keeps_what_its_own_clock_says(postgres: PostgresServer) -> None:
    async with PostgresStore(postgres.database()) as store:
        await thirty_days(store, "AAA")
        [quiet] = await fresh(store, "QUIET")
        await write(store, quiet, trades(quiet, 5), watermark=T0 + 1)  # halted a month ago: nothing of it is old
        await store.expire(trades=10 * DAYS)
        assert (await held(store, "sim:QUIET"))[0] == [1, 2, 3, 4, 5]


async def test_a_writer_without_the_tables_lets_go_of_rows(timescale: PostgresServer) -> None:
    dsn = timescale.database()
    schema = timescale.schema_of(dsn)
    await migrate(dsn)
    timescale.sql(f"CREATE ROLE w_{schema} LOGIN IN ROLE {WRITER}")
    async with PostgresStore(timescale.dsn(user=f"w_{schema}", schema=schema)) as store:
        await thirty_days(store, "AAA")
        done = await store.expire(trades=10 * DAYS)
        assert (done["trades"], done["chunks"]) == (480, 0)
        assert (await held(store, "sim:AAA"))[0] == list(range(481, 721))


async def test_letting_go_and_committing_do_not_wait_for_each_other_for_good(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    async with PostgresStore(dsn) as store, PostgresStore(dsn) as other:
        state = await thirty_days(store, "AAA")

        async def commits() -> None:
            for _ in range(20):
                await write(store, state, at(state, [T0 + 30 * DAYS]), watermark=T0 + 30 * DAYS)

        await asyncio.gather(commits(), *(one.expire(trades=d * DAYS) for d in (20, 10, 5) for one in (store, other)))
        seqs = (await held(store, "sim:AAA"))[0]
        assert seqs == list(range(seqs[0], 741))


def test_the_embedded_store_does_not_pretend_to_let_go() -> None:
    assert not any(Settings().retention)
    with pytest.raises(ConfigError, match=r"store\.kind = postgres"):
        load({"retention.trades_days": "3"}, environ={}, no_config=True)
    assert load({"retention.trades_days": "3", "store.kind": "postgres"}, environ={}, no_config=True).settings
