"""Repair of one hole from a local venue: REST pages → columns → tape → 17 timeframes → durable DuckDB.

Work: a process of its own has N trades of one symbol as pages made beforehand (``pages.py``), so that no time goes
into inventing them; the tape knows the first and the last ten. The real repair lane asks for the rest by id, 1,000 at a
time over loopback HTTP, into the real engine, memory bus and store, until every id is committed (wall time from the
lane's start). Peer: pages of the same venue, parsed with the standard library and inserted row by row with
parameters, one transaction per page, into a DuckDB table without candles, ledger or deduplication: less work than
ours. Both start with an empty folder each round. ``pages alone``: all pages asked for and decoded, the columns thrown
away. The ratio is the result; trades/s are orientation (goal 100 k/s).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

import duckdb

from harness import Bench, arguments
from tapewick.buses.memory import MemoryBus
from tapewick.clock import RealClock
from tapewick.engine.tape import Engine
from tapewick.model import Instrument, TradeBatch, Wanted
from tapewick.repair import RepairLane
from tapewick.roles import EngineRole
from tapewick.sources._binance_repair import BinanceRepairer
from tapewick.stores.duckdb import DuckDBStore

BTC = Instrument(id="sim:BTCUSDT", venue="sim", symbol="BTCUSDT", price_scale=2, size_scale=5)
EDGE = 10
PEER = 5_000  # rows: at a rate, not at a length, the peer is compared


class Venue:
    """``pages.py`` as a process that has ``trades``."""

    def __init__(self, trades: int) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("pages.py")), str(trades)]

    def __enter__(self) -> str:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def asking(url: str) -> BinanceRepairer:
    return BinanceRepairer(venue="sim", rest_url=url, limit=10**9)


async def pages(url: str, low: int, high: int) -> list[TradeBatch]:
    async with asking(url) as repairer:
        return [page async for page in repairer.fetch(Wanted(instrument=BTC.id, ranges=((low, high),)))]


async def pages_alone(url: str, trades: int) -> float:
    """Seconds to ask for and decode everything."""
    started = time.perf_counter()
    count = 0
    async with asking(url) as repairer:
        async for page in repairer.fetch(Wanted(instrument=BTC.id, ranges=((1, trades),))):
            count += len(page)
    assert count == trades
    return time.perf_counter() - started


async def repaired(url: str, folder: Path, trades: int) -> float:
    """Seconds from the hole to its end, with every id on the tape once."""
    edges = [*await pages(url, 1, EDGE), *await pages(url, trades - EDGE + 1, trades)]
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(DuckDBStore(folder))
        bus = await stack.enter_async_context(MemoryBus())
        repairer = await stack.enter_async_context(asking(url))
        lane = RepairLane([repairer], bus)
        role = EngineRole(bus, store, Engine(), RealClock(), provisional=False)
        await stack.enter_async_context(role)
        await bus.publish("trades", BTC)
        for edge in edges:
            await bus.publish("trades", edge)
        heads = bus.subscribe(["tape"])
        started = time.perf_counter()
        work = asyncio.create_task(lane.run())
        seen = 0
        while seen < trades:
            message = (await anext(heads)).message
            seen += len(message) if isinstance(message, TradeBatch) else 0
        took = time.perf_counter() - started
        work.cancel()
        await asyncio.wait({work})
        state = await store.coverage(BTC.id)
        assert state.ranges[:, :2].tolist() == [[1, trades]] and state.seq == trades
        days, _ = await store.candles(BTC.id, 14)
        assert int(days["trades"].sum()) == trades
    return took


def row_by_row(url: str, folder: Path, rows: int) -> float:
    """Seconds the peer takes for ``rows`` trades."""
    connection = duckdb.connect(str(folder / "peer.duckdb"))
    connection.execute(
        "CREATE TABLE trades (id BIGINT, time BIGINT, price DECIMAL(18, 8), size DECIMAL(18, 8), buy BOOLEAN)"
    )
    started = time.perf_counter()
    for low in range(1, rows + 1, 1000):
        address = f"{url}/api/v3/historicalTrades?symbol=BTCUSDT&fromId={low}&limit={min(1000, rows - low + 1)}"
        with urllib.request.urlopen(address) as answer:
            page = json.loads(answer.read())
        connection.execute("BEGIN")
        for row in page:
            values = [row["id"], row["time"], row["price"], row["qty"], not row["isBuyerMaker"]]
            connection.execute("INSERT INTO trades VALUES (?, ?, ?, ?, ?)", values)
        connection.execute("COMMIT")
    took = time.perf_counter() - started
    assert connection.execute("SELECT count(*), max(id) FROM trades").fetchone() == (rows, rows)
    connection.close()
    return took


def measure(bench: Bench, rounds: int, trades: int) -> None:
    rates: dict[str, list[float]] = {"repair": [], "pages alone": [], "row by row": []}
    with Venue(trades) as url:
        for number in range(rounds + 1):
            with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
                took = {
                    "repair": trades / asyncio.run(repaired(url, Path(folder), trades)),
                    "pages alone": trades / asyncio.run(pages_alone(url, trades)),
                    "row by row": PEER / row_by_row(url, Path(folder), PEER),
                }
            for name, rate in took.items():
                if number:
                    rates[name].append(rate)
    ours, _, peer = (bench.figure(name, "trades/s", rounds_) for name, rounds_ in rates.items())
    bench.ratio("repair / row by row", ours / peer, 5)
    bench.ratio("repair, trades/s", ours, 100_000)


def main() -> None:
    args = arguments(__doc__)
    if args.tiny:
        with Venue(3_000) as url, tempfile.TemporaryDirectory() as folder:
            asyncio.run(repaired(url, Path(folder), 3_000))
            asyncio.run(pages_alone(url, 3_000))
            row_by_row(url, Path(folder), 1_500)
        return
    bench = Bench("repair", __doc__ or "")
    measure(bench, args.rounds, 300_000)
    bench.write()


if __name__ == "__main__":
    main()
