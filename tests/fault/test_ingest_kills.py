"""kill -9 of a server while trades are sent to it: each one that was answered 202 is there once after the restart.

``TAPEWICK_KILLS`` sets the number of cycles (default 3; ``make torture`` 200). A failure prints the seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from tapewick.commands.feeder import Feeder
from tapewick.keys import KeyFile
from tapewick.stores.duckdb import DuckDBStore
from tests.e2e.server import Server

HOOK = "hook:FEED"
BATCH = 40


async def until(feeder: Feeder, acknowledged: int, feeding: asyncio.Task[None]) -> None:
    """Return once so many trades are acknowledged, or the feeder has ended."""
    while len(feeder.acknowledged) < acknowledged and not feeding.done():  # noqa: ASYNC110 (the feeder tells nobody)
        await asyncio.sleep(0.005)


@pytest.mark.timeout(1800)
async def test_every_trade_answered_202_is_present_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("TAPEWICK_SEED", random.randrange(2**31)))
    rng = random.Random(seed)
    cycles = int(os.environ.get("TAPEWICK_KILLS", "3"))
    _, key = KeyFile(tmp_path).create(["ingest", "read"])
    port, feeder, feeding = "0", None, None
    for cycle in range(cycles + 1):
        with Server("demo", "--data", tmp_path, "--port", port, "--no-config") as server:
            url = await asyncio.to_thread(server.ready)
            if feeder is None or feeding is None:
                port = url.rpartition(":")[2]
                feeder = Feeder(url, key, HOOK, seed=seed, patience=120)
                feeding = asyncio.create_task(feeder.send((cycles + 1) * 10 * BATCH, rate=10**6, size=BATCH))
            if cycle == cycles:
                await feeding
                told = {"TAPEWICK_SEED": seed} | feeder.outcome() | await feeder.verify()
                break
            before = len(feeder.acknowledged)
            await until(feeder, before + rng.randrange(1, 8) * BATCH, feeding)
            await asyncio.sleep(rng.random() * 0.05)  # anywhere between two answers
            server.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait)
    assert told["acknowledged"] == told["verified"] == told["sent"] == (cycles + 1) * 10 * BATCH, told
    assert (told["missing"], told["doubled"], told["rejected"]) == (0, 0, 0), told
    assert told["unanswered"] >= cycles, told
    async with DuckDBStore(tmp_path) as store:
        trades, head = await store.trades(HOOK)
        assert sorted(trades.trade_id.tolist()) == list(range(1, told["sent"] + 1))
        assert head.seq == told["sent"]
