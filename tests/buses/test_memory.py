"""The in-process bus: bounds, back-pressure, loss that is told, acknowledgement."""

from __future__ import annotations

import asyncio

import pytest

from tapewick.buses.memory import MemoryBus
from tapewick.model import Head, TradeBatch


def head(seq: int) -> Head:
    return Head(instrument="a:B", epoch="E", seq=seq, pos=0, watermark=0, price_scale=2, size_scale=5)


async def test_every_subscriber_sees_messages_sent_after_it_came() -> None:
    async with MemoryBus() as bus:
        await bus.publish("head", head(1))
        first, second = bus.subscribe(["head"]), bus.subscribe(["head", "tape"])
        await bus.publish("head", head(2))
        await bus.publish("tape", TradeBatch.empty("a:B"))
        assert (await anext(first)).message == head(2)
        assert (await anext(second)).message == head(2)
        assert isinstance((await anext(second)).message, TradeBatch)


async def test_a_group_shares_its_messages() -> None:
    async with MemoryBus() as bus:
        one, two = (bus.subscribe(["trades"], group="engine") for _ in range(2))
        for seq in range(2):
            await bus.publish("trades", head(seq))
        seqs = {(await anext(one)).message.seq, (await anext(two)).message.seq}  # type: ignore[union-attr]
        assert seqs == {0, 1}


async def test_a_full_group_makes_publishers_wait_and_offers_fail() -> None:
    async with MemoryBus(max_bytes=256) as bus:
        reader = bus.subscribe(["trades"], group="engine")
        assert bus.offer("trades", head(0))
        assert bus.offer("trades", head(1))
        assert not bus.offer("trades", head(2))
        waiting = asyncio.create_task(bus.publish("trades", head(2)))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert (await anext(reader)).message == head(0)
        await asyncio.wait_for(waiting, 5)
        assert [(await anext(reader)).message for _ in range(2)] == [head(1), head(2)]


async def test_a_full_broadcast_loses_the_oldest_and_says_so() -> None:
    async with MemoryBus(max_bytes=256) as bus:
        reader = bus.subscribe(["head"])
        for seq in range(4):
            assert bus.offer("head", head(seq))
        got = [await anext(reader) for _ in range(2)]
        assert [d.message for d in got] == [head(2), head(3)]
        assert [d.lost for d in got] == [True, False]


async def test_settled_waits_for_every_acknowledgement() -> None:
    async with MemoryBus() as bus:
        reader = bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(1))
        settled = asyncio.create_task(bus.settled("trades"))
        delivery = await anext(reader)
        await asyncio.sleep(0)
        assert not settled.done()
        delivery.ack()
        await asyncio.wait_for(settled, 5)


async def test_readers_end_when_the_bus_closes() -> None:
    async with MemoryBus() as bus:
        reader = bus.subscribe(["head"])
        waiting = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, 5)
