"""Restart with much stored: process start to ready, idle memory, and the shortest command.

Work: 10 M trades of 20 instruments (random walk, 100 ms apart, ids contiguous, seed 1; 500,000
each: 14 hours of candles in 17 timeframes) put through the engine into DuckDB in commits of 200,000. Then
``tapewick serve`` on that folder, its venue a closed port on loopback: seconds from process start
until ``/health/ready`` answers 200; resident memory 10 s after that; peak. The page cache is warm, as
after a restart of the process, not of the machine. ``tapewick --version``: wall time of the
whole process. Bounds, reported with the machine; no peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import measured
from harness import Bench, arguments
from tapewick.engine.tape import Engine
from tapewick.model import Instrument, TradeBatch
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND

INSTRUMENTS = 20
PER_COMMIT = 10_000  # trades of one instrument in one commit
T0 = 1_723_161_600 * SECOND
STEP = SECOND // 10


def instrument(number: int) -> Instrument:
    symbol = f"SYM{number}USDT"
    return Instrument(id=f"binance:{symbol}", venue="binance", symbol=symbol, price_scale=2, size_scale=5)


def batch(number: int, first: int, count: int, rng: np.random.Generator) -> TradeBatch:
    ids = np.arange(first, first + count, dtype=np.int64)
    ts = T0 + ids * STEP
    return TradeBatch(
        instrument=f"binance:SYM{number}USDT",
        trade_id=ids,
        first_id=ids,
        count=np.ones(count, np.int32),
        ts_event=ts,
        ts_recv=ts + 1_000_000,
        price=np.maximum(6_000_000 + np.cumsum(rng.integers(-5, 6, count)), 1),
        size=rng.integers(1, 100_001, count),
        side=rng.choice(np.array([-1, 1], np.int8), count),
        price_scale=2,
        size_scale=5,
        clock=int(ts[-1]),
    )


async def fill(folder: Path, each: int) -> None:
    """Store ``each`` trades of every instrument."""
    rng = np.random.default_rng(1)
    engine = Engine()
    async with DuckDBStore(folder) as store:
        for number in range(INSTRUMENTS):
            await store.put_instrument(instrument(number))
        engine.add(await store.claim([found.id for found in await store.instruments()]))
        for first in range(1, each + 1, PER_COMMIT):
            for number in range(INSTRUMENTS):
                engine.ingest(batch(number, first, min(PER_COMMIT, each + 1 - first), rng), 0)
            assert not engine.missing()
            assert not await store.commit(engine.take())


@contextmanager
def serving(folder: Path) -> Iterator[tuple[float, str, int]]:
    """A server on ``folder``: seconds until it was ready, its URL, its process id."""
    closed = "127.0.0.1:9"
    environment = measured.child_environment(
        BINANCE_BASE_URL=f"http://{closed}", BINANCE_WEBSOCKET_BASE_URL=f"ws://{closed}", TAPEWICK_LOG__LEVEL="error"
    )
    words = ["serve", "--port", "0", "--data", str(folder), "--source", "binance:SYM0USDT"]
    started = time.perf_counter()
    server = subprocess.Popen(
        [measured.PYTHON, "-m", "tapewick", *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        while not ready(url):
            time.sleep(0.005)
        yield time.perf_counter() - started, url, server.pid
    finally:
        server.terminate()
        server.communicate(timeout=30)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        assert error.code == 503, error
        return False


def check(url: str, each: int) -> None:
    """The server shows every instrument, and the last stored trade of one."""
    with urllib.request.urlopen(f"{url}/v1/instruments") as answer:
        assert len(json.load(answer)["instruments"]) >= INSTRUMENTS
    with urllib.request.urlopen(f"{url}/v1/trades?instrument=binance:SYM7USDT&limit=1") as answer:
        (last,) = json.load(answer)["trades"]
        assert (last["seq"], last["trade_id"]) == (each, each), last


def version_ms() -> float:
    """Wall time of ``tapewick --version``."""
    script = Path(measured.PYTHON).parent / "tapewick"
    words = [str(script)] if script.exists() else [measured.PYTHON, "-m", "tapewick"]
    environment = measured.child_environment()
    started = time.perf_counter()
    done = subprocess.run([*words, "--version"], env=environment, capture_output=True, text=True, check=True)
    took = time.perf_counter() - started
    assert done.stdout.startswith("tapewick "), done.stdout
    return took * 1e3


def main() -> None:
    args = arguments(__doc__)
    each = 2_000 if args.tiny else 500_000
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as name:
        folder = Path(name)
        asyncio.run(fill(folder, each))
        if args.tiny:
            with serving(folder) as (_, url, _):
                check(url, each)
            version_ms()
            return
        bench = Bench("restart", __doc__ or "")
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        bench.figure("size of the folder", "MB", [size])
        times, idle, peak = [], [], []
        os.sync()
        for number in range(max(args.rounds, 5) + 1):
            with serving(folder) as (seconds, url, pid):
                if number == 0:
                    check(url, each)
                    continue
                times.append(seconds)
                time.sleep(10)
                idle.append(measured.resident_mb(pid))
                peak.append(measured.resident_mb(pid, "VmHWM"))
        bench.ratio("restart to ready with 10 M trades, s", bench.figure("start to ready", "s", times), 3, at_most=True)
        bench.ratio("idle memory, MB", bench.figure("resident when idle", "MB", idle), 220, at_most=True)
        bench.figure("peak resident", "MB", peak)
        versions = [version_ms() for _ in range(12)][1:]
        bench.ratio("tapewick --version, ms", bench.figure("--version", "ms", versions), 80, at_most=True)
        bench.write()


if __name__ == "__main__":
    main()
