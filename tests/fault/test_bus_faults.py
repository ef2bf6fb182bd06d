"""Message servers that die, are cut off, emptied or trimmed: nothing confirmed is lost, and what is lost is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tapewick import metrics
from tapewick.buses._broker import Parcel
from tapewick.buses._network import NetworkBus
from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.gateways.http import HttpGateway
from tapewick.market import Market
from tapewick.model import Head, Health, TradeBatch
from tapewick.protocols import Delivery
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND
from tapewick.wire import encode, stamp
from tests.buses.link import Link, linked
from tests.buses.rig import NETWORK, BusRig, got, head, settled, trades, until
from tests.gateways.rig import BTC, T0, batch, instrument, peer
from tests.parts.kafka import kafka_server, own_kafka  # noqa: F401
from tests.parts.nats import nats_server, own_nats  # noqa: F401
from tests.parts.redis import durable_redis, redis_server  # noqa: F401

OWN = {"redis": "durable_redis", "nats": "own_nats", "kafka": "own_kafka"}


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"tapewick_{name}_total", labels) or 0.0


@pytest.fixture(params=NETWORK)
def rig(request: pytest.FixtureRequest) -> BusRig:
    """On a server other tests use too."""
    return BusRig(request.param, request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture(params=NETWORK)
def mortal(request: pytest.FixtureRequest) -> BusRig:
    """On a server of the test's own, as durable as its users run it."""
    return BusRig(request.param, request.getfixturevalue(OWN[request.param]))


@asynccontextmanager
async def through(rig: BusRig, link: Link, **options: Any) -> AsyncIterator[NetworkBus]:
    """A bus whose connections run through ``link``."""
    url = rig.server.url.replace(str(rig.server.port), str(link.port))
    async with rig.open(url=url, **options) as bus:
        assert isinstance(bus, NetworkBus)
        yield bus


async def read_until(reader: Any, last: int) -> list[int]:
    """Numbers of the heads that come, acknowledged, until ``last`` does."""
    seqs: list[int] = []
    async with asyncio.timeout(150):
        while not seqs or seqs[-1] != last:
            delivery: Delivery = await anext(reader)
            delivery.ack()
            assert isinstance(delivery.message, Head)
            seqs.append(delivery.message.seq)
    return seqs


async def test_nothing_confirmed_is_lost_when_the_server_is_killed(mortal: BusRig) -> None:
    """SIGKILL in the midst of a stream of messages, twice; the server comes back on its data."""
    async with mortal.open() as bus:
        assert isinstance(bus, NetworkBus)
        everybody, engine = bus.subscribe(["trades"]), bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(0))
        reading = [asyncio.create_task(read_until(reader, 301)) for reader in (everybody, engine)]
        for seq in range(1, 301):
            await bus.publish("trades", head(seq))
            if seq in (100, 200):
                mortal.server.kill()
                away = asyncio.create_task(bus.publish("trades", head(seq)))
                await until(lambda: bus.trouble)
                assert not away.done() and f"{mortal.kind}." in str(bus.trouble), "the cause names the setting"
                await asyncio.to_thread(mortal.server.start)
                await asyncio.wait_for(away, 90)
        await bus.publish("trades", head(301))
        for task in reading:
            seqs = await task
            assert sorted(set(seqs)) == list(range(302)), "every confirmed message came"
            assert sorted(seqs) == seqs, "in order"
        await settled(bus)
        await until(lambda: bus.trouble is None)
    async with mortal.open() as bus:
        again = bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(302))
        assert [d.message.seq for d in await got(again, 1)] == [302], "what was acknowledged stays so"  # type: ignore[union-attr]


async def test_while_the_server_is_away_the_queue_is_bounded(mortal: BusRig) -> None:
    async with mortal.open(max_bytes=65_536) as bus:
        assert isinstance(bus, NetworkBus)
        reader = bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", trades(1, 1))
        await got(reader, 1)
        await settled(bus)
        mortal.server.kill()
        sent, before = 0, counted("bus_full", topic="trades")
        while bus.offer("trades", trades(2 + 100 * sent, 100)):
            sent += 1
        assert 5 < sent < 30 and counted("bus_full", topic="trades") == before + 1
        await until(lambda: bus.trouble)
        await asyncio.to_thread(mortal.server.start)
        firsts = [d.message.trade_id[0] for d in await got(reader, sent)]  # type: ignore[union-attr]
        assert firsts == [2 + 100 * at for at in range(sent)], "drained in order"


