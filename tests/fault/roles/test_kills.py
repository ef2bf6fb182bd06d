"""kill -9 of each role at random moments, over each bus with PostgreSQL; what was killed is started again.

``TAPEWICK_KILLS`` sets the number of cycles per bus (default 10; ``make torture`` 200). The seed is printed.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.buses.rig import NETWORK, BusRig
from tests.chain.orders_contract import OrdersContract
from tests.fault.rig import seed
from tests.fault.roles.rig import KILLS, LEASE, Role
from tests.fault.roles.scene import Scene, scene
from tests.fault.roles.trading import trading
from tests.parts.anvil import Anvil, anvil
from tests.parts.postgres import PostgresServer

__all__ = ["anvil"]

SLOWLY = 0.3  # seconds between two acts at most: there is much else to do here


@pytest.mark.timeout(7200)
async def test_roles_killed_at_random_lose_nothing_and_double_nothing(
    bus: BusRig, postgres: PostgresServer, anvil: Anvil
) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    contract = OrdersContract(anvil)
    async with scene(bus, postgres, chosen) as s, trading(s.cluster, contract, chosen, pace=SLOWLY) as t:
        s.scanners = [s.cluster.add("scan", **t.env)]
        await t.stored()
        victims = _victims(s, rng)
        for _ in range(KILLS):
            await _cycle(s, rng, next(victims))
        await s.cluster.grown()
        await t.stored(3)
        await s.shown(500)
        await s.acknowledged(10)


def _victims(s: Scene, rng: random.Random):  # type: ignore[no-untyped-def]  # an endless generator of lists of roles
    """Who dies next: every role is killed alone, then any two or three at the same time, in random order."""
    sets: list[list[Role]] = [[role] for role in s.roles]
    while True:
        rng.shuffle(sets)
        yield from sets
        sets = [[role] for role in s.roles] + [rng.sample(s.roles, rng.randint(2, 3))]


async def _cycle(s: Scene, rng: random.Random, victims: list[Role]) -> None:
    before = await s.cluster.heads()
    await asyncio.sleep(rng.uniform(0, 0.6))
    await s.cluster.kill(*victims)
    await asyncio.sleep(rng.choice((0, 0, rng.uniform(0, 1))))
    for role in rng.sample(victims, len(victims)):
        await asyncio.to_thread(role.start)
    if rng.random() < 0.8:  # else they may be killed before they have done anything
        await s.cluster.grown(since=before)


@pytest.mark.timeout(7200)
async def test_a_storm_of_kills_stops_and_pauses_among_many(
    postgres: PostgresServer, anvil: Anvil, request: pytest.FixtureRequest
) -> None:
    """Two of each role; each time one or two are killed, stopped or paused past their lease. The seed names the bus."""
    chosen = seed()
    rng = random.Random(chosen)
    kind = rng.choice(NETWORK)
    bus = BusRig(kind, request.getfixturevalue(f"{kind}_server"))
    many = scene(bus, postgres, chosen, collectors=2, engines=2, gateways=2)
    async with many as s, trading(s.cluster, OrdersContract(anvil), chosen, pace=SLOWLY) as t:
        s.scanners = [s.cluster.add("scan", **t.env) for _ in range(2)]
        await t.stored()
        for _ in range(max(KILLS // 2, 2)):
            before = await s.cluster.heads()
            await asyncio.gather(*(_strike(s, role, rng) for role in rng.sample(s.roles, rng.randint(1, 2))))
            if rng.random() < 0.7:
                await s.cluster.grown(since=before)
        await s.cluster.grown()
        await t.stored(3)
        await s.shown(200)
        await s.acknowledged(10)


async def _strike(s: Scene, role: Role, rng: random.Random) -> None:
    """One process loses its life, or a while of it."""
    what, wait = rng.choice(("kill", "stop", "pause")), rng.uniform(0, 1)
    await asyncio.sleep(rng.uniform(0, 0.5))
    print(f"{what} {role.title}")  # noqa: T201  # with the seed
    if what == "pause":
        role.pause()
        await asyncio.sleep(LEASE * 1.5)
        role.go_on()
        return
    await (s.cluster.kill(role) if what == "kill" else asyncio.to_thread(role.stop))
    await asyncio.sleep(wait)
    await asyncio.to_thread(role.start)
