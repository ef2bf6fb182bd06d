"""How far groups are, asked while they move: what was acknowledged and let go of meanwhile was not discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tapewick import metrics
from tapewick.buses._nats_broker import NatsBroker
from tapewick.buses._network import NetworkBus
from tapewick.buses._trouble import ended
from tests.buses.rig import NETWORK, BusRig, got, head, instrument_in, settled, until
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import NatsServer, nats_server  # noqa: F401
from tests.parts.redis import redis_server  # noqa: F401


def discarded() -> float:
    return metrics.REGISTRY.get_sample_value("tapewick_bus_discarded_total", {"topic": "trades"}) or 0.0


async def test_a_floor_that_moved_between_two_answers_is_not_of_a_stream_that_is_gone(
    nats_server: NatsServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The floors are asked for after the stream: by then they may lie behind its last message of a moment ago."""
    rig = BusRig("nats", nats_server)
    async with rig.open() as ours, rig.open() as theirs:
        assert isinstance(ours, NetworkBus) and isinstance(ours._broker, NatsBroker)
        assert isinstance(theirs, NetworkBus)
        broker, read = ours._broker, ours._broker._read
        engine = theirs.subscribe(["trades"], group="engine")
        await theirs.publish("trades", head(1))
        await got(engine, 1)
        await settled(theirs)

        async def moving(subjects: Sequence[str]) -> list[tuple[int, str] | None]:
            if any(".trades." in subject for subject in subjects):
                monkeypatch.setattr(broker, "_read", read)
                await theirs.publish("trades", head(2))
                await got(engine, 1)
                await settled(theirs)
            return await read(subjects)

        monkeypatch.setattr(broker, "_read", moving)
        standing = await broker.standing("trades")
        assert sorted(one.floors["engine"] for one in standing.values())[-1] == 2


@pytest.mark.parametrize("kind", NETWORK)
async def test_what_is_acknowledged_and_released_by_others_is_no_loss(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Two senders, each of which lets go of what the group has read, while the group reads on."""
    rig = BusRig(kind, request.getfixturevalue(f"{kind}_server"))
    before = discarded()
    async with rig.open() as one, rig.open() as two, rig.open() as reading:
        engine = reading.subscribe(["trades"], group="engine")
        ids = [instrument_in(partition) for partition in range(4)]
        total, count = 0, 0

        async def read() -> None:
            nonlocal count
            async for delivery in engine:
                delivery.ack()
                count += 1

        async def watch(bus: Any) -> None:
            while True:
                await bus._sender._trouble.insist("watching", lambda: ask(bus))

        async def ask(bus: Any) -> None:
            bus._sender._topic("trades").released = 0.0
            await bus._sender._apply("trades", await bus._broker.standing("trades"))

        tasks = [asyncio.create_task(work) for work in (read(), watch(one), watch(two))]
        try:
            for seq in range(1, 61):
                for bus in (one, two):
                    for id in ids:
                        bus.offer("trades", head(seq, id))
                        total += 1
                await asyncio.sleep(0.01)
            await until(lambda: count == total)
        finally:
            await ended(tasks)
    assert discarded() == before
