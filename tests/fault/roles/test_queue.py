"""Gateways without an engine: trades handed in wait on their disks, through kills, and are stored once."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.buses.rig import BusRig
from tests.fault.roles.rig import Cluster, Role, cluster
from tests.parts.postgres import PostgresServer

HOOK = "hook:QUEUE"
T0 = 1_735_689_600_000  # ms
_names = count(1)


async def send(own: Cluster, gateway: Role, *names: str, key: str) -> list[str]:
    """Hand trades in until they are taken; their verdicts."""
    trades = [{"trade_id": name, "price": "7.5", "size": "2", "ts_event": T0 + int(name[1:])} for name in names]
    headers = {"authorization": f"Bearer {own.key}", "idempotency-key": key}

    async def taken() -> Any:
        async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=120) as client:
            try:
                answer = await client.post("/v1/ingest/trades", json={"instrument": HOOK, "trades": trades})
            except httpx2.TransportError:
                return None
        assert answer.status_code in (202, 409, 503), answer.text
        return answer.json() if answer.status_code == 202 else None

    told = await own.until(taken, f"{gateway.title} takes {names}")
    return [one["verdict"] for one in told["verdicts"]]


def fresh(n: int) -> list[str]:
    return [f"t{next(_names)}" for _ in range(n)]


@pytest.mark.timeout(900)
async def test_what_was_queued_by_two_gateways_is_stored_once(redis_bus: BusRig, postgres: PostgresServer) -> None:
    async with cluster(redis_bus, postgres) as own:
        engine, gateways = own.add("engine"), [own.add("gateway"), own.add("gateway")]
        for gateway in gateways:
            await own.ready(gateway)
        first = fresh(3)
        assert await send(own, gateways[0], *first, key="a") == ["accepted"] * 3
        assert await send(own, gateways[1], *first, key="b") == ["duplicate"] * 3
        await own.kill(engine)
        queued, shared = fresh(4), fresh(2)
        for number, gateway in enumerate(gateways):
            assert await send(own, gateway, *queued, *shared, key=f"c{number}") == ["queued"] * 6
        await own.kill(*gateways)
        for gateway in gateways:
            gateway.start()
            await own.ready(gateway)
            async with httpx2.AsyncClient() as client:
                unready = await client.get(gateway.url + "/health/ready")
            assert unready.status_code == 503 and "wait on disk" in unready.text, unready.text
        await asyncio.to_thread(engine.start)

        async def ready() -> bool:
            async with httpx2.AsyncClient() as client:
                return all([(await client.get(one.url + "/health/ready")).status_code == 200 for one in gateways])

        await own.until(ready, "all that was queued is stored")
        names = [*first, *queued, *shared]
        assert await send(own, gateways[0], *names, key="d") == ["duplicate"] * len(names)
        trades, head = await own.store.trades(HOOK)
        assert head.seq == len(set(trades.trade_id.tolist())) == len(names)
        assert sorted(trades.ts_event.tolist()) == sorted((T0 + int(name[1:])) * 1_000_000 for name in names)
        for gateway in gateways:
            assert list((gateway.home / "data" / "spool").glob("*.seg")) == []
