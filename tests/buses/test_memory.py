"""What only the in-process bus does; what every bus does is in tests/contract/test_bus.py."""

from __future__ import annotations

from tapewick.buses.memory import MemoryBus
from tests.buses.rig import got, head


async def test_a_group_shares_its_messages() -> None:
    async with MemoryBus() as bus:
        one, two = (bus.subscribe(["trades"], group="engine") for _ in range(2))
        for seq in range(2):
            await bus.publish("trades", head(seq))
        seqs = {(await anext(one)).message.seq, (await anext(two)).message.seq}  # type: ignore[union-attr]
        assert seqs == {0, 1}


async def test_a_full_broadcast_loses_the_oldest_and_says_so() -> None:
    async with MemoryBus(max_bytes=256) as bus:
        reader = bus.subscribe(["head"])
        for seq in range(4):
            assert bus.offer("head", head(seq))
        deliveries = [await anext(reader) for _ in range(2)]
        assert [d.message for d in deliveries] == [head(2), head(3)]
        assert [d.lost for d in deliveries] == [True, False]


async def test_references_are_passed() -> None:
    async with MemoryBus() as bus:
        reader, sent = bus.subscribe(["head"]), head(1)
        await bus.publish("head", sent)
        assert (await got(reader, 1))[0].message is sent


async def test_a_group_that_left_holds_nobody_up() -> None:
    async with MemoryBus(max_bytes=256) as bus:
        reader = bus.subscribe(["trades"], group="engine")
        while bus.offer("trades", head(1)):
            pass
        await reader.close()
        assert bus.offer("trades", head(2))
        await bus.settled("trades")
