"""Trades into PostgreSQL: our COPY against the driver's own and the server's ceiling; our commit against ON CONFLICT.

Work: 200,000 trades of 100 instruments over 6 h, 10,000 rows per commit (and 1,000), on a fresh server
with default settings (fsync on); tables are emptied and a checkpoint made before each contender. Three comparisons:

- The peers' table, six columns (timestamptz, int4, int8, int8, bool, int8) and no index. Peer: asyncpg
  ``copy_records_to_table``, its tuples made beforehand; ours: the store's encoder, from columns to messages, timed.
- The real table, eleven columns and the index (number, seq), and the same without the index, to tell what that costs.
  The same peer, and the ceiling: psql's ``\\copy`` of the same bytes encoded beforehand, one process for all
  commits, which leaves the server's work and its flushes alone.
- Whole commits by ``PostgresStore`` (fenced heads, hours, ledger, trades) against
  ``INSERT … SELECT unnest … ON CONFLICT DO NOTHING`` into the table with a primary key that finds duplicates, which
  ours does not need because the ledger has found them before.

Rows are counted after every contender. krows/s are wall, server included; ns/row is our process's CPU.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import numpy as np
import uvloop

from harness import Bench, arguments
from postgres import binaries, running
from tapewick.model import Head, Instrument, TapeCommit, TapeState, TradeBatch, empty_candles
from tapewick.stores._postgres_copy import Layout
from tapewick.stores._postgres_rows import TRADES, copy_in, copy_trades, trade_columns
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import HOUR, SECOND

INSTRUMENTS, ROWS = 100, 200_000
START = 1_722_988_800 * SECOND
Commits = list[list[TapeCommit]]

OURS_PLAIN, PEER_PLAIN = "tapewick COPY, peers' table", "copy_records_to_table, peers' table"
OURS, BARE, PEER, CEILING = (
    "tapewick COPY",
    "tapewick COPY, no index",
    "copy_records_to_table",
    "psql \\copy of encoded bytes",
)
COMMIT, PEER_COMMIT = "tapewick commit", "unnest ON CONFLICT"
SINCE_2000 = 946_684_800 * 10**6  # µs between 1970 and 2000
PLAIN = Layout({"ts": "i8", "sym": "i4", "px": "i8", "qty": "i8", "side": "?", "id": "i8"})
TABLES = """
CREATE TABLE keyed (LIKE trades, PRIMARY KEY (number, trade_id));
CREATE TABLE bare (LIKE trades);
CREATE TABLE plain (ts timestamptz, sym int4, px int8, qty int8, side bool, id int8);
"""
TYPES = {"i8": "BIGINT", "i4": "INTEGER", "i2": "SMALLINT", "?": "BOOLEAN"}
UNNEST = (
    f"INSERT INTO keyed ({', '.join(TRADES.names)}) SELECT * FROM unnest("
    + ", ".join(
        f"${k + 1}::{TYPES[TRADES.row[name].str.lstrip('>|').replace('b1', '?')]}[]"
        for k, name in enumerate(TRADES.names)
    )
    + ") ON CONFLICT DO NOTHING"
)


def commits(states: Sequence[TapeState], rows: int, size: int) -> Commits:
    """``rows`` trades of all instruments in the order of time, ``size`` per commit."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 6 * HOUR, rows)) + START
    made, seqs, positions = [], dict.fromkeys(range(len(states)), 0), dict.fromkeys(range(len(states)), 0)
    for begin in range(0, rows, size):
        owners = rng.integers(0, len(states), size)
        group = []
        for k in np.unique(owners).tolist():
            ts = times[begin : begin + size][owners == k]
            group.append(part(states[k], seqs[k], positions[k], ts, rng))
            seqs[k], positions[k] = seqs[k] + len(ts), positions[k] + 1
        made.append(group)
    return made


