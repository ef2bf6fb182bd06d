"""Two of each role: one dies, or stands still past its lease, and the other does its work within the stated bound."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.buses.rig import BusRig
from tests.fault.rig import seed
from tests.fault.roles.rig import LEASE, PARTITIONS, Cluster, Role
from tests.fault.roles.scene import scene
from tests.parts.postgres import PostgresServer

BOUND = LEASE + LEASE / 3  # what users are told: the lease, and one renewal
SLACK = 60.0  # seconds a machine that does much else may add

PARTITION_LEASES = {f"engine/{number}" for number in range(PARTITIONS)}


async def _held(own: Cluster, role: Role) -> set[str]:
    """The partitions a process holds."""
    leases = await own.leases("engine/")
    return {name for name in PARTITION_LEASES & leases.keys() if f"-{role.pid}-" in leases[name]}


async def _shared(own: Cluster, engines: list[Role]) -> None:
    """Wait until each engine has its part, and together they have all."""

    async def so() -> bool:
        parts = [await _held(own, role) for role in engines]
        return all(parts) and set.union(*parts) == PARTITION_LEASES

    await own.until(so, "every engine has its share")


@pytest.mark.timeout(900)
async def test_the_other_takes_over_from_one_that_died(bus: BusRig, postgres: PostgresServer) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    async with scene(bus, postgres, chosen, collectors=2, engines=2) as s:
        own = s.cluster
        await _shared(own, s.engines)
        for pair in (s.engines, s.collectors):
            dead = rng.choice(pair)
            await own.kill(dead)
            began, before = time.monotonic(), await own.heads()
            await own.grown(since=before, seconds=BOUND + SLACK)
            served = time.monotonic() - began
            await s.shown(100)
            shown = time.monotonic() - began
            await s.acknowledged(10)
            acknowledged = time.monotonic() - began
            told = f"{served:.1f} s, clients saw it after {shown:.1f} s, senders after {acknowledged:.1f} s"
            print(f"{bus.kind}: {dead.title} died, the other served after {told}")  # noqa: T201  # with the seed
        alive = next(role for role in s.engines if role.alive)
        assert await _held(own, alive) == PARTITION_LEASES


@pytest.mark.timeout(900)
async def test_an_engine_that_stood_still_is_fenced_and_takes_part_again(bus: BusRig, postgres: PostgresServer) -> None:
    chosen = seed()
    rng = random.Random(chosen)
    async with scene(bus, postgres, chosen, engines=2) as s:
        own = s.cluster
        await _shared(own, s.engines)
        paused, other = rng.sample(s.engines, 2)
        await asyncio.sleep(rng.uniform(0, 0.5))
        paused.pause()

        async def all_of_it() -> bool:
            return await _held(own, other) == PARTITION_LEASES

        await own.until(all_of_it, "the other has all partitions")
        await own.grown()
        paused.go_on()
        await own.grown()
        await _shared(own, s.engines)
        assert paused.alive, paused.log()
        await own.grown()
        await s.shown(100)
        await s.acknowledged(10)


@pytest.mark.timeout(900)
async def test_who_is_stopped_hands_over_at_once(redis_bus: BusRig, postgres: PostgresServer) -> None:
    """The leases here last far longer than anybody waits, so nothing is had by their end."""
    chosen = seed()
    async with scene(redis_bus, postgres, chosen, collectors=2, engines=2, TAPEWICK_ENGINE__LEASE_S="600") as s:
        own = s.cluster
        await _shared(own, s.engines)
        for pair in (s.engines, s.collectors):
            assert await asyncio.to_thread(pair[0].stop) == 143, pair[0].log()
            await own.grown()
        assert await _held(own, s.engines[1]) == PARTITION_LEASES

        async def repairing() -> str:
            return (await own.leases("repair/")).get("repair/binance", "")

        assert f"-{s.collectors[1].pid}-" in await own.until(repairing, "somebody repairs")
        await s.acknowledged(10)
