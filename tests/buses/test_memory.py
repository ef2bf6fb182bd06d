"""What only the in-process bus does; what every bus does is in tests/contract/test_bus.py."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapewick.buses.memory import MemoryBus
from tapewick.model import CANDLE, CandleBatch
from tests.buses.rig import got, head


def candles(instrument: str, *, provisional: bool) -> CandleBatch:
    return CandleBatch(
        instrument=instrument, rows=np.zeros(1, CANDLE), price_scale=2, size_scale=2, provisional=provisional
    )


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


@given(sent=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=60))
def test_of_provisional_candles_a_reader_that_lags_finds_the_newest_behind_what_is_durable(
    sent: list[tuple[str, bool, bool]],
) -> None:
    """Each: an instrument, whether the candles are provisional, and whether the reader takes one before."""

    async def run() -> None:
        async with MemoryBus() as bus:
            reader = bus.subscribe(["candles"])
            waiting: list[CandleBatch] = []  # what it has to find
            for instrument, provisional, reads in sent:
                if reads and waiting:
                    assert (await anext(reader)).message is waiting.pop(0)
                batch = candles(instrument, provisional=provisional)
                assert bus.offer("candles", batch)
                if provisional:
                    same = (one for one in waiting if one.provisional)
                    old = next((one for one in same if one.instrument == instrument), None)
                    waiting = [one for one in waiting if one is not old]
                waiting.append(batch)
                [queue] = bus._topics["candles"]
                assert queue.bytes == sum(one.nbytes for one in waiting)
            found = [(await anext(reader)).message for _ in waiting]
            assert all(a is b for a, b in zip(found, waiting, strict=True))

    asyncio.run(run())


async def test_provisional_candles_that_nobody_takes_need_no_more_room_than_one() -> None:
    one = candles("a", provisional=True)
    async with MemoryBus(max_bytes=3 * one.nbytes) as bus:
        reader = bus.subscribe(["candles"])
        await bus.publish("candles", durable := candles("a", provisional=False))
        for _ in range(1000):
            await bus.publish("candles", newest := candles("a", provisional=True))
        deliveries = [await anext(reader) for _ in range(2)]
        assert [d.message for d in deliveries] == [durable, newest]
        assert not any(d.lost for d in deliveries)
