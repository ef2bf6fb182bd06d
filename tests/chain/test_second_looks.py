"""Blocks that are read a second time: before they are confirmed, and because an operator orders it."""

from __future__ import annotations

from typing import Any

import pytest

from tapewick.errors import Fenced
from tests.chain.fake_node import FakeChain, FakeNode, created, serving
from tests.chain.following import at_head, busy_chain, complete, how
from tests.chain.memory import MemoryScans
from tests.chain.scanning import scanning

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("trailing", [True, False], ids=["final soon", "final at once"])
async def test_blocks_become_final_only_after_a_second_look(trailing: bool) -> None:
    """Finality comes before the confirmations do, so ranges reach the blocks of the tip."""
    chain, store = FakeChain(), MemoryScans()
    for _ in range(6):
        chain.grow()
    chain.final = 4
    node, hidden, looks = FakeNode(chain), [""], [0]

    def fault(method: str, params: list[Any]) -> Any:
        if method == "eth_getLogs" and params[0].get("blockHash") == hidden[0]:
            looks[0] += 1
            return node.truth(method, params)[:1] if looks[0] == 1 else None

    node.fault = fault
    async with serving(node) as urls, scanning(urls, store, **how(confirmations=5)) as run:
        await at_head(run, store, chain)
        hidden[0] = chain.grow(created(1), created(2))["hash"]
        await at_head(run, store, chain)
        assert set(store.rows) == {"1"}
        for _ in range(4):
            for _ in range(3 if trailing else 20):
                chain.grow()
            chain.final = chain.head - 2
            await at_head(run, store, chain)
    complete(store, chain)


async def test_a_recovery_survives_a_contract_that_cannot_be_read() -> None:
    chain, store = busy_chain(20, final=10), MemoryScans()
    node = FakeNode(chain)
    async with serving(node) as urls:
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
        lost = next(event for event in store.canonical if 10 < event.block < 17)
        store.forget(lost)
        store.order("RECOVERY")
        refusals = [0]

        def fault(method: str, params: list[Any]) -> Any:
            refusals[0] += method == "eth_call"
            return ValueError(-32005, "rate limited") if method == "eth_call" and refusals[0] <= 3 else None

        node.fault = fault
        async with scanning(urls, store, **how()) as run:
            await run.until(lambda: store.state is not None and store.state.status == "ACTIVE")
            assert refusals[0] > 3
    complete(store, chain)


async def test_a_recovery_is_done_with_the_first_step_that_ends_it() -> None:
    """However much became final meanwhile: a crash after it finds nothing left to recover."""
    chain, store = busy_chain(20, final=10), MemoryScans()
    async with serving(FakeNode(chain)) as urls:
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
        lost = next(event for event in store.canonical if 10 < event.block < 17)
        store.forget(lost)
        store.order("RECOVERY")
        for _ in range(60):
            chain.grow()
        chain.final, steps = 70, len(store.steps)
        async with scanning(urls, store, **how(span=7)) as run:
            await at_head(run, store, chain)
    assert lost in store.steps[steps].events
    complete(store, chain)


@pytest.mark.parametrize("status", ["RESET", "RECOVERY"])
async def test_what_an_operator_orders_meanwhile_is_not_overwritten(status: Any) -> None:
    chain, store = busy_chain(20, final=10), MemoryScans()
    async with serving(FakeNode(chain)) as urls:
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
            store.order(status)
            chain.grow(created(50))
            with pytest.raises(Fenced):
                await run.task
        assert store.state is not None and store.state.status == status
        async with scanning(urls, store, **how()) as run:
            await at_head(run, store, chain)
    complete(store, chain)
    assert store.state.status == "ACTIVE"


async def test_a_reset_begins_where_the_first_start_was() -> None:
    chain, store = FakeChain(), MemoryScans()
    chain.grow(created(1))
    asked = how(start=None)
    async with serving(FakeNode(chain)) as urls:
        async with scanning(urls, store, **asked) as run:
            await at_head(run, store, chain)
        for number in range(400):
            chain.grow(*([created(number)] if number % 50 == 49 else []))
        chain.final = 390
        async with scanning(urls, store, **asked) as run:
            await at_head(run, store, chain)
        before = set(store.rows)
        store.order("RESET")
        async with scanning(urls, store, **asked) as run:
            await run.until(lambda: store.state is not None and store.state.status == "ACTIVE")
            await at_head(run, store, chain)
        assert set(store.rows) == before and len(before) == 9
        assert store.state is not None and store.state.first_block == 1
    shorter = FakeChain()  # a chain begun anew, which does not reach so far
    shorter.grow(created(7))
    store.order("RESET")
    async with serving(FakeNode(shorter)) as urls, scanning(urls, store, **asked) as run:
        await at_head(run, store, shorter)
    assert set(store.rows) == {"7"}
