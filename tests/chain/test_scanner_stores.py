"""The scanner on real stores: the same orders as in memory, after restarts and a replaced chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tapewick.chain.orders import fold
from tapewick.scans import lease_name
from tests.chain.memory import MemoryScans
from tests.chain.orders_contract import OrdersContract
from tests.chain.scanning import scanning
from tests.contract.tapes import store_at
from tests.parts.anvil import Anvil, anvil
from tests.parts.postgres import PostgresServer

__all__ = ["anvil"]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["duckdb", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = str(tmp_path)
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        where = server.database()
    async with store_at(request.param, where) as opened:
        yield opened


async def test_a_store_holds_what_the_chain_says(anvil: Anvil, store: Any) -> None:
    contract = OrdersContract(anvil)
    component = f"{anvil.chain_id}/{contract.address}"
    lease = await store.lease("me", [lease_name(component)], 600.0)
    assert lease[lease_name(component)].holder == "me"
    how: dict[str, Any] = {"chain_id": anvil.chain_id, "contract": contract.address, "confirmations": 2}

    async def scan(into: Any, last: int) -> None:
        async with scanning([anvil.url], into, **how) as run:
            await run.until(lambda: run.scanner.cursor >= last)

    anvil.mine(10)
    for id in (1, 2, 3):
        contract.create(id, old=id == 2)
    await scan(store, anvil.head)
    contract.execute(1, 10**6)
    contract.cancel(2, old=True)
    contract.misfit("0xc0362da6f2ff36b382b34aec0814f6b3cdf89f5ef282a1d1f114d0c0b036d596", "ab" * 40)
    await scan(store, anvil.head)
    anvil.ask("anvil_reorg", 2, [])
    contract.modify(3, 7 * 10**18, 9)
    anvil.mine()
    await scan(store, anvil.head)
    straight = MemoryScans()
    await scan(straight, anvil.head)

    rows = {order.order_id: order for order in await store.orders(component)}
    events = await store.events_of(component, ["", "1", "2", "3"])
    assert rows == straight.rows and events == straight.canonical
    assert {id: order.status for id, order in rows.items()} == {"1": "EXECUTED", "2": "PENDING", "3": "PENDING"}
    assert rows == {id: fold(event for event in events if event.order_id == id) for id in rows}
    log = await store.order_log(component, 0, 1000)
    assert [one.seq for one in log] == list(range(1, len(log) + 1))
    assert [one.kind for one in log].count("order.reverted") == 1
    standing = {one.order_id: one.order for one in log if one.kind != "order.finality"}
    assert standing == rows
