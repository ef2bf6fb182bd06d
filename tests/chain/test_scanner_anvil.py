"""The scanner against a real node: what users do to orders, restarts, and a chain that is replaced."""

from __future__ import annotations

from typing import Any

import pytest

from tapewick.errors import CursorAhead, ReorgTooDeep
from tests.chain.memory import MemoryScans
from tests.chain.orders_contract import NATIVE, OrdersContract
from tests.chain.scanning import Run, scanning
from tests.parts.anvil import Anvil, anvil

__all__ = ["anvil"]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def contract(anvil: Anvil) -> OrdersContract:
    return OrdersContract(anvil)


def how(contract: OrdersContract) -> dict[str, Any]:
    return {"chain_id": contract.node.chain_id, "contract": contract.address, "confirmations": 2}


async def caught_up(run: Run, store: MemoryScans, contract: OrdersContract) -> None:
    await run.until(lambda: store.state is not None and store.state.cursor == contract.node.head)


async def test_orders_survive_three_restarts(contract: OrdersContract) -> None:
    store, url = MemoryScans(), [contract.node.url]
    for id in (1, 2, 3):
        created = contract.create(id)
    async with scanning(url, store, **how(contract)) as run:
        await caught_up(run, store, contract)
    contract.modify(1, 2 * 10**18, 2_000_000)
    async with scanning(url, store, **how(contract)) as run:
        await caught_up(run, store, contract)
        executed = contract.execute(2, 1_750_001)
        await caught_up(run, store, contract)
    cancelled = contract.cancel(3)
    contract.node.mine(12)
    async with scanning(url, store, **how(contract)) as run:
        await caught_up(run, store, contract)
    first, second, third = (store.rows[id] for id in "123")
    assert (first.status, second.status, third.status) == ("PENDING", "EXECUTED", "CANCELLED")
    assert (first.target_price, first.min_amount_out, first.amount_in) == ("2", "2", "0.05")
    assert (second.amount_out, second.executor) == ("1.750001", contract.executor)
    assert second.executed_at == contract.block_of(executed)[1] and second.execution_tx_hash == executed
    assert third.created_at == contract.block_of(created)[1] and third.tx_hash == created
    assert third.last_block == contract.block_of(cancelled)[0]
    assert (third.token_in, third.token_out, third.user) == (NATIVE, contract.token, contract.user)
    assert (third.decimals_in, third.decimals_out, third.decimals_known) == (18, 6, True)
    assert (third.target_price, third.order_type, third.is_long) == ("0.8944299", "LIMIT", True)
    assert [event.kind for event in store.canonical].count("created") == 3 and len(store.canonical) == 6
    told = [one for one in store.log if one.kind != "order.finality"]
    assert [one.kind for one in told] == ["order.created"] * 3 + ["order.modified", "order.executed", "order.cancelled"]
    last = [one for one in store.log if one.event and one.event.tx_hash == cancelled]
    assert last[-1].finality == "finalized"


async def test_both_generations_interleaved(contract: OrdersContract) -> None:
    store = MemoryScans()
    for id in range(1, 7):
        contract.create(id, old=id % 2 == 0, kind=id % 4)
        contract.modify(id, id * 10**18, id * 10**6, old=id % 3 == 0)
    for id in range(1, 5):
        if id % 2:
            contract.execute(id, id * 10**6 + 1, old=id == 1)
        else:
            contract.cancel(id, old=id == 2)
    misfit = contract.misfit("0xc0362da6f2ff36b382b34aec0814f6b3cdf89f5ef282a1d1f114d0c0b036d596", "ab" * 40)
    async with scanning([contract.node.url], store, **how(contract)) as run:
        await caught_up(run, store, contract)
    rows = [store.rows[str(id)] for id in range(1, 7)]
    assert [row.status for row in rows] == ["EXECUTED", "CANCELLED", "EXECUTED", "CANCELLED", "PENDING", "PENDING"]
    assert [row.target_price for row in rows] == list("123456")
    assert [row.min_amount_out for row in rows] == list("123456")
    assert [row.order_type for row in rows] == ["STOP_LOSS", "MARKET", "CONDITIONAL", "LIMIT", "STOP_LOSS", "MARKET"]
    assert rows[0].amount_out == "1.000001"
    [raw] = [event for event in store.canonical if event.kind == "raw"]
    assert raw.tx_hash == misfit and raw.fields["data"] == "0x" + "ab" * 40
    assert len(store.canonical) == 17


