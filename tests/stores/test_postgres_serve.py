"""One process on PostgreSQL: serving, going on after a restart, and outliving an outage of its store."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.e2e.server import Server
from tests.parts.postgres import PostgresServer
from tests.realdata.reading import rows, tapewick

BTC = "sim:BTCUSDT"


def settings(dsn: str) -> dict[str, str]:
    return {"TAPEWICK_STORE__KIND": "postgres", "TAPEWICK_STORE__DSN": dsn, "TAPEWICK_SIM__RATE": "100"}


def coverage(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/v1/coverage/{BTC}")
    return found


def test_durable_the_demo_serves_restarts_and_outlives_its_store(durable_postgres: PostgresServer) -> None:
    dsn = durable_postgres.database()
    with Server("demo", "--port", "0", **settings(dsn)) as demo:
        demo.ready()
        assert "postgres store" in demo.lines[0] and "tapewick-data" not in demo.lines[0]
        first = demo.wait_for(lambda: coverage(demo) if coverage(demo)["trades"] > 1000 else None)

        durable_postgres.stop()
        health = demo.url + "/health/ready"
        answer = demo.wait_for(lambda: unready(health))
        assert "PostgreSQL" in answer and "postgres@" not in answer
        durable_postgres.start()
        demo.wait_for(lambda: httpx2.get(health).status_code == 200)
        grown = demo.wait_for(lambda: coverage(demo) if coverage(demo)["trades"] > first["trades"] + 100 else None)
        assert epoch(grown) == epoch(first) and grown["complete"] and len(grown["ranges"]) == 1
        assert demo.stop() == 143
    with Server("demo", "--port", "0", **settings(dsn)) as demo:
        demo.ready()
        assert epoch(coverage(demo)) == epoch(first)
        demo.wait_for(lambda: coverage(demo)["trades"] > grown["trades"])
        assert demo.stop() == 143
    trades = rows(tapewick("trades", BTC, "--limit", "0", "--json", **settings(dsn)))
    assert [one["seq"] for one in trades] == list(range(1, len(trades) + 1))
    ids = sorted(one["trade_id"] for one in trades)
    assert len(set(ids)) == len(ids)


def unready(health: str) -> str | None:
    answer = httpx2.get(health)
    return answer.text if answer.status_code == 503 else None


def epoch(covered: dict[str, Any]) -> str:
    text: str = covered["position"]
    return text.partition(":")[0]
