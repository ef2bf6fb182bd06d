"""The scan role on a real node: what it says, serves and does when the chain contradicts what is stored of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.chain.scanner import Scanner
from tapewick.clock import RealClock
from tapewick.leases import Leases
from tapewick.net.jsonrpc import JsonRpc
from tapewick.scan_role import AGAIN, TOPIC, Scanning, ScanRole
from tapewick.scans import Announcement, lease_name
from tapewick.stores.duckdb import DuckDBStore
from tests.chain.encoding import CONTRACT
from tests.chain.fake_node import CHAIN, FakeNode, created, serving
from tests.chain.following import busy_chain
from tests.chain.orders_contract import OrdersContract
from tests.contract import chains
from tests.e2e.server import Server
from tests.parts.anvil import Anvil, anvil
from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer, redis_server

__all__ = ["anvil", "redis_server"]
pytestmark = pytest.mark.timeout(300)
KEY = "0123456789abcdef0123"


@pytest.fixture
def contract(anvil: Anvil) -> Iterator[OrdersContract]:
    yield OrdersContract(anvil)


def env_of(contract: OrdersContract, folder: Path) -> dict[str, str]:
    return {
        "TAPEWICK_DATA__DIR": str(folder / "data"),
        "TAPEWICK_CHAIN__ID": str(contract.node.chain_id),
        "TAPEWICK_CHAIN__RPC_URLS": f"{contract.node.url}/?key={KEY}",
        "TAPEWICK_CHAIN__CONTRACTS": contract.address,
        "TAPEWICK_CHAIN__START_BLOCK": "0",
        "TAPEWICK_CHAIN__CONFIRMATIONS": "2",
        "TAPEWICK_CHAIN__POLL_S": "0.05",
        "TAPEWICK_LOG__LEVEL": "info",
    }


@pytest.fixture
def shared(
    contract: OrdersContract,
    postgres: PostgresServer,
    redis_server: RedisServer,
    tmp_path: Path,
) -> dict[str, str]:
    """What a scanner beside others is told."""
    return env_of(contract, tmp_path) | {
        "TAPEWICK_STORE__KIND": "postgres",
        "TAPEWICK_STORE__DSN": postgres.database(),
        "TAPEWICK_BUS__KIND": "redis",
        "TAPEWICK_REDIS__URL": redis_server.url,
        "TAPEWICK_BUS__NAME": f"t{tmp_path.name}".replace("_", "-")[:40],
        "TAPEWICK_ADMIN__ENABLED": "true",
        "TAPEWICK_ADMIN__PORT": "0",
    }


def until(holds: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 120
    while not (found := holds()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def metric(url: str, name: str) -> float:
    lines = httpx2.get(url + "/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


def test_a_scanner_says_where_it_stands_and_ends_when_asked(contract: OrdersContract, shared: dict[str, str]) -> None:
    contract.create(1)
    with Server("run", "scan", "--no-config", **shared) as process:
        line = process.line("run scan: ")
        assert f"{contract.address} on chain {contract.node.chain_id} (1 node)" in line
        assert "redis bus, postgres store, holder scan-" in line
        url = "http://" + line.partition("http://")[2].split()[0]
        until(lambda: metric(url, "tapewick_scan_block") == contract.node.head, "it is at the head")
        assert metric(url, "tapewick_scan_events_total") == 1
        assert httpx2.get(url + "/health/live").json() == {"status": "ok"}
        until(lambda: httpx2.get(url + "/health/ready").status_code == 200, "it is ready")
        contract.node.kill()
        until(lambda: httpx2.get(url + "/health/ready").status_code == 503, "its node does not answer")
        assert contract.node.url in httpx2.get(url + "/health/ready").text
        began = time.monotonic()
        assert process.stop(signal.SIGTERM) == 143
        assert time.monotonic() - began < 60
        assert not [line for line in process.lines if KEY in line], "the node's key stays secret"


def test_a_chain_that_replaces_what_was_final_ends_it_with_code_4(
    contract: OrdersContract, shared: dict[str, str]
) -> None:
    contract.create(1)
    contract.node.mine(30)
    with Server("run", "scan", "--no-config", **shared) as process:
        url = "http://" + process.line("run scan: ").partition("http://")[2].split()[0]
        until(lambda: metric(url, "tapewick_scan_block") == contract.node.head, "it is at the head")
        contract.node.ask("anvil_reorg", 20, [])
        contract.node.mine(2)
        assert process.process.wait(120) == 4
        said = process.line("^tapewick: ")
        # While the node still mines what replaces them, its chain is shorter than what was scanned.
        assert ("final" in said or "was scanned already" in said) and KEY not in said, said
    with Server("run", "scan", "--no-config", **shared) as process:  # a supervisor that starts it again helps nothing
        assert process.process.wait(120) == 4


def test_serve_scans_too_and_shows_orders(contract: OrdersContract, tmp_path: Path) -> None:
    contract.create(1)
    contract.create(2, old=True)
    executed = contract.execute(1, 1_750_000)
    env = env_of(contract, tmp_path) | {
        "TAPEWICK_BINANCE__REST_URL": "http://127.0.0.1:9",
        "TAPEWICK_BINANCE__WS_URL": "ws://127.0.0.1:9",
    }
    with Server("serve", "--port", "0", "--no-config", **env) as process:
        process.ready()
        until(lambda: len(process.get("/v1/orders?finality=pending")["orders"]) == 2, "both are there")
        until(lambda: process.get("/v1/orders/1")["order"]["status"] == "EXECUTED", "the first was executed")
        one = process.get("/v1/orders/1")["order"]
        assert one["execution_tx_hash"] == executed and one["amount_in"] == "0.05" and one["amount_out"] == "1.75"
        events = process.get("/v1/orders/1/events")["events"]
        assert [row["event_type"] for row in events] == ["created", "executed"]
        contract.node.mine(3)
        until(lambda: process.get("/v1/orders?status=executed")["orders"], "confirmed by blocks on top")
        assert process.stop(signal.SIGINT) == 130
    # Another process goes on from where the folder stands.
    contract.cancel(2)
    with Server("serve", "--port", "0", "--no-config", **env) as process:
        process.ready()
        until(lambda: process.get("/v1/orders/2")["order"]["status"] == "CANCELLED", "the second was cancelled")
        assert [row["event_type"] for row in process.get("/v1/orders/2/events")["events"]] == ["created", "cancelled"]
        assert process.stop(signal.SIGTERM) == 143


class Idle:
    """A scanner that finds nothing."""

    trouble: str | None = None

    async def run(self) -> None:
        await asyncio.Event().wait()


def idle(component: str, announce: Callable[[Sequence[Announcement]], None]) -> Scanning:
    return Idle()


@asynccontextmanager
async def role_on(store: DuckDBStore, bus: MemoryBus, make: Any, component: str) -> AsyncIterator[ScanRole]:
    """The role in this process, until the end of the block."""
    async with Leases(store) as leases:
        role = ScanRole(component, make, bus=bus, store=store, leases=leases, clock=RealClock(), last=True)
        task = asyncio.create_task(role.run())
        try:
            yield role
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_everything_the_bus_has_not_taken_is_said_however_long_that_was(tmp_path: Path) -> None:
    """A scanner stored far more than is said again by habit before it died, or its bus failed."""
    chain, known = chains.Chain(), 3 * AGAIN
    async with DuckDBStore(tmp_path) as store, MemoryBus(1 << 30) as bus:
        await store.lease("before", [lease_name(chains.COMPONENT)], 60)
        added = chain.grow(known // 100, events=100)
        assert await store.commit_scan(chains.step_of(chain, "", added), holder="before") == known
        await store.said(chains.COMPONENT, 100)
        await store.release("before", [lease_name(chains.COMPONENT)])
        heard = bus.subscribe([TOPIC])
        for first in (101, known - AGAIN + 1):
            async with role_on(store, bus, idle, chains.COMPONENT):
                said = [(await anext(heard)).message for _ in range(first, known + 1)]
                assert [one.seq for one in said if isinstance(one, Announcement)] == list(range(first, known + 1))
                while (await store.scanned(chains.COMPONENT)).said < known:  # type: ignore[union-attr]  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_a_reset_that_is_ordered_meanwhile_is_obeyed(tmp_path: Path) -> None:
    chain, component = busy_chain(20, final=10), f"{CHAIN}/{CONTRACT}"
    async with DuckDBStore(tmp_path) as store, MemoryBus() as bus, serving(FakeNode(chain)) as urls:
        async with JsonRpc(urls, chain_id=CHAIN) as rpc, Leases(store) as leases:
            how: dict[str, Any] = {"chain_id": CHAIN, "contract": CONTRACT, "start": 0, "poll": 0.02}

            def make(component: str, announce: Callable[[Sequence[Announcement]], None]) -> Scanning:
                async def told(news: Sequence[Announcement]) -> None:
                    announce(news)

                own: dict[str, Any] = {"holder": leases.holder, "clock": RealClock(), "announce": told}
                return Scanner(rpc, store, **how, **own)

            role = ScanRole(component, make, bus=bus, store=store, leases=leases, clock=RealClock(), last=True)
            task = asyncio.create_task(role.run())

            async def at_head() -> None:
                while not task.done():
                    state = await store.scanned(component)
                    if state and (state.cursor_hash, state.status) == (chain.blocks[-1]["hash"], "ACTIVE"):
                        return
                    await asyncio.sleep(0.01)
                await task

            await at_head()
            orders = await store.orders(component)
            await store._file.write(lambda connection: connection.execute("UPDATE scanner_state SET status = 'RESET'"))
            chain.grow(created(100))
            await at_head()
            log = await store.order_log(component, 0, 10_000)
            assert {one.order_id for one in log if one.kind == "order.reverted"} == {one.order_id for one in orders}
            assert {one.order_id for one in await store.orders(component)} == {"100", *(one.order_id for one in orders)}
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
