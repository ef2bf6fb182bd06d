"""Two scanners of one contract on a real node: one dies, or stands still past its lease, and the other goes on."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.buses.rig import BusRig
from tests.chain.orders_contract import OrdersContract
from tests.fault.rig import seed
from tests.fault.roles.rig import LEASE, Cluster, Role, cluster
from tests.fault.roles.trading import Trading, trading
from tests.parts.anvil import Anvil, anvil
from tests.parts.postgres import PostgresServer

__all__ = ["anvil"]

BOUND = LEASE + LEASE / 3  # what users are told: the lease, and one renewal
SLACK = 60.0  # seconds a machine that does much else may add


async def _two(own: Cluster, t: Trading) -> list[Role]:
    """Two scanners, of which one works."""
    found = [own.add("scan", **t.env), own.add("scan", **t.env)]
    await t.stored(5)
    return found


@pytest.mark.timeout(900)
async def test_the_other_scanner_takes_over_from_one_that_died(
    bus: BusRig, postgres: PostgresServer, anvil: Anvil
) -> None:
    chosen = seed()
    async with cluster(bus, postgres, seed=chosen) as own, trading(own, OrdersContract(anvil), chosen) as t:
        scanners = await _two(own, t)
        for _ in range(3):
            dead = await t.active(scanners)
            await own.kill(dead)
            began = time.monotonic()
            await t.stored(1, seconds=BOUND + SLACK)
            served = time.monotonic() - began
            print(f"{bus.kind}: {dead.title} died, the other served after {served:.1f} s")  # noqa: T201  # with the seed
            assert await t.active(scanners) is not dead
            await t.stored(10)
            await asyncio.to_thread(dead.start)


@pytest.mark.timeout(900)
async def test_a_scanner_that_stood_still_is_fenced(bus: BusRig, postgres: PostgresServer, anvil: Anvil) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    async with cluster(bus, postgres, seed=chosen) as own, trading(own, OrdersContract(anvil), chosen) as t:
        scanners = await _two(own, t)
        for _ in range(3):
            paused = await t.active(scanners)
            await asyncio.sleep(rng.uniform(0, 0.3))
            paused.pause()
            others = [role for role in scanners if role is not paused]
            assert await t.active(others) is not paused
            await t.stored(5)
            paused.go_on()
            await t.stored(10)
            assert paused.alive, paused.log()
        assert "leases lost" in paused.said or "a step failed" in paused.said, paused.said


@pytest.mark.timeout(900)
async def test_a_scanner_that_is_stopped_hands_over_at_once(
    redis_bus: BusRig, postgres: PostgresServer, anvil: Anvil
) -> None:
    """The leases here last far longer than anybody waits."""
    chosen = seed()
    async with cluster(redis_bus, postgres, seed=chosen) as own, trading(own, OrdersContract(anvil), chosen) as t:
        scanners = [own.add("scan", **t.env, TAPEWICK_ENGINE__LEASE_S="600") for _ in range(2)]
        await t.stored(5)
        stopped = await t.active(scanners)
        began = time.monotonic()
        assert await asyncio.to_thread(stopped.stop) == 143, stopped.log()
        assert time.monotonic() - began < 10 + SLACK
        await t.stored(5)
        assert await t.active(scanners) is not stopped