@pytest.mark.parametrize("rig", ["redis", "nats"], indirect=True)
async def test_a_cut_connection_loses_nothing(rig: BusRig) -> None:
    async with linked(rig.server.port) as link, through(rig, link) as bus:
        everybody, engine = bus.subscribe(["trades"]), bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(0))
        reading = [asyncio.create_task(read_until(reader, 200)) for reader in (everybody, engine)]
        for seq in range(1, 201):
            if seq % 40 == 0:
                link.cut()
                publishing = asyncio.create_task(bus.publish("trades", head(seq)))
                await until(lambda: bus.trouble)
                link.restore()
                await asyncio.wait_for(publishing, 60)
            else:
                await bus.publish("trades", head(seq))
        assert [await task for task in reading] == [list(range(201))] * 2, "once each and in order"
        assert link.connections > 5


async def test_a_message_sent_again_is_taken_once(rig: BusRig) -> None:
    """A sender that did not hear the confirmation sends again; JetStream's window for such repetitions is exceeded."""
    options = {"dedupe": 0.1} if rig.kind == "nats" else {}
    async with rig.open(**options) as bus:
        assert isinstance(bus, NetworkBus)
        everybody, engine = bus.subscribe(["trades"]), bus.subscribe(["trades"], group="engine")
        await everybody.placed.wait()
        await engine.placed.wait()
        place = bus._places("trades", head(1))[0]
        parcels = [Parcel(place, f"once.{n}", encode(head(n)) + stamp(77, n)) for n in (1, 2)]
        positions = await bus._broker.send(parcels)
        while min(await bus._broker.send(parcels)) <= max(positions):  # noqa: ASYNC110  # no event: the window
            await asyncio.sleep(0.05)
        await bus._broker.send([Parcel(place, "once.3", encode(head(3)) + stamp(77, 3))])
        for reader in (everybody, engine):
            assert await read_until(reader, 3) == [1, 2, 3]


async def test_what_is_no_message_is_counted_and_passed_over(rig: BusRig) -> None:
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        reader = bus.subscribe(["trades"], group="engine")
        before = counted("quarantined", reason="bus")
        await bus.publish("trades", head(1))
        place = bus._places("trades", head(1))[0]
        await bus._broker.send([Parcel(place, f"bad.{at}", junk) for at, junk in enumerate((b"", b"\xff" * 50, b"{}"))])
        await bus.publish("trades", head(2))
        assert await read_until(reader, 2) == [1, 2]
        assert counted("quarantined", reason="bus") == before + 3
        await settled(bus)


@pytest.mark.parametrize("rig", ["redis"], indirect=True)
async def test_an_overrun_of_maxlen_is_noticed(rig: BusRig) -> None:
    async with rig.open(maxlen=100) as bus, rig.open(max_bytes=65_536) as slow:
        await _overrun(bus, slow)


@pytest.mark.parametrize("rig", ["nats"], indirect=True)
async def test_a_discard_by_jetstream_is_noticed(rig: BusRig) -> None:
    async with rig.open(stream_bytes=200_000) as bus, rig.open(max_bytes=65_536, stream_bytes=200_000) as slow:
        await _overrun(bus, slow)


async def _overrun(bus: Any, slow: Any) -> None:
    """A reader that takes nothing while more is sent than the server keeps: both ends notice, and go on."""
    engine, everybody = slow.subscribe(["trades"], group="engine"), slow.subscribe(["trades"])
    await everybody.placed.wait()
    await bus.publish("trades", trades(1, 100))
    await got(engine, 1)
    await got(everybody, 1)
    discarded, lost = counted("bus_discarded", topic="trades"), counted("bus_lost", topic="trades")
    for at in range(1, 400):
        await bus.publish("trades", trades(1 + 100 * at, 100))
    await until(lambda: counted("bus_discarded", topic="trades") > discarded)
    for reader in (engine, everybody):
        firsts: list[int] = []
        told: list[int] = []
        async with asyncio.timeout(60):
            while not firsts or firsts[-1] != 39_901:
                [delivery] = await got(reader, 1)
                assert isinstance(delivery.message, TradeBatch)
                firsts.append(int(delivery.message.trade_id[0]))
                if delivery.lost:
                    told.append(firsts[-1])
        jumps = [after for before, after in zip(firsts, firsts[1:], strict=False) if after != before + 100]
        assert jumps and told == jumps, "told exactly where messages are missing"
    assert counted("bus_lost", topic="trades") > lost
    await settled(bus)
    await bus.publish("trades", trades(40_001, 1))
    assert not (await got(engine, 1))[0].lost


@pytest.mark.parametrize("rig", ["kafka"], indirect=True)
async def test_what_kafka_deleted_is_noticed(rig: BusRig) -> None:
    """Retention takes records nobody has read: here an administrator does, at once."""
    async with rig.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine = bus.subscribe(["trades"], group="engine")
        await bus.publish("trades", head(0))
        await got(engine, 1)
        await settled(bus)
        await engine.close()
        discarded = counted("bus_discarded", topic="trades")
        for seq in range(1, 11):
            await bus.publish("trades", head(seq))
        ((topic, partition),) = bus._places("trades", head(1))
        admin = AdminClient({"bootstrap.servers": rig.server.url})
        ask = [TopicPartition(f"{rig.name}.{topic}", partition, 8)]
        [future] = (await asyncio.to_thread(admin.delete_records, ask)).values()
        await asyncio.to_thread(future.result)
        await until(lambda: counted("bus_discarded", topic="trades") >= discarded + 7)
        heir = bus.subscribe(["trades"], group="engine")
        assert await read_until(heir, 10) == [8, 9, 10]
        lag = {"topic": "trades", "group": "engine"}
        await until(lambda: metrics.REGISTRY.get_sample_value("tapewick_bus_lag", lag) == 0)


