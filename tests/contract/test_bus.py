"""What every bus promises, proven on every bus: memory, and real Redis, NATS and Kafka servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tapewick import wire
from tapewick.errors import BusError
from tapewick.model import BookUpdate, Gap, Health, Message, Quote, TradeBatch, Wanted
from tests.buses.rig import KINDS, NETWORK, BusRig, P, candles, got, head, instrument_in, known, settled, trades, until
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import nats_server  # noqa: F401
from tests.parts.redis import redis_server  # noqa: F401

ids = np.arange(3, dtype=np.int64)
BOOK = BookUpdate(
    instrument="a:B", run="r", prev_seq=1, seq=2, state="live", snapshot=True, first_id=3, last_id=4, ts_event=5,
    ts_recv=6, bid_price=ids, bid_size=ids + 1, ask_price=ids + 2, ask_size=ids + 3, price_scale=2, size_scale=3,
)  # fmt: skip
QUOTE = Quote(
    instrument="a:B", update_id=1, bid=2, bid_size=3, ask=4, ask_size=5, ts_event=6, ts_recv=7, price_scale=2,
    size_scale=3, source="s",
)  # fmt: skip
GAP = Gap(instrument="a:B", left_id=1, right_id=5, left_ts=-(2**63), right_ts=2**63 - 1)


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest) -> BusRig:
    kind = request.param
    return BusRig(kind, None if kind == "memory" else request.getfixturevalue(f"{kind}_server"))


def only(*kinds: str) -> Any:
    return pytest.mark.parametrize("rig", kinds, indirect=True)


async def test_every_subscriber_sees_messages_sent_after_it_came(rig: BusRig) -> None:
    async with rig.open() as bus:
        await bus.publish("head", head(1))
        first, second = bus.subscribe(["head"]), bus.subscribe(["head", "tape"])
        await bus.publish("head", head(2))
        await bus.publish("tape", trades(1, 2))
        assert (await got(first, 1))[0].message == head(2)
        messages = [delivery.message for delivery in await got(second, 2)]
        assert head(2) in messages and any(isinstance(message, TradeBatch) for message in messages)


async def test_every_kind_of_message_arrives_as_it_was_sent(rig: BusRig) -> None:
    sent: list[Message] = [
        known("a:B"), trades(5, 300, covers=((1, 400), (500, 600)), late=True, clock=7),
        TradeBatch.empty("a:B", clock=9), trades(1, 2, seq=np.arange(2), epoch="E"), candles(3), head(4),
        Wanted(instrument="a:B", ranges=((1, 2), (4, 9))), GAP,
        Health(source="a", state="connected", ts=3, instrument="a:B"), BOOK, QUOTE,
    ]  # fmt: skip
    async with rig.open() as bus:
        reader = bus.subscribe(["tape"])
        for message in sent:
            await bus.publish("tape", message)
        arrived = [delivery.message for delivery in await got(reader, len(sent))]
    assert [wire.encode(message) for message in arrived] == [wire.encode(message) for message in sent]


@only(*NETWORK)
async def test_every_subscriber_gets_a_message_of_its_own(rig: BusRig) -> None:
    async with rig.open() as bus:
        one, two = bus.subscribe(["tape"]), bus.subscribe(["tape"])
        await bus.publish("tape", trades(1, 3))
        [first], [second] = await got(one, 1), await got(two, 1)
        assert first.message is not second.message


async def test_order_is_kept_within_an_instrument(rig: BusRig) -> None:
    instruments = [instrument_in(partition, at) for partition in range(P) for at in range(2)]
    async with rig.open() as bus:
        reader = bus.subscribe(["trades"], group="engine")
        for seq in range(30):
            for instrument in instruments:
                assert bus.offer("trades", head(seq, instrument))
        arrived = await got(reader, 30 * len(instruments))
    for instrument in instruments:
        assert [d.message.seq for d in arrived if d.message.instrument == instrument] == list(range(30))  # type: ignore[union-attr]


async def test_members_of_a_group_share_by_partition(rig: BusRig) -> None:
    instruments = [instrument_in(partition) for partition in range(P)]
    async with rig.open() as bus:
        low = bus.subscribe(["trades"], group="engine", partitions=range(P // 2))
        high = bus.subscribe(["trades"], group="engine", partitions=range(P // 2, P))
        for seq in range(5):
            for instrument in instruments:
                await bus.publish("trades", head(seq, instrument))
        for reader, own in ((low, instruments[: P // 2]), (high, instruments[P // 2 :])):
            messages = [delivery.message for delivery in await got(reader, 5 * len(own))]
            assert Counter(message.instrument for message in messages) == dict.fromkeys(own, 5)  # type: ignore[union-attr]
        await settled(bus)


async def test_what_names_no_instrument_reaches_every_member(rig: BusRig) -> None:
    async with rig.open() as bus:
        readers = [bus.subscribe(["trades"], group="engine", partitions=[at]) for at in range(P)]
        cut = Health(source="a", state="disconnected", ts=3)
        await bus.publish("trades", cut)
        for reader in readers:
            assert (await got(reader, 1))[0].message == cut
        await settled(bus)


async def test_partitions_there_are_none_of_are_refused(rig: BusRig) -> None:
    async with rig.open() as bus:
        with pytest.raises(BusError, match="engine.partitions"):
            bus.subscribe(["trades"], group="engine", partitions=[P])


async def test_groups_do_not_take_from_each_other(rig: BusRig) -> None:
    async with rig.open() as bus:
        one, two = bus.subscribe(["trades"], group="engine"), bus.subscribe(["trades"], group="other")
        for seq in range(3):
            await bus.publish("trades", head(seq))
        for reader in (one, two):
            assert [d.message.seq for d in await got(reader, 3)] == [0, 1, 2]  # type: ignore[union-attr]
        await settled(bus)


async def test_a_full_group_makes_publishers_wait_and_offers_fail(rig: BusRig) -> None:
    async with rig.open(max_bytes=65_536) as bus:
        reader = bus.subscribe(["trades"], group="engine")
        sent = 0
        while bus.offer("trades", trades(1 + 100 * sent, 100)):
            sent += 1
        assert 5 < sent < 30
        waiting = asyncio.create_task(bus.publish("trades", trades(1 + 100 * sent, 100)))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not waiting.done() and not bus.offer("trades", head(1))
        firsts = [d.message.trade_id[0] for d in await got(reader, sent)]  # type: ignore[union-attr]
        await asyncio.wait_for(waiting, 60)
        firsts += [d.message.trade_id[0] for d in await got(reader, 1)]  # type: ignore[union-attr]
        assert firsts == [1 + 100 * at for at in range(sent + 1)]
        await settled(bus)
        assert bus.offer("trades", head(1))


async def test_settled_waits_for_every_acknowledgement(rig: BusRig) -> None:
    async with rig.open() as bus:
        reader = bus.subscribe(["trades"], group="engine")
        for seq in range(3):
            await bus.publish("trades", head(seq))
        done = asyncio.create_task(bus.settled("trades"))
        deliveries = await got(reader, 3, ack=False)
        deliveries[2].ack()
        deliveries[0].ack()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not done.done()
        deliveries[1].ack()
        await asyncio.wait_for(done, 60)


async def test_nothing_waits_for_groups_there_are_none_of(rig: BusRig) -> None:
    async with rig.open(max_bytes=65_536) as bus:
        reader = bus.subscribe(["tape"])
        for at in range(60):
            await asyncio.wait_for(bus.publish("tape", trades(1 + 100 * at, 100)), 60)
            await got(reader, 1)
        await settled(bus, "tape")


async def test_readers_end_when_the_bus_or_they_close(rig: BusRig) -> None:
    async with rig.open() as bus:
        one, two = bus.subscribe(["head"]), bus.subscribe(["head"])
        waiting = [asyncio.create_task(anext(reader)) for reader in (one, two)]
        await bus.publish("tape", trades(1, 1))
        await one.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting[0], 60)
        assert not waiting[1].done()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting[1], 60)


async def test_messages_larger_than_servers_take_arrive_in_pieces(rig: BusRig) -> None:
    whole, rows = trades(1, 40_000, covers=((1, 45_000),)), candles(20_000)
    async with rig.open() as bus:
        reader = bus.subscribe(["tape"])
        publishing = asyncio.gather(bus.publish("tape", whole), bus.publish("tape", rows))
        ids: list[int] = []
        covers: list[tuple[int, int]] = []
        times: list[int] = []
        while len(ids) < 40_000 or len(times) < 20_000:
            [delivery] = await got(reader, 1)
            if isinstance(delivery.message, TradeBatch):
                ids += delivery.message.trade_id.tolist()
                covers += delivery.message.covers or ()
            else:
                times += delivery.message.rows["open_time"].tolist()  # type: ignore[union-attr]
        await publishing
    assert ids == list(range(1, 40_001)) and times == rows.rows["open_time"].tolist()
    assert covers[0][0] == 1 and covers[-1][1] == 45_000
    assert all(before[1] + 1 == after[0] for before, after in zip(covers, covers[1:], strict=False))


@only(*NETWORK)
async def test_published_is_on_the_server_and_outlives_both_ends(rig: BusRig) -> None:
    async with rig.open() as bus:
        reader = bus.subscribe(["trades"], group="engine")
        for seq in range(3):
            await bus.publish("trades", head(seq))
        [first, *_] = await got(reader, 3, ack=False)
        first.ack()
        await reader.close()
    async with rig.open() as bus:
        again = bus.subscribe(["trades"], group="engine")
        assert [d.message.seq for d in await got(again, 2)] == [1, 2]  # type: ignore[union-attr]
        await bus.publish("trades", head(3))
        assert (await got(again, 1))[0].message == head(3)
        await settled(bus)
    async with rig.open() as bus:
        last = bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(4))
        assert (await got(last, 1))[0].message == head(4)


@only(*NETWORK)
async def test_a_new_group_begins_with_what_is_kept(rig: BusRig) -> None:
    async with rig.open() as collector:
        await collector.publish("trades", known("a:B"))
        async with rig.open() as engine:
            reader = engine.subscribe(["trades"], group="engine")
            assert (await got(reader, 1))[0].message == known("a:B")


@only(*NETWORK)
async def test_another_member_takes_over_what_a_dead_one_did_not_acknowledge(rig: BusRig) -> None:
    """The dead member says nothing any more: what it had not acknowledged comes again at once, in order."""
    async with rig.open() as alive, rig.open() as paused:
        dead = paused.subscribe(["trades"], group="engine")
        for seq in range(6):
            await alive.publish("trades", head(seq))
        deliveries = await got(dead, 6, ack=False)
        deliveries[0].ack()
        await until(lambda: dead._told)  # type: ignore[attr-defined]
        heir = alive.subscribe(["trades"], group="engine")
        assert [d.message.seq for d in await got(heir, 5)] == [1, 2, 3, 4, 5]  # type: ignore[union-attr]
        await settled(alive)


@only(*NETWORK)
async def test_publishers_in_other_processes_are_paced_by_the_group(rig: BusRig) -> None:
    async with rig.open(max_bytes=65_536) as collector, rig.open() as engine:
        reader = engine.subscribe(["trades"], group="engine")
        await engine.publish("trades", head(0))
        await got(reader, 1)
        sent = 0
        while collector.offer("trades", trades(1 + 100 * sent, 100)):
            sent += 1
        deliveries = await got(reader, sent, ack=False)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not collector.offer("trades", head(1)), "taken is not acknowledged"
        for delivery in deliveries:
            delivery.ack()
        await asyncio.wait_for(collector.publish("trades", head(1)), 60)


@only(*NETWORK)
async def test_buses_of_another_name_share_nothing(rig: BusRig) -> None:
    async with rig.open() as one, rig.open(name=f"{rig.name}x") as other:
        theirs = other.subscribe(["head"])
        await one.publish("head", head(1))
        await other.publish("head", head(2))
        assert (await got(theirs, 1))[0].message == head(2)
