"""An order is the fold of its events: the same under any batching, restart and detour of the chain."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tapewick.chain.orders import Fold, fold
from tapewick.chain.steps import Found, Steps
from tapewick.chain.window import Window
from tapewick.scans import Block, OrderEvent, Scanned
from tests.chain.encoding import CONTRACT, TOKEN, USER
from tests.chain.memory import MemoryScans

KINDS = ("created", "modified", "executed", "cancelled", "raw")
FIELDS = {
    "created": {"user": USER, "token_in": TOKEN, "token_out": USER, "amount_in": "1500000", "decimals.token_in": "6"},
    "modified": {"target_price": "2000000000000000000", "min_amount_out": "5"},
    "executed": {"executor": USER, "amount_out": "7"},
    "cancelled": {"user": USER},
    "raw": {"topics": "0x", "data": "0x"},
}


class NoContract:
    """A contract that tells nothing more."""

    async def completed(self, event: OrderEvent) -> OrderEvent:
        return event


def event(kind: str, block: Block, index: int, order_id: str, amount: int = 1) -> OrderEvent:
    tx = f"0x{block.hash}{index}"
    fields = FIELDS[kind] | ({"amount_in": str(amount)} if kind == "created" else {})
    id = "" if kind == "raw" else order_id
    return OrderEvent(CONTRACT, block.number, block.hash, tx, index, block.ts, kind, id, fields)  # type: ignore[arg-type]


blocks = st.lists(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("12")), max_size=3), max_size=8)


def chain_of(told: list[list[tuple[str, str]]], fork: str, after: list[Block]) -> list[tuple[Block, list[OrderEvent]]]:
    made: list[tuple[Block, list[OrderEvent]]] = []
    for each in told:
        parent = made[-1][0] if made else after[-1]
        block = Block(parent.number + 1, f"{fork}{parent.number + 1}", parent.hash, (parent.number + 1) * 10**9)
        made.append((block, [event(kind, block, i, id, i + 5) for i, (kind, id) in enumerate(each)]))
    return made


async def scan(
    store: MemoryScans, sizes: random.Random, *branches: tuple[int, list[tuple[Block, list[OrderEvent]]]]
) -> MemoryScans:
    """Commit branches one after the other, each from a height on, in steps of any size, restarting now and then."""
    steps = Steps("1/x", store, NoContract())  # type: ignore[arg-type]
    window = Window(Scanned(cursor=0, cursor_hash="", confirmed=0, finalized=0, status="ACTIVE"), 2)
    for above, branch in branches:
        left, orphaned = list(branch), window.above(above)
        while left:
            taken = [left.pop(0) for _ in range(min(len(left), sizes.randint(1, 4)))]
            last = taken[-1][0]
            found = Found(
                cursor=last.number,
                cursor_hash=last.hash,
                confirmed=max(0, last.number - 2),
                finalized=0,
                blocks=[block for block, _ in taken],
                orphaned=orphaned,
                events=[one for _, events in taken for one in events],
            )
            step, orphaned = await steps.made(window, found), []
            await store.commit_scan(step, holder="me")
            window.apply(step)
            if sizes.random() < 0.3:
                stored = await store.scanned("1/x")
                assert stored is not None
                window = Window(stored, 2)
    return store


@settings(max_examples=60)
@given(blocks, blocks, st.integers(0, 8), st.integers(0, 1000), st.integers(0, 1000))
def test_batches_restarts_and_detours_leave_the_same_orders(
    told: list[list[tuple[str, str]]], lost: list[list[tuple[str, str]]], above: int, seed: int, other: int
) -> None:
    genesis = [Block(0, "genesis", "", 0)]
    chain = chain_of(told, "a", genesis)
    above = min(above, len(chain))
    common = chain[:above]
    detour = chain_of(lost, "b", genesis + [block for block, _ in common])
    rest = chain[above:]
    straight = asyncio.run(scan(MemoryScans(), random.Random(seed), (0, chain)))
    # A detour that the chain's own blocks replace; without any of those it would stay.
    way = [(0, common), (above, detour), (above, rest)] if rest else [(0, common)]
    round_about = asyncio.run(scan(MemoryScans(), random.Random(other), *way))
    assert round_about.rows == straight.rows and round_about.canonical == straight.canonical
    for store in (straight, round_about):
        assert [one.seq for one in store.log] == list(range(1, len(store.log) + 1))
        standing = {one.order_id: one.order for one in store.log if one.kind != "order.finality"}
        assert {id: row for id, row in standing.items() if row is not None} == store.rows


def history(*kinds: str) -> list[OrderEvent]:
    return [event(kind, Block(n, f"h{n}", "", n * 10**9), 0, "1", 1_500_000) for n, kind in enumerate(kinds, 1)]


def test_states() -> None:
    def status(*kinds: str) -> str:
        order = fold(history(*kinds))
        assert order is not None
        return order.status

    assert fold([]) is None and Fold().order() is None
    assert status("created") == status("created", "modified") == status("modified") == "PENDING"
    assert status("created", "modified", "executed") == status("executed") == "EXECUTED"
    assert status("created", "cancelled") == "CANCELLED"


def test_amounts_are_exact_in_the_tokens_own_decimals() -> None:
    placed, *rest = history("created", "modified", "executed")
    known = replace(placed, fields=placed.fields | {"decimals.token_out": "0"})
    order, unknown = fold([known, *rest]), fold([placed, *rest])
    assert order is not None and unknown is not None
    assert (order.amount_in, order.min_amount_out, order.amount_out, order.target_price) == ("1.5", "5", "7", "2")
    assert order.decimals_known and not unknown.decimals_known
    assert (unknown.decimals_out, unknown.amount_out) == (18, "0.000000000000000007")


def test_a_stub_is_completed_by_what_the_contract_says() -> None:
    [executed] = history("executed")
    stub = fold([executed])
    assert stub is not None and stub.stub and (stub.user, stub.amount_in) == ("", "")
    told = {"user": USER, "token_in": TOKEN, "token_out": USER, "amount_in": "10", "created_at": "1700000000"}
    known = replace(executed, fields=executed.fields | {f"order.{name}": value for name, value in told.items()})
    order = fold([known])
    assert order is not None and not order.stub and order.status == "EXECUTED"
    assert (order.user, order.created_at, order.executed_at) == (USER, 1_700_000_000 * 10**9, executed.ts)


def test_a_contracts_senseless_time_is_not_believed() -> None:
    [placed] = history("created")
    order = fold([replace(placed, fields=placed.fields | {"order.created_at": str(2**200)})])
    assert order is not None and order.created_at == placed.ts


@pytest.mark.parametrize("number", ["0", "3", "200"])
def test_order_types(number: str) -> None:
    [placed] = history("created")
    order = fold([replace(placed, fields=placed.fields | {"order.order_type": number})])
    assert order is not None and order.order_type == {"0": "LIMIT", "3": "CONDITIONAL"}.get(number, number)
