"""The scan role on a real node: what it says, serves and does when the chain contradicts what is stored of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.chain.orders_contract import OrdersContract
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
        assert "final" in said and KEY not in said, said
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
