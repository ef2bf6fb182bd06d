"""The message server dies, is emptied, discards or stores twice under load: it is noticed and told, and afterwards the
tape is the venue's truth and every client has it exactly, without anybody's help."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nats
import pytest

from tapewick.buses import _network
from tapewick.stores.duckdb import DuckDBStore
from tapewick.stores.postgres import PostgresStore
from tests.buses.link import linked
from tests.buses.rig import BusRig
from tests.fault.chain import Chain, counted, gauge
from tests.fault.outages import endured, kept, live, positions, proven
from tests.parts.kafka import own_kafka  # noqa: F401
from tests.parts.nats import nats_server, own_nats  # noqa: F401
from tests.parts.postgres import PostgresServer
from tests.parts.redis import RedisServer, redis_server  # noqa: F401

pytestmark = pytest.mark.timeout(900)

LAG = {"topic": "trades", "group": "engine"}
ROOM = 16 << 20  # bytes a topic may hold here: more than the server keeps


def emptied(times: float) -> bool:
    return counted("bus_emptied", bus="redis") >= times


def through(rig: BusRig, port: int) -> BusRig:
    """The same bus by another port."""
    way = BusRig(rig.kind, SimpleNamespace(url=rig.server.url.replace(str(rig.server.port), str(port))))
    way.name = rig.name
    return way


@pytest.mark.parametrize(("kind", "how"), [("kafka", "SIGKILL"), ("kafka", "SIGTERM"), ("nats", "SIGKILL")])
async def test_a_broker_restarted_under_load(
    kind: str, how: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It comes back on its data. Meanwhile the engine goes on with what it has read, and live data waits bounded."""
    server = request.getfixturevalue(f"own_{kind}")
    async with live(DuckDBStore(tmp_path), BusRig(kind, server)) as chain:
        before = await positions(chain)
        await asyncio.to_thread(server.end, signal.Signals[how])
        cause = await chain.until_ready(503)
        assert kind.title() in cause.title() and f"{kind}." in cause, "the cause names the setting"
        await endured(chain)
        await asyncio.to_thread(server.start)
        await proven(chain)
        await kept(chain, before)


@pytest.mark.parametrize("kind", ["kafka", "nats", "redis"])
async def test_lag_is_shown_while_the_engine_cannot_keep_up(
    kind: str, durable_postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue({"kafka": "own_kafka", "nats": "nats_server", "redis": "redis_server"}[kind])
    async with live(PostgresStore(durable_postgres.database()), BusRig(kind, server)) as chain:
        durable_postgres.pause()
        try:
            await endured(chain, 0)
            await chain.until(lambda: (gauge("bus_lag", **LAG) or 0) > 30)
        finally:
            durable_postgres.resume()
        await proven(chain)
        await chain.until(lambda: gauge("bus_lag", **LAG) == 0)


# ── JetStream ──


async def test_messages_jetstream_stored_twice_are_counted_once(
    nats_server: object,  # noqa: F811
    postgres: PostgresServer,
) -> None:
    """The server has them, but the confirmation does not come back before its window for repetitions has passed."""
    rig = BusRig("nats", nats_server)
    port = rig.server.port
    async with (
        linked(port) as link,
        live(PostgresStore(postgres.database()), through(rig, link.port), engine=rig, gateway=rig, dedupe=1.0) as chain,
    ):
        for _ in range(2):
            link.deafen()
            await chain.until(lambda: chain.buses[0].trouble)
            link.cut()
            link.restore()
            await chain.until(lambda: chain.buses[0].trouble is None)
            await chain.until_grown()
        await proven(chain)
        client = await nats.connect(rig.server.url)
        try:
            info = await client.jetstream().stream_info(f"{rig.name}-trades")
        finally:
            await client.close()
        sender = chain.buses[0]._sender  # type: ignore[attr-defined]
        sent = sum(sender._topics["trades"].numbers.values())
        assert info.state.last_seq > sent, "nothing was stored twice: the window was not exceeded"


async def overrun(chain: Chain, server: PostgresServer, capsys: pytest.CaptureFixture[str], bus: str) -> None:
    """While the store stands still the bus discards what nobody has read: told, and made good afterwards."""
    before, discarded = await positions(chain), counted("bus_discarded", topic="trades")
    server.pause()
    try:
        await chain.until(lambda: counted("bus_discarded", topic="trades") > discarded + 50)
        assert "discarded trades" in await chain.told(bus, "stale")
        assert "the bus discarded messages nobody had acknowledged" in capsys.readouterr().out
    finally:
        server.resume()
    await proven(chain)
    await kept(chain, before)


async def test_what_jetstream_discarded_is_told_and_repaired(
    nats_server: object,  # noqa: F811
    durable_postgres: PostgresServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_network, "CALM", 3.0)
    store = PostgresStore(durable_postgres.database())
    async with live(store, BusRig("nats", nats_server), max_bytes=ROOM, stream_bytes=65_536) as chain:
        await overrun(chain, durable_postgres, capsys, "bus nats")
        await chain.told("bus nats", "connected")


# ── Redis ──


async def test_a_flushed_redis_under_load(redis_server: RedisServer, postgres: PostgresServer) -> None:  # noqa: F811
    async with live(PostgresStore(postgres.database()), BusRig("redis", redis_server)) as chain:
        before = await positions(chain)
        for _ in range(3):
            noticed = counted("bus_emptied", bus="redis") + len(chain.buses)
            assert redis_server.ask("FLUSHALL").startswith("+OK")
            await chain.until(partial(emptied, noticed))
            assert "lost what it kept" in await chain.told("bus redis", "stale")
            await chain.until_grown()
        await proven(chain)
        await kept(chain, before)


async def test_trades_that_only_a_flushed_redis_held_are_fetched_from_the_venue(
    redis_server: RedisServer,  # noqa: F811
    durable_postgres: PostgresServer,
) -> None:
    async with live(PostgresStore(durable_postgres.database()), BusRig("redis", redis_server)) as chain:
        before = await positions(chain)
        durable_postgres.pause()
        try:
            await endured(chain, 0)  # more waits on the bus than the engine has read
            assert redis_server.ask("FLUSHALL").startswith("+OK")
        finally:
            durable_postgres.resume()
        await proven(chain)
        await kept(chain, before)


async def test_an_overrun_of_maxlen_under_load(
    redis_server: RedisServer,  # noqa: F811
    durable_postgres: PostgresServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = PostgresStore(durable_postgres.database())
    async with live(store, BusRig("redis", redis_server), max_bytes=ROOM, maxlen=100) as chain:
        await overrun(chain, durable_postgres, capsys, "bus redis")


async def test_a_redis_that_forgets_everything_when_it_restarts(tmp_path: Path) -> None:
    for server in RedisServer().running():
        assert isinstance(server, RedisServer)
        async with live(DuckDBStore(tmp_path), BusRig("redis", server)) as chain:
            before = await positions(chain)
            server.kill()
            assert "redis.url" in await chain.until_ready(503)
            await endured(chain)
            await asyncio.to_thread(server.start)
            await proven(chain)
            await kept(chain, before)
