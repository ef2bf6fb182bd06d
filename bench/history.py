"""A year of minutes as hours: ``GET /v1/candles?tf=1h`` over HTTP against PostgreSQL's ``date_bin``.

Work: 525,600 one-minute candles (365 days, random walk, seed 1) of each of 5 symbols; the answer is
8,760 hourly OHLCV rows of one of them as JSON; wall time, median of 11 interleaved rounds.
Ours, once on DuckDB and once on PostgreSQL (the peer's server, a schema of its own): the minutes and what they
roll up to are stored; a gateway (store, bus, market, HTTP) runs in a process of its own; the time is of the whole
request over one kept connection, all fields of every candle as decimal strings (seven times the peer's bytes).
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
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

import measured
import postgres
from harness import Bench, arguments
from tapewick.engine.candles import put_sums, roll_up_tree
from tapewick.model import CANDLE, Candles, Instrument, State
from tapewick.stores.duckdb import DuckDBStore
from tapewick.timeframe import SECOND, parse

PEER = "PostgreSQL date_bin, 8,760 hours"
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


def store_at(place: str) -> Any:
    """The store in the folder, or in the database, that ``place`` names."""
    if not place.startswith("postgresql:"):
        return DuckDBStore(place)
    from tapewick.stores.postgres import PostgresStore

    return PostgresStore(place)


async def fill(place: str, count: int) -> None:
    """Store every symbol's minutes and all coarser frames, as an import does."""
    async with store_at(place) as store:
        for symbol in range(SYMBOLS):
            text = f"SYM{symbol}USDT"
            await store.put_instrument(
                Instrument(id=name(symbol), venue="binance", symbol=text, price_scale=2, size_scale=5)
            )
            rows = minutes(symbol, count)
            for part in (rows, roll_up_tree(rows, parse("1m"))):
                for at in range(0, len(part), 100_000):
                    await store.put_imported(name(symbol), part[at : at + 100_000])


async def gateway(place: str) -> None:
    """Serve the store at ``place`` until the parent closes our input."""
    from tapewick.buses.memory import MemoryBus
    from tapewick.clock import RealClock
    from tapewick.gateways.http import HttpGateway
    from tapewick.market import Market

    clock = RealClock()
    async with (
        store_at(place) as store,
        MemoryBus() as bus,
        Market(bus, store, clock) as market,
        HttpGateway(market, port=0) as door,
    ):
        sys.stdout.write(door.url + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


class Ours:
    """The gateway's process and one kept connection to it."""

    def __init__(self, place: str) -> None:
        self._process = subprocess.Popen(
            [measured.PYTHON, __file__, "gateway", place],
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

        self._connection = await asyncpg.connect(url, server_settings={"search_path": "peer"})
        await self._connection.execute("CREATE SCHEMA peer")
        await self._connection.execute(
            "CREATE TABLE peer.candles "
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


async def measure(servers: dict[str, Ours], url: str | None, count: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per round of each of ours and of the peer (none without ``url``), in turn."""
    peer = Peer() if url else None
    if peer is not None and url is not None:
        await peer.open(url, count)
    for ours in servers.values():
        check(ours.ask(), count, await peer.ask() if peer else None)
    times: dict[str, list[float]] = {kind: [] for kind in (*servers, *([PEER] if peer else []))}
    for number in range(rounds + 1):
        for kind, taken in times.items():
            started = time.perf_counter()
            if kind in servers:
                servers[kind].ask()
            elif peer is not None:
                await peer.ask()
            if number:  # the first round is not counted
                taken.append((time.perf_counter() - started) * 1e3)
    if peer is not None:
        await peer.close()
    return times


def against(folder: str, url: str | None, count: int, rounds: int) -> tuple[dict[str, list[float]], int]:
    """The times, and the size of our answer in bytes."""
    with ExitStack() as stack:
        servers = {}
        for kind, place in {"DuckDB": folder, **({"PostgreSQL": url} if url else {})}.items():
            uvloop.run(fill(place, count))
            servers[kind] = Ours(place)
            stack.callback(servers[kind].close)
        return uvloop.run(measure(servers, url, count, rounds)), len(servers["DuckDB"].ask())


def main() -> None:
    """Measure, print, write the result file unless ``--tiny``."""
    if sys.argv[1:2] == ["gateway"]:
        uvloop.run(gateway(sys.argv[2]))
        return
    args, bin = arguments(__doc__), postgres.binaries()
    count, rounds = (60 * 240, 1) if args.tiny else (525_600, 11)
    with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder, ExitStack() as stack:
        url = stack.enter_context(postgres.running(bin)) if bin and find_spec("asyncpg") else None
        if url is None:
            sys.stdout.write("peer missing: needs PostgreSQL's initdb and postgres, and the asyncpg package\n")
        times, size = against(folder, url, count, rounds)
    if args.tiny:
        return
    bench = Bench("history", __doc__ or "")
    bench.figure("size of our answer", "kB", [size / 1e3])
    medians = {
        kind: bench.figure(kind if kind == PEER else f"GET /v1/candles, 8,760 hours, {kind}", "ms", taken)
        for kind, taken in times.items()
    }
    if PEER in medians:
        for kind in ("DuckDB", "PostgreSQL"):
            bench.ratio(f"a year as hours over HTTP from {kind} vs date_bin", medians[PEER] / medians[kind], 30)
        bench.write()


if __name__ == "__main__":
    main()
