"""What a group has acknowledged, when its reader closes, when the server went back in time, and what was discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from redis.asyncio import Redis

from tapewick.buses._broker import Place, Reader
from tapewick.buses._network import NetworkBus
from tapewick.model import Head, Health, TradeBatch
from tests.buses.link import linked
from tests.buses.rig import NETWORK, BusRig, got, head, instrument_in, settled, trades, until
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import nats_server  # noqa: F401
from tests.parts.redis import redis_server  # noqa: F401


@pytest.fixture(params=NETWORK)
def rig(request: pytest.FixtureRequest) -> BusRig:
    return BusRig(request.param, request.getfixturevalue(f"{request.param}_server"))


def only(*kinds: str) -> Any:
    return pytest.mark.parametrize("rig", kinds, indirect=True)


async def read_until(reader: Any, last: int) -> list[tuple[int, bool]]:
    """Numbers of the heads that come and whether each told of a loss, until ``last`` does."""
    found: list[tuple[int, bool]] = []
    while not found or found[-1][0] != last:
        [delivery] = await got(reader, 1)
        assert isinstance(delivery.message, Head)
        found.append((delivery.message.seq, delivery.lost))
    return found


async def test_a_reader_that_closes_while_it_notes_notes_again(rig: BusRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine = bus.subscribe(["trades"], group="engine")
        await engine.placed.wait()
        commit, under_way = bus._broker.commit, asyncio.Event()

        async def slow(group: str, floors: Mapping[Place, int]) -> None:
            """The first does not get through before its end."""
            if not under_way.is_set():
                under_way.set()
                await asyncio.Event().wait()
            await commit(group, floors)

        monkeypatch.setattr(bus._broker, "commit", slow)
        await bus.publish("trades", head(1))
        await got(engine, 1)
        await under_way.wait()
        await engine.close()
        await bus.publish("trades", head(2))
        heir = bus.subscribe(["trades"], group="engine")
        assert (await got(heir, 1))[0].message == head(2)


# ── positions that are no longer those of before ──


async def lose_the_newest(bus: NetworkBus, rig: BusRig, keep: int) -> None:
    """What a fail-over to a replica that is behind leaves: the oldest messages, and no floor."""
    [place] = bus._places("trades", head(1))
    if rig.kind == "redis":
        async with Redis(port=rig.server.port) as client:
            key = f"{rig.name}:trades:{place[1]}"
            entries: list[Any] = list(await client.xrange(key) or ())
            await client.delete(key)
            for id, fields in entries[:keep]:
                await client.xadd(key, fields, id=id)
            await client.xgroup_create(key, "engine", "0")
        return
    js, stream = await bus._broker._js(), f"{rig.name}-trades"  # type: ignore[attr-defined]
    messages = [await js.get_msg(stream, at) for at in range(1, keep + 1)]
    await remade(bus, rig)
    for message in messages:
        await js.publish(message.subject, message.data)


async def remade(bus: NetworkBus, rig: BusRig) -> None:
    """The stream of trades, empty."""
    js: Any = await bus._broker._js()  # type: ignore[attr-defined]
    config = (await js.stream_info(f"{rig.name}-trades")).config
    await js.delete_stream(config.name)
    await js.add_stream(config)


@only("redis", "nats")
async def test_what_was_handed_over_comes_again_after_a_failover_that_lost_the_newest(rig: BusRig) -> None:
    """Else it would count as acknowledged, and be gone if the engine dies before its commit."""
    async with linked(rig.server.port) as link, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(rig.open())
        reading = await stack.enter_async_context(
            rig.open(url=rig.server.url.replace(str(rig.server.port), str(link.port)))
        )
        assert isinstance(bus, NetworkBus)
        engine, everybody = reading.subscribe(["trades"], group="engine"), reading.subscribe(["trades"])
        await engine.placed.wait()  # type: ignore[attr-defined]
        await everybody.placed.wait()  # type: ignore[attr-defined]
        for seq in range(1, 6):
            await bus.publish("trades", head(seq))
        held = await got(engine, 5, ack=False)
        await got(everybody, 5)
        link.cut()
        await until(lambda: reading.trouble)
        await lose_the_newest(bus, rig, keep=3)
        link.restore()
        again = await got(engine, 3, ack=False)
        assert [d.message.seq for d in again] == [1, 2, 3] and again[0].lost  # type: ignore[union-attr]
        for delivery in held:
            delivery.ack()
        again[0].ack()
        await bus.publish("trades", head(6))
        assert [seq for seq, _ in await read_until(everybody, 6)] == [6], "whoever has no floor needs none of it again"
        assert [seq for seq, _ in await read_until(engine, 6)] == [6]
        await engine.close()
        heir = bus.subscribe(["trades"], group="engine")
        assert [seq for seq, _ in await read_until(heir, 6)] == [2, 3, 6], "only what was acknowledged since is"


@only("nats")
@pytest.mark.parametrize("late", [False, True])
async def test_a_stream_made_anew_that_outgrew_its_reader_is_read_from_the_beginning(
    rig: BusRig, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers begin again: those of before name other messages. ``late``: made after the reader has looked."""
    async with linked(rig.server.port) as link, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(rig.open())
        reading = await stack.enter_async_context(
            rig.open(url=rig.server.url.replace(str(rig.server.port), str(link.port)))
        )
        assert isinstance(bus, NetworkBus) and isinstance(reading, NetworkBus)
        engine, everybody = reading.subscribe(["trades"], group="engine"), reading.subscribe(["trades"])
        await everybody.placed.wait()
        for seq in range(1, 4):
            await bus.publish("trades", head(seq))
        for reader in (engine, everybody):
            await read_until(reader, 3)
        await settled(bus)
        link.cut()
        await until(lambda: reading.trouble)
        make, writing = reading._broker.reader, asyncio.Lock()

        async def anew() -> None:
            async with writing:
                monkeypatch.setattr(reading._broker, "reader", make)
                await remade(bus, rig)
                for seq in range(4, 10):
                    await bus.publish("trades", head(seq))

        async def made(after: Mapping[Place, int]) -> Reader:
            """A reader, of a stream that was made anew before it comes."""
            if reading._broker.reader == made:
                await anew()
            async with writing:
                return await make(after)

        if late:
            monkeypatch.setattr(reading._broker, "reader", made)
        else:
            await anew()
        link.restore()
        for reader in (engine, everybody):
            assert await read_until(reader, 9) == [(4, True), *((seq, False) for seq in range(5, 10))]