def part(state: TapeState, seq: int, pos: int, ts: np.ndarray[Any, Any], rng: np.random.Generator) -> TapeCommit:
    """One instrument's next trades."""
    n, id = len(ts), state.instrument.id
    seqs = np.arange(seq + 1, seq + n + 1, dtype=np.int64)
    batch = TradeBatch(
        instrument=id, trade_id=seqs + 5000, first_id=seqs + 5000, count=np.ones(n, np.int32), ts_event=ts,
        ts_recv=ts + 5_000_000, price=rng.integers(6_000_000, 7_000_000, n), size=rng.integers(1, 100_000, n),
        side=(rng.integers(0, 2, n) * 2 - 1).astype(np.int8), price_scale=2, size_scale=5, seq=seqs, epoch=state.epoch,
    )  # fmt: skip
    head = Head(
        instrument=id, epoch=state.epoch, seq=seq + n, pos=pos + 1, watermark=int(ts[-1]), price_scale=2, size_scale=5
    )
    return TapeCommit(
        number=state.number, instrument=id, owner=state.owner, expected_pos=pos, head=head, trades=[batch],
        rows=empty_candles(), ranges_put=np.array([[5001, 5000 + seq + n, START, int(ts[-1])]]),
        ranges_gone=np.empty(0, np.int64),
    )  # fmt: skip


def columns(group: Sequence[TapeCommit]) -> list[list[Any]]:
    """The trades of a commit as Python lists, a column each."""
    lists: dict[str, list[Any]] = {name: [] for name in TRADES.names}
    for one in group:
        for name in TRADES.names:
            if name == "number":
                lists[name] += [one.number] * len(one.trades[0])
            elif name == "late":
                lists[name] += [False] * len(one.trades[0])
            else:
                lists[name] += getattr(one.trades[0], name).tolist()
    return list(lists.values())


class Work(NamedTuple):
    """The same trades in every form a contender takes, one entry per commit."""

    commits: Commits
    lists: list[list[list[Any]]]
    tuples: list[list[tuple[Any, ...]]]
    plain: list[list[tuple[Any, ...]]]
    files: list[Path]


