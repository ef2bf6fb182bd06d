"""Engines that share: hand-over when one joins, leaves, dies or stands still; nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tapewick.buses.redis import RedisBus
from tapewick.errors import Fenced
from tapewick.model import Event, partition_of
from tapewick.pipeline import feed
from tapewick.settings import Settings
from tapewick.settings import Store as StoreSettings
from tapewick.stores.postgres import PostgresStore
from tests.engines import (
    PATIENCE,
    Commit,
    EngineProcess,
    Feeder,
    instruments,
    one_writer_at_a_time,
    same_as_undisturbed,
    trades,
    until,
    whole,
)
from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer, redis_server  # noqa: F401

COUNT = 24


@dataclass
class Rig:
    """Redis, PostgreSQL and a feeder; ``engine`` starts one more engine."""

    dsn: str
    url: str
    bus: RedisBus
    store: PostgresStore
    feeder: Feeder
    name: str
    folder: Path
    history: list[Commit] = field(default_factory=list)
    engines: list[EngineProcess] = field(default_factory=list)

    async def engine(self, **options: Any) -> EngineProcess:
        made = EngineProcess(f"e{len(self.engines)}", self.dsn, self.url, self.name, self.history, **options)
        self.engines.append(made)
        return await made.begin()

    async def right(self) -> None:
        """Everything fed is there, once, as if one engine had never been disturbed."""
        await self.feeder.settled()
        await same_as_undisturbed(self.store, self.folder, self.feeder)
        one_writer_at_a_time(self.history)


@pytest.fixture
async def rig(postgres: PostgresServer, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Rig]:  # noqa: F811
    dsn, name = postgres.database(), f"t{uuid4().hex[:12]}"
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(dsn))
        bus = await stack.enter_async_context(RedisBus(redis_server.url, name=name))
        feeder = Feeder(bus, COUNT)
        made = Rig(dsn, redis_server.url, bus, store, feeder, name, tmp_path / "reference")
        try:
            yield made
        finally:
            for engine in made.engines:
                await engine.bury()


async def test_one_engine_owns_all_and_reads_the_bus_as_one(rig: Rig) -> None:
    one = await rig.engine()
    await until(lambda: whole(one))
    await rig.feeder.announce()
    await rig.feeder.feed(300)
    await rig.right()
    assert one.role is not None and len(one.role._readers) == 2 and one.role.trouble is None
    await one.end()


async def test_a_second_engine_joins_and_leaves(rig: Rig) -> None:
    one = await rig.engine()
    await until(lambda: whole(one))
    await rig.feeder.announce()
    await rig.feeder.feed_until(lambda: len(rig.history) > COUNT)
    two = await rig.engine()
    await rig.feeder.feed_until(lambda: whole(one, two))
    await rig.feeder.settled()
    assert {name for name, *_ in rig.history} == {"e0", "e1"}
    await two.end()
    await rig.feeder.feed_until(lambda: whole(one))
    await rig.right()
    await one.end()


async def test_the_tapes_of_a_dead_engine_are_taken_over(rig: Rig) -> None:
    one, two = await rig.engine(), await rig.engine()
    await rig.feeder.announce()
    await rig.feeder.feed_until(lambda: whole(one, two) and {name for name, *_ in rig.history} == {"e0", "e1"})
    one.kill()
    await rig.feeder.feed_until(lambda: whole(two))
    await rig.right()


async def test_an_engine_that_stood_still_is_fenced_and_drops_only_what_it_lost(rig: Rig) -> None:
    """Its renewals stop, another takes over; let go, it commits nothing more of that and takes part again."""
    one, two = await rig.engine(), await rig.engine()
    await rig.feeder.announce()
    await rig.feeder.feed_until(lambda: whole(one, two) and {name for name, *_ in rig.history} == {"e0", "e1"})
    one.pause()
    await rig.feeder.feed_until(lambda: whole(two))
    one.resume()
    await rig.feeder.feed_until(lambda: whole(one, two))
    await rig.right()
    await two.end()
    await one.end()


async def test_a_store_that_was_restored_is_claimed_anew(rig: Rig) -> None:
    """Somebody without a lease took the tapes: whoever has the leases takes them back and goes on."""
    one, two = await rig.engine(), await rig.engine()
    await rig.feeder.announce()
    await rig.feeder.feed_until(lambda: whole(one, two))
    await rig.feeder.settled()
    for _ in range(2):
        known = [instrument.id for instrument in rig.feeder.fed]
        await rig.store.claim(known[: COUNT // 2])
        await rig.feeder.feed()
        await rig.feeder.settled()
    await rig.right()
    assert whole(one, two)
    for engine in (one, two):
        assert engine.role is not None and engine.role.trouble is None
        await engine.end()


async def test_shards_are_for_good_and_a_fenced_one_fails(rig: Rig) -> None:
    one, two = [await rig.engine(leased=False, shard=(at, 2)) for at in range(2)]
    assert one.role is not None and one.role.owned == frozenset(range(0, 16, 2)) and whole(one, two)
    await rig.feeder.announce()
    await rig.feeder.feed(100)
    await rig.right()
    mine = [each.id for each in rig.feeder.fed if partition_of(each.id, 16) % 2 == 0]
    await rig.store.claim(mine)
    await rig.feeder.feed()
    await asyncio.to_thread(one.join, 60)
    assert isinstance(one.error, Fenced) and two.is_alive()
    await two.end()


@pytest.mark.parametrize("seed", range(int(os.environ.get("TAPEWICK_CHURNS", "2"))))
async def test_churn(rig: Rig, seed: int) -> None:
    """Engines come, go, die and stand still at random while trades flow, instruments are new, numbers get longer."""
    random_ = random.Random(seed)
    alive = [await rig.engine(ttl=1.0)]
    paused: list[EngineProcess] = []
    await rig.feeder.announce()
    for _ in range(10):
        action = random_.choice(["join", "join", "leave", "kill", "pause", "resume"])
        if action == "join" and len(alive) < 4:
            alive.append(await rig.engine(ttl=1.0))
        elif action in ("leave", "kill", "pause") and len(alive) > 1:
            one = alive.pop(random_.randrange(len(alive)))
            if action == "leave":
                await one.end()
            elif action == "kill":
                one.kill()
            else:
                one.pause()
                paused.append(one)
        elif action == "resume" and paused:
            one = paused.pop()
            one.resume()
            alive.append(one)
        await rig.feeder.grow()
        rig.feeder.widen(random_.choice(list(rig.feeder.fed)))
        before = len(rig.history)
        await rig.feeder.feed_until(lambda before=before: len(rig.history) > before + COUNT)  # type: ignore[misc]
        await asyncio.sleep(random_.random())
    for one in paused:
        one.resume()
    await rig.feeder.feed_until(lambda: whole(*alive, *paused))
    await rig.right()


async def test_a_store_away_for_longer_than_the_leases_last_loses_nothing(rig: Rig) -> None:
    """The engine gives its partitions up as they run out, and has them again when the store is back."""
    one = await rig.engine()
    assert one.role is not None
    await until(lambda: whole(one))
    await rig.feeder.announce()
    await rig.feeder.feed()
    await rig.feeder.settled()
    one.away.set()
    await rig.feeder.feed_until(lambda: one.role is not None and not one.role._leases._held)  # type: ignore[union-attr]
    assert "away" in (one.role.trouble or "")
    one.away.clear()
    await rig.feeder.feed_until(lambda: whole(one) and one.role is not None and one.role.trouble is None)
    await rig.right()
    await one.end()


async def test_who_takes_over_asks_for_what_is_missing(rig: Rig) -> None:
    one = await rig.engine()
    await until(lambda: whole(one))
    await rig.feeder.announce()
    instrument = next(iter(rig.feeder.fed))
    for first, last in ((1, 10), (21, 30)):
        await rig.bus.publish("trades", trades(instrument.id, first, last))
    await rig.feeder.settled()
    wanted = rig.bus.subscribe(["wanted"])
    await wanted.placed.wait()
    one.kill()
    await rig.engine()
    async with asyncio.timeout(PATIENCE):
        async for delivery in wanted:
            if delivery.message.instrument == instrument.id and delivery.message.ranges:  # type: ignore[union-attr]
                assert delivery.message.ranges == ((11, 20),)  # type: ignore[union-attr]
                break


async def test_a_hole_that_the_bus_made_says_so_and_is_asked_for(rig: Rig, redis_server: RedisServer) -> None:  # noqa: F811
    one = await rig.engine()
    await until(lambda: whole(one))
    await rig.feeder.announce()
    await rig.feeder.feed(10)
    await rig.feeder.settled()
    instrument = next(iter(rig.feeder.fed))
    key = f"{rig.name}:trades:{partition_of(instrument.id, 16)}"
    wanted = rig.bus.subscribe(["wanted"])
    await wanted.placed.wait()
    one.pause()
    for first in (11, 21, 31):
        await rig.bus.publish("trades", trades(instrument.id, first, first + 9))
    # The second of the three is gone before it is read, as when the stream overran.
    ids = [line for line in redis_server.ask("XRANGE", key, "-", "+").split("\r\n") if line.count("-") == 1]
    redis_server.ask("XDEL", key, ids[-2])
    one.resume()
    async with asyncio.timeout(PATIENCE):
        async for delivery in wanted:
            if delivery.message.instrument == instrument.id and delivery.message.ranges:  # type: ignore[union-attr]
                assert delivery.message.ranges == ((21, 30),)  # type: ignore[union-attr]
                break
    [gap] = (await rig.store.coverage(instrument.id)).gaps
    assert (gap.reason, gap.left_id, gap.right_id) == ("bus", 20, 31)
    await one.end()


class Slow:
    """A file that stops in the middle until ``go`` is set."""

    name, pull = "slow", True

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def events(self) -> AsyncGenerator[Event, None]:
        [one] = instruments(1)
        yield one
        yield trades(one.id, 1, 10)
        self.begun.set()
        await self.go.wait()
        yield trades(one.id, 11, 20)


async def test_a_feed_whose_tapes_are_taken_over_fails(postgres: PostgresServer) -> None:
    """It must not report as stored what another engine did not let it store."""
    settings = Settings(store=StoreSettings("postgres", dsn=postgres.database()))
    source = Slow()
    feeding = asyncio.create_task(feed(settings, source))
    await source.begun.wait()
    async with PostgresStore(settings.store.dsn) as store, asyncio.timeout(PATIENCE):
        while "sim:S0" not in {one.id for one in await store.instruments()}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while (await store.head("sim:S0")).seq < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await store.claim(["sim:S0"])
    source.go.set()
    with pytest.raises(Fenced, match="another process owns sim:S0: stop one of the two"):
        await asyncio.wait_for(feeding, PATIENCE)