async def test_lag_is_shown(rig: BusRig) -> None:
    """How many messages a group has not acknowledged."""
    lag = {"topic": "trades", "group": "engine"}
    async with rig.open() as bus:
        engine = bus.subscribe(["trades"], group="engine")
        for seq in range(7):
            await bus.publish("trades", head(seq))
        await until(lambda: metrics.REGISTRY.get_sample_value("tapewick_bus_lag", lag) == 7)
        await got(engine, 7)
        await settled(bus)
        await until(lambda: metrics.REGISTRY.get_sample_value("tapewick_bus_lag", lag) == 0)


@pytest.mark.parametrize("mortal", ["redis"], indirect=True)
async def test_a_flushed_redis_is_noticed_and_the_flow_goes_on(mortal: BusRig) -> None:
    async with mortal.open() as bus:
        engine, everybody = bus.subscribe(["trades"], group="engine"), bus.subscribe(["trades"])
        for seq in range(5):
            await bus.publish("trades", head(seq))
        await got(engine, 3)
        await got(everybody, 5)
        emptied = counted("bus_emptied", bus="redis")
        assert mortal.server.ask("FLUSHALL").startswith("+OK")
        await until(lambda: counted("bus_emptied", bus="redis") == emptied + 1)
        [news] = await got(everybody, 1)
        assert isinstance(news.message, Health) and news.lost and news.message.source == "bus redis"
        for seq in range(5, 8):
            await bus.publish("trades", head(seq))
        assert (await read_until(engine, 7))[-3:] == [5, 6, 7]
        assert await read_until(everybody, 7) == [5, 6, 7]
        await settled(bus)


@pytest.mark.parametrize("mortal", ["redis"], indirect=True)
async def test_clients_resume_through_a_flush(mortal: BusRig, tmp_path: Path) -> None:
    """What the engine announced while the gateway was cut off is flushed: the store fills it in, the epoch stays."""
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with (
        DuckDBStore(tmp_path) as store,
        linked(mortal.server.port) as link,
        mortal.open() as bus,
        through(mortal, link) as gateway_bus,
        EngineRole(bus, store, Engine(), clock, interval=0.001),
        Market(gateway_bus, store, clock) as market,
        HttpGateway(market, port=0) as gateway,
    ):
        await gateway_bus._ready()  # the clock stands, so no head is repeated for a reader that comes late
        await bus.publish("trades", instrument())
        await settled(bus)
        epoch = (await store.head(BTC)).epoch
        async with peer(gateway.url.replace("http", "ws", 1) + "/v1/ws") as client:
            client.subscribe(f"trade@{BTC}")
            await client.got("snapshot")  # else the first trades may be in it
            await bus.publish("trades", batch(1, 10))
            await client.until(lambda c: len(c.rows(f"trade@{BTC}", "event")) == 10)
            link.cut()
            await bus.publish("trades", batch(11, 10))
            await settled(bus)
            await settled(bus, "tape")
            mortal.server.ask("FLUSHALL")
            link.restore()
            await client.until(lambda c: len(c.rows(f"trade@{BTC}", "event")) == 20, seconds=60)
            await bus.publish("trades", batch(21, 10))
            await client.until(lambda c: len(c.rows(f"trade@{BTC}", "event")) == 30, seconds=60)
            assert [row["seq"] for row in client.rows(f"trade@{BTC}", "event")] == list(range(1, 31))
        assert (await store.head(BTC)).epoch == epoch


@pytest.mark.parametrize("mortal", ["nats"], indirect=True)
async def test_a_deleted_stream_is_made_anew(mortal: BusRig) -> None:
    async with mortal.open() as bus:
        assert isinstance(bus, NetworkBus)
        engine, everybody = bus.subscribe(["trades"], group="engine"), bus.subscribe(["trades"])
        for seq in range(5):
            await bus.publish("trades", head(seq))
        await got(engine, 5)
        await got(everybody, 5)
        await settled(bus)
        js = await bus._broker._js()  # type: ignore[attr-defined]
        await js.delete_stream(f"{mortal.name}-trades")
        for seq in range(5, 8):
            await bus.publish("trades", head(seq))
        assert await read_until(engine, 7) == [5, 6, 7]
        assert await read_until(everybody, 7) == [5, 6, 7]
        await settled(bus)
