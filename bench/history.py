"""A year of minutes as hours: ``GET /v1/candles?tf=1h`` over HTTP against PostgreSQL's ``date_bin``.

Work: 525,600 one-minute candles (365 days, random walk, seed 1) of each of 5 symbols; the answer is
8,760 hourly OHLCV rows of one of them as JSON; wall time, median of 11 interleaved rounds.
Ours: the minutes and what they roll up to are stored in DuckDB; a gateway (store, bus, market,
HTTP) runs in a process of its own; the time is of the whole request over one kept connection, all
fields of every candle as decimal strings (more bytes than the peer makes).
The peer: PostgreSQL with default settings, the five symbols' minutes in one table in order of time,
index (symbol, time), analysed; ``date_bin`` with ``array_agg`` for open and close, rows through
asyncpg, JSON by msgspec in this process: no HTTP.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import measured
import postgres
from harness import Bench, arguments
from tapewick.engine.candles import put_sums, roll_up_tree
from tapewick.model import CANDLE, Candles, Instrument, State
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND, parse

SYMBOLS = 5
MINUTE = 60 * SECOND
T0 = 1_672_531_200 * SECOND  # 2023-01-01, a Sunday
HOURLY = """
SELECT date_bin('1 hour', ts, TIMESTAMPTZ '2000-01-01') AS open_time,
       (array_agg(open ORDER BY ts))[1] AS open, max(high) AS high, min(low) AS low,
       (array_agg(close ORDER BY ts DESC))[1] AS close, sum(volume)::int8 AS volume
FROM candles WHERE symbol = $1 GROUP BY 1 ORDER BY 1
"""


def minutes(symbol: int, count: int) -> Candles:
    """``count`` closed one-minute candles of one symbol."""
    rng = np.random.default_rng(1 + symbol)
    rows = np.zeros(count, CANDLE)
    close = np.maximum(6_000_000 + np.cumsum(rng.integers(-500, 501, count)), 10_000)
    rows["close"], rows["open"] = close, np.concatenate(([6_000_000], close[:-1]))
    rows["high"] = np.maximum(rows["open"], close) + rng.integers(0, 300, count)
    rows["low"] = np.minimum(rows["open"], close) - rng.integers(0, 300, count)
    rows["open_time"] = T0 + np.arange(count) * MINUTE
    rows["first_ts"], rows["last_ts"] = rows["open_time"] + 1, rows["open_time"] + MINUTE - 1
    rows["trades"] = rng.integers(1, 400, count)
    rows["last_id"] = np.cumsum(rows["trades"])
    rows["first_id"] = rows["first_key"] = rows["last_id"] - rows["trades"] + 1
    volume = rng.integers(1, 10**9, count)
    for name, values in (("volume", volume), ("taker_buy_volume", volume // 2)):
        rows[name + "_lo"] = values
    for name, values in (("quote_volume", volume), ("taker_buy_quote_volume", volume // 2)):
        put_sums(rows, name, [v * p for v, p in zip(values.tolist(), close.tolist(), strict=True)])
    rows["tf"], rows["state"], rows["complete"] = parse("1m").index, State.FINAL, 1
    return rows


def name(symbol: int) -> str:
    return f"binance:SYM{symbol}USDT"


async def fill(folder: Path, count: int) -> None:
    """Store every symbol's minutes and all coarser frames, as an import does."""
    async with DuckDBStore(folder) as store:
        for symbol in range(SYMBOLS):
            text = f"SYM{symbol}USDT"
            await store.put_instrument(
                Instrument(id=name(symbol), venue="binance", symbol=text, price_scale=2, size_scale=5)
            )
            rows = minutes(symbol, count)
            for part in (rows, roll_up_tree(rows, parse("1m"))):
                for at in range(0, len(part), 100_000):
                    await store.put_imported(name(symbol), part[at : at + 100_000])


