"""kill -9 of a serving process under server-sent events: an id restores trades and candles of the next process.

``TAPEWICK_KILLS`` sets the number of cycles (default 10, of which a third are run here). The seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from pathlib import Path

import pytest

from tests.e2e.server import Server
from tests.fault.rig import seed
from tests.gateways.event_source import opened

TRADES, CANDLES = "trade@sim:BTCUSDT", "candle@sim:BTCUSDT@1m"


@pytest.mark.timeout(1800)
async def test_every_trade_comes_once_through_kills(tmp_path: Path) -> None:
    rng = random.Random(seed())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    last_id, trades, candles = "", list[int](), dict[tuple[int, int], object]()
    for _ in range(max(int(os.environ.get("TAPEWICK_KILLS", "10")) // 3, 2)):
        with Server("demo", "--port", port, "--no-open", "--rate", "300", "--data", tmp_path / "D") as server:
            await asyncio.to_thread(server.ready)
            await asyncio.to_thread(server.wait_for, lambda: server.get("/v1/coverage/sim:BTCUSDT")["trades"])
            async with opened(server.url, f"{TRADES},{CANDLES}", last_id, snapshot=1) as s:
                (told,) = await s.got("subscribed")
                assert all(one["recovered"] for one in told["channels"]) == bool(last_id)
                await s.until(lambda s: len(s.rows(TRADES, "event")) > 300, 60)
                await asyncio.sleep(rng.uniform(0, 0.5))
                server.process.kill()
                await s.until(lambda s: s.ended)
            assert not s.of("gap")
            last_id = s.last_id
            trades += [row["seq"] for row in s.rows(TRADES, "snapshot", "event")]
            for row in s.rows(CANDLES, "event"):
                assert candles.setdefault((row["open_time"], row["pos"]), row) == row, "one pos, two candles"
    assert trades == list(range(trades[0], trades[-1] + 1)), "an event was missed or came twice"
