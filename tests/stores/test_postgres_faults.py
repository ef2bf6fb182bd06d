"""PostgreSQL dies, is cut off, is taken over, or refuses: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tapewick.errors import ConfigError, StoreError
from tapewick.model import State, TapeState
from tapewick.protocols import Store
from tapewick.stores._postgres_pool import single, translate
from tapewick.stores.postgres import PostgresStore, migrate
from tapewick.timeframe import SECOND
from tests.conformance.tls import certificate
from tests.contract.tapes import HOUR, MINUTE, T0, fresh, part, row, total, trades, write
from tests.parts.postgres import PostgresServer


async def committed(store: Store, state: TapeState, n: int) -> None:
    """One more commit of ``n`` trades with candles and range, tried until the store has it, as the engine does."""
    seq = state.seq + n
    rows = np.concatenate(
        [
            row(T0 + state.pos * 60 * SECOND, volume=n, state=State.CLOSED, pos=state.pos + 1),
            row(T0, HOUR, volume=seq, state=State.OPEN, pos=state.pos + 1),
        ]
    )
    commit = part(state, trades(state, n), rows, ranges=[(1001, 1000 + seq, T0, T0 + seq)])
    while True:
        try:
            assert await store.commit([commit]) == frozenset()
        except StoreError:
            await asyncio.sleep(0.05)
        else:
            break
    state.seq, state.pos, state.watermark = commit.head.seq, commit.head.pos, commit.head.watermark


async def written(store: Store, state: TapeState, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await committed(store, state, 50)


def reached(state: TapeState, pos: int) -> bool:
    return state.pos >= pos


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def sound(store: Store, acknowledged: int) -> int:
    """Check that a tape written by ``committed`` holds whole commits, each once; its trades."""
    batch, head = await store.trades("sim:AAA")
    assert batch.seq is not None and batch.seq.tolist() == list(range(1, head.seq + 1))
    assert head.seq >= acknowledged
    assert (await store.coverage("sim:AAA")).ranges[:, :2].tolist() == [[1001, 1000 + head.seq]]
    minutes, _ = await store.candles("sim:AAA", MINUTE)
    [hour] = (await store.candles("sim:AAA", HOUR))[0]
    assert len(minutes) == head.pos
    assert total(hour, "volume") == sum(total(minute, "volume") for minute in minutes) == head.seq
    return head.seq


async def test_durable_kill_9_of_the_server_during_commits_loses_and_doubles_nothing(
    durable_postgres: PostgresServer,
) -> None:
    server, chance = durable_postgres, random.Random(4)
    async with PostgresStore(server.database()) as store:
        [state] = await fresh(store)
        for _ in range(4):
            stop = asyncio.Event()
            writing = asyncio.create_task(written(store, state, stop))
            await until(partial(reached, state, state.pos + 3))
            await asyncio.sleep(chance.random() / 50)  # anywhere inside a commit
            await asyncio.to_thread(server.kill)
            stop.set()
            await asyncio.to_thread(server.start)
            await writing  # fenced if the server had forgotten an acknowledged commit
            assert await sound(store, state.seq) == state.seq


async def test_durable_a_server_stopped_for_a_while_is_waited_for(durable_postgres: PostgresServer) -> None:
    async with PostgresStore(durable_postgres.database()) as store:
        [state] = await fresh(store)
        await committed(store, state, 5)
        await asyncio.to_thread(durable_postgres.stop)
        with pytest.raises(StoreError, match="cannot be reached|was lost|starting or stopping"):
            await store.commit([part(state, trades(state, 5))])
        with pytest.raises(StoreError):
            await store.trades("sim:AAA")
        waiting = asyncio.create_task(committed(store, state, 5))
        await asyncio.to_thread(durable_postgres.start)
        await waiting
        assert await sound(store, 10) == 10


async def test_a_cut_connection_leaves_the_outcome_open_and_the_retry_finds_it(
    postgres: PostgresServer,
) -> None:
    async with PostgresStore(postgres.database()) as store:
        [state] = await fresh(store)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tapewick'"
        for _ in range(30):
            committing = asyncio.create_task(committed(store, state, 7))
            await asyncio.to_thread(postgres.sql, end)  # anywhere inside it
            await committing
        for _ in range(100):  # the pool may still hold connections that were cut
            try:
                assert await sound(store, 210) == 210
                return
            except StoreError:
                await asyncio.sleep(0.02)
        pytest.fail("the store does not recover")


# ── two engines ──


async def test_the_second_engine_takes_over_and_the_first_is_fenced(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    async with PostgresStore(dsn) as one, PostgresStore(dsn) as two:
        mine = await fresh(one, "AAA", "BBB")
        await write(one, mine[0], trades(mine[0], 5))
        [theirs] = await two.claim(["sim:AAA"])
        assert (theirs.seq, theirs.owner) == (5, mine[0].owner + 1)
        await write(two, theirs, trades(theirs, 4))
        group = [part(state, trades(state, 3)) for state in mine]
        assert await one.commit(group) == {"sim:AAA"}
        batch, _ = await two.trades("sim:AAA")
        assert batch.seq is not None and batch.seq.tolist() == list(range(1, 10))
        assert (await two.head("sim:BBB")).seq == 3


async def test_racing_engines_never_both_write(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    async with PostgresStore(dsn) as one, PostgresStore(dsn) as two:
        names = [f"S{k}" for k in range(6)]
        await fresh(one, *names)
        ids = [f"sim:{name}" for name in names]

        async def engine(store: PostgresStore, order: list[str], turns: int) -> int:
            written = 0
            for _ in range(turns):
                states = await store.claim(order)
                for _ in range(3):
                    group = [part(state, trades(state, 2)) for state in states]
                    fenced = await store.commit(group)
                    states = [s for s, c in zip(states, group, strict=True) if c.instrument not in fenced]
                    for state in states:
                        state.seq, state.pos = state.seq + 2, state.pos + 1
                    written += 2 * len(states)
            return written

        written = await asyncio.gather(engine(one, ids, 8), engine(two, ids[::-1], 8))
        stored = 0
        for id in ids:
            batch, head = await one.trades(id)
            assert batch.seq is not None and batch.seq.tolist() == list(range(1, head.seq + 1))
            stored += head.seq
        assert stored == sum(written)


async def test_an_engine_that_stands_still_inside_a_commit_is_ended_by_the_server(postgres: PostgresServer) -> None:
    async with PostgresStore(postgres.database()) as store:

        async def settings(connection: object) -> list[str]:
            names = ("idle_in_transaction_session_timeout", "lock_timeout", "synchronous_commit")
            return [await connection.fetchval(f"SHOW {name}") for name in names]  # type: ignore[attr-defined]

        assert await store._database.read(settings) == ["15s", "5s", "on"]


# ── a primary and its standby ──


async def test_durable_reads_use_the_replica_and_the_writer_follows_a_promotion(
    durable_postgres: PostgresServer,
) -> None:
    primary = durable_postgres
    dsn = primary.database()
    async with PostgresStore(dsn) as store:
        [state] = await fresh(store)
        await committed(store, state, 10)
    replica = PostgresServer(durable=True, primary=primary)
    try:
        await asyncio.to_thread(replica.start)
        both = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
        shared = dsn.replace(f"127.0.0.1:{primary.port}", both) + "&target_session_attrs=read-write"
        # What is acknowledged is on both from here on.
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.sql("SELECT pg_reload_conf()")
        async with PostgresStore(shared, read_dsn=replica.dsn(schema=primary.schema_of(dsn))) as store:
            [state] = await store.claim(["sim:AAA"])
            for _ in range(5):
                await committed(store, state, 10)
            for _ in range(6000):
                if (await store.head("sim:AAA")).seq == 60:  # the replica applies what it has a moment later
                    break
                await asyncio.sleep(0.01)
            assert await sound(store, 60) == 60
            where = await store._database.read(lambda c: c.fetchval("SELECT pg_is_in_recovery()"))
            assert where is True and await store._database.read(
                lambda c: c.fetchval("SELECT NOT pg_is_in_recovery()"), primary=True
            )
            writing = asyncio.create_task(committed(store, state, 10))
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(replica.sql, "SELECT pg_promote()")
            await writing
            await committed(store, state, 10)
            assert await sound(store, 80) == 80
    finally:
        await asyncio.to_thread(replica.remove)


# ── wrong settings ──


@pytest.fixture
async def dsn(postgres: PostgresServer) -> AsyncIterator[str]:
    dsn = postgres.database()
    async with PostgresStore(dsn):
        pass
    yield dsn


async def refused(store: PostgresStore) -> str:
    with pytest.raises(StoreError) as caught:
        async with store:
            pass
    return str(caught.value)


async def test_a_server_that_is_not_there_is_named(postgres: PostgresServer) -> None:
    said = await refused(PostgresStore("postgresql://me:hidden@127.0.0.1:1/tapes"))
    assert "127.0.0.1:1/tapes cannot be reached" in said and "hidden" not in said


async def test_a_missing_database_and_user_are_named(postgres: PostgresServer, dsn: str) -> None:
    assert "no such database" in await refused(PostgresStore(postgres.dsn("nowhere")))
    assert "check user and password" in await refused(PostgresStore(postgres.dsn(user="nobody")))


async def test_a_wrong_password_is_told_without_the_password(durable_postgres: PostgresServer) -> None:
    durable_postgres.sql("CREATE ROLE tape LOGIN PASSWORD 'right'")
    durable_postgres.require_password("tape")
    place = f"127.0.0.1:{durable_postgres.port}/postgres"
    said = await refused(PostgresStore(f"postgresql://tape:wrong-one@{place}"))
    assert place in said and "check user and password" in said and "wrong-one" not in said


async def test_only_the_right_authority_proves_the_server(durable_postgres: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    right, wrong = certificate(tmp_path / "a"), certificate(tmp_path / "b")
    dsn = durable_postgres.database()
    durable_postgres.encrypt(right.cert, right.key)
    async with PostgresStore(f"{dsn}&sslmode=verify-full&sslrootcert={right.authority}") as store:
        await fresh(store)
        encrypted = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await store._database.read(lambda c: c.fetchval(encrypted)) in ("TLSv1.2", "TLSv1.3")
    said = await refused(PostgresStore(f"{dsn}&sslmode=verify-full&sslrootcert={wrong.authority}"))
    assert "does not prove who it is" in said
    assert "check user and password" in await refused(PostgresStore(f"{dsn}&sslmode=disable"))


@pytest.mark.parametrize("text", ["", "tapes", "mysql://127.0.0.1/tapes", "postgresql://127.0.0.1:x/tapes"])
async def test_a_malformed_address_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.dsn"):
        async with PostgresStore(text):
            pass


async def test_a_newer_or_edited_schema_is_refused(postgres: PostgresServer, dsn: str) -> None:
    schema = postgres.schema_of(dsn)
    postgres.sql(f"UPDATE {schema}.schema_migrations SET checksum = 'other' WHERE number = 2")
    assert "0002_views was edited" in await refused(PostgresStore(dsn))
    postgres.sql(f"UPDATE {schema}.schema_migrations SET number = 99 WHERE number = 2")
    assert "schema version 99" in await refused(PostgresStore(dsn))


async def test_an_older_schema_is_not_changed_by_a_reader(dsn: str) -> None:
    await migrate(dsn, 2)
    assert "migrate up" in await refused(PostgresStore(dsn, read_only=True))
    async with PostgresStore(dsn):
        pass
    async with PostgresStore(dsn, read_only=True) as store:
        with pytest.raises(StoreError, match="read-only"):
            await fresh(store)


async def test_a_standby_that_should_be_written_is_told(postgres: PostgresServer, dsn: str) -> None:
    async with PostgresStore(dsn) as store:
        await fresh(store)
    # A transaction that says it writes is writable even then; the server's default decides what is not said.
    async with single(f"{dsn}&default_transaction_read_only=on") as connection:
        with pytest.raises(Exception) as caught:
            await connection.execute("DELETE FROM trades")
    assert "point store.dsn at the primary" in str(translate(caught.value, dsn))