async def gateway(folder: str) -> None:
    """Serve ``folder`` until the parent closes our input."""
    from tapewick.buses.memory import MemoryBus
    from tapewick.clock import RealClock
    from tapewick.gateways.http import HttpGateway
    from tapewick.market import Market

    clock = RealClock()
    async with (
        DuckDBStore(folder) as store,
        MemoryBus() as bus,
        Market(bus, store, clock) as market,
        HttpGateway(market, port=0) as door,
    ):
        sys.stdout.write(door.url + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


class Ours:
    """The gateway's process and one kept connection to it."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [measured.PYTHON, __file__, "gateway", str(folder)],
            env=measured.child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        address = urlsplit(self._process.stdout.readline().strip())
        self._http = http.client.HTTPConnection(address.hostname or "", address.port)

    def ask(self, limit: int = 10_000) -> bytes:
        self._http.request("GET", f"/v1/candles?instrument={name(3)}&tf=1h&limit={limit}")
        answer = self._http.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body

    def close(self) -> None:
        self._http.close()
        self._process.communicate(timeout=30)


class Peer:
    """PostgreSQL, filled, and one connection to it."""

    async def open(self, url: str, count: int) -> None:
        import asyncpg

        self._connection = await asyncpg.connect(url)
        await self._connection.execute(
            "CREATE TABLE candles "
            "(ts timestamptz, symbol int4, open int8, high int8, low int8, close int8, volume int8)"
        )
        everything = [minutes(symbol, count) for symbol in range(SYMBOLS)]
        columns = ("open", "high", "low", "close", "volume_lo")
        for at in range(0, count, 50_000):
            lists = [[rows[c][at : at + 50_000].tolist() for c in ("open_time", *columns)] for rows in everything]
            lines = [
                f"{own[0][k] // SECOND}\t{symbol}\t" + "\t".join(str(own[c][k]) for c in range(1, 6))
                for k in range(len(lists[0][0]))
                for symbol, own in enumerate(lists)
            ]
            await self._copy(lines)
        await self._connection.execute("CREATE INDEX ON candles (symbol, ts)")
        await self._connection.execute("VACUUM ANALYZE candles")

    async def _copy(self, lines: list[str]) -> None:
        await self._connection.execute(
            "CREATE TEMP TABLE IF NOT EXISTS raw (s int8, symbol int4, o int8, h int8, l int8, c int8, v int8)"
        )
        data = ("\n".join(lines) + "\n").encode()

        async def chunks() -> Any:
            yield data

        await self._connection.copy_to_table("raw", source=chunks())
        await self._connection.execute(
            "INSERT INTO candles SELECT to_timestamp(s), symbol, o, h, l, c, v FROM raw; TRUNCATE raw"
        )

    async def ask(self) -> bytes:
        import msgspec

        rows = await self._connection.fetch(HOURLY, 3)
        return msgspec.json.encode([tuple(row) for row in rows])

    async def close(self) -> None:
        await self._connection.close()


def check(ours: bytes, count: int, peer: bytes | None) -> None:
    """Both answers hold the same hours."""
    rows = json.loads(ours)["candles"]
    assert len(rows) == count // 60, len(rows)
    mine = [
        [row["open_time"] // 1000, *(round(float(row[n]) * 100) for n in ("open", "high", "low", "close")), volume(row)]
        for row in rows
    ]
    source = minutes(3, count)
    sums = source["volume_lo"].astype(np.int64).reshape(-1, 60).sum(axis=1)
    assert [row[-1] for row in mine] == sums.tolist()
    assert [row[2] for row in mine] == source["high"].reshape(-1, 60).max(axis=1).tolist()
    if peer is not None:
        from datetime import datetime

        theirs = [[int(datetime.fromisoformat(row[0]).timestamp()), *row[1:]] for row in json.loads(peer)]
        assert mine == theirs


def volume(row: dict[str, Any]) -> int:
    whole, _, digits = row["volume"].partition(".")
    return int(whole + digits.ljust(5, "0"))


async def measure(ours: Ours, count: int, rounds: int, url: str | None) -> tuple[list[float], list[float]]:
    """Milliseconds per round of ours and of the peer (none without one)."""
    peer = Peer() if url else None
    if peer is not None and url is not None:
        await peer.open(url, count)
    check(ours.ask(), count, await peer.ask() if peer else None)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        started = time.perf_counter()
        ours.ask()
        times[0].append((time.perf_counter() - started) * 1e3)
        if peer is not None:
            started = time.perf_counter()
            await peer.ask()
            times[1].append((time.perf_counter() - started) * 1e3)
    if peer is not None:
        await peer.close()
    return times


def against(bin: Path | None, ours: Ours, count: int, rounds: int) -> tuple[list[float], list[float]]:
    if bin is None or find_spec("asyncpg") is None:
        sys.stdout.write("peer missing: needs PostgreSQL's initdb and postgres, and the asyncpg package\n")
        return asyncio.run(measure(ours, count, rounds, None))
    with postgres.running(bin) as url:
        return asyncio.run(measure(ours, count, rounds, url))


def main() -> None:
    if sys.argv[1:2] == ["gateway"]:
        asyncio.run(gateway(sys.argv[2]))
        return
    args = arguments(__doc__)
    count, rounds = (60 * 240, 1) if args.tiny else (525_600, 11)
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
        asyncio.run(fill(Path(folder), count))
        ours = Ours(Path(folder))
        try:
            mine, theirs = against(postgres.binaries(), ours, count, rounds)
            size = len(ours.ask())
        finally:
            ours.close()
    if args.tiny:
        return
    bench = Bench("history", __doc__ or "")
    bench.figure("size of our answer", "kB", [size / 1e3])
    fast = bench.figure("GET /v1/candles, 8,760 hours", "ms", mine)
    if theirs:
        slow = bench.figure("PostgreSQL date_bin, 8,760 hours", "ms", theirs)
        bench.ratio("a year as hours over HTTP vs PostgreSQL date_bin", slow / fast, 30)
        bench.write()


if __name__ == "__main__":
    main()
