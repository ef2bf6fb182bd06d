"""The database stopped and the server killed while trades are sent: each one that was answered 202 is there once.

``TAPEWICK_KILLS`` sets the number of cycles (default 3; ``make torture`` 200). A failure prints the seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import httpx2
import pytest

from tapewick.commands.feeder import Feeder
from tapewick.stores._postgres_keys import KeyTable
from tapewick.stores.postgres import PostgresStore, migrate
from tests.e2e.server import Server
from tests.parts.postgres import PostgresServer

HOOK = "hook:FEED"
BATCH = 40
PATIENCE = 180.0  # seconds in which something must happen on a loaded machine


async def until(feeder: Feeder, feeding: asyncio.Task[None], what: str, more: int) -> None:
    """Return once the feeder counts so many more; raises what ended it."""
    goal = feeder.outcome()[what] + more
    async with asyncio.timeout(PATIENCE):
        while feeder.outcome()[what] < goal:
            if feeding.done():
                feeding.result()
            await asyncio.sleep(0.005)


@pytest.mark.timeout(3600)
async def test_durable_every_trade_answered_202_is_present_once(
    durable_postgres: PostgresServer, tmp_path: Path
) -> None:
    seed = int(os.environ.get("TAPEWICK_SEED", random.randrange(2**31)))
    rng = random.Random(seed)
    cycles = int(os.environ.get("TAPEWICK_KILLS", "3"))
    dsn = durable_postgres.database()
    await migrate(dsn)
    table = KeyTable(dsn)
    await table.start()
    _, key = await table.create(["ingest", "read"])
    await table.stop()
    settings = {"TAPEWICK_STORE__KIND": "postgres", "TAPEWICK_STORE__DSN": dsn, "TAPEWICK_SIM__RATE": "5"}
    port, feeder, feeding = "0", None, None
    for cycle in range(cycles + 1):
        with Server("demo", "--data", tmp_path, "--port", port, "--no-config", **settings) as server:
            url = await asyncio.to_thread(server.ready, PATIENCE)
            if feeder is None or feeding is None:
                port = url.rpartition(":")[2]
                feeder = Feeder(url, key, HOOK, seed=seed, patience=PATIENCE)
                feeding = asyncio.create_task(feeder.send(10**9, rate=2000, size=BATCH))
            await until(feeder, feeding, "acknowledged", BATCH)
            if cycle == cycles:
                break
            await asyncio.to_thread(durable_postgres.stop)
            await until(feeder, feeding, "queued", rng.randrange(1, 8) * BATCH)
            if cycle == 0:
                unready = httpx2.get(f"{url}/health/ready", timeout=60)
                assert unready.status_code == 503 and "PostgreSQL" in unready.text, unready.text
            if rng.random() < 0.5:  # else it is killed before the database is back
                await asyncio.to_thread(durable_postgres.start)
                await asyncio.sleep(rng.random() * 2)  # anywhere while what waits is stored
            server.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait)
            if durable_postgres._process is None:
                await asyncio.to_thread(durable_postgres.start)
    assert feeder is not None and feeding is not None
    feeding.cancel()
    await asyncio.wait({feeding})
    with Server("demo", "--data", tmp_path, "--port", port, "--no-config", **settings) as server:
        await asyncio.to_thread(server.ready, PATIENCE)
        told = {"TAPEWICK_SEED": seed} | feeder.outcome() | await feeder.verify()
        assert (told["missing"], told["doubled"], told["rejected"]) == (0, 0, 0), told
        assert told["verified"] == told["acknowledged"] and told["queued"] >= cycles * BATCH, told
        await asyncio.to_thread(server.wait_for, lambda: httpx2.get(f"{url}/health/ready").status_code == 200)
        assert server.stop() == 143
    assert list((tmp_path / "spool").iterdir()) == [], told
    async with PostgresStore(dsn) as store:
        trades, head = await store.trades(HOOK)
        ids = trades.trade_id.tolist()
        assert len(set(ids)) == len(ids) == head.seq, told
        assert feeder.acknowledged <= set(ids) <= set(range(1, told["sent"] + 1))
