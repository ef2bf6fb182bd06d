"""Every bus with every store: a real capture gives the same trades, candles and coverage through all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tapewick import registry
from tapewick.pipeline import feed
from tapewick.settings import Bus, Data, Kafka, Nats, Redis, Settings
from tapewick.settings import Store as StoreSettings
from tapewick.sources.replay import ReplaySource
from tapewick.timeframe import STORED
from tests.buses.rig import KINDS
from tests.fault.recording import write_recording
from tests.parts.kafka import kafka_server  # noqa: F401
from tests.parts.nats import nats_server  # noqa: F401
from tests.parts.redis import redis_server  # noqa: F401

BTC = "binance:BTCUSDT"
CAPTURE = "binance-ws-2024-08/spot_btcusdt_20240808.gz"
STORES = ("duckdb", "postgres", "timescale")
COLUMNS = ("trade_id", "first_id", "count", "ts_event", "ts_recv", "price", "size", "side")
ARRIVAL = {"pos", "rev", "last_seq", "number", "change", "reason", "reserved"}  # how commits fell, not what was traded


def settings_of(bus: str, store: str, folder: Path, request: pytest.FixtureRequest) -> Settings:
    """A bus of its own name and an empty store, on the servers of this session."""
    made = Settings(data=Data(str(folder)), bus=Bus(bus, name=f"m{uuid4().hex[:12]}"))  # type: ignore[arg-type]
    if bus != "memory":
        server = request.getfixturevalue(f"{bus}_server")
        if bus == "kafka":
            made = made._replace(kafka=Kafka((server.url,)))
        else:
            made = made._replace(**{bus: {"redis": Redis, "nats": Nats}[bus](server.url)})
    if store != "duckdb":
        dsn = request.getfixturevalue(store).database()
        made = made._replace(store=StoreSettings("postgres", dsn=dsn))
    return made


async def outcome(settings: Settings, capture: Path) -> dict[str, Any]:
    """What is stored after ``capture`` went all the way, without what depends on how commits fell."""
    report = await feed(settings, ReplaySource([capture], speed=None))
    found: dict[str, Any] = {"report": (report.trades, report.duplicates, report.rejects, report.gaps)}
    async with registry.store(settings) as store:
        tape, _ = await store.trades(BTC)
        rows = zip(*(getattr(tape, name).tolist() for name in COLUMNS), strict=True)
        found["trades"] = sorted(rows)
        state = await store.coverage(BTC)
        found["ranges"] = state.ranges.tolist()
        found["gaps"] = [(gap.left_id, gap.right_id, gap.left_ts, gap.right_ts, gap.state) for gap in state.gaps]
        for tf in STORED:
            candles, _ = await store.candles(BTC, tf.index)
            names = [name for name in candles.dtype.names or () if name not in ARRIVAL]
            found[tf.name] = candles[names].tolist()
    return found


@pytest.fixture(scope="session")
def recorded(testdata: Path) -> Path:
    return testdata / CAPTURE


@pytest.fixture(scope="session")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("matrix") / "spot.log", 5_000)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    """By capture, what the memory bus and the embedded store make of it."""
    return {}


COMBINATIONS = [(bus, store) for bus in KINDS for store in STORES if (bus, store) != ("memory", "duckdb")]


async def compared(
    bus: str, store: str, capture: Path, expected: dict[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> dict[str, Any]:
    folder: Path = request.getfixturevalue("tmp_path")
    if capture not in expected:
        expected[capture] = await outcome(settings_of("memory", "duckdb", folder / "plain", request), capture)
    wanted = expected[capture]
    got = await outcome(settings_of(bus, store, folder / "own", request), capture)
    for name, value in wanted.items():
        assert got[name] == value, f"{bus} x {store}: {name} differs"
    return wanted


@pytest.mark.realdata
@pytest.mark.parametrize(("bus", "store"), COMBINATIONS)
async def test_a_real_capture_is_the_same_through_every_bus_into_every_store(
    bus: str, store: str, recorded: Path, expected: dict[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    wanted = await compared(bus, store, recorded, expected, request)
    assert len(wanted["trades"]) == wanted["report"][0] > 5_000 and wanted["1m"]


@pytest.mark.parametrize(("bus", "store"), [(bus, store) for bus, store in COMBINATIONS if store != "duckdb"][::3])
async def test_an_invented_one_too(
    bus: str, store: str, invented: Path, expected: dict[Path, dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """Where no recorded data is at hand."""
    wanted = await compared(bus, store, invented, expected, request)
    assert len(wanted["trades"]) == 5_000 and wanted["ranges"][0][:2] == [1000, 5999]
