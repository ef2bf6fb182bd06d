"""kill -9 at random moments of a replay, then resume: nothing committed is lost, nothing doubled.

``TAPEWICK_KILLS`` sets the number of cycles (default 10; ``make torture`` 200). The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tapewick.stores.duckdb import DuckDBStore
from tests.fault.recording import write_recording
from tests.realdata.reading import replay as replay_whole
from tests.realdata.reading import stored_candles, values

TRADES = 60_000
BTC = "binance:BTCUSDT"


def committed(data: Path) -> list[tuple[int, int]]:
    """(seq, trade_id) of every stored trade; none while nothing was committed."""

    async def read() -> list[tuple[int, int]]:
        async with DuckDBStore(data) as store:  # opens as a restart does: the log is replayed
            if not await store.instruments():
                return []
            trades, _ = await store.trades(BTC)
            assert trades.seq is not None
            return list(zip(trades.seq.tolist(), trades.trade_id.tolist(), strict=True))

    return asyncio.run(read())


def wait_for_a_commit(data: Path, replay: subprocess.Popen[bytes]) -> None:
    """Return once the replay has written to the store's log (or ended)."""
    log = data / "tape.duckdb.wal"
    before = log.stat().st_size if log.exists() else 0
    while replay.poll() is None and (log.stat().st_size if log.exists() else 0) in (before, 0):
        time.sleep(0.01)


@pytest.mark.timeout(1800)
def test_killed_replays_resume_to_the_same_candles(tmp_path: Path) -> None:
    seed = int(os.environ.get("TAPEWICK_SEED", random.randrange(2**31)))
    rng = random.Random(seed)
    recording = write_recording(tmp_path / "spot.log", TRADES, seed=seed)
    replay_whole(tmp_path / "whole", recording)
    truth = values(stored_candles(tmp_path / "whole", BTC))

    data = tmp_path / "killed"
    seen: list[tuple[int, int]] = []
    for cycle in range(int(os.environ.get("TAPEWICK_KILLS", "10"))):
        # paced, so that the kill lands in the middle of commits rather than after the end
        speed = str(rng.choice((2_000, 5_000, 20_000)))
        replay = subprocess.Popen(
            [sys.executable, "-m", "tapewick", "replay", str(recording), "--speed", speed, "--data", str(data)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_a_commit(data, replay)
        time.sleep(rng.uniform(0.0, 0.8))
        replay.send_signal(signal.SIGKILL)
        replay.wait()
        now = committed(data)
        assert now[: len(seen)] == seen, f"a committed trade changed or vanished (seed {seed}, cycle {cycle})"
        assert [s for s, _ in now] == list(range(1, len(now) + 1)), f"seed {seed}, cycle {cycle}"
        assert len({id for _, id in now}) == len(now), f"a trade is stored twice (seed {seed}, cycle {cycle})"
        seen = now
    assert seen, f"no cycle committed anything (seed {seed})"

    replay_whole(data, recording)
    assert len(committed(data)) == TRADES, f"seed {seed}"
    assert values(stored_candles(data, BTC)) == truth, f"seed {seed}"
