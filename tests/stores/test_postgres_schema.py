"""The schema on every level of server: its steps, its views, who may do what."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tapewick.errors import SchemaOlder, StoreError
from tapewick.model import State
from tapewick.protocols import Store
from tapewick.scans import OrderFilter, lease_name
from tapewick.stores._migrations import load
from tapewick.stores._postgres_schema import READER, WRITER, Level
from tapewick.stores.duckdb import FILE, DuckDBStore
from tapewick.stores.postgres import PostgresStore, migrate
from tapewick.timeframe import SECOND
from tests.contract.chains import COMPONENT, Chain, step_of
from tests.contract.tapes import DAY, HOUR, T0, fresh, instrument, row, trades, whole_book, write
from tests.parts.postgres import PostgresServer

STEPS = [f"{m.number:04}_{m.name}" for m in load("postgres")]


@pytest.fixture(params=["postgres", "timescale"])
def server(request: pytest.FixtureRequest) -> PostgresServer:
    found: PostgresServer = request.getfixturevalue(request.param)
    return found


def objects(server: PostgresServer, dsn: str) -> list[str]:
    """Every table, view, index and function of the schema."""
    schema = server.schema_of(dsn)
    return server.sql(
        f"SELECT relkind::TEXT || ' ' || relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace "
        f"UNION ALL SELECT 'f ' || proname FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace ORDER BY 1"
    ).splitlines()


async def test_the_real_schema_goes_up_down_and_up_to_the_same(server: PostgresServer) -> None:
    dsn = server.database()
    async with PostgresStore(dsn):
        pass
    first = objects(server, dsn)
    assert {"r trades", "v v_candles", "f wide"} <= set(first)
    assert await migrate(dsn) == []
    assert await migrate(dsn, 1) == [f"down {step}" for step in STEPS[:0:-1]]
    assert "v v_candles" not in objects(server, dsn)
    assert await migrate(dsn, 0) == [f"down {STEPS[0]}"]
    assert objects(server, dsn) == ["i schema_migrations_pkey", "r schema_migrations"]
    assert await migrate(dsn) == [f"up {step}" for step in STEPS]
    assert objects(server, dsn) == first


async def test_processes_that_open_an_empty_database_together_migrate_it_once(server: PostgresServer) -> None:
    dsn = server.database()
    done = await asyncio.gather(*(migrate(dsn) for _ in range(4)))
    assert sorted(done) == [[], [], [], [f"up {step}" for step in STEPS]]


async def test_who_only_reads_is_told_the_version_of_an_older_schema(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    await migrate(dsn, 3)
    with pytest.raises(SchemaOlder, match=rf"version 3, the newest is {len(STEPS)}\).*tapewick migrate up") as older:
        async with PostgresStore(dsn, read_only=True):
            pass
    assert older.value.version == 3
    await migrate(dsn)
    async with PostgresStore(dsn, read_only=True):
        pass


async def test_a_step_that_fails_leaves_no_half(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    postgres.sql(f"CREATE TABLE {postgres.schema_of(dsn)}.gaps (x INTEGER)")  # in the way of 0001, after six tables
    with pytest.raises(StoreError, match="gaps"):
        async with PostgresStore(dsn):
            pass
    assert [one for one in objects(postgres, dsn) if one.startswith("r")] == ["r gaps", "r schema_migrations"]


# ── levels ──


async def test_the_level_is_found_and_used_without_a_refusal(server: PostgresServer) -> None:
    dsn = server.database()
    async with PostgresStore(dsn) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 100), row(T0))
        level = store.level
    sql = "SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_schema = '{}' ORDER BY 1"
    if server.root is None:
        assert level == Level("plain") and str(level) == "plain PostgreSQL"
        return
    assert level.name == "apache" and "Apache edition" in str(level)
    assert server.sql(sql.format(server.schema_of(dsn))).split() == ["books", "candles", "trades"]
    ours = [line for line in server.log().splitlines() if " tapewick " in line]
    assert not [line for line in ours if 'under the current "apache" license' in line]


async def test_tables_that_hold_data_become_hypertables_when_the_extension_arrives(timescale: PostgresServer) -> None:
    timescale.sql("CREATE DATABASE late_extension")
    dsn = timescale.dsn("late_extension")
    async with PostgresStore(dsn) as store:
        assert store.level.name == "plain"
        [state] = await fresh(store)
        await write(store, state, trades(state, 100), row(T0))
    timescale.sql("CREATE EXTENSION timescaledb", database="late_extension")
    await migrate(dsn)
    async with PostgresStore(dsn) as store:
        assert store.level.name == "apache"
        assert len((await store.trades("sim:AAA"))[0]) == 100
        [state] = await store.claim(["sim:AAA"])
        await write(store, state, trades(state, 10))
    count = timescale.sql("SELECT count(*) FROM timescaledb_information.hypertables", database="late_extension")
    assert count.strip() == "3"


# ── views ──


async def fill(store: Store) -> None:
    """A little of everything the views show."""
    async with store:
        [state, other] = await fresh(store, "AAA", "BBB")
        batch = trades(state, 40)
        batch.price[3], batch.size[4], batch.ts_recv[5] = 2**62, 2**62 + 1, -(2**63)
        rows = [
            row(T0, volume=3, quote_volume=2000, state=State.CLOSED, complete=0),
            row(T0 + 60 * SECOND, volume=2**100, quote_volume=2**126, taker_buy_volume=-5),
            row(T0, HOUR, state=State.OPEN, volume=0, complete=-1),
        ]
        await write(store, state, batch, np.concatenate(rows), ranges=[(1001, 1040, T0, T0 + SECOND)])
        await write(store, other, trades(other, 3, late=True))
        await store.put_imported("sim:AAA", np.concatenate([row(T0, close=7), row(T0, DAY, close=8)]))
        await store.put_books([whole_book(T0), whole_book(T0 + SECOND, run="run-2")])


VIEWS = {
    "v_instruments": "instrument, venue, symbol, price_scale, size_scale, status, id_kind, granularity, seq, pos",
    "v_trades": "instrument, seq, trade_id, first_id, count, side, late",
    "v_candles": "instrument, tf, trades, first_id, last_id, state, rev, complete, last_seq, pos, origin",
    "v_coverage": "instrument, from_id, to_id",
    "v_books": "instrument, run, seq, first_id, last_id, side, level",
}
DECIMALS = {
    "v_trades": "price, size",
    "v_candles": "open, high, low, close, vwap, volume, quote_volume, taker_buy_volume, taker_buy_quote_volume",
    "v_books": "price, size",
}


async def test_the_views_show_what_those_of_the_embedded_store_show(server: PostgresServer, tmp_path: Path) -> None:
    dsn = server.database()
    await fill(PostgresStore(dsn))
    await fill(DuckDBStore(tmp_path))
    with duckdb.connect(str(tmp_path / FILE), read_only=True) as embedded:
        for view, names in VIEWS.items():
            decimals = DECIMALS.get(view, "")
            names = ", ".join(name for name in (names, decimals) if name)
            ours = await asked(dsn, f"SELECT {names} FROM {view} ORDER BY {names}")
            theirs = embedded.execute(f"SELECT {names} FROM {view} ORDER BY {names}").fetchall()
            # The embedded store's decimals have 38 digits: what they cannot hold is NULL there, exact here.
            keys = len(VIEWS[view].split(","))
            pairs = zip(sorted(ours, key=lead(keys)), sorted(theirs, key=lead(keys)), strict=True)
            for mine, other in pairs:
                assert all(b is None or a == b for a, b in zip(mine, other, strict=True)), (view, mine, other)
    [*_, (at, volume, quote, vwap)] = await asked(
        dsn, "SELECT open_time, volume, quote_volume, vwap FROM v_candles WHERE tf = '1m' ORDER BY open_time"
    )
    assert (volume, quote) == (Decimal(f"{2**100}E-5"), Decimal(f"{2**126}E-7"))
    assert vwap == Decimal(f"{2**126 * 10_000 // 2**100}E-6") and at.timestamp() == T0 // SECOND + 60


def lead(keys: int) -> Callable[[tuple[object, ...]], str]:
    """Orders rows by their first columns, which name them."""
    return lambda row: repr(row[:keys])


async def asked(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    from tapewick.stores._postgres_pool import single

    async with single(dsn) as connection:
        return [tuple(found) for found in await connection.fetch(sql)]


# ── the doctor ──


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM trades WHERE seq = 10", "head is not at the last trade"),
        ("UPDATE tape_head SET seq = 9", "head is not at the last trade"),
        ("INSERT INTO coverage SELECT number, 1005, 1011, 0, 0 FROM coverage", "overlap"),
        ("UPDATE candles SET pos = 77", "newer than the head"),
        ("INSERT INTO open_candles SELECT * FROM candles", "also stored as closed"),
    ],
)
async def test_check_names_each_broken_invariant(postgres: PostgresServer, harm: str, said: str) -> None:
    dsn = postgres.database()
    async with PostgresStore(dsn) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 10), row(T0, pos=1), ranges=[(1001, 1010, T0, T0)])
        assert await store.check() == []
        postgres.sql(f"SET search_path = {postgres.schema_of(dsn)}; {harm}")
        found = await store.check()
    assert any(said in line and line.startswith("sim:AAA: ") for line in found), found


# ── rights ──


async def test_writer_and_reader_can_do_their_work_and_nothing_else(server: PostgresServer) -> None:
    dsn = server.database()
    schema = server.schema_of(dsn)
    await migrate(dsn)
    for user, role in ((f"w_{schema}", WRITER), (f"r_{schema}", READER)):
        server.sql(f"CREATE ROLE {user} LOGIN IN ROLE {role}")
    writer, reader = (server.dsn(user=f"{kind}_{schema}", schema=schema) for kind in "wr")
    async with PostgresStore(writer) as store:
        [state] = await fresh(store)
        await write(store, state, trades(state, 10), row(T0, state=State.OPEN), ranges=[(1001, 1010, T0, T0)])
        await store.put_imported("sim:AAA", row(T0))
        await store.put_books([whole_book(T0)])
        await store.rescale("sim:AAA", 3, 6)
        chain = Chain()
        await store.lease("scanner", [lease_name(COMPONENT)], 60)
        await store.commit_scan(step_of(chain, "", chain.grow(3)), holder="scanner")
    async with PostgresStore(writer, read_dsn=reader) as store:
        assert await store.placed_orders(OrderFilter())
        assert len((await store.trades("sim:AAA"))[0]) == 10
        assert await store.book_at("sim:AAA", T0) is not None
        [state] = await store.claim(["sim:AAA"])
        assert state.seq == 10
    async with PostgresStore("", read_dsn=reader, read_only=True) as store:
        assert len((await store.trades("sim:AAA"))[0]) == 10
    async with PostgresStore(reader) as store:
        with pytest.raises(StoreError, match="lacks rights"):
            await store.put_instrument(instrument("BBB"))
    for user in (writer, reader):
        for sql in ("DROP TABLE trades", "CREATE TABLE mine (x INTEGER)", "ALTER TABLE trades ADD y INTEGER"):
            with pytest.raises(StoreError, match="lacks rights|must be owner"):
                await asked(user, sql)
    with pytest.raises(StoreError, match="lacks rights"):
        await asked(writer, "TRUNCATE trades")


def migrated(owner: str, writer: str) -> str:
    """What ``tapewick migrate up`` says to the person at the terminal."""
    env = {"TAPEWICK_STORE__KIND": "postgres", "TAPEWICK_STORE__DSN": writer, "TAPEWICK_STORE__MIGRATE_DSN": owner}
    command = [sys.executable, "-m", "tapewick", "migrate", "up", "--no-config"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_migrate_up_tells_who_lacks_rights_yet_and_what_to_do(durable_postgres: PostgresServer) -> None:
    server = durable_postgres  # of this test alone: nobody has made the groups
    server.sql("CREATE ROLE landlord LOGIN; CREATE ROLE tape LOGIN; CREATE SCHEMA prices AUTHORIZATION landlord")
    owner, writer = (server.dsn(user=user, schema="prices") for user in ("landlord", "tape"))
    said = migrated(owner, writer)
    assert "CREATE ROLE tapewick_writer NOLOGIN; CREATE ROLE tapewick_reader NOLOGIN;" in said
    server.sql("CREATE ROLE tapewick_writer NOLOGIN; CREATE ROLE tapewick_reader NOLOGIN")
    assert "the user tape lacks rights: GRANT tapewick_writer TO tape" in migrated(owner, writer)
    server.sql("GRANT tapewick_writer TO tape")
    assert migrated(owner, writer) == migrated(owner, owner) == ""
