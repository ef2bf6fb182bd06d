"""Two gateways behind a real nginx that takes them in turn: nobody needs to know on which of them he is."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.buses.rig import BusRig
from tests.fault.rig import seed
from tests.fault.roles.scene import Scene, scene
from tests.gateways.held import Held, event_source, grpc_stream, web_socket
from tests.gateways.test_cuts import Cutter
from tests.parts.nginx import NginxServer
from tests.parts.postgres import PostgresServer

CUTS = {"web socket": 50, "event source": 10, "grpc": 10}


@asynccontextmanager
async def balanced(s: Scene) -> AsyncIterator[NginxServer]:
    nginx = NginxServer([(role.url.removeprefix("http://"), role.grpc) for role in s.gateways])
    try:
        nginx.start()
        yield nginx
        told = nginx.log()
        assert not re.search(r"\[(emerg|alert|crit)\]", told), told
    finally:
        nginx.end()


async def get(url: str, **asked: Any) -> Any:
    async with httpx2.AsyncClient(trust_env=False, timeout=120) as client:
        answer = await client.get(url, params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def tape(url: str, id: str, after: int, upto: int) -> list[dict[str, Any]]:
    """The stored trades with ``after`` < seq ≤ ``upto``."""
    rows: list[dict[str, Any]] = []
    while after < upto:
        rows += (await get(f"{url}/v1/trades", instrument=id, since=after, limit=1000))["trades"]
        after = rows[-1]["seq"]
    return [row for row in rows if row["seq"] <= upto]


@pytest.mark.timeout(900)
async def test_a_client_cut_many_times_misses_nothing_wherever_it_lands(
    redis_bus: BusRig, postgres: PostgresServer
) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    async with scene(redis_bus, postgres, chosen, gateways=2) as s, balanced(s) as nginx:
        id = s.cluster.ids[0]
        trades, candles = f"trade@{id}", f"candle@{id}@1m"
        for transport, cuts in CUTS.items():
            held = Held((trades, candles))
            address = nginx.grpc if transport == "grpc" else nginx.url
            follow = {"web socket": web_socket, "event source": event_source, "grpc": grpc_stream}[transport]
            async with follow(address, held) as first:
                await first.until(lambda held: held.begun)
            cutter = Cutter(transport, address, rng)
            for _ in range(cuts):
                await cutter.cut(held)
            seen = len(held.trades[trades])
            async with cutter.following(held) as last:
                await last.until(lambda held, seen=seen: len(held.trades[trades]) > seen + 50)  # type: ignore[misc]
            rows = held.trades[trades]
            assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], rows[-1]["seq"] + 1)), transport
            assert rows == await tape(nginx.url, id, rows[0]["seq"] - 1, rows[-1]["seq"]), "event for event"
        answered = nginx.answered()
        for pair in ([role.url.removeprefix("http://"), role.grpc] for role in s.gateways):
            assert all(answered[one] >= 3 for one in pair), f"both took part, what is open not counted: {answered}"


@pytest.mark.timeout(900)
async def test_clients_of_a_gateway_that_is_killed_go_on_at_the_other(
    redis_bus: BusRig, postgres: PostgresServer
) -> None:
    chosen = seed()
    async with scene(redis_bus, postgres, chosen, gateways=2, post=False) as s, balanced(s) as nginx:
        s.post(nginx.url)
        clients = [s.watch(nginx.url) for _ in range(4)]  # taken in turn, so two on each gateway
        await s.shown()
        for dead in s.gateways:
            cut = sum(client.disconnected for client in clients)
            await s.cluster.kill(dead)
            await s.shown(50, clients)
            assert sum(client.disconnected for client in clients) > cut
            await s.acknowledged(10)
            assert await get(f"{nginx.url}/v1/instruments")
            dead.start()
            await s.cluster.ready(dead)
        await s.shown()
        await s.finish()  # while nginx is there
        assert all(poster.feeder.outcome()["rejected"] == 0 for poster in s.posters)
