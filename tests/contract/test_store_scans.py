"""What scanners found: what every store promises of a step, of who may store one, and of reading it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tapewick.errors import Fenced, StoreError
from tapewick.scans import (
    Announcement,
    Finality,
    Order,
    OrderEvent,
    OrderFilter,
    Scanned,
    lease_name,
)
from tests.contract.chains import COMPONENT, USER, Chain, fold, step_of
from tests.contract.tapes import store_at
from tests.parts.postgres import PostgresServer

Opened = Callable[[], Any]  # of a store that is a ScanStore too
FINALITIES: tuple[Finality, ...] = ("pending", "confirmed", "finalized")
HOLDER, LONG = "scanner", 60.0


async def read_all(store: Any) -> tuple[Scanned | None, list[OrderEvent], list[Order], list[Announcement]]:
    orders = await store.orders(COMPONENT, limit=1000)
    ids = [order.order_id for order in orders]
    events = await store.events_of(COMPONENT, [*ids, ""])
    return await store.scanned(COMPONENT), events, orders, await store.order_log(COMPONENT, 0, 10_000)


async def held(store: Any, holder: str = HOLDER) -> None:
    found = await store.lease(holder, [lease_name(COMPONENT)], LONG)
    assert found[lease_name(COMPONENT)].holder == holder


async def test_a_step_is_read_again_as_it_was_stored(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        assert await store.scanned(COMPONENT) is None
        await held(store)
        assert await store.commit_scan(step_of(chain, "", chain.grow(8)), holder=HOLDER) == 16
    async with opened() as store:
        state, events, orders, log = await read_all(store)
        assert state is not None and (state.cursor, state.cursor_hash) == (8, chain.blocks[-1].hash)
        assert (state.confirmed, state.finalized, state.status, state.seq) == (6, 3, "ACTIVE", 16)
        assert list(state.blocks) == chain.blocks[2:], "from the finalised one on"
        assert list(state.events) == [event for event in chain.canonical if event.block > 3]
        assert events == chain.canonical
        assert {order.order_id: order for order in orders} == fold(chain.canonical)
        assert [one.seq for one in log] == list(range(1, 17))
        assert [one.event for one in log] == chain.canonical


async def test_raw_events_are_kept_and_found(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        await held(store)
        blocks = chain.grow(1, events=1)
        [event] = chain.events[blocks[0].hash]
        raw = replace(event, kind="raw", order_id="", fields={"topics": "0x01,0x02", "data": "0x" + "ff" * 5000})
        await store.commit_scan(step_of(chain, "", blocks, events=(raw,), orders=(), news=()), holder=HOLDER)
        assert await store.events_of(COMPONENT, [""]) == [raw]
        assert await store.events_of(COMPONENT, [event.order_id]) == []


async def test_who_does_not_hold_the_lease_stores_nothing(opened: Opened) -> None:
    chain = Chain()
    first = step_of(chain, "", chain.grow(3))
    async with opened() as store:
        with pytest.raises(Fenced, match=COMPONENT):
            await store.commit_scan(first, holder=HOLDER)
        await held(store, "another")
        with pytest.raises(Fenced):
            await store.commit_scan(first, holder=HOLDER)
        assert await read_all(store) == (None, [], [], [])
        await store.commit_scan(first, holder="another")
        assert len((await read_all(store))[1]) == 6


async def test_a_step_that_ran_past_its_lease_is_refused_whole(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        await store.lease(HOLDER, [lease_name(COMPONENT)], 0.2)
        while await store.lease("looks on", [], LONG):  # noqa: ASYNC110  # the store's clock is the only one
            await asyncio.sleep(0.01)
        with pytest.raises(Fenced):
            await store.commit_scan(step_of(chain, "", chain.grow(3)), holder=HOLDER)
        assert await read_all(store) == (None, [], [], [])


async def test_a_step_from_another_cursor_is_refused(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        await held(store)
        first = step_of(chain, "", chain.grow(3))
        await store.commit_scan(first, holder=HOLDER)
        before = await read_all(store)
        for again in (first, replace(first, expected="0xother"), step_of(chain, "0xother", chain.grow(1))):
            with pytest.raises(Fenced):
                await store.commit_scan(again, holder=HOLDER)
            assert await read_all(store) == before


async def test_a_log_counts_once(opened: Opened) -> None:
    """Whatever a scanner believes: a transaction's log that counts is not stored in a second block."""
    chain = Chain()
    async with opened() as store:
        await held(store)
        await store.commit_scan(step_of(chain, "", chain.grow(3)), holder=HOLDER)
        before, tip = await read_all(store), chain.blocks[-1].hash
        [block] = chain.grow(1)
        for known in (chain.canonical[0], replace(chain.canonical[0], block=block.number, block_hash=block.hash)):
            with pytest.raises(StoreError):
                await store.commit_scan(step_of(chain, tip, [block], events=(known,)), holder=HOLDER)
            assert await read_all(store) == before
        own = chain.events[block.hash][0]
        with pytest.raises(StoreError):
            await store.commit_scan(step_of(chain, tip, [block], events=(own, own)), holder=HOLDER)
        assert await read_all(store) == before


