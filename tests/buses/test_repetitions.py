"""A server that stores some of what was sent at once, and then all of it again: everything arrives, once."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tapewick.buses._broker import Parcel
from tapewick.buses._network import NetworkBus
from tapewick.errors import BusError
from tapewick.wire import encode, stamp
from tests.buses.rig import NETWORK, BusRig, got, head, settled
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import nats_server  # noqa: F401
from tests.parts.redis import RedisServer, redis_server  # noqa: F401


@pytest.fixture(params=NETWORK)
def rig(request: pytest.FixtureRequest) -> BusRig:
    return BusRig(request.param, request.getfixturevalue(f"{request.param}_server"))


def parcels(bus: NetworkBus, *numbers: int, origin: int = 77) -> list[Parcel]:
    """Heads as one sender numbers them, all of one partition."""
    [place] = bus._places("trades", head(1))
    return [
        Parcel(place, f"{origin:x}.{place[1]}.{number}", encode(head(number)) + stamp(origin, number))
        for number in numbers
    ]


async def sent(bus: NetworkBus, *batches: tuple[int, ...]) -> None:
    for batch in batches:
        await bus._broker.send(parcels(bus, *batch))


@pytest.mark.parametrize(
    ("batches", "expected", "told"),
    [
        (((2, 3), (1, 2, 3), (4,)), [2, 3, 1, 4], []),  # of a sender that is new to the reader nobody knows what was
        (((1,), (3, 5), (2, 3, 4, 5), (6,)), [1, 3, 5, 2, 4, 6], [3, 5]),
    ],
)
async def test_what_was_refused_at_first_arrives_late(
    rig: BusRig, batches: tuple[tuple[int, ...], ...], expected: list[int], told: list[int]
) -> None:
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine, everybody = bus.subscribe(["trades"], group="engine"), bus.subscribe(["trades"])
        await engine.placed.wait()
        await everybody.placed.wait()
        await sent(bus, *batches)
        for reader in (engine, everybody):
            deliveries = await got(reader, len(expected))
            seqs = [delivery.message.seq for delivery in deliveries]  # type: ignore[union-attr]
            assert seqs == expected
            assert [seq for seq, one in zip(seqs, deliveries, strict=True) if one.lost] == told
        await settled(bus)


async def test_a_late_message_holds_the_floor_until_it_is_acknowledged(rig: BusRig) -> None:
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine = bus.subscribe(["trades"], group="engine")
        await engine.placed.wait()
        await sent(bus, (2, 3), (1, 2, 3), (4,))
        deliveries = await got(engine, 4, ack=False)
        for delivery in (deliveries[0], deliveries[1], deliveries[3]):
            delivery.ack()
        await engine.close()
    async with rig.open() as bus:
        heir = bus.subscribe(["trades"], group="engine")
        assert [d.message.seq for d in await got(heir, 1)] == [1]  # type: ignore[union-attr]


async def test_messages_without_a_number_are_all_taken(rig: BusRig) -> None:
    """Programs in other languages write with the generated code and need not count."""
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine = bus.subscribe(["trades"], group="engine")
        await engine.placed.wait()
        [place] = bus._places("trades", head(1))
        await bus._broker.send([Parcel(place, f"theirs.{seq}", encode(head(seq))) for seq in (1, 2, 3)])
        assert [d.message.seq for d in await got(engine, 3)] == [1, 2, 3]  # type: ignore[union-attr]


async def test_redis_at_the_end_of_its_memory_stores_all_of_what_is_sent_at_once_or_nothing() -> None:
    for server in RedisServer(options=("--maxmemory-policy", "noeviction")).running():
        assert isinstance(server, RedisServer)
        async with BusRig("redis", server).open() as bus, Redis(port=server.port) as client:
            assert isinstance(bus, NetworkBus)
            [place] = bus._places("trades", head(1))
            key, seen = f"{bus._broker._name}:trades:{place[1]}", set[int]()  # type: ignore[attr-defined]
            large = [Parcel(place, str(at), bytes(100_000)) for at in range(50)]
            for room in range(0, 12 << 20, 1 << 20):
                await client.delete(key)
                used = int((await client.info("memory"))["used_memory"])
                await client.config_set("maxmemory", used + room)
                try:
                    await bus._broker.send(large)
                except BusError as error:
                    assert str(error).startswith("Redis is out of memory")
                seen.add(int(await client.xlen(key)))
            assert seen == {0, len(large)}
