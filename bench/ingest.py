"""Trades into PostgreSQL: our COPY against the driver's own, and our commit against ``unnest … ON CONFLICT``.

Work: 200,000 trades of 100 instruments over 6 h, 10,000 rows per commit (and 1,000), on a fresh server
with default settings (fsync on) and the real schema with its indexes; tables are emptied and a
checkpoint made before each contender. Peers: asyncpg ``copy_records_to_table`` into the same table, its
tuples made beforehand; and ``INSERT … SELECT unnest … ON CONFLICT DO NOTHING`` into a table whose
primary key finds duplicates. Ours: ``copy_trades``; and whole commits by ``PostgresStore`` (fenced
heads, hours, ledger, trades), which need no such key because the ledger has found duplicates before.
Rows are counted after every contender. krows/s are wall, server included; ns/row is our process's CPU.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import numpy as np

from harness import Bench, arguments
from postgres import binaries, running
from tapewick.model import Head, Instrument, TapeCommit, TapeState, TradeBatch, empty_candles
from tapewick.stores._postgres_rows import TRADES, copy_trades
from tapewick.stores.postgres import PostgresStore
from tapewick.timeframe import HOUR, SECOND

INSTRUMENTS = 100
START = 1_722_988_800 * SECOND
Commits = list[list[TapeCommit]]

KEYED = """
CREATE TABLE keyed (LIKE trades, PRIMARY KEY (number, trade_id))
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


async def measure(dsn: str, rows: int, size: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every contender per round, after one round that is not counted."""
    await ready(dsn)
    async with PostgresStore(dsn) as store:
        ids = [f"sim:S{k}" for k in range(INSTRUMENTS)]
        for id in ids:
            await store.put_instrument(Instrument(id=id, venue="sim", symbol=id[4:], price_scale=2, size_scale=5))
        work = commits(await store.claim(ids), rows, size)
        lists = [columns(group) for group in work]
        tuples = [list(zip(*each, strict=True)) for each in lists]
        connection = await asyncpg.connect(dsn)
        await connection.execute(KEYED)

        async def copied() -> None:
            for group in work:
                async with connection.transaction():
                    await copy_trades(connection, group)

        async def records() -> None:
            for each in tuples:
                async with connection.transaction():
                    await connection.copy_records_to_table("trades", columns=TRADES.names, records=each)

        async def committed() -> None:
            for group in work:
                assert not await store.commit(group)

        async def unnested() -> None:
            for each in lists:
                await connection.execute(UNNEST, *each)

        contenders: dict[str, Callable[[], Awaitable[None]]] = {
            "tapewick COPY": copied,
            "asyncpg copy_records_to_table": records,
            "tapewick commit": committed,
            "unnest ON CONFLICT": unnested,
        }
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, run in contenders.items():
                await connection.execute("TRUNCATE trades, keyed, trade_hours, coverage")
                await connection.execute("UPDATE tape_head SET seq = 0, pos = 0")
                await connection.execute("CHECKPOINT")
                wall, cpu = time.perf_counter(), time.process_time()
                await run()
                spent = time.perf_counter() - wall, time.process_time() - cpu
                table = "keyed" if run is unnested else "trades"
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == rows, name
                if number:
                    took[name].append(spent)
        await connection.close()
        return took


async def ready(dsn: str) -> None:
    """Wait until the server takes connections."""
    while True:
        try:
            return await (await asyncpg.connect(dsn)).close()
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.05)


def main() -> None:
    args = arguments(__doc__)
    bench, bin = Bench("ingest", __doc__ or ""), binaries()
    if bin is None:
        raise SystemExit("ingest: PostgreSQL is not installed: apt-get install postgresql-15")
    rows = 4_000 if args.tiny else 200_000
    for size in (1_000,) if args.tiny else (10_000, 1_000):
        with running(bin) as dsn:
            took = asyncio.run(measure(dsn, rows, size, 1 if args.tiny else args.rounds))
        rates = {}
        for name, spent in took.items():
            rates[name] = bench.figure(
                f"{name}, {size} per commit", "krows/s", [rows / wall / 1e3 for wall, _ in spent]
            )
            bench.figure(f"{name}, {size} per commit, CPU", "ns/row", [cpu / rows * 1e9 for _, cpu in spent])
        if size == 10_000 or args.tiny:
            copies = rates["tapewick COPY"] / rates["asyncpg copy_records_to_table"]
            bench.ratio("COPY over copy_records_to_table (P9)", copies, 2.5)
            dedupes = rates["tapewick commit"] / rates["unnest ON CONFLICT"]
            bench.ratio("commit over unnest ON CONFLICT (P10)", dedupes, 2.0)
    if not args.tiny:
        bench.write()


if __name__ == "__main__":
    main()