async def test_replaced_blocks_take_their_events_along(opened: Opened) -> None:
    chain = Chain(3)
    async with opened() as store:
        await held(store)
        await store.commit_scan(step_of(chain, "", chain.grow(6)), holder=HOLDER)
        tip, gone = chain.blocks[-1].hash, chain.cut(2)
        await store.commit_scan(step_of(chain, tip, chain.grow(3), gone), holder=HOLDER)
        state, events, orders, log = await read_all(store)
        assert state is not None and list(state.blocks) == [b for b in chain.blocks if b.number >= state.finalized]
        assert events == chain.canonical
        assert {order.order_id: order for order in orders} == fold(chain.canonical)
        assert [one.kind for one in log[12:16]] == ["order.reverted"] * 4
        # The chain goes back to what it had dropped.
        tip, dropped = chain.blocks[-1].hash, chain.cut(3)
        chain.blocks += gone
        await store.commit_scan(step_of(chain, tip, gone, dropped), holder=HOLDER)
        state, events, orders, _ = await read_all(store)
        assert events == chain.canonical
        assert {order.order_id: order for order in orders} == fold(chain.canonical)


async def test_any_history_leaves_the_fold_of_what_is_canonical(opened: Opened) -> None:
    """Blocks added and replaced at random, each step tried again and by a stranger too."""
    chain = Chain(11)
    async with opened() as store:
        await held(store)
        expected, seq = "", 0
        for _ in range(25):
            depth = chain.rng.randint(0, min(4, len(chain.blocks)))
            gone = chain.cut(depth) if depth and chain.rng.random() < 0.4 else []
            added = chain.grow(chain.rng.randint(1, 3), events=chain.rng.randint(0, 3))
            step = step_of(chain, expected, added, gone)
            with pytest.raises(Fenced):
                await store.commit_scan(step, holder="stranger")
            seq += len(step.news)
            assert await store.commit_scan(step, holder=HOLDER) == seq
            with pytest.raises(Fenced):
                await store.commit_scan(step, holder=HOLDER)
            expected = step.cursor_hash
        state, events, orders, log = await read_all(store)
        assert state is not None and state.seq == seq
        assert events == chain.canonical
        assert {order.order_id: order for order in orders} == fold(chain.canonical)
        assert [one.seq for one in log] == list(range(1, seq + 1))


