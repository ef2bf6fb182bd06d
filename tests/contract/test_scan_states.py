"""What every store keeps of a scanner beside its steps: what an operator ordered, where it began, what was said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tapewick.errors import Fenced
from tapewick.scans import ScanCommit, ScanStatus
from tapewick.stores import duckdb, postgres
from tests.contract.chains import COMPONENT, Chain, step_of
from tests.contract.tapes import store_at
from tests.contract.test_store_scans import HOLDER, held, read_all

Opened = Callable[[], Any]


async def queried(store: Any, sql: str) -> list[tuple[Any, ...]]:
    """What a person's SQL answers."""
    if hasattr(store, "_file"):
        found: list[tuple[Any, ...]] = await store._file.read(lambda connection: connection.execute(sql).fetchall())
        return found
    return [tuple(row) for row in await store._database.read(lambda connection: connection.fetch(sql))]


async def written(store: Any, sql: str) -> None:
    """What a person's SQL changes."""
    part = store._file if hasattr(store, "_file") else store._database
    await part.write(lambda connection: connection.execute(sql))


@pytest.mark.parametrize("ordered", ["RESET", "RECOVERY"])
@pytest.mark.parametrize("first", [True, False], ids=["before the first block", "after blocks"])
async def test_what_an_operator_ordered_is_not_overwritten(opened: Opened, ordered: ScanStatus, first: bool) -> None:
    chain = Chain()
    async with opened() as store:
        await held(store)
        step = step_of(chain, "", chain.grow(2))
        if first:
            step = replace(step, cursor=0, cursor_hash="", confirmed=0, finalized=0, blocks=(), events=(), orders=())
            chain.cut(2)
        await store.commit_scan(step, holder=HOLDER)
        await written(store, f"UPDATE scanner_state SET status = '{ordered}'")
        before = await read_all(store)
        following = step_of(chain, step.cursor_hash, chain.grow(1))
        others: set[ScanStatus] = {"ACTIVE", "ERROR", "RESET", "RECOVERY"}
        for status in sorted(others - {ordered}):
            with pytest.raises(Fenced):
                await store.commit_scan(replace(following, follows=status), holder=HOLDER)
            assert await read_all(store) == before
        await store.commit_scan(replace(following, follows=ordered), holder=HOLDER)
        state = await store.scanned(COMPONENT)
        assert state is not None and (state.status, state.cursor) == ("ACTIVE", following.cursor)
        await store.commit_scan(step_of(chain, following.cursor_hash, chain.grow(1)), holder=HOLDER)


async def test_an_event_that_is_read_better_the_second_time_is_kept_so(opened: Opened) -> None:
    """An older version kept it raw; after a reset it is scanned again."""
    chain = Chain()
    async with opened() as store:
        await held(store)
        [block] = chain.grow(1, events=1)
        [good] = chain.events[block.hash]
        raw = replace(good, kind="raw", order_id="", ts=1, fields={"topics": "0x01", "data": "0x"})
        await store.commit_scan(step_of(chain, "", [block], events=(raw,), orders=(), news=()), holder=HOLDER)
        reset = ScanCommit(
            component=COMPONENT, expected=block.hash, cursor=0, cursor_hash="", confirmed=0, finalized=0,
            orphaned=(block.hash,),
        )  # fmt: skip
        await store.commit_scan(reset, holder=HOLDER)
        await store.commit_scan(step_of(chain, "", [block]), holder=HOLDER)
        assert await store.events_of(COMPONENT, [good.order_id, ""]) == [good]
        state = await store.scanned(COMPONENT)
        assert state is not None and state.events == (good,)


async def test_where_scanning_began_and_what_was_said_is_kept(opened: Opened) -> None:
    chain = Chain()
    async with opened() as store:
        await held(store)
        await store.said(COMPONENT, 5)  # of nothing
        await store.commit_scan(step_of(chain, "", chain.grow(3), first_block=77), holder=HOLDER)
        state = await store.scanned(COMPONENT)
        assert state is not None and (state.first_block, state.said, state.seq) == (77, 0, 6)
        for number, known in ((4, 4), (2, 4), (6, 6)):
            await store.said(COMPONENT, number)
            state = await store.scanned(COMPONENT)
            assert state is not None and state.said == known
        await store.commit_scan(step_of(chain, chain.blocks[-1].hash, chain.grow(3), first_block=76), holder=HOLDER)
    async with opened() as store:
        state = await store.scanned(COMPONENT)
        assert state is not None and (state.first_block, state.said, state.seq) == (76, 6, 12)


async def test_scanners_of_an_older_version_are_taken_over(address: tuple[str, str]) -> None:
    kind, where = address
    opened: Opened = lambda: store_at(kind, where)  # noqa: E731
    chain = Chain()
    chain.grow(4)
    added = [block for block in chain.blocks if block.number > 2]
    async with opened() as store:
        await held(store)
        await store.commit_scan(step_of(chain, "", added, first_block=1), holder=HOLDER)
        other = replace(step_of(chain, "", [], events=(), orders=(), news=()), component="1/0xother")
        await store.lease(HOLDER, ["scan/1/0xother"], 60)
        await store.commit_scan(other, holder=HOLDER)
    if kind == "duckdb":
        assert duckdb.migrate(Path(where), 6) and duckdb.migrate(Path(where))
    else:
        assert await postgres.migrate(where, 10) and await postgres.migrate(where)
    async with opened() as store:
        state = await store.scanned(COMPONENT)
        assert state is not None and (state.first_block, state.said, state.seq) == (3, 4, 4), "its lowest event"
        state = await store.scanned("1/0xother")
        assert state is not None and (state.first_block, state.said) == (5, 0), "none below its cursor is known"


async def test_views_show_amounts_exactly(opened: Opened) -> None:
    chain = Chain()
    amounts = {"amount_in": str(2**256 - 1), "target_price": "0.0000000000000000000000015", "amount_out": "1.50"}
    async with opened() as store:
        await held(store)
        step = step_of(chain, "", chain.grow(1, events=1))
        await store.commit_scan(replace(step, orders=(replace(step.orders[0], **amounts),)), holder=HOLDER)
        [found] = await queried(store, f"SELECT {', '.join(amounts)}, min_amount_out FROM v_orders")
    shown = [value if value is None or isinstance(value, str) else f"{value:f}" for value in found]
    assert shown == [*amounts.values(), None]