def work_of(states: Sequence[TapeState], rows: int, size: int, folder: Path) -> Work:
    """Made before anything is timed."""
    made = commits(states, rows, size)
    lists = [columns(group) for group in made]
    tuples = [list(zip(*each, strict=True)) for each in lists]
    names, epoch = TRADES.names, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    at = [names.index(name) for name in ("ts_event", "number", "price", "size", "side", "trade_id")]
    plain = [
        [
            (epoch + dt.timedelta(microseconds=r[at[0]] // 1000), *(r[k] for k in at[1:4]), r[at[4]] > 0, r[at[5]])
            for r in each
        ]
        for each in tuples
    ]
    files = []
    folder.chmod(0o755)
    for number, group in enumerate(made):
        files.append(folder / str(number))
        files[-1].write_bytes(b"".join(TRADES.encode(*trade_columns(group))))
    return Work(made, lists, tuples, plain, files)


def plain_columns(group: Sequence[TapeCommit]) -> tuple[dict[str, np.ndarray[Any, Any]], int]:
    """What the peers' table keeps of a commit's trades; times as PostgreSQL counts them, µs since 2000."""
    all, count = trade_columns(group)
    return {
        "ts": all["ts_event"] // 1000 - SINCE_2000, "sym": all["number"], "px": all["price"], "qty": all["size"],
        "side": all["side"] > 0, "id": all["trade_id"],
    }, count  # fmt: skip


Contenders = dict[str, tuple[str, Callable[[], Awaitable[None]]]]


def copies(connection: asyncpg.Connection, work: Work, dsn: str, psql: Path) -> Contenders:
    """COPY into the peers' table and into ours: name, table, run."""

    async def plain() -> None:
        for group in work.commits:
            async with connection.transaction():
                await copy_in(connection, "plain", PLAIN, *plain_columns(group))

    async def plain_records() -> None:
        for each in work.plain:
            async with connection.transaction():
                await connection.copy_records_to_table("plain", columns=PLAIN.names, records=each)

    async def copied() -> None:
        for group in work.commits:
            async with connection.transaction():
                await copy_trades(connection, group)

    async def bare() -> None:
        for group in work.commits:
            async with connection.transaction():
                await copy_in(connection, "bare", TRADES, *trade_columns(group))

    async def records() -> None:
        for each in work.tuples:
            async with connection.transaction():
                await connection.copy_records_to_table("trades", columns=TRADES.names, records=each)

    async def ceiling() -> None:
        script = "".join(
            f"\\copy trades ({', '.join(TRADES.names)}) from '{file}' with (format binary)\n" for file in work.files
        )
        words = [str(psql), "-qX", "-v", "ON_ERROR_STOP=1", dsn]
        await asyncio.to_thread(subprocess.run, words, input=script, text=True, check=True)

    return {
        OURS_PLAIN: ("plain", plain), PEER_PLAIN: ("plain", plain_records), OURS: ("trades", copied),
        PEER: ("trades", records), CEILING: ("trades", ceiling), BARE: ("bare", bare),
    }  # fmt: skip


def whole(connection: asyncpg.Connection, work: Work, store: PostgresStore) -> Contenders:
    """Whole commits and their peer."""

    async def committed() -> None:
        for group in work.commits:
            assert not await store.commit(group)

    async def unnested() -> None:
        for each in work.lists:
            await connection.execute(UNNEST, *each)

    return {COMMIT: ("trades", committed), PEER_COMMIT: ("keyed", unnested)}


Spent = dict[str, list[tuple[float, float]]]


async def measure(dsn: str, psql: Path, rows: int, size: int, rounds: int) -> Spent:
    """Wall and CPU seconds of every contender per round, after one round that is not counted."""
    await ready(dsn)
    async with PostgresStore(dsn) as store:
        ids = [f"sim:S{k}" for k in range(INSTRUMENTS)]
        for id in ids:
            await store.put_instrument(Instrument(id=id, venue="sim", symbol=id[4:], price_scale=2, size_scale=5))
        connection = await asyncpg.connect(dsn)
        await connection.execute(TABLES)
        with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as folder:
            work = work_of(await store.claim(ids), rows, size, Path(folder))
            contenders = copies(connection, work, dsn, psql) | whole(connection, work, store)
            took = await in_turn(connection, contenders, rows, rounds)
        await connection.close()
        return took


async def in_turn(connection: asyncpg.Connection, contenders: Contenders, rows: int, rounds: int) -> Spent:
    took: Spent = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, (table, run) in contenders.items():
            await connection.execute("TRUNCATE plain, bare, trades, keyed, trade_hours, coverage")
            await connection.execute("UPDATE tape_head SET seq = 0, pos = 0")
            await connection.execute("CHECKPOINT")
            wall, cpu = time.perf_counter(), time.process_time()
            await run()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == rows, name
            if number:
                took[name].append(spent)
    return took


async def ready(dsn: str) -> None:
    """Wait until the server takes connections."""
    while True:
        try:
            return await (await asyncpg.connect(dsn)).close()
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.05)


def main() -> None:
    """Measure, print, write the result file unless ``--tiny``."""
    args = arguments(__doc__)
    bench, bin = Bench("ingest", __doc__ or ""), binaries()
    if bin is None:
        raise SystemExit("ingest: PostgreSQL is not installed: apt-get install postgresql-15")
    rows = 4_000 if args.tiny else ROWS
    for size in (1_000,) if args.tiny else (10_000, 1_000):
        with running(bin) as dsn:
            took = uvloop.run(measure(dsn, bin / "psql", rows, size, 1 if args.tiny else args.rounds))
        rates = {}
        for name, spent in took.items():
            rates[name] = bench.figure(
                f"{name}, {size} per commit", "krows/s", [rows / wall / 1e3 for wall, _ in spent]
            )
            bench.figure(f"{name}, {size} per commit, CPU", "ns/row", [cpu / rows * 1e9 for _, cpu in spent])
        if size == 10_000 or args.tiny:
            bench.ratio(
                "COPY, the peers' table, over copy_records_to_table (P9)", rates[OURS_PLAIN] / rates[PEER_PLAIN], 2.5
            )
            bench.ratio("COPY, our table and index, over copy_records_to_table", rates[OURS] / rates[PEER], 2.5)
            bench.ratio("COPY, our table and index, over the server's ceiling", rates[OURS] / rates[CEILING], 0.9)
            bench.ratio("commit over unnest ON CONFLICT (P10)", rates[COMMIT] / rates[PEER_COMMIT], 2.0)
    if not args.tiny:
        bench.write()


if __name__ == "__main__":
    main()
