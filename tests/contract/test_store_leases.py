"""Leases and watches: what every store promises of who holds a name."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from tapewick.errors import StoreError
from tapewick.protocols import Store
from tests.contract.tapes import Open, store_at
from tests.parts.postgres import PostgresServer

LONG, SHORT = 60.0, 0.2


async def expired(store: Store, name: str) -> None:
    """Return once nobody holds ``name`` any more."""
    async with asyncio.timeout(30):
        while name in await store.lease("looks on", [], LONG):  # noqa: ASYNC110  # the store's clock is the only one
            await asyncio.sleep(0.01)


async def test_a_name_has_one_holder(opened: Open) -> None:
    async with opened() as store:
        mine = await store.lease("a", ["x", "y"], LONG)
        assert {name: one.holder for name, one in mine.items()} == {"x": "a", "y": "a"}
        assert all(LONG - 30 < one.left <= LONG for one in mine.values())
        assert {n: one.holder for n, one in (await store.lease("b", ["y", "z"], LONG)).items()} == {
            "x": "a", "y": "a", "z": "b",
        }  # fmt: skip
        earlier, later = await store.lease("c", [], LONG), await store.lease("c", [], LONG)
        assert list(earlier) == list(later) == ["x", "y", "z"]
        assert all(later[name].left <= earlier[name].left for name in earlier)


async def test_a_renewal_begins_the_time_anew_and_takes_nothing(opened: Open) -> None:
    async with opened() as store:
        await store.lease("a", ["x"], 5)
        renewed = await store.lease("a", [], LONG)
        assert list(renewed) == ["x"] and renewed["x"].left > 30
        again = await store.lease("a", ["x"], 5)
        assert again["x"].left <= 5


async def test_only_what_has_run_out_is_taken_from_another(opened: Open) -> None:
    async with opened() as store:
        await store.lease("a", ["short"], SHORT)
        await store.lease("c", ["long"], LONG)
        await expired(store, "short")
        taken = await store.lease("b", ["short", "long"], LONG)
        assert (taken["short"].holder, taken["long"].holder) == ("b", "c")
        assert (await store.lease("a", [], LONG))["short"].holder == "b"


async def test_what_was_lost_is_not_renewed(opened: Open) -> None:
    async with opened() as store:
        await store.lease("a", ["x"], SHORT)
        await expired(store, "x")
        assert await store.lease("a", [], LONG) == {}
        assert (await store.lease("a", ["x"], LONG))["x"].holder == "a"


async def test_a_release_is_the_holders_own(opened: Open) -> None:
    async with opened() as store:
        await store.lease("a", ["x", "y"], LONG)
        await store.release("b", ["x"])
        await store.release("a", ["y", "unknown"])
        await store.release("a", [])
        found = await store.lease("b", ["x", "y"], LONG)
        assert {name: one.holder for name, one in found.items()} == {"x": "a", "y": "b"}


async def test_many_at_once_never_hold_the_same_name(address: tuple[str, str]) -> None:
    """Takers in stores of their own (of an embedded one, the same), each name again and again."""
    names = [f"n{at}" for at in range(8)]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(store_at(*address))
        stores = [first] * 6
        if address[0] != "duckdb":
            stores = [first, *[await stack.enter_async_context(store_at(*address)) for _ in range(5)]]
        holders: Counter[str] = Counter()
        most: Counter[str] = Counter()

        async def take(at: int, store: Store) -> None:
            for turn in range(15):
                # In a different order each: takers must not wait for each other in a circle.
                wanted = names[at + turn :: -1] + names[at + turn + 1 :]
                found = await store.lease(f"h{at}", wanted, LONG)
                mine = [name for name, one in found.items() if one.holder == f"h{at}"]
                for name in mine:
                    holders[name] += 1
                    most[name] = max(most[name], holders[name])
                await asyncio.sleep(0)
                for name in mine:
                    holders[name] -= 1
                await store.release(f"h{at}", mine)

        await asyncio.wait_for(asyncio.gather(*(take(at, store) for at, store in enumerate(stores))), 120)
        assert set(most.values()) == {1} and set(most) == set(names)


async def test_watches_are_kept(opened: Open) -> None:
    async with opened() as store:
        for instrument in ("sim:B", "sim:A", "sim:B", "sim:C"):
            await store.watch(instrument, True)
        await store.watch("sim:C", False)
        await store.watch("sim:D", False)
        assert await store.watched() == ["sim:B", "sim:A"]
    async with opened() as store:
        assert await store.watched() == ["sim:B", "sim:A"]


async def test_a_holder_that_stands_still_in_the_middle_holds_up_nobody(postgres: PostgresServer) -> None:
    """Its transaction is ended, and its rows are free, long before a lease runs out."""
    dsn = postgres.database()
    async with store_at("postgres", dsn) as store, store_at("postgres", dsn) as other:
        await store.lease("a", ["x"], LONG)
        stuck, begun = asyncio.Event(), asyncio.Event()

        async def stand_still(connection: object) -> None:
            from tapewick.stores import _postgres_leases as leases

            await leases.lease(connection, "a", ["y"], LONG)  # type: ignore[arg-type]
            begun.set()
            await stuck.wait()

        standing = asyncio.create_task(store._database.write(stand_still))  # type: ignore[attr-defined]
        await begun.wait()
        found = await asyncio.wait_for(other.lease("b", ["y"], LONG), 30)
        assert found["y"].holder == "b"
        stuck.set()
        with pytest.raises(StoreError):
            await standing


async def test_a_clock_that_is_set_back_keeps_no_dead_holders_lease_alive(postgres: PostgresServer) -> None:
    """As after a failover to a standby whose clock is an hour behind: what is stored lies an hour ahead."""
    dsn, ttl = postgres.database(), 2.0
    async with store_at("postgres", dsn) as store:
        await store.lease("dead", ["x", "z"], ttl)
        await store.lease("alive", ["y"], LONG)
        ahead = f"UPDATE {postgres.schema_of(dsn)}.leases SET expires_at = expires_at + '1 hour'"
        await asyncio.to_thread(postgres.sql, ahead)
        found = await store.lease("b", ["x", "y"], ttl)
        assert {name: one.holder for name, one in found.items()} == {"x": "dead", "y": "alive", "z": "dead"}, (
            "who lives may count on its whole time"
        )
        assert found["x"].left <= ttl and LONG - 30 < found["y"].left <= LONG
        await expired(store, "x")
        assert (await store.lease("b", ["x", "y"], ttl))["x"].holder == "b"
        assert (await store.lease("alive", [], LONG))["y"].holder == "alive"


async def test_a_standby_grants_nothing(durable_postgres: PostgresServer) -> None:
    standby = PostgresServer(durable=True, primary=durable_postgres)
    try:
        standby.start()
        async with store_at("postgres", durable_postgres.dsn()) as store:
            await store.lease("a", ["x"], LONG)
            arrived = durable_postgres.sql("SELECT pg_current_wal_lsn()").strip()
            while standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{arrived}'").strip() != "t":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with store_at("postgres", standby.dsn()) as store:
            with pytest.raises(StoreError, match="read-only"):
                await store.lease("a", ["x"], LONG)
            with pytest.raises(StoreError, match="read-only"):
                await store.watch("sim:A", True)
            assert await store.watched() == []
    finally:
        standby.remove()