@pytest.mark.parametrize("depth", [1, 3, 7])
async def test_a_replaced_chain_leaves_the_fold_of_the_new_one(contract: OrdersContract, depth: int) -> None:
    store, node = MemoryScans(), contract.node
    node.mine(12)
    contract.create(1)
    async with scanning([node.url], store, **how(contract)) as run:
        await caught_up(run, store, contract)
        for id in range(2, 9):
            contract.create(id)
        contract.execute(1, 10**6)
        await caught_up(run, store, contract)
        assert store.rows["1"].status == "EXECUTED"
        node.ask("anvil_reorg", depth, [])
        node.mine()
        await run.until(lambda: bool(store.steps[-1].orphaned) or any(step.orphaned for step in store.steps))
        await caught_up(run, store, contract)
    assert sum(len(step.orphaned) for step in store.steps) == depth
    kept = {str(id) for id in range(1, 10 - depth)}
    assert set(store.rows) == kept and [row.status for row in store.rows.values()] == ["PENDING"] * len(kept)
    reverted = [one for one in store.log if one.kind == "order.reverted"]
    assert len(reverted) == depth and reverted[0].event is not None and reverted[0].event.kind == "executed"
    assert all(one.order is None for one in reverted[1:])


async def test_the_same_transaction_in_another_block_is_one_event(contract: OrdersContract) -> None:
    store, node = MemoryScans(), contract.node
    node.mine(12)
    async with scanning([node.url], store, **how(contract)) as run:
        await caught_up(run, store, contract)
        snapshot = node.ask("evm_snapshot")
        contract.create(1)
        await caught_up(run, store, contract)
        before = store.canonical
        node.ask("evm_revert", snapshot)
        node.mine(2)  # the block of the order is another one now
        contract.create(1)
        await run.until(lambda: any(step.orphaned for step in store.steps))
        await caught_up(run, store, contract)
    [old], [new] = before, store.canonical
    assert new.tx_hash == old.tx_hash and new.block_hash != old.block_hash
    assert store.rows["1"].block == new.block
    kinds = [one.kind for one in store.log if one.kind != "order.finality"]
    assert kinds == ["order.created", "order.reverted", "order.created"]


async def test_a_replacement_of_final_blocks_stops_the_scanner(contract: OrdersContract) -> None:
    store, node = MemoryScans(), contract.node
    contract.create(1)
    node.mine(20)
    async with scanning([node.url], store, **how(contract)) as run:
        await caught_up(run, store, contract)
        rows, state = dict(store.rows), store.state
        node.ask("anvil_reorg", 15, [])
        node.mine()
        with pytest.raises(ReorgTooDeep, match="was final when it was scanned"):
            await run.task
    assert store.rows == rows and state is not None and store.state is not None
    assert (store.state.status, store.state.cursor) == ("ERROR", state.cursor)


async def test_another_chain_on_the_node_stops_the_scanner_until_a_reset(contract: OrdersContract) -> None:
    store, node = MemoryScans(), contract.node
    contract.create(1)
    node.mine(20)
    async with scanning([node.url], store, **how(contract)) as run:
        await caught_up(run, store, contract)
    node.kill()
    node.start()
    again = OrdersContract(node)
    assert again.address == contract.address
    again.create(7)
    for _ in range(2):  # a restart changes nothing about it
        async with scanning([node.url], store, **how(contract)) as run:
            with pytest.raises(CursorAhead, match="order a RESET"):
                await run.task
        assert store.state is not None and store.state.status == "ERROR" and set(store.rows) == {"1"}
    store.order("RESET")
    async with scanning([node.url], store, **how(contract)) as run:
        await caught_up(run, store, again)
    assert set(store.rows) == {"7"} and store.state is not None and store.state.status == "ACTIVE"
    assert [one.kind for one in store.log if one.order_id == "1"][-1] == "order.reverted"
