"""Live commits on DuckDB: every commit touches every instrument and 17 timeframes.

Work: 1,500 (and 100) instruments, each with candles of all 17 stored timeframes open; the real
engine role, memory bus and DuckDB store on loopback's disk, provisional lane on. A feeder sends
one trade per instrument the moment the commit before has taken its rows, so trades of all
instruments always wait: the heaviest live load there is, at the adaptive interval. 200 commits
after 10 that are not counted; event time moves 1 s per commit, so minutes close meanwhile.
``commit`` is the time of one durable transaction (wall), ``interval`` from the start of one to
the start of the next: at least 20 ms, and never less than the commit takes, since the next one
starts when the last has ended. The bound: p99 of commits below the interval reached (median),
that is, commits do not pile up; ``rows/s`` is what that sustains.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness import Bench, arguments
from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.model import Instrument, TapeCommit, TradeBatch
from tapewick.roles import EngineRole
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND

WARM_UP = 10
TIMEFRAMES = 17


class TimedStore(DuckDBStore):
    """The store, remembering when each commit started and ended and how many rows it wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spans: list[tuple[float, float, int, int]] = []
        self.took = asyncio.Event()

    async def commit(self, group: Sequence[TapeCommit]) -> frozenset[str]:
        self.took.set()
        started = time.perf_counter()
        refused = await super().commit(group)
        rows = sum(len(part.rows) for part in group)
        self.spans.append((started, time.perf_counter(), len(group), rows))
        return refused


def instrument(number: int) -> Instrument:
    symbol = f"SYM{number}USDT"
    return Instrument(id=f"sim:{symbol}", venue="sim", symbol=symbol, price_scale=2, size_scale=5)


def trade(number: int, id: int, ts: int, price: int) -> TradeBatch:
    one = np.array([id], np.int64)
    return TradeBatch(
        instrument=f"sim:SYM{number}USDT",
        trade_id=one,
        first_id=one,
        count=np.ones(1, np.int32),
        ts_event=np.array([ts]),
        ts_recv=np.array([ts]),
        price=np.array([price]),
        size=np.array([1 + id % 100_000]),
        side=np.ones(1, np.int8),
        price_scale=2,
        size_scale=5,
        clock=ts,
        source="bench",
    )


async def run(folder: Path, instruments: int, commits: int) -> list[tuple[float, float, int, int]]:
    """Feed until ``commits`` whole commits were made; their start, end, instruments and rows."""
    rng = np.random.default_rng(1)
    prices = rng.integers(1_000, 7_000_000, instruments)
    begin = time.time_ns() // SECOND * SECOND - 3600 * SECOND
    async with TimedStore(folder) as store, MemoryBus() as bus, EngineRole(bus, store, Engine(), RealClock()) as role:
        for number in range(instruments):
            await bus.publish("trades", instrument(number))
        await bus.settled("trades")
        store.spans.clear()
        id = 0
        while len(store.spans) < commits + WARM_UP:
            id += 1
            store.took.clear()
            prices = np.maximum(prices + rng.integers(-50, 51, instruments), 1)
            for number in range(instruments):
                await bus.publish("trades", trade(number, id, begin + id * SECOND, int(prices[number])))
            await store.took.wait()
        await bus.settled("trades")
        assert role.trades == id * instruments, (role.trades, id)
        assert role.trouble is None
        spans = store.spans
        await check(store, instruments, id)
    return spans


async def check(store: DuckDBStore, instruments: int, id: int) -> None:
    """Every instrument holds each trade once, in every timeframe."""
    for number in {0, instruments // 2, instruments - 1}:
        name = f"sim:SYM{number}USDT"
        assert (await store.head(name)).seq == id
        for tf in range(1, TIMEFRAMES + 1):
            rows, _ = await store.candles(name, tf)
            assert rows["trades"].sum() == id, (name, tf)


def milliseconds(seconds: Sequence[float], part: float) -> float:
    return float(np.quantile(np.array(seconds), part)) * 1e3


def measure(bench: Bench, instruments: int, commits: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        spans = asyncio.run(run(Path(folder), instruments, commits))[WARM_UP:]
    took = [end - start for start, end, _, _ in spans]
    intervals = [b[0] - a[0] for a, b in zip(spans, spans[1:], strict=False)]
    rows = [count / interval for (*_, count), interval in zip(spans, intervals, strict=False)]
    label = f"{instruments} instruments"
    bench.figure(f"instruments per commit, {label}", "", [float(span[2]) for span in spans])
    bench.figure(f"candle rows per commit, {label}", "", [float(span[3]) for span in spans])
    bench.figure(f"commit, {label}", "ms", [seconds * 1e3 for seconds in took])
    bench.figure(f"commit p99, {label}", "ms", [milliseconds(took, 0.99)])
    reached = bench.figure(f"interval reached, {label}", "ms", [seconds * 1e3 for seconds in intervals])
    bench.figure(f"candle rows, {label}", "rows/s", rows)
    bench.ratio(f"commit p99 / interval reached, {label}", milliseconds(took, 0.99) / reached, 1, at_most=True)


def main() -> None:
    args = arguments(__doc__)
    if args.tiny:
        with tempfile.TemporaryDirectory() as folder:
            spans = asyncio.run(run(Path(folder), 7, 5))
        assert max(span[2] for span in spans) == 7 and max(span[3] for span in spans) >= 7 * TIMEFRAMES
        return
    bench = Bench("commits", __doc__ or "")
    for instruments in (100, 1_500):
        measure(bench, instruments, 200)
    bench.write()


if __name__ == "__main__":
    main()