async def test_the_log_is_read_from_anywhere(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        await held(store)
        await store.commit_scan(step_of(chain, "", chain.grow(5)), holder=HOLDER)
        whole = await store.order_log(COMPONENT, 0, 100)
        for since in range(12):
            assert await store.order_log(COMPONENT, since, 100) == whole[since:]
            assert await store.order_log(COMPONENT, since, 3) == whole[since : since + 3]
        assert await store.order_log("31337/0xother", 0, 100) == []


async def test_states_of_a_scanner_are_kept(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        await held(store)
        first = step_of(chain, "", chain.grow(3))
        await store.commit_scan(first, holder=HOLDER)
        tip = first.cursor_hash
        failed = step_of(chain, tip, [], status="ERROR", detail="cursor 3 is ahead of the head 1")
        await store.commit_scan(failed, holder=HOLDER)
        state = await store.scanned(COMPONENT)
        assert state is not None and (state.status, state.detail) == ("ERROR", failed.detail)
        # An operator had everything scanned anew: the cursor goes back to before the first block.
        gone = chain.cut(3)
        reset = replace(
            failed, cursor=0, cursor_hash="", status="ACTIVE", detail="", orphaned=tuple(b.hash for b in gone),
            gone=tuple({e.order_id for b in gone for e in chain.events[b.hash]}), confirmed=0, finalized=0,
        )  # fmt: skip
        await store.commit_scan(reset, holder=HOLDER)
        assert (await read_all(store))[1:3] == ([], [])
        await store.commit_scan(step_of(chain, "", chain.grow(2)), holder=HOLDER)
        assert (await read_all(store))[1] == chain.canonical


async def test_orders_are_filtered_and_paged(opened: Opened) -> None:
    chain = Chain(5)
    async with opened() as store:
        await held(store)
        await store.commit_scan(step_of(chain, "", chain.grow(12, events=1)), holder=HOLDER)
        orders = sorted(fold(chain.canonical).values(), key=lambda one: (one.created_at, int(one.order_id)))[::-1]
        everything = await store.placed_orders(OrderFilter(limit=1000))
        assert [one.order for one in everything] == orders
        assert await store.orders(COMPONENT, limit=3, offset=2) == orders[2:5]
        paged, before = [], None
        while page := await store.placed_orders(OrderFilter(limit=2, before=before)):
            paged += page
            before = (page[-1].order.created_at, page[-1].component, page[-1].order.order_id)
        assert paged == everything
        for finality, height in zip(FINALITIES, (12, 10, 7), strict=True):
            found = await store.placed_orders(OrderFilter(finality=finality, limit=1000))
            assert [one.order for one in found] == [one for one in orders if one.last_block <= height]
        assert {one.confirmations for one in everything} == {12 - one.last_block for one in orders}
        assert len(await store.orders(COMPONENT, user=USER)) == len(orders)
        assert await store.orders(COMPONENT, user="0xnobody") == await store.orders(COMPONENT, status="EXECUTED") == []
        [one] = await store.placed_orders(OrderFilter(order_id=orders[0].order_id))
        assert one.order == orders[0] and one.component == COMPONENT
        seen = await store.seen_events(COMPONENT, orders[0].order_id)
        assert [one.event for one in seen] == [e for e in chain.canonical if e.order_id == orders[0].order_id]
        assert seen[-1].finality == one.finality


async def test_views_show_orders_to_people(address: tuple[str, str], request: pytest.FixtureRequest) -> None:
    kind, where = address
    chain = Chain()
    opened: Opened = lambda: store_at(kind, where)  # noqa: E731
    async with opened() as store:
        await held(store)
        await store.commit_scan(step_of(chain, "", chain.grow(8)), holder=HOLDER)
    sql = "SELECT count(*), count(DISTINCT finality) FROM {view}"
    if kind == "duckdb":
        import duckdb

        with duckdb.connect(f"{where}/tape.duckdb", read_only=True) as connection:
            found = [connection.execute(sql.format(view=view)).fetchone() for view in ("v_orders", "v_order_events")]
    else:
        import asyncpg

        connection = await asyncpg.connect(where)
        try:
            found = [tuple(await connection.fetchrow(sql.format(view=view))) for view in ("v_orders", "v_order_events")]
        finally:
            await connection.close()
    assert found[1] == (16, 3) and found[0] is not None and found[0][0] == len(fold(chain.canonical))


async def test_of_two_scanners_one_is_refused(postgres: PostgresServer) -> None:
    """One stands still in the middle of its step until another has its lease."""
    from tapewick.stores import _postgres_scans as scans

    dsn, chain = postgres.database(), Chain()
    step = step_of(chain, "", chain.grow(3))
    opened: Opened = lambda: store_at("postgres", dsn)  # noqa: E731
    async with opened() as store, opened() as other:
        await store.lease(HOLDER, [lease_name(COMPONENT)], 1)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(connection: Any) -> int:
            begun.set()
            await go_on.wait()
            return await scans._commit(connection, step, HOLDER)

        late = asyncio.create_task(store._database.write(slow))
        await begun.wait()
        while (await other.lease("b", [lease_name(COMPONENT)], LONG))[lease_name(COMPONENT)].holder != "b":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await other.commit_scan(step, holder="b")
        go_on.set()
        with pytest.raises(Fenced):
            await late
        assert len((await read_all(other))[1]) == 6