@only("nats")
async def test_a_floor_of_a_stream_that_is_gone_is_none_of_its_successor(rig: BusRig) -> None:
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine = bus.subscribe(["trades"], group="engine")
        for seq in range(1, 4):
            await bus.publish("trades", head(seq))
        await read_until(engine, 3)
        await settled(bus)
        await engine.close()
        await remade(bus, rig)
        for seq in range(4, 10):
            await bus.publish("trades", head(seq))
        standing = await bus._broker.standing("trades")
        assert {one.floors["engine"] for one in standing.values()} == {0}
        heir = bus.subscribe(["trades"], group="engine")
        assert [seq for seq, _ in await read_until(heir, 9)] == list(range(4, 10))


# ── what was discarded before anybody of the group came ──

SMALL: dict[str, dict[str, Any]] = {"redis": {"maxlen": 100}, "nats": {"stream_bytes": 200_000}, "kafka": {}}


async def discard(rig: BusRig, bus: NetworkBus) -> None:
    """Send more than the server keeps; of Kafka's records an administrator deletes what retention would."""
    for at in range(1, 400):
        await bus.publish("trades", trades(1 + 100 * at, 100))
    if rig.kind == "kafka":
        [(topic, partition)] = bus._places("trades", head(1))
        ask = [TopicPartition(f"{rig.name}.{topic}", partition, 300)]
        admin = AdminClient({"bootstrap.servers": rig.server.url})
        [future] = (await asyncio.to_thread(admin.delete_records, ask)).values()
        await asyncio.to_thread(future.result)


async def told(reader: Any) -> str:
    """The next remark of the bus about itself."""
    while True:
        [delivery] = await got(reader, 1)
        if isinstance(delivery.message, Health):
            assert delivery.message.state == "stale" and delivery.message.source.startswith("bus ")
            return delivery.message.detail


@pytest.mark.parametrize("reads", [True, False])
async def test_a_group_that_begins_behind_discarded_messages_is_told(rig: BusRig, reads: bool) -> None:
    """Its engines were away, and so is by now whoever sent: ``reads``, after they had acknowledged something."""
    async with rig.open() as bus:
        engine = bus.subscribe(["trades"], group="engine")
        await engine.placed.wait()  # type: ignore[attr-defined]
        if reads:
            await bus.publish("trades", trades(1, 100))
            await got(engine, 1)
            await settled(bus)
    async with rig.open(**SMALL[rig.kind], max_bytes=64 << 20) as bus:
        assert isinstance(bus, NetworkBus)
        await discard(rig, bus)
    async with rig.open(**SMALL[rig.kind]) as bus:
        news = bus.subscribe(["health"])
        await news.placed.wait()  # type: ignore[attr-defined]
        heir = bus.subscribe(["trades"], group="engine")
        first, second = await got(heir, 2)
        assert first.lost and not second.lost
        assert "discarded trades before they were read" in await told(news)


@only("nats", "kafka")
async def test_a_new_group_misses_nothing_that_was_discarded_before_it_was(rig: BusRig) -> None:
    async with rig.open(**SMALL[rig.kind], max_bytes=64 << 20) as bus:
        assert isinstance(bus, NetworkBus)
        await discard(rig, bus)
        engine = bus.subscribe(["trades"], group="engine")
        [first] = await got(engine, 1)
        assert isinstance(first.message, TradeBatch) and first.message.trade_id[0] > 101, "nothing was discarded"
        assert not first.lost and not bus._alarmed


async def test_a_group_that_missed_nothing_is_told_nothing(rig: BusRig) -> None:
    """What it had acknowledged was let go of, in partitions of which some are quiet; another group comes later."""
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine = bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(1, instrument_in(0)))
        await bus.publish("trades", head(2, instrument_in(1)))
        began = (await bus._broker.standing("trades"))[1].first
        for seq in range(3, 200):
            await bus.publish("trades", head(seq, instrument_in(1)))
        await got(engine, 199)
        await settled(bus)
        await engine.close()
        standing = await bus._broker.standing("trades")
        await bus._broker.release("trades", {at: one.floors["engine"] for at, one in standing.items()})
        if rig.kind != "kafka":
            assert (await bus._broker.standing("trades"))[1].first > began, "nothing was let go of"
        await bus.publish("trades", head(200, instrument_in(0)))
        for group, last in (("engine", 200), ("other", 200)):
            reader = bus.subscribe(["trades"], group=group)
            assert not any(lost for _, lost in await read_until(reader, last))
            await settled(bus)
            assert not any(group in one.missed for one in (await bus._broker.standing("trades")).values())
        assert not bus._alarmed
