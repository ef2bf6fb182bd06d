"""One engine process against two on the same work, which waits on the bus: how the engine role scales.

Work: trades of 32 instruments, two in each of the 16 partitions (fixed seed, contiguous ids), 2 to a message as a
live socket yields them, so that most of the time goes to the engine: messages, tape, 17 timeframes. All of them lie
on Redis before an engine starts, so nothing is spent on sending. Then ``tapewick run engine`` starts, once as one
process (``--shard 0/1``) and once as two (``0/2``, ``1/2``), with PostgreSQL as the store (default settings, durable
commits) and at most 4 commits a second, so that writing open candles is not what is measured. The rate is that of
committed trades between the first tenth and the last, read off the heads in the store; in the end every tape is whole.

Store and bus run on the same cores and take their part of them; their CPU is told beside the engines', and so is what
the engines alone would reach on cores of their own: twice the CPU per trade of one, over that of two.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import uvloop

import measured
import postgres
from buses import batch, servers
from harness import Bench, arguments
from tapewick.model import Instrument, partition_of

PARTITIONS, EACH, SIZE, TRADES = 16, 2, 2, 120_000
TICKS = os.sysconf("SC_CLK_TCK")


def instruments() -> list[str]:
    """``EACH`` names of every partition."""
    found: dict[int, list[str]] = {number: [] for number in range(PARTITIONS)}
    for number in count():
        own = found[partition_of(id := f"bench:E{number}", PARTITIONS)]
        if len(own) < EACH:
            own.append(id)
        if all(len(ids) == EACH for ids in found.values()):
            return [id for ids in found.values() for id in ids]
    raise AssertionError


def cpu(pid: int) -> float:
    """Seconds of CPU a process and its children, ended ones too, have taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    kids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = sum(map(int, fields[11:15])) / TICKS
    for kid in kids:
        try:
            own += cpu(int(kid))
        except OSError:  # it has ended meanwhile
            continue
    return own


class Ran(NamedTuple):
    """One run: trades per second, and µs of CPU per trade of the engines, the store and the bus."""

    rate: float
    engine: float
    store: float
    bus: float


