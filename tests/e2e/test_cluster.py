"""`make cluster`: real servers and every role by one command; candles move, a watch reaches its collector, `make stop`
leaves no process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tapewick.model import partition_of
from tapewick.parts import PARTS, find
from tests.e2e.browser import part
from tests.e2e.server import Server
from tests.gateways.rig import peer
from tests.parts.anvil import anvil_binary
from tests.parts.kafka import jars
from tests.parts.postgres import EXTRACT

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, str(ROOT / "scripts" / "cluster.py"))
BTC = "sim:BTCUSDT"
PARTITIONS = 16
SOON_MS = 2000

pytestmark = pytest.mark.timeout(600)


def needed(bus: str, store: str) -> None:
    """Without the servers the test is skipped, or fails where CI is set."""
    wanted = {"postgres", *({"java"} if bus == "kafka" else {bus})}
    for known in PARTS:
        if known.name in wanted:
            part(known.name, find(known), f"apt-get install {known.package}")
    anvil_binary()
    if bus == "kafka":
        jars()
    if store == "timescale":
        there = str(EXTRACT) if (EXTRACT / "recipe").is_file() and os.geteuid() == 0 else None
        part("TimescaleDB", there, "python scripts/timescale.py (as root; needs mmdebstrap)")


@contextmanager
def cluster(folder: Path, bus: str, store: str, *words: str) -> Iterator[Server]:
    """A running cluster whose notes and logs are in ``folder``."""
    needed(bus, store)
    command = ("--bus", bus, "--store", store, "--port", "0", *words)
    with Server(*command, program=PROGRAM, TAPEWICK_LOGS=str(folder)) as made:
        try:
            made.url = made.line(r"^tapewick cluster .*http://", 240).rpartition(" ")[2]
            yield made
        finally:
            stop(folder)


def stop(folder: Path) -> int:
    """`make stop`, for what is noted in ``folder``; its exit code."""
    script = str(ROOT / "scripts" / "stop.py")
    return subprocess.run([sys.executable, script], env=os.environ | {"TAPEWICK_LOGS": str(folder)}).returncode


def pids(server: Server) -> dict[str, int]:
    """The processes the cluster told of, by name."""
    found = (re.match(r"\s*([\w.\- ]+?)(?: [\d.]+)?(?: \(\w+\))?, pid (\d+)", line) for line in server.lines)
    return {match[1]: int(match[2]) for match in found if match}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def session(leader: int) -> set[int]:
    """All processes of the cluster's session."""
    members = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z" and words[3] == str(leader):
            members.add(int(folder.name))
    return members


def leader(folder: Path) -> int:
    (note,) = folder.glob("cluster-*.pid")
    return int(note.stem.removeprefix("cluster-"))


def newest(server: Server) -> Any:
    """What the page's chart shows last."""
    rows = server.get(f"/v1/candles?instrument={BTC}&tf=1m&limit=1")["candles"]
    return (rows[-1]["open_time"], rows[-1]["trades"]) if rows else None


def until_moved(server: Server) -> None:
    """Wait until the page is served and its newest candle has changed."""
    server.wait_for(lambda: "<title>" in httpx2.get(server.url).text, 120)
    first = server.wait_for(lambda: newest(server), 120)
    server.wait_for(lambda: newest(server) != first, 120)


@pytest.mark.parametrize(
    ("bus", "store"),
    [
        ("redis", "timescale"),
        ("nats", "postgres"),
        ("nats", "timescale"),
        ("kafka", "postgres"),
        ("kafka", "timescale"),
    ],
)
def test_every_bus_and_store_serves_a_moving_chart_and_stops(bus: str, store: str, tmp_path: Path) -> None:
    with cluster(
        tmp_path, bus, store, "--engines", "1", "--gateways", "1", "--collectors", "1", "--scanners", "1"
    ) as made:
        until_moved(made)
        known, number = pids(made), leader(tmp_path)
        assert {"engine-1", "gateway-1", "collect-1", "scan-1", "venue", "anvil"} <= known.keys() and len(known) == 8
        made.wait_for(lambda: made.get("/v1/orders")["orders"], 120)
        if store == "timescale":
            made.process.send_signal(signal.SIGINT)  # as a Ctrl-C does
        else:
            assert stop(tmp_path) == 0
        assert made.process.wait(60) == 0
        assert not [name for name, pid in known.items() if alive(pid)] and not session(number)
        assert not list(tmp_path.glob("*.pid"))


