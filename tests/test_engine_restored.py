"""The store is restored from an older backup while engines run: what it lacks is put again, and nobody is blamed."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tapewick import engine_role
from tapewick.buses.memory import MemoryBus
from tapewick.buses.redis import RedisBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.errors import Rewound
from tapewick.intake import Intake
from tapewick.roles import EngineRole
from tapewick.stores.postgres import PostgresStore
from tests.engines import PATIENCE, EngineProcess, instruments, trades, until, whole
from tests.gateways.rig import batch, instrument
from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer, redis_server  # noqa: F401
from tests.stores.restored import lose
from tests.test_engine_shares import COUNT, Rig, rig  # noqa: F401

LOST = f"sim:S{COUNT - 1}"
HOOK = "hook:XYZ"


async def known(store: PostgresStore) -> set[str]:
    return {one.id for one in await store.instruments()}


async def back(store: PostgresStore, id: str) -> None:
    """Return once the store has ``id``, in a tape that somebody owns."""
    async with asyncio.timeout(PATIENCE):
        while id not in await known(store) or not (await store.head(id)).epoch:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("taken", [False, True])
async def test_engines_put_a_lost_instrument_again_when_it_is_traded(
    rig: Rig,  # noqa: F811
    postgres: PostgresServer,
    taken: bool,
) -> None:
    """``taken``: its number is another's now; neither gets the other's trades."""
    one, two = await rig.engine(), await rig.engine()
    await rig.feeder.announce()
    await rig.feeder.feed_until(lambda: whole(one, two))
    await rig.feeder.settled()
    before = (await rig.store.head(LOST)).epoch
    async with PostgresStore(rig.dsn) as gateway:
        assert len((await gateway.coverage(LOST)).ranges) == 1
        await _lost_and_had_again(rig, postgres, taken, before, (one, two), gateway)


async def _lost_and_had_again(
    rig: Rig,  # noqa: F811
    postgres: PostgresServer,
    taken: bool,
    before: str,
    engines: tuple[EngineProcess, EngineProcess],
    gateway: PostgresStore,
) -> None:
    await asyncio.to_thread(lose, postgres, rig.dsn, LOST)
    rig.history[:] = [commit for commit in rig.history if commit[1] != LOST]  # its tape begins anew
    if taken:
        [*_, other] = instruments(COUNT + 1)
        await rig.store.put_instrument(other)
        await rig.store.claim([other.id])
    await rig.feeder.feed()
    await rig.feeder.settled()
    assert LOST in await known(rig.store) and (await rig.store.head(LOST)).epoch != before
    if taken:
        assert (await rig.store.head(other.id)).seq == 0
    seq = (await rig.store.head(LOST)).seq
    assert len((await gateway.coverage(LOST)).ranges) == 1, "under its new number, though it remembers the old one"
    assert len((await gateway.trades(LOST))[0]) == (await gateway.head(LOST)).seq == seq > 0
    [last] = [count for own, count in rig.feeder.fed.items() if own.id == LOST]
    await rig.bus.publish("trades", trades(LOST, 1, last))  # as repair fetches it
    await rig.right()
    for engine in engines:
        assert engine.role is not None and engine.role.trouble is None
        await engine.end()


async def test_engines_put_a_lost_instrument_again_that_nobody_trades(
    rig: Rig,  # noqa: F811
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_role, "LOOK", 0.2)
    one = await rig.engine()
    await rig.feeder.announce()
    await rig.feeder.feed_until(lambda: whole(one))
    await rig.feeder.settled()
    for _ in range(2):
        await asyncio.to_thread(lose, postgres, rig.dsn, LOST)
        await back(rig.store, LOST)
    await one.end()


async def test_a_single_engine_goes_on_where_the_store_was_restored(postgres: PostgresServer) -> None:
    """Without leases too: no other engine took anything over, and readiness does not say so."""
    [mine, other] = instruments(2)
    dsn = postgres.database()
    async with PostgresStore(dsn) as store, MemoryBus() as bus:
        async with EngineRole(bus, store, Engine(), RealClock(), interval=0.001) as role:
            for one in (mine, other):
                await bus.publish("trades", one)
                await bus.publish("trades", trades(one.id, 1, 5))
            await asyncio.wait_for(bus.settled("trades"), PATIENCE)
            await asyncio.to_thread(lose, postgres, dsn, mine.id)
            await bus.publish("trades", trades(mine.id, 6, 9))
            await back(store, mine.id)
            assert role.trouble is None
            await until(lambda: role.owned == frozenset(range(16)) and bool(role._subscriptions))
            for one in (mine, other):
                await bus.publish("trades", trades(one.id, 6, 12))
            await asyncio.wait_for(bus.settled("trades"), PATIENCE)
            assert (await store.coverage(mine.id)).ranges[:, :2].tolist() == [[6, 12]]
            assert (await store.coverage(other.id)).ranges[:, :2].tolist() == [[1, 12]]
            assert role.trouble is None


async def test_an_engine_with_a_fixed_part_ends_and_says_why(postgres: PostgresServer) -> None:
    [mine] = instruments(1)
    dsn = postgres.database()
    async with PostgresStore(dsn) as store, MemoryBus() as bus:
        with pytest.raises(Rewound, match="lost what it had acknowledged of sim:S0: start this process again"):
            async with EngineRole(bus, store, Engine(), RealClock(), interval=0.001, shard=(0, 1)) as role:
                await bus.publish("trades", mine)
                await bus.publish("trades", trades(mine.id, 1, 5))
                await asyncio.wait_for(bus.settled("trades"), PATIENCE)
                await asyncio.to_thread(lose, postgres, dsn, mine.id)
                await bus.publish("trades", trades(mine.id, 6, 9))
                await asyncio.wait_for(role.failed(), PATIENCE)


@pytest.mark.parametrize("kind", ["contiguous", "unique"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_trades_of_other_programs_are_stored_though_their_instrument_was_lost(
    postgres: PostgresServer,
    redis_server: RedisServer,  # noqa: F811
    kind: str,
    restarted: bool,
) -> None:
    """The gateway knows it from before; the engine too, or (``restarted``) it has never heard of it."""
    dsn = postgres.database()
    bus = RedisBus(redis_server.url, name=f"t{uuid4().hex[:12]}")
    async with PostgresStore(dsn) as store, PostgresStore(dsn) as engines, bus:
        way_in = Intake(bus, store, PATIENCE)
        async with EngineRole(bus, engines, Engine(), RealClock(), interval=0.001):
            await way_in.register(instrument(HOOK, id_kind=kind))
            assert (await way_in.store(batch(1, 3, HOOK))).new.all()
            await asyncio.to_thread(lose, postgres, dsn, HOOK)
            if not restarted:
                assert (await way_in.store(batch(2, 4, HOOK))).new.all(), "all were lost"
        if restarted:
            async with EngineRole(bus, engines, Engine(), RealClock(), interval=0.001):
                assert (await way_in.store(batch(2, 4, HOOK))).new.all()
                assert (await way_in.store(batch(1, 5, HOOK))).new.tolist() == [True, False, False, False, False]
        found, _ = await store.trades(HOOK)
        expected = [1, 2, 3, 4, 5] if restarted else [2, 3, 4, 5]
        assert sorted(found.trade_id.tolist()) == expected