class Scene:
    """A database and a bus of their own on the servers, with the instruments known and an engine's place kept."""

    def __init__(self, dsn: str, redis: str, folder: Path) -> None:
        self.dsn, self.redis, self.name, self._folder = dsn, redis, f"b{uuid4().hex[:12]}", folder

    @asynccontextmanager
    async def engines(self, number: int) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
        """So many processes, stopped in the end."""
        env = measured.child_environment(
            TAPEWICK_STORE__KIND="postgres", TAPEWICK_STORE__DSN=self.dsn, TAPEWICK_BUS__KIND="redis",
            TAPEWICK_BUS__NAME=self.name, TAPEWICK_REDIS__URL=self.redis, TAPEWICK_REDIS__MAXLEN="100000000",
            TAPEWICK_ENGINE__COMMIT_INTERVAL_MS="250", TAPEWICK_LOG__LEVEL="error",
        )  # fmt: skip
        running = []
        for k in range(number):
            words = [measured.PYTHON, "-m", "tapewick", "run", "engine", "--shard", f"{k}/{number}", "--no-config"]
            own = env | {"TAPEWICK_DATA__DIR": str(self._folder / f"{self.name}-{number}-{k}")}
            running.append(await asyncio.to_thread(subprocess.Popen, words, env=own, stdout=subprocess.DEVNULL))
        try:
            yield running
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                await asyncio.to_thread(process.wait, 60)

    async def load(self, trades: int) -> int:
        """Have an engine know the instruments, then put ``trades`` on the bus without one; how many these are."""
        from tapewick.buses.redis import RedisBus

        ids, rng = instruments(), np.random.default_rng(1)
        async with RedisBus(self.redis, name=self.name, max_bytes=1 << 30, maxlen=10**8) as bus:
            async with self.engines(1):
                while True:  # what is sent before the engine listens is not for it
                    for id in ids:
                        await bus.publish(
                            "trades", Instrument(id=id, venue="bench", symbol=id[6:], price_scale=2, size_scale=5)
                        )
                    await asyncio.sleep(0.5)
                    if await self.stored("SELECT count(*) FROM tape_head") == len(ids):
                        break
                await bus.settled("trades")
            for first in range(1, max(trades // len(ids), SIZE) + 1, SIZE):
                for id in ids:
                    await bus.publish("trades", batch(id, first, SIZE, rng))
        return len(range(1, max(trades // len(ids), SIZE) + 1, SIZE)) * SIZE * len(ids)

    async def stored(self, question: str) -> int:
        """The number that ``question`` answers; 0 where the tables are not there yet."""
        import asyncpg

        connection = await asyncpg.connect(self.dsn)
        try:
            return int(await connection.fetchval(question) or 0)
        except asyncpg.UndefinedTableError:
            return 0
        finally:
            await connection.close()


async def run(scene: Scene, number: int, trades: int, pids: tuple[int, int]) -> Ran:
    """``number`` engines take what lies on the bus."""
    import asyncpg

    total = await scene.load(trades)
    connection = await asyncpg.connect(scene.dsn)
    try:
        async with scene.engines(number) as processes:
            looks = [await look(connection, processes, pids)]
            while looks[-1].stored < total:
                await asyncio.sleep(0.02)
                looks.append(await look(connection, processes, pids))
                assert all(process.poll() is None for process in processes), "an engine ended"
        whole = await connection.fetch("SELECT number FROM coverage GROUP BY number HAVING count(*) = 1")
        assert len(whole) == PARTITIONS * EACH, "a tape has a hole"
        assert await connection.fetchval("SELECT count(*) FROM trades") == total
    finally:
        await connection.close()
    first, last = (next(one for one in looks if one.stored >= total * part) for part in (0.1, 0.9))
    if first is last:  # few trades, in one commit
        first, last = looks[0], looks[-1]
    done = last.stored - first.stored
    spent = ((b - a) / done * 1e6 for a, b in zip(first[2:], last[2:], strict=True))
    return Ran(done / (last.at - first.at), *spent)


class Look(NamedTuple):
    """A moment: its time, trades committed until then, and CPU seconds of engines, store and bus."""

    at: float
    stored: int
    engine: float
    store: float
    bus: float


async def look(connection: Any, processes: list[subprocess.Popen[bytes]], pids: tuple[int, int]) -> Look:
    seq = int(await connection.fetchval("SELECT sum(seq) FROM tape_head") or 0)
    return Look(time.perf_counter(), seq, sum(cpu(process.pid) for process in processes), *map(cpu, pids))


async def measure(admin: str, redis: str, trades: int, rounds: int) -> dict[int, list[Ran]]:
    """Runs of one engine and of two, in turn, after a round that is not counted."""
    import asyncpg
    from redis.asyncio import Redis

    connection = await asyncpg.connect(admin)
    folder = Path(await connection.fetchval("SHOW data_directory"))
    async with Redis.from_url(redis) as server:
        pids = int((folder / "postmaster.pid").read_text().split()[0]), int((await server.info("server"))["process_id"])
        found: dict[int, list[Ran]] = {1: [], 2: []}
        with tempfile.TemporaryDirectory(prefix="tapewick-bench-") as data:
            for round in range(rounds + (trades > 10_000)):
                for number, runs in found.items():
                    name = f"b{uuid4().hex[:12]}"
                    await connection.execute(f"CREATE DATABASE {name}")
                    ran = await run(
                        Scene(admin.rpartition("/")[0] + "/" + name, redis, Path(data)), number, trades, pids
                    )
                    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                    await server.flushall()
                    if round or trades <= 10_000:
                        runs.append(ran)
    await connection.close()
    return found


def main() -> None:
    """Measure, print, write the result file unless ``--tiny``."""
    if find_spec("pytest") is None:  # the peers' environment has neither drivers nor the tests' servers
        os.execv(measured.PYTHON, [measured.PYTHON, *sys.argv])
    args, bin, bench = arguments(__doc__), postgres.binaries(), Bench("engines", __doc__ or "")
    if bin is None:
        raise SystemExit("engines: PostgreSQL is not installed: apt-get install postgresql-15")
    trades, rounds = (2_000, 1) if args.tiny else (TRADES, min(args.rounds, 3))
    with servers(("redis",)) as urls, postgres.running(bin) as admin:
        if "redis" not in urls:
            raise SystemExit("engines: Redis is not installed: apt-get install redis-server")
        found = uvloop.run(measure(admin, urls["redis"], trades, rounds))
    rates = {}
    for number, runs in found.items():
        told = f"{number} engine{'s' * (number > 1)}"
        rates[number] = bench.figure(told, "trades/s", [one.rate for one in runs])
        for who in ("engine", "store", "bus"):
            bench.figure(f"{told}, CPU of {who}", "µs/trade", [getattr(one, who) for one in runs])
    alone = 2 * median(one.engine for one in found[1]) / median(one.engine for one in found[2])
    bench.ratio("two engines over one, store and bus on the same two cores", rates[2] / rates[1], 1.6)
    bench.ratio("two engines over one by their own CPU", alone, 1.6)
    if not args.tiny:
        bench.write()


if __name__ == "__main__":
    main()
