"""Collector, engine and gateway around each bus: the same tape, candles and coverage, and the same to clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from tapewick.clock import ManualClock
from tapewick.engine.tape import Engine
from tapewick.gateways.http import HttpGateway
from tapewick.market import Market
from tapewick.model import Event, Health
from tapewick.roles import EngineRole, collect
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND, STORED
from tests.buses.rig import NETWORK, BusRig, settled
from tests.gateways.rig import BTC, ETH, T0, batch, instrument, peer
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import nats_server  # noqa: F401
from tests.parts.redis import redis_server  # noqa: F401
from tests.realdata.reading import replay, rows, stored_candles, tapewick, values

FIELDS = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
ARRIVAL = {"pos", "rev", "number", "change", "reason"}  # of a candle: how commits fell, not what was traded


class Invented:
    """Two instruments; repetitions, a hole, trades that come late, a lost connection, a clock that closes candles."""

    name, pull = "test", True

    async def events(self) -> AsyncGenerator[Event, None]:
        yield Health(source="sim", state="connected", ts=T0)
        for id in (BTC, ETH):
            yield instrument(id)
        for first in range(1, 3001, 100):
            for id in (BTC, ETH):
                yield batch(first, 130, id)  # each ends with what the next begins with
        yield Health(source="sim", state="disconnected", ts=T0)
        yield batch(4001, 900)
        yield batch(3500, 40, late=True)
        yield batch(6001, 10, clock=T0 + 7200 * SECOND)


async def outcome(rig: BusRig, folder: Path) -> dict[str, Any]:
    """What is stored, and what a client saw, after everything went over the bus."""
    clock = ManualClock(T0 + 86_400 * SECOND)
    async with (
        DuckDBStore(folder) as store,
        rig.open() as bus,
        EngineRole(bus, store, Engine(), clock, interval=0.001),
        Market(bus, store, clock) as market,
        HttpGateway(market, port=0) as gateway,
    ):
        for id in (BTC, ETH):
            await bus.publish("trades", instrument(id))
        await settled(bus)
        async with peer(gateway.url.replace("http", "ws", 1) + "/v1/ws") as client:
            client.subscribe(f"trade@{BTC}", f"candle@{BTC}@1h")
            await client.got("subscribed")
            await collect(Invented(), bus)
            await settled(bus)
            found: dict[str, Any] = {id: await stored(store, id) for id in (BTC, ETH)}
            last = len(found[BTC]["trades"][0])
            await client.until(lambda c: len(seen(c)) >= last, seconds=60)
            found["client"] = seen(client)
        return found


def seen(client: Any) -> list[tuple[Any, ...]]:
    return [(row["seq"], row["trade_id"], row["price"]) for row in client.rows(f"trade@{BTC}", "event")]


async def stored(store: DuckDBStore, id: str) -> dict[str, Any]:
    tape, _ = await store.trades(id)
    state = await store.coverage(id)
    found: dict[str, Any] = {
        "trades": [getattr(tape, name).tolist() for name in FIELDS],
        "ranges": state.ranges.tolist(),
    }
    found["gaps"] = [(gap.left_id, gap.right_id, gap.state) for gap in state.gaps]
    for tf in STORED:
        candles, _ = await store.candles(id, tf.index)
        names = [name for name in candles.dtype.names or () if name not in {*ARRIVAL, "reserved"}]
        found |= {f"{tf.name} {name}": candles[name].tolist() for name in names}
    return found


@pytest.fixture(params=NETWORK)
def rig(request: pytest.FixtureRequest) -> BusRig:
    return BusRig(request.param, request.getfixturevalue(f"{request.param}_server"))


async def test_every_bus_gives_what_the_memory_bus_gives(rig: BusRig, tmp_path: Path) -> None:
    expected = await outcome(BusRig("memory"), tmp_path / "memory")
    assert len(expected[BTC]["trades"][0]) == 3030 + 900 + 40 + 10 and len(expected[BTC]["gaps"]) >= 2
    assert len(expected["client"]) == len(np.unique([row[0] for row in expected["client"]])) == 3980
    assert await outcome(rig, tmp_path / rig.kind) == expected


@pytest.mark.realdata
def test_a_recorded_market_over_a_bus_is_what_it_is_without(rig: BusRig, testdata: Path, tmp_path: Path) -> None:
    file = testdata / "binance-ws-2024-08" / "spot_btcusdt_20240808.gz"
    address = {"redis": "TAPEWICK_REDIS__URL", "nats": "TAPEWICK_NATS__URL", "kafka": "TAPEWICK_KAFKA__BROKERS"}
    chosen = {
        "TAPEWICK_BUS__KIND": rig.kind,
        "TAPEWICK_BUS__NAME": f"t{uuid4().hex}",
        address[rig.kind]: rig.server.url,
    }
    read, covered = [], []
    for name, env in (("memory", {}), (rig.kind, chosen)):
        folder = tmp_path / name
        replay(folder, file, **env)
        read.append(values(stored_candles(folder, "binance:BTCUSDT")))
        coverage = rows(tapewick("coverage", "binance:BTCUSDT", "--data", folder, "--json"))
        covered.append([(one["trades"], one["ranges"], one["gaps"]) for one in coverage])
    assert read[0] == read[1] and read[0]["1m"]
    assert covered[0] == covered[1]