async def test_redis_and_postgres_whole(tmp_path: Path, record_property: Any) -> None:
    """Two of each role: what one gateway is asked for arrives at the other; a killed supervisor leaves nothing."""
    with cluster(tmp_path, "redis", "postgres", "--sharded") as made:
        until_moved(made)
        gateways = [found[0] for line in made.lines if (found := re.search(r"(?<=: )http://[\d.:]+(?=  )", line))]
        assert len(gateways) == 2 and gateways[0] == made.url
        delays = [await delay_ms(gateways[0], gateways[1], symbol) for symbol in ("SOLUSDT", "BNBUSDT", "XRPUSDT")]
        record_property("watch_ms", delays)
        print(f"from the request to the first trade on the tape, event time: {delays} ms")  # noqa: T201
        assert min(delays) <= SOON_MS, delays

        listed = {row["instrument"] for row in made.get("/v1/watch")["watched"]}
        assert listed == {"sim:SOLUSDT", "sim:BNBUSDT", "sim:XRPUSDT"}
        for id in sorted(listed):
            watching = {name for name in ("collect-1", "collect-2") if f"instrument={id}" in log(tmp_path, name)}
            assert watching == {f"collect-{partition_of(id, PARTITIONS) % 2 + 1}"}, f"{id}: the right collector alone"
        async with httpx2.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{gateways[0]}/v1/watch", json={"instrument": "binance:SOLUSDT"})
        assert answer.status_code == 400 and "simulated" in answer.text, "invented prices under a real venue's name"
        number = leader(tmp_path)
        made.process.kill()  # the one in the terminal; what it started goes on until `make stop`
        made.process.wait()
        assert alive(number) and stop(tmp_path) == 0
        assert not session(number) and not alive(number)


def log(folder: Path, name: str) -> str:
    return (folder / f"cluster-{name}.log").read_text()


async def delay_ms(asked: str, read: str, symbol: str) -> int:
    """Ask one gateway to collect ``symbol``; ms from then to its first trade, which the other gateway sends live."""
    id, begun = f"sim:{symbol}", time.time_ns() // 10**6
    async with httpx2.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{asked}/v1/watch", json={"instrument": id})
    assert answer.status_code == 201, answer.text
    async with peer(read.replace("http", "ws", 1) + "/v1/ws") as socket:
        socket.subscribe(f"trade@{id}")
        await socket.until(lambda c: c.rows(f"trade@{id}", "snapshot", "event"), seconds=60)
    async with httpx2.AsyncClient(timeout=60) as client:
        told = (await client.get(f"{read}/v1/trades?instrument={id}&since=0&limit=1000")).json()
    trades = told["trades"]
    assert [row["seq"] for row in trades] == list(range(1, len(trades) + 1))
    ids = [row["trade_id"] for row in trades]
    assert sorted(ids) == list(range(min(ids), max(ids) + 1)), "one engine, each trade once"
    return int(trades[0]["ts_event"]) - begun


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    env = os.environ | {"TAPEWICK_LOGS": str(tmp_path), "TAPEWICK_TEST_REDIS": str(tmp_path / "nowhere")}
    env.pop("CI", None)
    done = subprocess.run([*PROGRAM, "--bus", "redis", "--port", "0"], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "apt-get install redis-server" in done.stderr, done.stderr
    assert not list(tmp_path.glob("*.pid"))


def test_make_passes_on_what_it_is_told() -> None:
    words = ("BUS=nats", "STORE=timescale", "ENGINES=3", "GATEWAYS=4", "COLLECTORS=5", "SCANNERS=6", "ARGS=--port 0")
    told = subprocess.run(["make", "-n", "-C", str(ROOT), "cluster", *words], capture_output=True, text=True).stdout
    assert (
        "--bus nats --store timescale --engines 3 --gateways 4" in told
        and "--collectors 5 --scanners 6 --port 0" in told
    )
