"""A symbol somebody asks one gateway for: trades at the other, from the right collector and one engine, for good."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx2
import pytest

from tapewick.client import Client, Rows
from tapewick.errors import NotFound
from tapewick.model import partition_of
from tests.buses.rig import BusRig
from tests.fault.rig import seed
from tests.fault.roles.rig import PARTITIONS, PATIENCE, Role
from tests.fault.roles.scene import Scene, scene
from tests.parts.postgres import PostgresServer


async def ask(method: str, url: str, **more: Any) -> Any:
    async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = await client.request(method, f"{url}/v1/watch", **more)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()


async def first_trade(s: Scene, url: str, id: str) -> None:
    """Return once a client at ``url`` has been shown a live trade."""

    async def listed() -> bool:
        async with Client(url, timeout=PATIENCE) as client:
            try:
                await client.instrument(id)
            except NotFound:
                return False
        return True

    await s.cluster.until(listed, f"{id} has a tape")
    async with Client(url, timeout=PATIENCE) as client, client.stream(f"trade@{id}", snapshot=0) as stream:
        async for item in stream:
            if isinstance(item, Rows) and len(item):
                return


@pytest.mark.timeout(600)
async def test_a_symbol_watched_at_one_gateway_is_traded_at_the_other(bus: BusRig, postgres: PostgresServer) -> None:
    chosen = seed()
    symbol = random.Random(chosen).choice(("XRPUSDT", "DOGEUSDT"))
    async with scene(bus, postgres, chosen, collectors=0, engines=2, gateways=2, post=False) as s:
        own, (here, there) = s.cluster, s.gateways
        id = own.id(symbol)
        before = time.monotonic()
        await ask("POST", here.url, json={"instrument": id})
        await first_trade(s, there.url, id)
        print(f"{bus.kind}: watched, traded after {time.monotonic() - before:.1f} s")  # noqa: T201
        right = s.collectors[partition_of(id, PARTITIONS) % 2]
        assert [_collects(role, symbol) for role in s.collectors] == [role is right for role in s.collectors]
        own.symbols = (*own.symbols, symbol)
        await own.kill(*s.collectors)  # the settings do not name it: that it is watched is remembered
        for role in s.collectors:
            role.start()
        await own.grown()
        assert [row["instrument"] for row in (await ask("GET", there.url))["watched"]] == [id]


def _collects(role: Role, symbol: str) -> bool:
    """Whether a collector has taken up the symbol since its last start."""
    return f"binance:{symbol}" in role.said
