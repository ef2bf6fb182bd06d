"""A session of somebody else stands still with a lock in its hands: only what needs it waits, and says for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.protocols import Store
from tapewick.roles import EngineRole
from tapewick.stores._postgres_pool import single
from tapewick.stores.postgres import PostgresStore
from tests.engines import PATIENCE, instruments, trades
from tests.parts.postgres import PostgresServer


@asynccontextmanager
async def idle(dsn: str, sql: str) -> AsyncIterator[None]:
    """A session that has begun a transaction and forgotten it."""
    async with single(dsn) as connection, connection.transaction():
        await connection.execute(sql)
        yield


async def stored(store: Store, id: str, seq: int) -> None:
    """Return once the tape of ``id`` has ``seq`` trades."""
    async with asyncio.timeout(PATIENCE):
        while id not in {one.id for one in await store.instruments()} or (await store.head(id)).seq < seq:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_locked_list_of_instruments_keeps_new_ones_waiting_and_nothing_else(postgres: PostgresServer) -> None:
    known, fresh = instruments(2)
    dsn = postgres.database()
    async with PostgresStore(dsn) as store, MemoryBus() as bus:
        async with EngineRole(bus, store, Engine(), RealClock(), interval=0.001) as role:
            await bus.publish("trades", known)
            await bus.publish("trades", trades(known.id, 1, 5))
            await stored(store, known.id, 5)
            async with idle(dsn, "LOCK TABLE instruments IN SHARE MODE"):
                await bus.publish("trades", fresh)
                await bus.publish("trades", trades(fresh.id, 1, 5))
                last = 5
                async with asyncio.timeout(PATIENCE):
                    while "idle in transaction" not in (role.trouble or ""):
                        last += 1
                        await bus.publish("trades", trades(known.id, last, last))
                        await stored(store, known.id, last)
                await asyncio.wait_for(role._quiet.acquire(), PATIENCE)  # partitions may change hands meanwhile
                role._quiet.release()
            await stored(store, fresh.id, 5)
            async with asyncio.timeout(PATIENCE):
                while role.trouble is not None:  # noqa: ASYNC110  # there is no event for it: probes poll it too
                    await asyncio.sleep(0.02)


async def test_a_process_of_ours_that_stands_still_there_is_ended(postgres: PostgresServer) -> None:
    dsn = postgres.database()
    one, other = instruments(2)
    async with PostgresStore(dsn) as store, PostgresStore(dsn) as paused:
        entered, never = asyncio.Event(), asyncio.Event()

        async def stand_still(connection: object) -> None:
            from tapewick.stores import _postgres_write as writes

            await writes.put_instrument(connection, one)  # type: ignore[arg-type]
            entered.set()
            await never.wait()

        standing = asyncio.create_task(paused._database.write(stand_still))
        await asyncio.wait_for(entered.wait(), PATIENCE)
        async with EngineRole(MemoryBus(), store, Engine(), RealClock()) as role:
            await asyncio.wait_for(role._patience.insist(lambda: store.put_instrument(other)), PATIENCE)
        assert [found.id for found in await store.instruments()] == [other.id]
        never.set()
        await asyncio.gather(standing, return_exceptions=True)


async def test_a_server_that_stands_still_is_told_of_and_keeps_nobody_who_gives_up(
    durable_postgres: PostgresServer,
) -> None:
    """The driver asks it to end what it does when somebody gives up, and would wait for that."""
    [known] = instruments(1)
    async with PostgresStore(durable_postgres.database()) as store:
        await store.put_instrument(known)
        assert store.trouble is None
        durable_postgres.pause()
        try:
            asked = asyncio.create_task(store.head(known.id))
            await asyncio.wait([asked], timeout=1)
            asked.cancel()
            done, _ = await asyncio.wait([asked], timeout=15)
            assert done, "who gives up waits for the server all the same"
            async with asyncio.timeout(25):
                while store.trouble is None:  # noqa: ASYNC110  # probes poll it too
                    await asyncio.sleep(0.05)
            assert "has not answered for 5 s" in store.trouble
        finally:
            durable_postgres.resume()
        async with asyncio.timeout(PATIENCE):
            while store.trouble is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await store.head(known.id)).seq == 0


async def test_locked_heads_are_told_and_the_commit_is_made_when_they_are_free(postgres: PostgresServer) -> None:
    [known] = instruments(1)
    dsn = postgres.database()
    async with PostgresStore(dsn) as store, MemoryBus() as bus:
        async with EngineRole(bus, store, Engine(), RealClock(), interval=0.001) as role:
            await bus.publish("trades", known)
            await bus.publish("trades", trades(known.id, 1, 5))
            await stored(store, known.id, 5)
            async with idle(dsn, "SELECT FROM tape_head FOR UPDATE"):
                await bus.publish("trades", trades(known.id, 6, 9))
                async with asyncio.timeout(PATIENCE):
                    while "idle in transaction" not in (role.trouble or ""):  # noqa: ASYNC110  # as above
                        await asyncio.sleep(0.02)
            await stored(store, known.id, 9)
