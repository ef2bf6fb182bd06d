"""A scanner on a real node over every store: each keeps at every step exactly what the strict store in memory keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from tapewick.errors import CursorAhead
from tapewick.scans import OrderEvent, OrderFilter, ScanCommit, Scanned, ScanStatus, lease_name
from tests.chain.memory import MemoryScans
from tests.chain.orders_contract import OrdersContract
from tests.chain.scanning import Run, scanning
from tests.parts.anvil import Anvil, anvil

__all__ = ["anvil"]
pytestmark = pytest.mark.timeout(300)
HOLDER = "me"


class Mirror(MemoryScans):
    """Everything goes to ``real`` and to memory; what they answer must be the same."""

    def __init__(self, real: Any, component: str) -> None:
        super().__init__()
        self.real, self.component = real, component

    async def commit_scan(self, step: ScanCommit, *, holder: str) -> int:
        seq = await self.real.commit_scan(step, holder=holder)
        assert seq == await super().commit_scan(step, holder=holder)
        self.blocks = {hash: block for hash, block in self.blocks.items() if block.number >= step.finalized}
        await self.compare()
        return int(seq)

    async def compare(self) -> None:
        assert await self.real.scanned(self.component) == await super().scanned(self.component)
        placed = await self.real.placed_orders(OrderFilter(component=self.component, limit=1000))
        assert {one.order.order_id: one.order for one in placed} == self.rows
        assert await self.real.order_log(self.component, 0, 10_000) == self.log

    async def scanned(self, component: str) -> Scanned | None:
        found: Scanned | None = await self.real.scanned(component)
        assert found == await super().scanned(component)
        return found

    async def events_of(self, component: str, orders: Collection[str]) -> list[OrderEvent]:
        found: list[OrderEvent] = await self.real.events_of(component, orders)
        assert found == await super().events_of(component, orders)
        return found


async def ordered(store: Mirror, status: ScanStatus) -> None:
    """What an operator orders, as the how-to says it."""
    sql = f"UPDATE scanner_state SET status = '{status}'"
    store.order(status)
    if hasattr(store.real, "_file"):
        await store.real._file.write(lambda connection: connection.execute(sql))
    else:
        await store.real._database.write(lambda connection: connection.execute(sql))


async def caught_up(run: Run, store: Mirror, contract: OrdersContract) -> None:
    await run.until(lambda: store.state is not None and store.state.cursor == contract.node.head)


async def test_any_store_keeps_what_a_scanner_found(opened: Callable[[], Any], anvil: Anvil) -> None:
    contract, node = OrdersContract(anvil), anvil
    component = f"{node.chain_id}/{contract.address}"
    how: dict[str, Any] = {
        "chain_id": node.chain_id,
        "contract": contract.address,
        "confirmations": 2,
        "holder": HOLDER,
    }
    async with opened() as real:
        await real.lease(HOLDER, [lease_name(component)], 600)
        store = Mirror(real, component)
        for id in range(1, 6):
            contract.create(id, old=id % 2 == 0)
        node.mine(12)
        async with scanning([node.url], store, **how) as run:
            await caught_up(run, store, contract)
            for id in range(6, 10):
                contract.create(id)
            contract.execute(1, 10**6)
            contract.misfit("0xc0362da6f2ff36b382b34aec0814f6b3cdf89f5ef282a1d1f114d0c0b036d596", "ab" * 40)
            await caught_up(run, store, contract)
            node.ask("anvil_reorg", 4, [])
            node.mine()
            await run.until(lambda: any(step.orphaned for step in store.steps))
            await caught_up(run, store, contract)
        assert store.rows["1"].status == "PENDING" and set(store.rows) == set("1234567")
        snapshot = node.ask("evm_snapshot")
        steps = len(store.steps)
        async with scanning([node.url], store, **how) as run:  # the same transaction in another block
            created = contract.create(20)
            await caught_up(run, store, contract)
            node.ask("evm_revert", snapshot)
            node.mine(2)
            assert contract.create(20) == created
            await run.until(lambda: any(step.orphaned for step in store.steps[steps:]))
            await caught_up(run, store, contract)
            node.mine(12)
            await caught_up(run, store, contract)
        assert store.rows["20"].tx_hash == created
        node.kill()
        node.start()  # another chain
        again = OrdersContract(node)
        again.create(7)
        async with scanning([node.url], store, **how) as run:
            with pytest.raises(CursorAhead):
                await run.task
        await ordered(store, "RESET")
        async with scanning([node.url], store, **how) as run:
            await caught_up(run, store, again)
        assert set(store.rows) == {"7"}
        await store.compare()
        assert [one.seq for one in store.log] == list(range(1, len(store.log) + 1))
